"""The tasks of comparisons: every module of this package with a `TASK`. Importing it does not import torch."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from mixln.compare.tasks.task import Task
from mixln.errors import StoreError, unknown

_FIRST = ("language", "vision")
"""The original tasks, which come first; the others follow by name."""


def _found() -> dict[str, Task[Any, Any]]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    tasks: dict[str, Task[Any, Any]] = {module.TASK.name: module.TASK for module in modules if hasattr(module, "TASK")}
    return {name: tasks[name] for name in dict.fromkeys([*_FIRST, *sorted(tasks)])}


TASKS = _found()
"""Name → task."""


def task_of(experiment: dict[str, Any]) -> Task[Any, Any]:
    """The task of an experiment.

    :param experiment: content of `experiment.json`.
    :raises StoreError: if this version of mixln has no such task.
    """
    if name := experiment.get("task"):
        if name not in TASKS:
            raise StoreError(f"the experiment's {unknown('task', name, TASKS)}; update mixln, or choose another --out")
        return TASKS[name]
    # Files of experiments before masked-lm do not name the task; the kind of data distinguishes the other two.
    return next(TASKS[name] for name in _FIRST if TASKS[name].entry in experiment["settings"])
