"""Reads the `forward` of a layer as residual algebra: what is normalized, and what is added to what.

The code is followed statement by statement, for one layer whose attributes are known, so that conditions on them have one outcome.
Every value gets a term (`expressions.py`): norms, sums, constant factors and dropout are understood; everything else is opaque,
and kept as code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from types import MappingProxyType

from torch import nn

from mixln.hosts.expressions import Expressions, Scope
from mixln.hosts.static import Dynamic, evaluate
from mixln.hosts.syntax import Rename, Unreadable, Within, bind, load, stored
from mixln.hosts.terms import Tupled, is_stream


class Reader(Expressions):
    """Follows the `forward` of one layer.

    :param layer: the layer, with its submodules; `opening`, `replaced`, `cross`: see :class:`~mixln.hosts.expressions.Expressions`.
    :raises Unreadable: for code that cannot be followed.
    """

    def __init__(
        self,
        layer: nn.Module,
        *,
        opening: bool = False,
        replaced: Mapping[str, str] = MappingProxyType({}),
        cross: bool = False,
    ) -> None:
        super().__init__(layer, opening=opening, replaced=replaced, cross=cross)
        body = [Within(layer, "self").visit(statement) for statement in self.definition.body]
        output = self.run(body, {name: name for name in self.parameters})
        if output is None:
            raise self.unreadable(self.definition, "returns nothing")
        returned = self.terms[output]
        self.output = returned.items[0] if isinstance(returned, Tupled) else output
        """Variable of the returned stream."""
        self.beside = returned.items[1:] if isinstance(returned, Tupled) else None
        """Variables beside the stream in the returned tuple; `None` if no tuple is returned."""
        self.passed: list[str] = []
        """The names in :attr:`beside` that are not attention weights. Later layers use them; T5's position bias is one."""
        for other in self.beside or ():
            unnamed = other.startswith("value__")
            text = ast.unparse(self.definitions[other].statements[-1]) if unnamed else other
            if is_stream(self.terms[other]):
                raise self.returns_more()
            if not re.search("attn|attention|probs|= None$", text):
                self.passed.append(other)

    def returns_more(self) -> Unreadable:
        """The refusal of a layer that returns something else beside its stream."""
        return self.unreadable(
            self.definition.body[-1], "returns more than the stream, attention weights and what a branch returns"
        )

    def run(self, body: Sequence[ast.stmt], scope: Scope) -> str | None:
        for statement in body:
            if (returned := self._statement(statement, scope)) is not None:
                return returned
        return None

    def _statement(self, node: ast.stmt, scope: Scope) -> str | None:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Assign(targets=[target]):
                self._assign(target, node.value, scope, node)
            case ast.AnnAssign(value=ast.expr() as value):
                self._assign(node.target, value, scope, node)
            case ast.AugAssign(target=ast.Name(id=name)):
                read = ast.copy_location(ast.Name(name, ast.Load()), node)
                whole = ast.copy_location(ast.BinOp(read, node.op, node.value), node)
                self._assign(node.target, whole, scope, node)
            case ast.If():
                return self._if(node, scope)
            case ast.Return(value=ast.expr() as value):
                return self.value(value, scope)
            case _:
                raise self.unreadable(node, "has a statement that cannot be read")
        return None

    def _set(self, scope: Scope, values: dict[str, str]) -> None:
        """Assigns to variables of the family's code, whose values are no longer known."""
        scope |= values
        if values.keys() & self.conditions.keys():
            self.conditions = {name: value for name, value in self.conditions.items() if name not in values}

    def _know(self, name: str, value: ast.expr) -> None:
        """Keeps what a condition that was assigned to a variable is, such as T5's `do_cross_attention`."""
        if isinstance(value, ast.BoolOp | ast.Compare):
            with suppress(Dynamic):
                self.conditions = {**self.conditions, name: evaluate(value, self.conditions)}

    def _assign(self, target: ast.expr, value: ast.expr, scope: Scope, node: ast.stmt) -> None:
        if isinstance(target, ast.Name):
            self._set(scope, {target.id: self.value(value, scope, target.id)})
            self._know(target.id, value)
            return
        if not isinstance(target, ast.Tuple):
            raise self.unreadable(node, "assigns to something other than a variable")
        if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
            self._distribute(target.elts, [self.value(item, scope) for item in value.elts], scope, node)
            return
        if isinstance(value, ast.Call) and (name := self.call(value, scope, "value")) is not None:
            returned = self.terms[name]
            known = len(returned.items) if isinstance(returned, Tupled) else 0
            unused = all(ast.unparse(item) == "_" for item in target.elts[known:])
            if isinstance(returned, Tupled) and (unused if returned.rest else known == len(target.elts)):
                self._distribute(target.elts[:known], list(returned.items), scope, node)
                return
        self._unpack(target, value, scope, node)

    def _distribute(self, targets: list[ast.expr], names: list[str], scope: Scope, node: ast.stmt) -> None:
        for item, name in zip(targets, names, strict=True):
            if not isinstance(item, ast.Name):
                raise self.unreadable(node, "assigns to something other than a variable")
            self._set(scope, {item.id: name})

    def _unpack(self, target: ast.Tuple, value: ast.expr, scope: Scope, node: ast.stmt) -> None:
        """`a, _ = f(x)` with an opaque `f`: every variable is opaque."""
        lifted, reads, shapes = self.lift(value, scope)
        fresh = {item.id: self.fresh(item.id) for item in ast.walk(target) if isinstance(item, ast.Name)}
        renamed = Rename(fresh).visit(deepcopy(target))
        self.define(fresh.values(), [ast.Assign([stored(renamed)], lifted)], reads, shapes, node)
        self._set(scope, fresh)

    def _if(self, node: ast.If, scope: Scope) -> str | None:
        try:
            taken = node.body if evaluate(node.test, self.conditions) else node.orelse
        except Dynamic:
            if not self._clamps(node, scope):
                self._branching(node, scope)
            return None
        return self.run(taken, scope)

    def _clamps(self, node: ast.If, scope: Scope) -> bool:
        """Whether a statement clamps the stream to the range of float16, as in BART and T5. Placed layers omit it."""
        first = (
            node.test.values[0]
            if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And)
            else node.test
        )
        match first:
            case ast.Compare(left=ast.Attribute(value=ast.Name(id=name), attr="dtype"), ops=[ast.Eq()]):
                half = ast.unparse(first.comparators[0]) == "torch.float16"
                return half and not node.orelse and name in scope and is_stream(self.terms[scope[name]])
        return False

    def _branching(self, node: ast.If, scope: Scope) -> None:
        """A condition that is decided at run time: one opaque statement, kept as it is."""
        if any(isinstance(part, ast.Return) for part in ast.walk(node)):
            raise self.unreadable(node.test, "returns under a condition that is known only at run time")
        read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        written = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - {"_"}
        if any(isinstance(n, ast.Attribute | ast.Subscript) and isinstance(n.ctx, ast.Store) for n in ast.walk(node)):
            raise self.unreadable(node, "assigns to something other than a variable")
        if not written:
            raise self.unreadable(node, "has a statement that cannot be read")
        bound = [name for name in sorted({*read, *written}) if name in scope]
        before: list[ast.stmt] = [bind(name, load(scope[name])) for name in bound if scope[name] != name]
        fresh = {name: self.fresh(name) for name in sorted(written)}
        after = [bind(new, load(name)) for name, new in fresh.items()]
        self.define(fresh.values(), [*before, deepcopy(node), *after], {scope[name] for name in bound}, set(), node)
        self._set(scope, fresh)
