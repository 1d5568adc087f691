"""A small fixed input, to compare the outputs of two models."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mixln.errors import PlacementError
from mixln.hosts.configs import positions, text_part


def probe(model: PreTrainedModel, *, length: int) -> dict[str, Tensor]:
    """One image of the model's size (1, C, H, W), one sound as a mel spectrogram (1, bins, frames), or one text (1, T), on the model's
    device; for an encoder-decoder, that and a text for the decoder.

    :raises PlacementError: for an encoder-decoder that takes something else.
    :param length: T in tokens, for a model that takes text; limited to the model's number of positions.
    """
    config: Any = text_part(model.config)
    device = next(model.parameters()).device
    if model.main_input_name == "pixel_values":
        size = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
        return {"pixel_values": _ramp(1, config.num_channels, *size).to(device)}
    length = min(length, positions(config) or length)
    # From 1, because id 0 is often padding.
    ids = torch.arange(1, length + 1, device=device).unsqueeze(0) % config.vocab_size
    if not config.is_encoder_decoder:
        return {"input_ids": ids}
    # Without id 1, which is padding in others.
    decoder = {"decoder_input_ids": ids.flip(1).clamp(min=2)}
    if model.main_input_name == "input_features" and hasattr(config, "num_mel_bins"):
        # Two frames a position.
        return {"input_features": _ramp(1, config.num_mel_bins, 2 * config.max_source_positions).to(device), **decoder}
    if model.main_input_name != "input_ids":
        raise PlacementError(
            f"{type(model).__name__} takes {model.main_input_name}, of which no small example is known"
        )
    return {"input_ids": ids, **decoder}


def _ramp(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, math.prod(shape)).view(shape)
