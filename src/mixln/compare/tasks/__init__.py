"""The tasks of comparisons, one file each: every module of this package that has a `TASK`. Importing it imports no torch."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from mixln.compare.tasks.task import Task
from mixln.errors import StoreError, unknown

_FIRST = ("language", "vision")
"""Order of the oldest tasks; the others follow by name."""


def _found() -> dict[str, Task[Any, Any]]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    tasks: dict[str, Task[Any, Any]] = {module.TASK.name: module.TASK for module in modules if hasattr(module, "TASK")}
    return {name: tasks[name] for name in dict.fromkeys([*_FIRST, *sorted(tasks)])}


TASKS = _found()
"""Name → task."""


def task_of(experiment: dict[str, Any]) -> Task[Any, Any]:
    """The task of an experiment, as `experiment.json` holds it.

    :raises StoreError: if this mixln has no such task.
    """
    if name := experiment.get("task"):
        if name not in TASKS:
            raise StoreError(
                f"the experiment is of {unknown('task', name, TASKS)}; use a newer mixln, or another --out"
            )
        return TASKS[name]
    # Before there were three, the file did not name it: the data told the two apart.
    return next(TASKS[name] for name in _FIRST if TASKS[name].entry in experiment["settings"])
