"""Reads the `forward` of a layer as residual algebra: what is normalized, and what is added to what.

The code is followed statement by statement, for one layer whose attributes are known, so that conditions on them have one outcome.
Every value gets a term. Norms, sums, constant factors and dropout are understood; everything else is opaque, and kept as code.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mixln.errors import PlacementError
from mixln.hosts.static import Dynamic, evaluate
from mixln.hosts.terms import Dropped, Free, LayerInput, Normed, Opaque, Scaled, Sum, Term, is_stream


class Unreadable(PlacementError):
    """A family's code that is not residual algebra as records can express it; the message names the line."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Statements that compute variables.

    :param reads: variables that they read; `shapes`: variables of which they read only shape, dtype or device.
    """

    statements: tuple[ast.stmt, ...]
    reads: frozenset[str]
    shapes: frozenset[str]
    line: int


ABSENT = ("encoder_hidden_states", "encoder_attention_mask")
"""Arguments that are `None` in a model without cross-attention."""
METADATA = ("shape", "dtype", "device", "size")


class Reader:
    """Follows the `forward` of one layer.

    :param layer: the layer, with its submodules.
    :raises Unreadable: for code that cannot be followed.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.cls = type(layer)
        self.definition, self.first = parsed(self.cls.forward)
        self.function: Callable[..., Any] = inspect.unwrap(self.cls.forward)
        self.globals: dict[str, Any] = self.function.__globals__
        self.terms: dict[str, Term] = {}
        """Variable → what it is."""
        self.definitions: dict[str, Definition] = {}
        """Variable → the code that computes it."""
        arguments = self.definition.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
        if len(names) < 2:
            raise self.unreadable(self.definition, "has no input")
        self.entry = names[1]
        self.parameters = names[1:]
        self.terms |= {name: Free() for name in names[2:]} | {self.entry: LayerInput()}
        self.counter = 0
        plain = {name: value for name, value in self.globals.items() if isinstance(value, type | bool)}
        self.absent = tuple(name for name in names if name in ABSENT)
        self.conditions: dict[str, Any] = plain | {"self": layer, **dict.fromkeys(self.absent)}
        self.output = ""
        """Variable of the returned stream."""
        self.returns: int | None = None
        """Number of entries beside the stream in the returned tuple; `None` if no tuple is returned."""
        self._run(self.definition.body, {name: name for name in names[1:]})
        if not self.output:
            raise self.unreadable(self.definition, "returns nothing")

    def unreadable(self, node: ast.AST, why: str) -> Unreadable:
        """The error for a line of the family's code."""
        file = (inspect.getsourcefile(self.function) or "").rpartition("/")[2]
        line = self.first + getattr(node, "lineno", 1) - 1
        text = ast.unparse(node).splitlines()[0]
        text = text if len(text) <= 100 else text[:97] + "..."
        return Unreadable(f"{self.cls.__name__} {why}: {file}:{line}: {text}")

    # Statements. `scope` maps the variables of the family's code to those of the generated code, in which each is assigned once.

    def _run(self, body: Sequence[ast.stmt], scope: dict[str, str]) -> None:
        for statement in body:
            if self.output:
                return
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: dict[str, str]) -> None:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Assign(targets=[target]):
                self._assign(target, node.value, scope, node)
            case ast.AnnAssign(value=ast.expr() as value):
                self._assign(node.target, value, scope, node)
            case ast.AugAssign(target=ast.Name(id=name)):
                load = ast.copy_location(ast.Name(name, ast.Load()), node)
                whole = ast.copy_location(ast.BinOp(load, node.op, node.value), node)
                self._assign(node.target, whole, scope, node)
            case ast.If():
                self._if(node, scope)
            case ast.Return(value=ast.expr() as value):
                self._return(value, scope)
            case _:
                raise self.unreadable(node, "has a statement that cannot be read")

    def _assign(self, target: ast.expr, value: ast.expr, scope: dict[str, str], node: ast.stmt) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = self.value(value, scope, target.id)
            return
        if not isinstance(target, ast.Tuple):
            raise self.unreadable(node, "assigns to something other than a variable")
        if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
            names = [self.value(item, scope) for item in value.elts]
            for item, name in zip(target.elts, names, strict=True):
                if not isinstance(item, ast.Name):
                    raise self.unreadable(node, "assigns to something other than a variable")
                scope[item.id] = name
            return
        self._unpack(target, value, scope, node)

    def _unpack(self, target: ast.Tuple, value: ast.expr, scope: dict[str, str], node: ast.stmt) -> None:
        """`a, _ = f(x)`: every variable is opaque."""
        lifted, reads, shapes = self.lift(value, scope)
        fresh: dict[str, str] = {}
        for item in ast.walk(target):
            if isinstance(item, ast.Name):
                fresh[item.id] = self.fresh(item.id)
        renamed = _Rename(fresh).visit(ast.parse(ast.unparse(target), mode="eval").body)
        statement = ast.Assign([_stored(renamed)], lifted)
        self._define(fresh.values(), [statement], reads, shapes, node)
        scope |= fresh

    def _if(self, node: ast.If, scope: dict[str, str]) -> None:
        try:
            taken = node.body if evaluate(node.test, self.conditions) else node.orelse
        except Dynamic:
            self._branching(node, scope)
        else:
            self._run(taken, scope)

    def _branching(self, node: ast.If, scope: dict[str, str]) -> None:
        """A condition that is decided at run time: one opaque statement, kept as it is."""
        if any(isinstance(part, ast.Return) for part in ast.walk(node)):
            raise self.unreadable(node.test, "returns under a condition that is known only at run time")
        loaded = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - {"_"}
        if any(isinstance(n, ast.Attribute | ast.Subscript) and isinstance(n.ctx, ast.Store) for n in ast.walk(node)):
            raise self.unreadable(node, "assigns to something other than a variable")
        if not stored:
            raise self.unreadable(node, "has a statement that cannot be read")
        bound = [name for name in sorted({*loaded, *stored}) if name in scope]
        before = [_assignment(name, scope[name]) for name in bound if scope[name] != name]
        fresh = {name: self.fresh(name) for name in sorted(stored)}
        after = [_assignment(new, name) for name, new in fresh.items()]
        copied = ast.parse(ast.unparse(node)).body
        self._define(fresh.values(), [*before, *copied, *after], {scope[name] for name in bound}, set(), node)
        scope |= fresh

    def _return(self, value: ast.expr, scope: dict[str, str]) -> None:
        first, *others = value.elts if isinstance(value, ast.Tuple) else [value]
        for other in others:
            if not re.search("attn|attention", ast.unparse(other)):
                raise self.unreadable(other, "returns more than the stream and attention weights")
        self.returns = len(others) if isinstance(value, ast.Tuple) else None
        self.output = self.value(first, scope)

    # Expressions. Each gets a variable.

    def value(self, node: ast.expr, scope: dict[str, str], hint: str = "value") -> str:
        """The variable that holds the value of an expression."""
        match node:
            case ast.Name() if node.id in scope:
                return scope[node.id]
            case ast.IfExp():
                try:
                    return self.value(node.body if evaluate(node.test, self.conditions) else node.orelse, scope, hint)
                except Dynamic:
                    pass
            case ast.BinOp(op=ast.Add()):
                if (name := self._sum(node, scope, hint)) is not None:
                    return name
            case ast.BinOp(op=ast.Mult()):
                if (name := self._product(node, scope, hint)) is not None:
                    return name
            case ast.Call():
                if (name := self._call(node, scope, hint)) is not None:
                    return name
        lifted, reads, shapes = self.lift(node, scope)
        name = self.fresh(hint)
        self._define([name], [_bind(name, lifted)], reads, shapes, node)
        return name

    def _structural(self, term: Term, expression: ast.expr, reads: set[str], hint: str, node: ast.AST) -> str:
        name = self.fresh(hint)
        self._define([name], [_bind(name, expression)], reads, set(), node)
        self.terms[name] = term
        return name

    def _sum(self, node: ast.BinOp, scope: dict[str, str], hint: str) -> str | None:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        terms = self.terms[left], self.terms[right]
        if any(isinstance(term, Free) for term in terms):
            return self._opaque(ast.BinOp(_load(left), node.op, _load(right)), {left, right}, hint, node)
        return self._structural(Sum(*terms), ast.BinOp(_load(left), node.op, _load(right)), {left, right}, hint, node)

    def _product(self, node: ast.BinOp, scope: dict[str, str], hint: str) -> str | None:
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
            product = ast.BinOp(ast.Constant(float(factor)), ast.Mult(), _load(name))
            return self._structural(Scaled(float(factor), self.terms[name]), product, {name}, hint, node)
        return None

    def _call(self, node: ast.Call, scope: dict[str, str], hint: str) -> str | None:
        if (p := self._functional_dropout(node)) is not None:
            return self._dropout(node, node.args[0], p, scope, hint)
        if not (isinstance(node.func, ast.Attribute | ast.Name)):
            return None
        try:
            called = evaluate(
                node.func, self.conditions | {n: v for n, v in self.globals.items() if inspect.isfunction(v)}
            )
        except Dynamic:
            return None
        if isinstance(called, nn.Module) and node.args and not node.keywords:
            if is_identity(called):
                return self.value(node.args[0], scope, hint)
            if isinstance(called, nn.Dropout):
                return self._dropout(node, node.args[0], called.p, scope, hint)
            if is_norm(called) and len(node.args) == 1:
                return self._norm(node, scope, hint)
        if inspect.isfunction(called) or (inspect.ismethod(called) and called.__self__ is self.layer):
            return self._inlined(node, called, scope, hint)
        return None

    def _norm(self, node: ast.Call, scope: dict[str, str], hint: str) -> str | None:
        name = self.value(node.args[0], scope)
        if isinstance(self.terms[name], Free):
            return None
        path = ast.unparse(node.func).removeprefix("self.")
        return self._structural(
            Normed(path, self.terms[name]), ast.Call(node.func, [_load(name)], []), {name}, hint, node
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

    def _dropout(self, node: ast.AST, argument: ast.expr, p: float, scope: dict[str, str], hint: str) -> str:
        name = self.value(argument, scope, hint)
        if not p:
            return name
        drop = ast.parse(f"torch.nn.functional.dropout({name}, p={p!r}, training=self.training)", mode="eval").body
        return self._structural(Dropped(p, self.terms[name]), drop, {name}, hint, node)

    def _inlined(self, node: ast.Call, function: Any, scope: dict[str, str], hint: str) -> str | None:
        """A helper function that receives the stream and something else, such as `dropout_add(x, residual, p, training)`."""
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return None
        definition, _ = parsed(function)
        parameters = [argument.arg for argument in definition.args.args][inspect.ismethod(function) :]
        values = dict(zip(parameters, node.args, strict=False))
        values |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg in parameters}
        names = [self.value(argument, scope) for argument in values.values()]
        if sum(not isinstance(self.terms[name], Free) for name in names) < 2:
            return None
        if not any(is_stream(self.terms[name]) for name in names):
            return None
        known, inner = dict(self.conditions), dict(zip(values, names, strict=True))
        for parameter, expression in values.items():
            try:
                known[parameter] = evaluate(expression, self.conditions)
            except Dynamic:
                known.pop(parameter, None)
        outside, self.conditions = self.conditions, known
        self._run(definition.body, inner)
        self.conditions, output, self.output = outside, self.output, ""
        if not output or self.returns is not None:
            raise self.unreadable(node, "calls a function that cannot be read")
        return output

    def _opaque(self, expression: ast.expr, reads: set[str], hint: str, node: ast.AST) -> str:
        name = self.fresh(hint)
        self._define([name], [_bind(name, expression)], reads, set(), node)
        return name

    def lift(self, node: ast.expr, scope: dict[str, str]) -> tuple[ast.expr, set[str], set[str]]:
        """An expression in the variables of the generated code: (expression, variables read, variables of which the shape is read)."""
        lifter = _Lift(self, scope)
        return lifter.visit(copy.deepcopy(node)), lifter.reads, lifter.shapes

    def _define(self, names: Any, statements: list[ast.stmt], reads: set[str], shapes: set[str], node: ast.AST) -> None:
        for statement in statements:
            ast.fix_missing_locations(ast.copy_location(statement, node))
        names = list(names)
        line = getattr(node, "lineno", 1)
        made = Definition(statements=tuple(statements), reads=frozenset(reads), shapes=frozenset(shapes), line=line)
        depends = any(not isinstance(self.terms[name], Free) for name in reads)
        for name in names:
            self.definitions[name] = made
            self.terms[name] = Opaque(name) if depends else Free()

    def fresh(self, hint: str) -> str:
        self.counter += 1
        return f"{hint.strip('_') or 'unused'}__{self.counter}"

    def closure(self, name: str) -> tuple[list[Definition], set[str], set[str]]:
        """The code that computes a variable from streams: (code in order, streams that it reads, streams whose shape it reads)."""
        seen: dict[int, Definition] = {}
        streams: set[str] = set()
        shapes: set[str] = set()
        stack = [name]
        while stack:
            variable = stack.pop()
            if is_stream(self.terms[variable]):
                streams.add(variable)
                continue
            made = self.definitions.get(variable)
            if made is None or id(made) in seen:
                continue
            seen[id(made)] = made
            stack += made.reads
            for shape in made.shapes - made.reads:
                if is_stream(self.terms[shape]):
                    shapes.add(shape)
                else:
                    stack.append(shape)
        order = {id(made): index for index, made in enumerate(self.definitions.values())}
        return sorted(seen.values(), key=lambda made: order[id(made)]), streams, shapes - streams


