"""Norms on the inputs or outputs of a family's projections, as siblings of the projections and not as wrappers.

The projection remains a `Linear` under its own name, so adapters, quantizers and tensor parallelism find it. Only the call changes:
where the family's code has `self.q_proj(x)`, a subclass has `self.normed("q_proj", self.q_proj(x))`. The subclass is generated
from the family's source by replacing these calls and nothing else. A module that has replaced the projection by then, such as an
adapter, runs as a whole before the norm.

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
"""Order of the parts in the output of a fused q, k and v projection."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One norm, gain or gate on one projection.

    :param projection: attribute of the module that holds the projection.
    :param norm: attribute of the module that holds the norm.
    :param before: normalize the projection's input instead of its output.
    :param size: features per normalized vector, for a per-head norm; `None` for the full width.
    :param gates: `norm` is a linear map of the attention's input, whose sigmoid multiplies the projection's input.
    :param part: third of a fused projection's output (0 query, 1 key, 2 value); `None` for the whole output.
    """

    projection: str
    norm: str
    before: bool = False
    size: int | None = None
    part: int | None = None
    gates: bool = False


ENTRY = "entry_of_this_module"
"""Variable of a generated method that holds its first argument."""
GIVEN = "given_to_this_module"
"""Variable of a generated `forward` that holds what the layer passes in place of a projection's output."""


