"""Runs a function once other modules have been imported, or at once if they already are.

The `Auto*` classes must know our models after `import mixln`, whichever of the two packages comes first; but importing
transformers and torch only to register there would make `mixln --help` take seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Calls `action` after the module `name` has been imported; at once if that has happened.

    :param name: full name of a module. If it is a submodule, its package is not imported for it.
    """
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action))


def when_all_imported(names: Sequence[str], action: Callable[[], object]) -> None:
    """Calls `action` after the last of several modules has been imported, in any order; at once if all have been."""
    missing = set(names)

    def arrived(name: str) -> None:
        missing.discard(name)
        if not missing:
            action()

    for name in names:
        when_imported(name, partial(arrived, name))


class _Finder(MetaPathFinder):
    """Finds one module as the other finders do, with an action after it. Being asked for it is not yet an import."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self.name, self.action = name, action
        self.asking_others = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or self.asking_others:
            return None
        self.asking_others = True
        try:
            spec = find_spec(fullname)
        finally:
            self.asking_others = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self)
        return spec


class _Then(Loader):
    """Another loader, and an action after it; attributes that others read from a loader are the other one's."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
            self._finder.action()