class _Lift(ast.NodeTransformer):
    """Replaces variables of the family's code by those of the generated code; norms and sums get variables of their own."""

    def __init__(self, reader: Reader, scope: dict[str, str]) -> None:
        self.reader, self.scope = reader, scope
        self.reads: set[str] = set()
        self.shapes: set[str] = set()

    def _use(self, name: str) -> ast.expr:
        self.reads.add(name)
        return _load(name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._use(self.scope[node.id]) if node.id in self.scope else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.scope and node.attr in METADATA:
            name = self.scope[node.value.id]
            self.shapes.add(name)
            return ast.Attribute(_load(name), node.attr, ast.Load())
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        inner = self.reader._call(node, self.scope, "value")
        return self.generic_visit(node) if inner is None else self._use(inner)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Add):
            return self._use(self.reader.value(node, self.scope))
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        try:
            taken = evaluate(node.test, self.reader.conditions)
        except Dynamic:
            return self.generic_visit(node)
        return self.visit(node.body if taken else node.orelse)

    def _refuse(self, node: ast.AST) -> ast.AST:
        if any(isinstance(part, ast.Name) and part.id in self.scope for part in ast.walk(node)):
            raise self.reader.unreadable(node, "has an expression that cannot be read")
        return node

    visit_Lambda = visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_NamedExpr = _refuse


class _Rename(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def parsed(function: Callable[..., Any]) -> tuple[ast.FunctionDef, int]:
    """The syntax tree of a function, and the number of its first line in its file."""
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(function))
    except (OSError, TypeError) as error:
        raise Unreadable(f"the source of {getattr(function, '__qualname__', function)} is not available") from error
    tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree, first


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm over the features: by its class, and because it holds no other modules."""
    return "norm" in type(module).__name__.lower() and not any(True for _ in module.children())


def is_identity(module: nn.Module) -> bool:
    """Whether a module returns its input: `nn.Identity`, or stochastic depth with probability 0."""
    return isinstance(module, nn.Identity) or (
        "droppath" in type(module).__name__.lower() and not getattr(module, "drop_prob", None)
    )


def _load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _bind(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _assignment(target: str, source: str) -> ast.Assign:
    return _bind(target, _load(source))


def _stored(target: ast.expr) -> ast.expr:
    for node in ast.walk(target):
        if isinstance(node, ast.Name | ast.Tuple | ast.Starred):
            node.ctx = ast.Store()
    return target
