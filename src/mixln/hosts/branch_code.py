"""The family's own code of a branch, as a function that can be pickled."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from mixln.hosts.syntax import parsed


@dataclass(frozen=True)
class BranchCode:
    """The family's own code of one branch, as a function of the layer, the branch's input, and the layer's other arguments.

    :param stock: class of the layer that the code is from; its module resolves the names in the code.
    :param source: definition of a function `branch`.
    """

    stock: type[nn.Module]
    source: str
    function: Callable[..., Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # An attribute and not a cached property, which torch.compile would trace into.
        object.__setattr__(self, "function", _compiled(self.stock, self.source))

    def __reduce__(self) -> tuple[type[BranchCode], tuple[type[nn.Module], str]]:
        return BranchCode, (self.stock, self.source)


@cache
def header(layer: type[nn.Module]) -> str:
    """The first line of a function `branch` with the arguments of a layer's `forward`, without annotations."""
    arguments = parsed(layer.forward)[0].args
    for node in ast.walk(arguments):
        if isinstance(node, ast.arg):
            node.annotation = None
    return f"def branch({ast.unparse(arguments)}):"


@cache
def _compiled(stock: type[nn.Module], source: str) -> Callable[..., Any]:
    file = f"<branch of {stock.__name__}: {hash(source) & 0xFFFFFFFF:08x}>"
    # Tracebacks and torch.compile show the generated lines.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {}
    exec(compile(source, file, "exec"), inspect.unwrap(stock.forward).__globals__, namespace)
    return namespace["branch"]