class HeadGain(nn.Module):
    """One learnable factor per head, initially 1: w_h · x_h (NormFormer, arXiv:2110.09456)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads))

    def starting_values(self) -> dict[str, float]:
        return {"weight": 1.0}

    def forward(self, x_BTHE: Tensor) -> Tensor:
        return self.weight[:, None] * x_BTHE


class NormedProjections(nn.Module):
    """Base of the subclasses of a family's attention or feed-forward that :func:`add_norms` generates."""

    projection_sites: tuple[Site, ...]
    entry_size: int
    """D, where the layer passes the output of a projection beside the input."""
    _stock: type[nn.Module]
    _rewritten: tuple[frozenset[str], frozenset[str], frozenset[str], str]

    def normed(self, projection: str, x_BTD: Tensor, entry_BTD: Tensor | None = None) -> Tensor:
        """Normalizes the input or output of a projection. All sites of one projection are on the same side of it.

        :param entry_BTD: the module's input, where a site gates.
        """
        sites = [site for site in self.projection_sites if site.projection == projection]
        if sites[0].part is None:
            for site in sites:
                x_BTD = self._gate(site, x_BTD, entry_BTD) if site.gates else self._normalise(site, x_BTD)
            return x_BTD
        parts = list(x_BTD.chunk(len(FUSED), dim=-1))
        for site in sites:
            assert site.part is not None
            parts[site.part] = self._normalise(site, parts[site.part])
        return torch.cat(parts, dim=-1)

    def apart(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D + K) → the module's input (B, T, D) and the output of a projection (B, T, K)."""
        entry, given = packed[..., : self.entry_size], packed[..., self.entry_size :]
        device = packed.device.type
        # Side by side with a float32 stream they are float32; under autocast the other projections' outputs are not.
        return entry, given.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else given

    def _normalise(self, site: Site, x_BTD: Tensor) -> Tensor:
        norm = getattr(self, site.norm)
        if site.size is None:
            return norm(x_BTD)
        # (B, T, heads · size) → (B, T, heads, size): each head is normalized separately.
        return norm(x_BTD.unflatten(-1, (-1, site.size))).flatten(-2)

    def _gate(self, site: Site, x_BTD: Tensor, entry_BTD: Tensor | None) -> Tensor:
        gate = torch.sigmoid(getattr(self, site.norm)(entry_BTD))
        # One number a head multiplies all features of the head: (B, T, heads) → (B, T, heads, 1).
        return (
            x_BTD * gate if site.size is None else (x_BTD.unflatten(-1, (-1, site.size)) * gate[..., None]).flatten(-2)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is generated at run time and cannot be imported, so the pickle holds the arguments that regenerate it.
        return _empty, (self._stock, *self._rewritten), self.__dict__


def add_norms(
    module: nn.Module, sites: Sequence[tuple[Site, nn.Module]], *, given: str = "", entry_size: int = 0
) -> None:
    """Adds norms to projections of a module, in place. The module becomes an instance of a subclass of its class.

    :param sites: sites with their norms; each norm becomes the submodule `site.norm`.
    :param given: projection of the module's input whose output the caller computes, and passes beside the input (B, T, D + K).
    :param entry_size: D, if there is such a projection.
    :raises PlacementError: if the module's code does not call one of the projections as `self.NAME(…)`; a gated one in `forward`, and
        the given one there on the first argument.
    """
    after = frozenset(site.projection for site, _ in sites if not site.before)
    before = frozenset(site.projection for site, _ in sites if site.before)
    gated = frozenset(site.projection for site, _ in sites if site.gates)
    # Changing the class keeps the object, so its parameters, hooks and all references to it stay valid.
    module.__class__ = _normed_class(type(module), after, before, gated, given)
    module.entry_size = entry_size  # type: ignore[assignment]
    module.projection_sites = tuple(site for site, _ in sites)  # type: ignore[assignment]
    for site, norm in sites:
        module.add_module(site.norm, norm)


def _empty(stock: type[nn.Module], *projections: Any) -> nn.Module:
    cls = _normed_class(stock, *projections)
    return cls.__new__(cls)


@cache  # one class for all layers, as in the stock model
def _normed_class(
    stock: type[nn.Module],
    after: frozenset[str],
    before: frozenset[str],
    gated: frozenset[str] = frozenset(),
    given: str = "",
) -> type[nn.Module]:
    """A subclass of `stock` that normalizes the outputs of the projections in `after` and the inputs of those in `before`.

    :param gated: those in `before` whose norms also need the module's input.
    :param given: projection whose output comes beside the module's input; empty if there is none.
    """
    seen: set[str] = set()
    passed: set[str] = set()
    methods: dict[str, Any] = {}
    for name, function in inspect.getmembers(stock, inspect.isfunction):
        # The names that the bytecode uses are a cheap filter: only matching methods are parsed.
        named = inspect.unwrap(function).__code__.co_names
        # Another method need not have the module's input as its first argument.
        entries, replaced = (gated, given) if name == "forward" else (frozenset[str](), "")
        calls = CallRewriter("normed", after=after, before=before, entries=entries, given=replaced)
        if {*after, *before, given}.intersection(named) and (made := rewrite(function, calls)):
            methods[name] = made
            seen |= calls.seen
            passed |= calls.passed
    if missing := sorted((after | before) - seen):
        raise PlacementError(
            f"no norm can be placed on {missing[0]} of {stock.__name__}: its code does not call self.{missing[0]}(…)"
        )
    if given and given not in passed:
        raise PlacementError(
            f"no value residual can be placed on {given} of {stock.__name__}: its forward does not call self.{given}(…) on its own input"
        )
    if missing := sorted(gated - passed):
        raise PlacementError(
            f"no gate can be placed on {missing[0]} of {stock.__name__}: its forward does not call self.{missing[0]}(…)"
        )
    namespace = {**methods, "_stock": stock, "_rewritten": (after, before, gated, given), "__doc__": stock.__doc__}
    return type(f"Normed{stock.__name__}", (NormedProjections, stock), {**namespace, "__module__": __name__})


class CallRewriter(ast.NodeTransformer):
    """Replaces `self.q_proj(x)` by `self.normed("q_proj", self.q_proj(x))`, or `self.o_proj(self.normed("o_proj", x))`.

    :param method: method that the new code calls; `normed` in these examples.
    :param after: submodules whose output is passed to it; `before`: submodules whose input is.
    :param entries: those of `before` for which it also gets the first argument of the method that holds the call.
    :param given: submodule whose call on that argument is replaced by what comes beside it; empty if there is none.
    """

    def __init__(
        self,
        method: str,
        *,
        after: Collection[str] = (),
        before: Collection[str] = (),
        entries: Collection[str] = (),
        given: str = "",
    ) -> None:
        self.method, self.after, self.before, self.entries, self.given = method, after, before, entries, given
        self.seen: set[str] = set()
        """Submodules whose calls were replaced."""
        self.passed: set[str] = set()
        """Submodules whose new calls pass the first argument, or what is beside it."""
        self.argument = ""
        """The first argument of the method."""
        self.lasts = 0
        """The line up to which the argument's variable holds the argument."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.argument = node.args.args[1].arg if len(node.args.args) > 1 else ""
        names = (part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id == self.argument)
        stored = [name.lineno for name in names if isinstance(name.ctx, ast.Store)]
        self.lasts = min(stored, default=node.end_lineno or 0)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)  # calls within the arguments first
        called = node.func
        if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self"):
            return node
        value: ast.expr = node
        if called.attr == self.given and self._on_argument(node):
            self.seen.add(called.attr)
            self.passed.add(called.attr)
            value = ast.copy_location(ast.Name(GIVEN, ast.Load()), node)
        if called.attr in self.after:
            self.seen.add(called.attr)
            return self._wrap(called.attr, value)
        if value is not node:
            return value
        # A projection's input is its first positional argument.
        if called.attr in self.before and node.args:
            self.seen.add(called.attr)
            node.args[0] = self._wrap(called.attr, node.args[0])
        return node

    def _on_argument(self, node: ast.Call) -> bool:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        return [ast.unparse(argument) for argument in arguments] == [self.argument] and node.lineno <= self.lasts

    def _wrap(self, name: str, value: ast.expr) -> ast.Call:
        function = ast.Attribute(ast.Name("self", ast.Load()), self.method, ast.Load())
        arguments: list[ast.expr] = [ast.Constant(name), value]
        if name in self.entries:
            self.passed.add(name)
            arguments.append(ast.Name(ENTRY, ast.Load()))
        call = ast.Call(function, arguments, [])
        return ast.fix_missing_locations(ast.copy_location(call, value))


def rewrite(
    function: Callable[..., Any], calls: CallRewriter, first: ast.NodeTransformer | None = None
) -> Callable[..., Any] | None:
    """Copies a method with some of its calls replaced; `None` if it has none of them. Line numbers remain those of the source file.

    :param first: other changes of the code, made before.
    :raises PlacementError: if the method uses `super()` or variables of an enclosing function, which a copy cannot access.
    """
    own = inspect.unwrap(function)
    lines, number = inspect.getsourcelines(own)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    # auto_docstring only writes the docstring, and expects the method inside its class.
    definition.decorator_list = [
        decorator for decorator in definition.decorator_list if "auto_docstring" not in ast.unparse(decorator)
    ]
    if first is not None:
        first.visit(tree)
    calls.visit(tree)
    if not calls.seen:
        return None
    # super() without arguments is a closure too, over `__class__`.
    if own.__closure__:
        raise PlacementError(
            f"{function.__qualname__} calls {', '.join(sorted(calls.seen))} and uses super() or variables of an enclosing "
            "function, so no norm can be placed there"
        )
    starts = []
    if calls.given in calls.passed:
        starts.append(f"{calls.argument}, {GIVEN} = self.apart({calls.argument})")
    if calls.passed - {calls.given}:
        # The method may change the variable of its argument later.
        starts.append(f"{ENTRY} = {calls.argument}")
    added = ast.parse("\n".join(starts)).body
    definition.body[:0] = [ast.fix_missing_locations(ast.copy_location(start, definition)) for start in added]
    ast.increment_lineno(tree, number - 1)
    namespace: dict[str, Any] = {}
    # The family's globals resolve its imports; its file name makes tracebacks show its source.
    exec(compile(tree, inspect.getsourcefile(own) or "<unknown>", "exec"), own.__globals__, namespace)
    return namespace[own.__name__]
