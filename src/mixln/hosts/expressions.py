"""Expressions of a layer's code as terms of the residual algebra."""

from __future__ import annotations

import ast
import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from mixln.hosts.code import Code
from mixln.hosts.static import Dynamic, evaluate
from mixln.hosts.syntax import (
    Unreadable,
    Within,
    arguments_of,
    bind,
    is_identity,
    is_norm,
    load,
    module_path,
    parsed,
    same_globals,
    unassigned,
)
from mixln.hosts.terms import Dropped, Free, Normed, Scaled, Sum, Term, Tupled, is_stream

METADATA = ("shape", "dtype", "device", "size")
DEEPEST = 6
"""Calls inside calls that are followed."""
Scope = dict[str, str]
"""Variable of the family's code → that of the generated code, in which each is assigned once."""


class Expressions(Code, ABC):
    """Gives every expression of a layer's code a variable.

    :param opening: follow the code of submodules whose output is the residual stream, as in BERT, and not only of functions.
    :param replaced: see :class:`~mixln.hosts.code.Code`, likewise `cross`.
    """

    def __init__(self, layer: nn.Module, *, opening: bool, replaced: Mapping[str, str], cross: bool) -> None:
        super().__init__(layer, replaced, cross=cross)
        self.opening = opening
        self.depth = 0
        self.functions = {name: value for name, value in self.globals.items() if inspect.isfunction(value)}

    @abstractmethod
    def run(self, body: Sequence[ast.stmt], scope: Scope) -> str | None:
        """Follows statements; returns the variable that they return."""

    def value(self, node: ast.expr, scope: Scope, hint: str = "value") -> str:
        """The variable that holds the value of an expression."""
        if (name := self._structural_value(node, scope, hint)) is not None:
            return name
        lifted, reads, shapes = self.lift(node, scope)
        name = self.fresh(hint)
        self.define([name], [bind(name, lifted)], reads, shapes, node)
        return name

    def _structural_value(self, node: ast.expr, scope: Scope, hint: str) -> str | None:
        match node:
            case ast.Name() if node.id in scope:
                return scope[node.id]
            case ast.IfExp():
                try:
                    return self.value(node.body if evaluate(node.test, self.conditions) else node.orelse, scope, hint)
                except Dynamic:
                    return None
            case ast.Tuple() | ast.List():
                return self._tuple(node, scope, hint)
            case ast.Subscript():
                return self.item(node, scope)
            case ast.BinOp(op=ast.Add()):
                return self._sum(node, scope, hint)
            case ast.BinOp(op=ast.Mult()):
                return self._product(node, scope, hint)
            case ast.Call():
                return self.call(node, scope, hint)
        return None

    def _structural(self, term: Term, expression: ast.expr, reads: set[str], hint: str, node: ast.AST) -> str:
        name = self.fresh(hint)
        self.define([name], [bind(name, expression)], reads, set(), node)
        self.terms[name] = term
        return name

    def _tuple(self, node: ast.Tuple | ast.List, scope: Scope, hint: str) -> str | None:
        if any(isinstance(item, ast.Starred) for item in node.elts):
            return None
        items = tuple(self.value(item, scope) for item in node.elts)
        if all(isinstance(self.terms[item], Free) for item in items):
            return None
        return self._structural(
            Tupled(items), ast.Tuple([load(item) for item in items], ast.Load()), set(items), hint, node
        )

    def item(self, node: ast.Subscript, scope: Scope) -> str | None:
        """The variable of `x[0]` or `x[1:]`, for a tuple of known entries; `None` for anything else."""
        if not (isinstance(node.value, ast.Name) and node.value.id in scope):
            return None
        held = self.terms[scope[node.value.id]]
        if not isinstance(held, Tupled):
            return None
        match node.slice:
            case ast.Constant(value=int(index)) if 0 <= index < len(held.items):
                return held.items[index]
            case ast.Slice(lower=ast.Constant(value=int(lower)), upper=None, step=None) if (
                0 <= lower <= len(held.items)
            ):
                if lower == len(held.items) and held.rest is not None:
                    return held.rest
                return self._joined(Tupled(held.items[lower:], held.rest), "value", node)
        return None

    def _joined(self, whole: Tupled, hint: str, node: ast.AST) -> str:
        expression: ast.expr = ast.Tuple([load(item) for item in whole.items], ast.Load())
        if whole.rest is not None:
            expression = ast.BinOp(expression, ast.Add(), load(whole.rest))
        return self._structural(whole, expression, {*whole.items, *([whole.rest] if whole.rest else [])}, hint, node)

    def _sum(self, node: ast.BinOp, scope: Scope, hint: str) -> str:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        first, second = self.terms[left], self.terms[right]
        if isinstance(first, Tupled) and first.rest is None:
            other = second if isinstance(second, Tupled) else Tupled((), right)
            return self._joined(Tupled((*first.items, *other.items), other.rest), hint, node)
        expression = ast.BinOp(load(left), node.op, load(right))
        if any(isinstance(term, Free | Tupled) for term in (first, second)):
            name = self.fresh(hint)
            self.define([name], [bind(name, expression)], {left, right}, set(), node)
            return name
        return self._structural(Sum(first, second), expression, {left, right}, hint, node)

    def _product(self, node: ast.BinOp, scope: Scope, hint: str) -> str | None:
        for number, other in ((node.left, node.right), (node.right, node.left)):
            try:
                factor = evaluate(number, self.conditions)
            except Dynamic:
                continue
            if not isinstance(factor, int | float) or isinstance(factor, bool):
                return None
            name = self.value(other, scope, hint)
            if factor == 1:
                return name
            if not is_stream(self.terms[name]):
                return None
            product = ast.BinOp(ast.Constant(float(factor)), ast.Mult(), load(name))
            return self._structural(Scaled(float(factor), self.terms[name]), product, {name}, hint, node)
        return None

    def call(self, node: ast.Call, scope: Scope, hint: str) -> str | None:
        """The variable of a call that is more than opaque code; `None` for another."""
        if (p := self._functional_dropout(node)) is not None:
            return self._dropout(node, node.args[0], p, scope, hint)
        if not isinstance(node.func, ast.Attribute | ast.Name | ast.Subscript):
            return None
        try:
            called = evaluate(node.func, self.functions | self.conditions)
        except Dynamic:
            return None
        if isinstance(called, nn.Module) and node.args and not node.keywords:
            if is_identity(called):
                return self.value(node.args[0], scope, hint)
            if isinstance(called, nn.Dropout):
                return self._dropout(node, node.args[0], called.p, scope, hint)
            if is_norm(called) and len(node.args) == 1:
                return self._norm(node, scope, hint)
        if inspect.isfunction(called):
            return self._followed(node, called, "self", scope)
        if inspect.ismethod(called) and isinstance(node.func, ast.Attribute) and isinstance(called.__self__, nn.Module):
            path = ast.unparse(node.func.value)
            return self._followed(node, called, path, scope) if path == "self" or self.opening else None
        if self.opening and isinstance(called, nn.Module) and any(True for _ in called.children()):
            return self._followed(node, called.forward, ast.unparse(node.func), scope)
        return None

    def _norm(self, node: ast.Call, scope: Scope, hint: str) -> str | None:
        name = self.value(node.args[0], scope)
        if isinstance(self.terms[name], Free):
            return None
        return self._structural(
            Normed(module_path(self.layer, node.func), self.terms[name]),
            ast.Call(node.func, [load(name)], []),
            {name},
            hint,
            node,
        )

    def _functional_dropout(self, node: ast.Call) -> float | None:
        """Probability of `nn.functional.dropout(x, p=…, training=self.training)`; `None` for another call."""
        if not ast.unparse(node.func).endswith(("functional.dropout", "F.dropout")):
            return None
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        try:
            p = evaluate(keywords["p"] if "p" in keywords else node.args[1], self.conditions)
        except (Dynamic, IndexError) as error:
            raise self.unreadable(node, "has a dropout of unknown probability") from error
        return float(p)

    def _dropout(self, node: ast.AST, argument: ast.expr, p: float, scope: Scope, hint: str) -> str:
        name = self.value(argument, scope, hint)
        if not p:
            return name
        drop = ast.parse(f"torch.nn.functional.dropout({name}, p={p!r}, training=self.training)", mode="eval").body
        return self._structural(Dropped(p, self.terms[name]), drop, {name}, hint, node)

    def _followed(self, node: ast.Call, function: Any, path: str, scope: Scope) -> str | None:
        """The variable that a function, a method or a submodule of the layer returns, if its code normalizes or returns the stream.

        For example `dropout_add(x, residual, p, training)`, or `self.output(x, residual)` in BERT. `None` for anything else, which
        is code of a branch.

        :param path: expression of the module that `self` is in the function's code.
        """
        if self.depth == DEEPEST:
            return None
        try:
            with self._attempt():
                self.depth += 1
                before = set(self.terms)
                output = self._inside(node, function, path, scope)
                returned = self.terms[output]
                first = self.terms[returned.items[0]] if isinstance(returned, Tupled) and returned.items else returned
                made = [self.terms[name] for name in self.terms.keys() - before]
                if not is_stream(first) and not any(isinstance(term, Normed) and is_stream(term) for term in made):
                    raise Unreadable("it is code of a branch")
                return output
        except Unreadable:
            return None

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """Within it, an :class:`Unreadable` leaves no variables behind."""
        before = dict(self.terms), dict(self.definitions)
        conditions, depth = self.conditions, self.depth
        try:
            yield
        except Unreadable:
            self.terms, self.definitions = before
            raise
        finally:
            self.conditions, self.depth = conditions, depth

    def _inside(self, node: ast.Call, function: Any, path: str, scope: Scope) -> str:
        """Reads the code of a function with the arguments of a call, and returns the variable that it returns.

        :raises Unreadable: if it cannot be read.
        """
        definition, _ = parsed(function)
        method = inspect.ismethod(function)
        values = arguments_of(definition, node, method=method)
        # `**kwargs` of the layer cannot hold its own parameters.
        passed = any(keyword.arg is None for keyword in node.keywords)
        if values is None or (passed and not unassigned(definition, node, method=method) <= {*self.parameters}):
            raise self.unreadable(node, "calls a function whose arguments cannot be read")
        if inspect.unwrap(function).__closure__ or not same_globals(definition, function, self.globals):
            raise self.unreadable(node, "calls a function that cannot be read")
        inner = {parameter: self.value(copy.deepcopy(expression), scope) for parameter, expression in values.items()}
        if not any(is_stream(self.terms[name]) for name in inner.values()):
            raise self.unreadable(node, "calls a function without the stream")
        known = dict(self.known)
        for parameter, expression in values.items():
            try:
                known[parameter] = evaluate(expression, self.conditions)
            except Dynamic:
                known.pop(parameter, None)
        self.conditions = known
        within = Within(self.layer, path)
        for statement in definition.body:
            # Errors name the line of the layer's code that calls the function.
            for part in ast.walk(within.visit(statement)):
                ast.copy_location(part, node)
        output = self.run(definition.body, inner)
        if output is None:
            raise self.unreadable(node, "calls a function that returns nothing")
        return output

    def lift(self, node: ast.expr, scope: Scope) -> tuple[ast.expr, set[str], set[str]]:
        """An expression in the variables of the generated code: (expression, variables read, variables of which the shape is read)."""
        lifter = _Lift(self, scope)
        # A call that comes here was already found to be opaque.
        visit = lifter.generic_visit if isinstance(node, ast.Call) else lifter.visit
        lifted: Any = visit(copy.deepcopy(node))
        return lifted, lifter.reads, lifter.shapes


