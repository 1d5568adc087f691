"""The host families. Importing `mixln.hosts.families.qwen2` derives the family's record and generates its placed classes.

The record becomes usable once :mod:`mixln.hosts.verify` has compared the placed model with the stock model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from transformers import CONFIG_MAPPING

from mixln.errors import PlacementError
from mixln.hosts.derive import derive
from mixln.hosts.factory import placed_classes
from mixln.hosts.family import Host
from mixln.hosts.overrides import overridden

TESTED = ("gemma3_text", "gpt2", "llama", "mistral", "mixtral", "olmo2", "olmoe", "qwen3", "qwen3_moe", "vit")
"""The families with which every placement is tested."""
LOADED: dict[str, Host] = {}
"""Model type → host, of the families whose placed classes exist."""
LISTENERS: list[Callable[[Host], None]] = []
"""Called with each family that is loaded later."""


def host_of(model_type: str) -> Host:
    """The record of a family, derived from transformers' code.

    :raises PlacementError: if transformers does not know the family, or its code cannot be read, with the line.
    """
    if model_type not in LOADED:
        if model_type.startswith("placed_") or model_type not in CONFIG_MAPPING:
            close = get_close_matches(model_type, CONFIG_MAPPING, n=1, cutoff=0.8)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise PlacementError(
                f"model family {model_type!r} is not known to transformers{meant}; mixln families lists all"
            )
        model_type = CONFIG_MAPPING[model_type].model_type  # a second name of another family, as gpt-sw3 is of gpt2
        import_module(f"{__name__}.{_module(model_type)}")
    return LOADED[model_type]


def _module(model_type: str) -> str:
    return model_type.replace("-", "_")


def _load(module: ModuleType, host: Host) -> None:
    """Generates and registers the placed classes of a family and adds them to its module, from which pickle imports them."""
    vars(module).update(placed_classes(host, module.__name__))
    LOADED[host.model_type] = host
    for listener in LISTENERS:
        listener(host)


class _Deriving(MetaPathFinder, Loader):
    """Makes the module of a family."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != __name__:
            return None
        model_type = next((known for known in CONFIG_MAPPING if _module(known) == name), None)
        return ModuleSpec(fullname, self, loader_state=model_type) if model_type else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        host = overridden(derive(module.__spec__.loader_state))
        vars(module)["HOST"] = host
        _load(module, host)


class _PlacedTypes(dict[str, Any]):
    """Registered config classes of transformers; a placed model type that is looked up is derived."""

    def __contains__(self, key: object) -> bool:
        if not super().__contains__(key) and isinstance(key, str) and key.startswith("placed_"):
            try:
                host_of(key.removeprefix("placed_"))
            except PlacementError:
                return False
        return super().__contains__(key)


sys.meta_path.append(_Deriving())
HOSTS: dict[str, Host] = {name: host_of(name) for name in TESTED}
"""Those families, derived when this is imported, so that other libraries know their placed classes."""
CONFIG_MAPPING._extra_content = _PlacedTypes(CONFIG_MAPPING._extra_content)
