"""Import hooks: run a function after other modules have been imported, or immediately if they already are.

The `Auto*` classes must know the placed models after `import mixln`, whichever package is imported first. Importing transformers
and torch only to register the models would make `mixln --help` take seconds.
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
    """Calls `action` after the module `name` has been imported; immediately if it already is.

    :param name: full name of a module. Neither it nor its parent package is imported here.
    """
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action))


def when_all_imported(names: Sequence[str], action: Callable[[], object]) -> None:
    """Calls `action` after all of several modules have been imported, in any order; immediately if they already are."""
    missing = set(names)

    def arrived(name: str) -> None:
        missing.discard(name)
        if not missing:
            action()

    for name in names:
        when_imported(name, partial(arrived, name))


class _Finder(MetaPathFinder):
    """Finds one module through the other finders and wraps its loader, so that the action runs after the module's code.

    The action does not run in `find_spec`: a spec may be requested without an import, as by `importlib.util.find_spec`.
    """

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self.name, self.action = name, action
        self.asking_others = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or self.asking_others:
            return None
        # find_spec() asks all finders again, this one included.
        self.asking_others = True
        try:
            spec = find_spec(fullname)
        finally:
            self.asking_others = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ActionLoader(spec.loader, self)
        return spec


class _ActionLoader(Loader):
    """Wraps a loader and runs the action after it; all other attributes are those of the wrapped loader."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        # The module's own code and later reloads see the original loader.
        spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
            self._finder.action()
