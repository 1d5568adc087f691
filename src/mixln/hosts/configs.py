"""Reads a model's `config.json` and checks every number in it before transformers builds anything from it.

transformers trusts the numbers of a config: a config class builds a list with as many entries as there are layers, and a model
allocates whatever its sizes require.
"""

from __future__ import annotations

import copy
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
"""Largest `config.json`, in bytes; one with a placement of 1,024 layers is smaller than 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class ConfigBound:
    """Bounds for the numbers of some entries.

    :param names: regular expression for the whole name of an entry in lower case; in a GGUF file, for the last part of the key.
    :param least: inclusive, like `most`; in a list with one number per layer, 0 is allowed too.
    """

    names: str
    least: int
    most: int


BOUNDS = (
    ConfigBound(names=r"num_hidden_layers|n_layers?|block_count", least=1, most=MOST_LAYERS),
    ConfigBound(names=r".*layers(_per_\w+)?|.*(blocks|stages|depth|depths)", least=-1, most=MOST_LAYERS),
    ConfigBound(names=r"vocab_size", least=1, most=10**7),
    ConfigBound(names=r".*vocab\w*_size", least=0, most=10**7),
    ConfigBound(names=r".*num_labels", least=0, most=10**6),
    ConfigBound(names=r"max_position_embeddings|n_positions|n_ctx|context_length", least=1, most=10**8),
    ConfigBound(
        names=r"hidden_size|n_embd|d_model|embedding_length|intermediate_size|feed_forward_length", least=1, most=10**6
    ),
    ConfigBound(
        names=r"num_attention_heads|num_key_value_heads|n_heads?|head_count(_kv)?|image_size|patch_size|num_channels",
        least=1,
        most=10**5,
    ),
    ConfigBound(names=r".*(heads|experts|groups|channels|kernel|stride|chans)", least=-1, most=10**5),
    ConfigBound(names=r".*(size|sizes|dim|dims|width|rank|inner|embd|positions?|length)", least=-1, most=10**8),
)
"""The first bound whose names match applies. Real models reach 126 layers, a vocabulary of 5 million tokens, a width of 65,536 and a
context of 10 million tokens. In entries with `least=-1`, −1 and 0 mean none."""
ANYTHING = ConfigBound(names=r".*", least=-(2**63), most=2**63 - 1)
"""Bounds for every other integer: 64 bits."""
POSITIONS_AFTER_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
)  # fmt: skip
"""Families in which positions start after the padding token's id."""
SWITCHES = ("return_dict", "use_return_dict", "output_attentions", "output_hidden_states")
"""Entries that change what a forward pass returns but not what it computes; the calling program sets them."""
IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Entries that may name a hub repository whose code transformers would download and run."""


def read_config(path: Path) -> PreTrainedConfig:
    """Reads the config in a file, without :data:`SWITCHES`.

    :raises ValueError: if transformers does not know the model type, or a number is out of bounds; :class:`OSError` if the file
        cannot be read.
    """
    check_file(path)
    return config_of(read_json(path))


def check_file(path: Path) -> None:
    """:raises ValueError: if the file is larger than any config; a path that is not a file is left to the reader."""
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, more than {LARGEST_FILE:,}")


def config_of(entries: Any) -> PreTrainedConfig:
    """Builds the config from JSON entries; see :func:`read_config`. Numbers are checked first: a config class may size lists by them."""
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
            raise ValueError(f"{name} names code on the hub, which is not run: {entries[name]!r}; remove the entry")
    config = CONFIG_MAPPING[family].from_dict({name: value for name, value in entries.items() if name not in SWITCHES})
    # transformers validates its own classes when they are built, but placed classes only when they are saved.
    config.validate()
    # Again on the built config: a family may compute these, or give them other names in the file.
    layers = getattr(text_part(config), "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise ValueError(f"num_hidden_layers must be an integer from 1 to {MOST_LAYERS:,}, got {layers!r}")
    if (most := positions(config)) is not None and most < 1:
        raise ValueError(
            f"max_position_embeddings must leave at least one position for a token, got {text_part(config).max_position_embeddings}"
        )
    return config


class UnknownFamily(ValueError):
    """The config's `model_type` is missing or unknown to transformers; `family` is its value."""

    def __init__(self, family: object) -> None:
        super().__init__(
            f"Unrecognized model: model_type is {family!r}, which transformers does not know, and code that comes with a model is not run"
        )
        self.family = family


def is_placed(config: PreTrainedConfig) -> bool:
    """Whether a config is a placed one; a stock config may have an unrelated entry `placement`."""
    return config.model_type.startswith("placed_")


def text_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the language model within a multimodal model; of any other model, the whole config."""
    return config.get_text_config()


def stock_entries(config: PreTrainedConfig) -> dict[str, Any]:
    """The entries of a stock or placed config without those for its placement and those rewritten when it is saved."""
    entries = copy.deepcopy(config.to_dict())
    for name in ("model_type", "placement", "init", "stochastic_depth", "architectures", "transformers_version"):
        entries.pop(name, None)
    return entries


def positions(config: PreTrainedConfig) -> int | None:
    """Maximum sequence length in tokens; `None` if the family has no limit, which XLNet writes as −1."""
    config = text_part(config)
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 0:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        limit -= (config.pad_token_id or 0) + 1
    return limit


def check(entries: Any) -> None:
    """Checks every number in JSON, including sub-configs and lists, against the bounds for its name.

    :raises ValueError: for the first number out of bounds.
    """
    for path, name, value, listed in _numbers(entries):
        bound = next((bound for bound in BOUNDS if re.fullmatch(bound.names, name)), ANYTHING)
        if bound is ANYTHING and isinstance(value, float):
            if math.isnan(value):
                raise ValueError(f"{path} must be a number, got NaN")
            continue
        # In a list with one number per layer, 0 marks a layer that has none, such as one without attention.
        least = min(bound.least, 0) if listed else bound.least
        if not least <= value <= bound.most:
            raise ValueError(f"{path} must be an integer from {least:,} to {bound.most:,}, got {_short(value)}")


def _numbers(entries: Any) -> Iterator[tuple[str, str, int | float, bool]]:
    """Iterates over the numbers in JSON: (path, last part of the name in lower case, value, whether it is in a list)."""
    # A stack, because deeply nested JSON would exceed the recursion limit.
    stack: list[tuple[Any, str, str, bool]] = [(entries, "", "", False)]
    while stack:
        value, path, name, listed = stack.pop()
        if isinstance(value, Mapping):
            stack += [
                (entry, f"{path}.{key}".strip("."), str(key).lower().rpartition(".")[2], False)
                for key, entry in value.items()
            ]
        elif isinstance(value, list | tuple):
            stack += [(entry, f"{path}[{index}]", name, True) for index, entry in enumerate(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, name, value, listed


def _short(value: int | float) -> str:
    """A number for an error message; a very long one as its number of digits."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"an integer of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    return f"{value!r}"
