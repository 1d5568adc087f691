"""A small fixed input, to compare the outputs of two models."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mixln.hosts.configs import positions, text_part


def probe(model: PreTrainedModel, *, length: int) -> dict[str, Tensor]:
    """One image of the model's size (1, C, H, W), or one text (1, T), on the model's device.

    :param length: T in tokens, for a model that takes text; limited to the model's number of positions.
    """
    config: Any = text_part(model.config)
    device = next(model.parameters()).device
    if model.main_input_name == "pixel_values":
        size = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
        shape = (1, config.num_channels, *size)
        return {"pixel_values": torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)}
    length = min(length, positions(config) or length)
    # From 1, because id 0 is often padding.
    return {"input_ids": torch.arange(1, length + 1, device=device).unsqueeze(0) % config.vocab_size}
