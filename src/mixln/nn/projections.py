"""Norms on the inputs or outputs of a family's own projections, beside them and not around them.

The projection stays where the family put it, a `Linear` under its own name, so that adapters, quantizers, tensor parallelism and
parallel plans find it. What changes is the call: where the family's code says `self.q_proj(x)`, a subclass of its class says
`self.normed("q_proj", self.q_proj(x))`. The subclass is made from the family's source by replacing these calls and nothing else;
whatever module stands at the name when it runs, an adapter for example, is called whole before the norm.

Shapes: B batch, T tokens, D features of the projection's input or output.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mixln.errors import PlacementError

FUSED = ("query", "key", "value")
"""The order of the parts of a projection that makes q, k and v side by side."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One norm on one projection.

    :param projection: attribute of the module that holds the projection.
    :param norm: attribute of the module that holds the norm.
    :param before: normalize the projection's input instead of its output.
    :param size: features of each normalized vector, for a norm per head; `None` for the full width.
    :param part: which third of a fused projection's output (0 query, 1 key, 2 value); `None` for all of it.
    """

    projection: str
    norm: str
    before: bool = False
    size: int | None = None
    part: int | None = None


class NormedProjections(nn.Module):
    """Base of the subclasses that :func:`add_norms` makes of a family's attention or feed-forward."""

    projection_sites: tuple[Site, ...]
    _stock: type[nn.Module]
    _rewritten: tuple[frozenset[str], frozenset[str]]

    def normed(self, projection: str, x_BTD: Tensor) -> Tensor:
        """The input or the output of a projection, normalized. All sites of one projection lie on the same side of it."""
        sites = [site for site in self.projection_sites if site.projection == projection]
        if sites[0].part is None:
            return self._normalise(sites[0], x_BTD)
        parts = list(x_BTD.chunk(len(FUSED), dim=-1))
        for site in sites:
            assert site.part is not None
            parts[site.part] = self._normalise(site, parts[site.part])
        return torch.cat(parts, dim=-1)

    def _normalise(self, site: Site, x_BTD: Tensor) -> Tensor:
        norm = getattr(self, site.norm)
        if site.size is None:
            return norm(x_BTD)
        return norm(x_BTD.unflatten(-1, (-1, site.size))).flatten(-2)

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made at run time: what is pickled is how to make it again.
        return _empty, (self._stock, *self._rewritten), self.__dict__


def add_norms(module: nn.Module, sites: Sequence[tuple[Site, nn.Module]]) -> None:
    """Puts norms on projections of a module, in place. The module becomes an instance of a subclass of its class.

    :param sites: each site with its norm, which the module holds from now on under `site.norm`.
    :raises PlacementError: if the code of the module's class does not call one of the projections as `self.NAME(…)`.
    """
    after = frozenset(site.projection for site, _ in sites if not site.before)
    before = frozenset(site.projection for site, _ in sites if site.before)
    module.__class__ = _normed_class(type(module), after, before)
    module.projection_sites = tuple(site for site, _ in sites)  # type: ignore[assignment]
    for site, norm in sites:
        module.add_module(site.norm, norm)


def _empty(stock: type[nn.Module], after: frozenset[str], before: frozenset[str]) -> nn.Module:
    cls = _normed_class(stock, after, before)
    return cls.__new__(cls)


@cache
def _normed_class(stock: type[nn.Module], after: frozenset[str], before: frozenset[str]) -> type[nn.Module]:
    """The subclass of `stock` whose methods normalize the outputs of the projections `after` and the inputs of those `before`."""
    seen: set[str] = set()
    methods: dict[str, Any] = {}
    for name, function in inspect.getmembers(stock, inspect.isfunction):
        named = inspect.unwrap(function).__code__.co_names
        calls = Calls("normed", after=after, before=before)
        if (after | before).intersection(named) and (made := rewrite(function, calls)):
            methods[name] = made
            seen |= calls.seen
    if missing := sorted((after | before) - seen):
        raise PlacementError(
            f"no norm can be placed on {missing[0]} of {stock.__name__}: its code does not call self.{missing[0]}(…)"
        )
    namespace = {**methods, "_stock": stock, "_rewritten": (after, before), "__doc__": stock.__doc__}
    return type(f"Normed{stock.__name__}", (NormedProjections, stock), {**namespace, "__module__": __name__})


class Calls(ast.NodeTransformer):
    """Replaces `self.q_proj(x)` by `self.normed("q_proj", self.q_proj(x))`, or `self.o_proj(self.normed("o_proj", x))`.

    :param method: the method that the new code calls; `normed` in these examples.
    :param after: submodules whose output it is given; `before` those whose input.
    """

    def __init__(self, method: str, *, after: Collection[str] = (), before: Collection[str] = ()) -> None:
        self.method, self.after, self.before = method, after, before
        self.seen: set[str] = set()
        """The submodules whose calls were replaced."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func
        if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self"):
            return node
        if called.attr in self.after:
            self.seen.add(called.attr)
            return self._given(called.attr, node)
        if called.attr in self.before and node.args:
            self.seen.add(called.attr)
            node.args[0] = self._given(called.attr, node.args[0])
        return node

    def _given(self, name: str, value: ast.expr) -> ast.Call:
        function = ast.Attribute(ast.Name("self", ast.Load()), self.method, ast.Load())
        call = ast.Call(function, [ast.Constant(name), value], [])
        return ast.fix_missing_locations(ast.copy_location(call, value))


def rewrite(function: Callable[..., Any], calls: Calls) -> Callable[..., Any] | None:
    """A method with some of its calls replaced; `None` where it has none of them. Line numbers stay those of the family's file.

    :raises PlacementError: if the method uses `super()` or variables of an enclosing function, which a copy could not reach.
    """
    own = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(own)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    # This decorator writes the docstring only, and looks for a class around the method.
    definition.decorator_list = [
        each for each in definition.decorator_list if "auto_docstring" not in ast.unparse(each)
    ]
    calls.visit(tree)
    if not calls.seen:
        return None
    if own.__closure__:
        raise PlacementError(
            f"{function.__qualname__} calls {', '.join(sorted(calls.seen))} and uses super() or variables of an enclosing "
            "function, so that no norm can be placed there"
        )
    ast.increment_lineno(tree, first - 1)
    made: dict[str, Any] = {}
    exec(compile(tree, inspect.getsourcefile(own) or "<unknown>", "exec"), own.__globals__, made)
    return made[own.__name__]
