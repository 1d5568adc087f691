"""A model's `config.json` as JSON: every number in it is checked before transformers builds anything from it.

transformers takes the numbers of a config as they come: a config class makes a list of as many entries as the file says there
are layers, and a model allocates what its sizes say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from mixln.placement import MOST_LAYERS
from mixln.records import read_json

LARGEST_FILE = 64 * 2**20
"""Bytes of a `config.json`; one with a placement of 1,024 layers has less than 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Bounds of the numbers in some entries.

    :param names: a regular expression for the whole name of an entry, in lower case; of a GGUF file, for the last part of its key.
    :param least: inclusive, as is `most`; in a list of one number a layer, 0 is allowed too.
    """

    names: str
    least: int
    most: int


BOUNDS = (
    Bound(names=r"num_hidden_layers|n_layers?|block_count", least=1, most=MOST_LAYERS),
    Bound(names=r".*layers(_per_\w+)?|.*(blocks|stages|depth|depths)", least=-1, most=MOST_LAYERS),
    Bound(names=r"vocab_size", least=1, most=10**7),
    Bound(names=r".*vocab\w*_size", least=0, most=10**7),
    Bound(names=r".*num_labels", least=0, most=10**6),
    Bound(names=r"max_position_embeddings|n_positions|n_ctx|context_length", least=1, most=10**8),
    Bound(
        names=r"hidden_size|n_embd|d_model|embedding_length|intermediate_size|feed_forward_length", least=1, most=10**6
    ),
    Bound(
        names=r"num_attention_heads|num_key_value_heads|n_heads?|head_count(_kv)?|image_size|patch_size|num_channels",
        least=1,
        most=10**5,
    ),
    Bound(names=r".*(heads|experts|groups|channels|kernel|stride|chans)", least=-1, most=10**5),
    Bound(names=r".*(size|sizes|dim|dims|width|rank|inner|embd|positions?|length)", least=-1, most=10**8),
)
"""The first whose names fit holds. Real models reach 126 layers, a vocabulary of 5 million tokens, a width of 65,536 and a context of
10 million tokens; −1 and 0 in the entries with `least=-1` stand for none."""
ANYTHING = Bound(names=r".*", least=-(2**63), most=2**63 - 1)
"""Bounds of every other whole number: it fits into 64 bits."""
POSITIONS_AFTER_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
)  # fmt: skip
"""Families whose first position is the one after the padding token's id."""
SWITCHES = ("return_dict", "use_return_dict", "output_attentions", "output_hidden_states")
"""Entries that change what a forward pass returns, and not what it computes. The program that calls the model decides on them."""
IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Entries that may name a repository on the hub, whose code transformers would fetch and run."""


def read_config(path: Path) -> PreTrainedConfig:
    """The config in a file, without the switches of its author.

    :raises ValueError: if it is none of a model that transformers knows, or a number is out of bounds; :class:`OSError` if it cannot
        be read.
    """
    check_file(path)
    return config_of(read_json(path))


def check_file(path: Path) -> None:
    """:raises ValueError: if the file is larger than any config is; what is no file is left to whoever reads it."""
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, more than {LARGEST_FILE:,}")


def config_of(entries: Any) -> PreTrainedConfig:
    """The config that JSON entries describe; see :func:`read_config`. Numbers are checked first: a config class may build lists by them."""
    if not isinstance(entries, Mapping):
        raise ValueError(f"Unrecognized model: a config must be a JSON object, got {type(entries).__name__}")
    check(entries)
    family = entries.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise UnknownFamily(family)
    names = entries.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"architectures must be a list of names, got {names!r}")
    for name in IMPLEMENTATIONS:
        if "/" in str(entries.get(name)):
            raise ValueError(f"{name} names code on the hub, which is not run: {entries[name]!r}; leave the entry out")
    config = CONFIG_MAPPING[family].from_dict({name: each for name, each in entries.items() if name not in SWITCHES})
    # transformers validates the classes that it has itself when they are built, and placed ones only when they are saved.
    config.validate()
    layers = getattr(config, "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise ValueError(f"num_hidden_layers must be a whole number from 1 to {MOST_LAYERS:,}, got {layers!r}")
    if (most := positions(config)) is not None and most < 1:
        raise ValueError(
            f"max_position_embeddings must leave a position for a token, got {config.max_position_embeddings}"
        )
    return config


class UnknownFamily(ValueError):
    """A config without a `model_type` that transformers knows; `family` is what it has there."""

    def __init__(self, family: object) -> None:
        super().__init__(
            f"Unrecognized model: model_type is {family!r}, which transformers does not have, and code that comes with a model is not run"
        )
        self.family = family


def is_placed(config: PreTrainedConfig) -> bool:
    """True if a config is one of ours; a stock one may have an entry `placement` that means something else."""
    return config.model_type.startswith("placed_")


def positions(config: PreTrainedConfig) -> int | None:
    """Tokens that a sequence may have; `None` where the family sets no limit, for which XLNet has −1."""
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found < 0:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        found -= (config.pad_token_id or 0) + 1
    return found


def check(entries: Any) -> None:
    """Holds every number within JSON, sub-configs and lists included, against the bounds of its name.

    :raises ValueError: for the first that is out of them.
    """
    for path, name, value, listed in _numbers(entries):
        bound = next((each for each in BOUNDS if re.fullmatch(each.names, name)), ANYTHING)
        if bound is ANYTHING and isinstance(value, float):
            if math.isnan(value):
                raise ValueError(f"{path} must be a number, got NaN")
            continue
        least = (
            min(bound.least, 0) if listed else bound.least
        )  # of some layers it may be none: of those without attention, for example
        if not least <= value <= bound.most:
            raise ValueError(f"{path} must be a whole number from {least:,} to {bound.most:,}, got {_short(value)}")


def _numbers(entries: Any) -> Iterator[tuple[str, str, int | float, bool]]:
    """Every number within JSON: its path, the last part of its name in lower case, itself, and whether it stands in a list."""
    stack: list[tuple[Any, str, str, bool]] = [(entries, "", "", False)]
    while stack:
        value, path, name, listed = stack.pop()
        if isinstance(value, Mapping):
            stack += [
                (each, f"{path}.{key}".strip("."), str(key).lower().rpartition(".")[2], False)
                for key, each in value.items()
            ]
        elif isinstance(value, list | tuple):
            stack += [(each, f"{path}[{index}]", name, True) for index, each in enumerate(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, name, value, listed


def _short(value: int | float) -> str:
    """A number in a line: one of many digits by their count."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"one of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    return f"{value!r}"
