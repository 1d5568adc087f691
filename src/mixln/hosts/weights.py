"""Names, number formats and shapes of a checkpoint's weights, read from the safetensors headers alone."""

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
from mixln.records import read_json

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = re.compile(r"(BF|F)(16|32|64)|F8_\w+")
"""Number formats of weights, as safetensors calls them."""
CONSTANTS = re.compile(
    r"(.*\.)?(attn|attention|self|self_attn)\.(bias|masked_bias|rotary_emb\.inv_freq)|(.*\.)?(position_ids|token_type_ids|num_batches_tracked)"
)
"""Buffers that older versions of transformers stored beside the weights: causal masks, the number that stands for −∞ in them, positions."""
SLACK = 2**24
"""Parameters that a model may have and its files not: a new head, a pooler."""
MOST_PACKED = 16
"""Weights in one number of a quantized checkpoint: two bits a weight, in 32-bit numbers."""
MOST_SHARED = 256
"""Layers that may share their weights, as in ALBERT."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor in a file.

    :param format: as safetensors calls it, for example BF16.
    """

    format: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def files(folder: Path, name: str) -> list[Path]:
    """The safetensors that a checkpoint's weights are read from.

    :param name: what the user called the model, for a message.
    :raises CheckpointError: as :func:`shards`, or if one of them is missing.
    """
    if (folder / WHOLE).is_file() or not (folder / INDEX).is_file():
        return [folder / WHOLE]
    found = [folder / shard for shard in shards(folder, name)]
    if missing := [path.name for path in found if not path.is_file()]:
        raise CheckpointError(f"model {name}: {INDEX} names {missing[0]}, which is missing; fetch the model again")
    return found


def shards(folder: Path, name: str) -> list[str]:
    """The names of the files that an index lists.

    :raises CheckpointError: if it cannot be read, or names a file that is not in its folder: its weights would be no part of what
        identifies the model.
    """
    try:
        listed = set(read_json(folder / INDEX)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"model {name}: {INDEX} cannot be read: {first_line(error)}; fetch it again") from error
    for shard in listed:
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"model {name}: {INDEX} names {shard!r}, and must name .safetensors files of its own folder; fetch the model again"
            )
    return sorted(listed)


def stored(paths: Iterable[Path], name: str) -> dict[str, Stored]:
    """The tensors in some safetensors, by the names that they have there.

    :raises CheckpointError: if a file cannot be read, or two hold a tensor of one name.
    """
    found: dict[str, Stored] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                here = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
                here = {
                    key: Stored(format=each.get_dtype(), shape=tuple(each.get_shape())) for key, each in here.items()
                }
        except Exception as error:  # safetensors raises its own kind, and others for a file that is none
            raise CheckpointError(
                f"model {name} cannot be loaded: {first_line(error)} ({path.name}); mend or fetch the checkpoint again"
            ) from error
        if twice := sorted(here.keys() & found.keys()):
            raise CheckpointError(
                f"model {name}: weight {twice[0]} is in {path.name} and in another file; fetch the model again"
            )
        found |= here
    return found


def is_sound(path: Path) -> bool:
    """Whether a file is a safetensors whose header fits its size."""
    try:
        stored([path], path.name)
    except CheckpointError:
        return False
    return True


def check(name: str, config: PreTrainedConfig, kind: Any, found: Mapping[str, Stored]) -> None:
    """Holds a config against the headers of the files, before any memory is touched.

    Names are left to transformers, which knows old ones: that a weight is missing or misshapen shows when it has loaded.

    :param kind: the class that will be built: a model's, or an `Auto*` class.
    :raises CheckpointError: if the model is far larger than its files, or a weight is not stored as floating-point numbers.
    """
    packed = getattr(config, "quantization_config", None) is not None
    numbers = sum(each.elements for each in found.values())
    empty = check_size(name, config, kind, MOST_PACKED * numbers if packed else numbers, len(found))
    if not packed:
        refuse_formats(name, empty, found)


def check_size(name: str, config: PreTrainedConfig, kind: Any, numbers: int, tensors: int) -> Any:
    """Builds a model without memory, if its files hold about as many numbers as it has parameters.

    :returns: the model, on the device `meta`.
    :raises CheckpointError: if they do not.
    """
    layers = getattr(config, "num_hidden_layers", 1)
    if layers > max(tensors, MOST_SHARED):  # to build thousands of layers takes long even without memory
        raise CheckpointError(_too_large(name, f"{layers:,} layers", f"{tensors:,} tensors"))
    with torch.device("meta"), no_init_weights():
        empty = (getattr(kind, "_from_config", None) or kind.from_config)(config)
    empty.tie_weights()  # which a model that is not initialised leaves out
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    if parameters > 2 * numbers + SLACK:
        raise CheckpointError(_too_large(name, f"{parameters:,} parameters", f"{numbers:,} numbers"))
    return empty


def _too_large(name: str, wanted: str, there: str) -> str:
    return f"model {name}: its config describes {wanted}, and its files hold {there}; they do not belong together"


def refuse_formats(name: str, empty: Any, found: Mapping[str, Stored]) -> None:
    """:raises CheckpointError: for a weight that is stored as whole numbers, bytes, booleans or complex numbers."""
    buffers = {key for key, buffer in empty.named_buffers() if not buffer.is_floating_point()}
    parameters = {key for key, _ in empty.named_parameters()}
    for key, each in found.items():
        if FLOATS.fullmatch(each.format) or _among(key, buffers):
            continue
        if CONSTANTS.fullmatch(key) and not _among(key, parameters):
            continue
        raise CheckpointError(
            f"model {name}: weight {key} is stored as {each.format}, and must be floating-point numbers; a quantized checkpoint "
            "says so in its config (quantization_config)"
        )


def is_constant(key: str) -> bool:
    """True if a tensor that a model has no place for is a constant of an older version, and no weight."""
    return CONSTANTS.fullmatch(key) is not None


def _among(key: str, names: Collection[str]) -> bool:
    """True if a tensor is one of these, with the name of the base model in front of it or without."""
    return any(key == name or key.endswith(f".{name}") or name.endswith(f".{key}") for name in names)