class _Lift(ast.NodeTransformer):
    """Replaces variables of the family's code by those of the generated code; norms and sums get variables of their own."""

    def __init__(self, code: Expressions, scope: Scope) -> None:
        self.code, self.scope = code, scope
        self.reads: set[str] = set()
        self.shapes: set[str] = set()

    def _use(self, name: str) -> ast.expr:
        self.reads.add(name)
        return load(name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._use(self.scope[node.id]) if node.id in self.scope else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.scope and node.attr in METADATA:
            name = self.scope[node.value.id]
            self.shapes.add(name)
            return ast.Attribute(load(name), node.attr, ast.Load())
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        item = self.code.item(node, self.scope)
        return self.generic_visit(node) if item is None else self._use(item)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        inner = self.code.call(node, self.scope, "value")
        return self.generic_visit(node) if inner is None else self._use(inner)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Add):
            return self._use(self.code.value(node, self.scope))
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        try:
            taken = evaluate(node.test, self.code.conditions)
        except Dynamic:
            return self.generic_visit(node)
        return self.visit(node.body if taken else node.orelse)

    def _refuse(self, node: ast.AST) -> ast.AST:
        if any(isinstance(part, ast.Name) and part.id in self.scope for part in ast.walk(node)):
            raise self.code.unreadable(node, "has an expression that cannot be read")
        return node

    visit_Lambda = visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_NamedExpr = _refuse
