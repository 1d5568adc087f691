"""Names, dtypes and shapes of a checkpoint's weights, read from the safetensors headers only."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights

from mixln.errors import CheckpointError, first_line
from mixln.hosts.configs import text_part
from mixln.records import read_json

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = re.compile(r"(BF|F)(16|32|64)|F8_\w+")
"""Dtypes of weights, by their names in safetensors."""
CONSTANTS = re.compile(
    r"(.*\.)?(attn|attention|self|self_attn)\.(bias|masked_bias|rotary_emb\.inv_freq)|(.*\.)?(position_ids|token_type_ids|num_batches_tracked)"
)
"""Buffers that older versions of transformers stored with the weights: causal masks, their value for −∞, rotary tables, positions."""
SLACK = 2**24
"""Parameters that a model may have in excess of its files: a new head, a pooler."""
MOST_PACKED = 16
"""Weights per stored number of a quantized checkpoint: 2-bit weights in 32-bit integers."""
MOST_SHARED = 256
"""Layers that may share one set of weights, as in ALBERT."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor in a file.

    :param format: dtype by its name in safetensors, for example BF16.
    """

    format: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def files(folder: Path, name: str) -> list[Path]:
    """The safetensors files that a checkpoint's weights are read from.

    :param name: the model's name as the user gave it, for error messages.
    :raises CheckpointError: see :func:`shards`; also if a shard is missing.
    """
    # transformers prefers the single file when both exist.
    if (folder / WHOLE).is_file() or not (folder / INDEX).is_file():
        return [folder / WHOLE]
    paths = [folder / shard for shard in shards(folder, name)]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise CheckpointError(f"model {name}: {INDEX} lists {missing[0]}, which is missing; download the model again")
    return paths


def shards(folder: Path, name: str) -> list[str]:
    """File names of the shards in the index.

    :raises CheckpointError: if the index cannot be read, or lists a file outside its folder, whose weights would not be part of the
        model's identity.
    """
    try:
        listed = set(read_json(folder / INDEX)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"model {name}: {INDEX} cannot be read: {first_line(error)}; download it again"
        ) from error
    for shard in listed:
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"model {name}: {INDEX} lists {shard!r}, but must list .safetensors files in its own folder; download the model again"
            )
    return sorted(listed)


def stored(paths: Iterable[Path], name: str) -> dict[str, TensorInfo]:
    """Name → tensor, for the tensors in some safetensors files.

    :raises CheckpointError: if a file cannot be read, or two files hold a tensor of the same name.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                in_file = {
                    key: TensorInfo(format=part.get_dtype(), shape=tuple(part.get_shape()))
                    for key, part in slices.items()
                }
        except Exception as error:  # safetensors raises its own type, and others for a file in another format
            raise CheckpointError(
                f"model {name} cannot be loaded: {first_line(error)} ({path.name}); repair the checkpoint or download it again"
            ) from error
        if duplicates := sorted(in_file.keys() & tensors.keys()):
            raise CheckpointError(
                f"model {name}: weight {duplicates[0]} is in {path.name} and in another file; download the model again"
            )
        tensors |= in_file
    return tensors


def is_sound(path: Path) -> bool:
    """Whether a file is a safetensors file whose header matches its size."""
    try:
        stored([path], path.name)
    except CheckpointError:
        return False
    return True


def check(name: str, config: PreTrainedConfig, kind: Any, found: Mapping[str, TensorInfo]) -> None:
    """Checks a config against the headers of the files, before any memory is allocated.

    Names are left to transformers, which knows old ones: a missing or misshapen weight shows after loading.

    :param kind: class that will be built: a model class or an `Auto*` class.
    :raises CheckpointError: if the model is far larger than its files, or a weight is not stored as floating point.
    """
    # A quantized checkpoint stores several weights in one number, of any type.
    packed = getattr(config, "quantization_config", None) is not None
    numbers = sum(tensor.elements for tensor in found.values())
    empty = check_size(name, config, kind, MOST_PACKED * numbers if packed else numbers, len(found))
    if not packed:
        refuse_formats(name, empty, found)


def check_size(name: str, config: PreTrainedConfig, kind: Any, numbers: int, tensors: int) -> Any:
    """Builds a model without memory and compares its number of parameters with the numbers in its files.

    :returns: the model, on the meta device.
    :raises CheckpointError: if the model is far larger than its files.
    """
    layers = getattr(text_part(config), "num_hidden_layers", 1)
    if layers > max(tensors, MOST_SHARED):  # building thousands of layers is slow even without memory
        raise CheckpointError(_too_large(name, f"{layers:,} layers", f"{tensors:,} tensors"))
    with torch.device("meta"), no_init_weights():
        empty = (getattr(kind, "_from_config", None) or kind.from_config)(config)
    empty.tie_weights()  # skipped by transformers for a model that is not initialised
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    if parameters > 2 * numbers + SLACK:
        raise CheckpointError(_too_large(name, f"{parameters:,} parameters", f"{numbers:,} numbers"))
    return empty


def _too_large(name: str, described: str, contained: str) -> str:
    return (
        f"model {name}: its config describes {described}, but its files hold {contained}; they do not belong together"
    )


def refuse_formats(name: str, empty: Any, found: Mapping[str, TensorInfo]) -> None:
    """:raises CheckpointError: for a weight stored as integers, bytes, booleans or complex numbers."""
    buffers = {key for key, buffer in empty.named_buffers() if not buffer.is_floating_point()}
    parameters = {key for key, _ in empty.named_parameters()}
    for key, tensor in found.items():
        if FLOATS.fullmatch(tensor.format) or _among(key, buffers):
            continue
        # A constant's name does not excuse a parameter: the `bias` of an attention may be one or the other.
        if CONSTANTS.fullmatch(key) and not _among(key, parameters):
            continue
        raise CheckpointError(
            f"model {name}: weight {key} is stored as {tensor.format}, but must be floating point; a quantized checkpoint must have "
            "quantization_config in its config"
        )


def is_constant(key: str) -> bool:
    """Whether a tensor that the model does not use is a constant of an older version, and not a weight."""
    return CONSTANTS.fullmatch(key) is not None


def _among(key: str, names: Collection[str]) -> bool:
    """Whether a tensor is one of these names, with or without the base model's prefix on either side."""
    return any(key == name or key.endswith(f".{name}") or name.endswith(f".{key}") for name in names)
