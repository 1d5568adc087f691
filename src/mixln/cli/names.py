"""Checks the names and paths of a command before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from mixln.compare.settings import LanguageSettings, VisionCompareSettings
from mixln.data.documents import check_exists
from mixln.data.settings import CorpusSettings
from mixln.model_names import check_local_model
from mixln.nn.schemes import scheme
from mixln.placement import check_names
from mixln.planning.settings import PlanSettings
from mixln.presets import PRESETS, VISION_PRESETS, check_model
from mixln.search.settings import SearchBaseSettings

Check = Callable[[Any], object]
CHECKS: dict[str, Check] = {
    "placement": check_names,
    "placements": check_names,
    "baseline": check_names,
    "init": scheme,
    "inits": scheme,
    "model": check_local_model,
    "models": check_local_model,
    "reward_model": check_local_model,
    "checkpoint": check_local_model,
}
"""Name of a setting → the check of its value, or of each of its values."""
RENAMED = {"checkpoint": "from"}
"""Setting → its option, if that has another name."""
OWN_CHECKS: dict[type, dict[str, Check]] = {
    CorpusSettings: {"data": check_exists},
    LanguageSettings: {"model": lambda model: check_model(model, PRESETS)},
    SearchBaseSettings: {"model": lambda model: check_model(model, PRESETS)},
    PlanSettings: {"model": lambda model: check_model(model, PRESETS)},
    VisionCompareSettings: {"model": lambda model: check_model(model, VISION_PRESETS)},
}
"""Class of settings → checks in place of those of :data:`CHECKS`."""


def check_command(command: Any, options: Collection[str] | None = None) -> None:
    """Checks the names in a command and in the settings that it contains.

    :param options: the options whose values are checked, without leading dashes; all settings if it is `None`.
    :raises MixlnError: if a placement, an initialisation or a preset is unknown, or a local path does not exist.
    """
    own = {
        name: check
        for kind, checks in OWN_CHECKS.items()
        if isinstance(command, kind)
        for name, check in checks.items()
    }
    for name, value in _settings(command):
        if is_dataclass(value):
            check_command(value, options)
        elif (check := (CHECKS | own).get(name)) is not None and value is not None and _is_given(name, options):
            for text in value if isinstance(value, tuple) else (value,):
                check(text)


def _is_given(setting: str, options: Collection[str] | None) -> bool:
    return options is None or RENAMED.get(setting, setting.replace("_", "-")) in options


def _settings(command: Any) -> Iterator[tuple[str, Any]]:
    return ((item.name, getattr(command, item.name)) for item in fields(command)) if is_dataclass(command) else iter(())
