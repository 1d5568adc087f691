"""Syntax trees of a family's code: parsing, building and rewriting them."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from torch import nn

from mixln.errors import PlacementError
from mixln.hosts.static import Dynamic, evaluate


class Unreadable(PlacementError):
    """A family's code that is not residual algebra as records can express it; the message names the line."""


def parsed(function: Callable[..., Any]) -> tuple[ast.FunctionDef, int]:
    """The syntax tree of a function, and the number of its first line in its file.

    :raises Unreadable: if its source is not available.
    """
    text, first = _source(inspect.unwrap(function))
    tree = ast.parse(text).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise Unreadable(f"{function.__qualname__} is not defined with def, and cannot be read")
    return tree, first


@cache
def _source(function: Callable[..., Any]) -> tuple[str, int]:
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise Unreadable(f"the source of {getattr(function, '__qualname__', function)} is not available") from error
    return textwrap.dedent("".join(lines)), first


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm over the features: by its class, and because it holds no other modules."""
    return "norm" in type(module).__name__.lower() and not any(True for _ in module.children())


def is_identity(module: nn.Module) -> bool:
    """Whether a module returns its input: `nn.Identity`, or stochastic depth with probability 0."""
    return isinstance(module, nn.Identity) or (
        "droppath" in type(module).__name__.lower() and not getattr(module, "drop_prob", None)
    )


def load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def bind(name: str, value: ast.expr) -> ast.Assign:
    """`name = value`."""
    return ast.Assign([ast.Name(name, ast.Store())], value)


def stored(target: ast.expr) -> ast.expr:
    """An expression as the target of an assignment."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name | ast.Tuple | ast.Starred):
            node.ctx = ast.Store()
    return target


def module_path(layer: nn.Module, node: ast.expr) -> str:
    """The path of the submodule in `self.attention.output.dense` or `self.layer[0].norm`, or of the longest part of it that is one;
    empty for none."""
    steps: list[str | int] = []
    while not isinstance(node, ast.Name):
        match node:
            case ast.Attribute(attr=name):
                steps.append(name)
            case ast.Subscript(slice=ast.Constant(value=int(index))):
                steps.append(index)
            case ast.Subscript(slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(index)))):
                steps.append(-index)
            case _:
                return ""
        node = node.value
    found: list[str] = []
    module: Any = layer if node.id == "self" else None
    for step in reversed(steps):
        if isinstance(step, int):
            step = str(step % len(module)) if isinstance(module, nn.ModuleList) else ""
        module = getattr(module, step, None)
        if not isinstance(module, nn.Module):
            break
        found.append(step)
    return ".".join(found)


class Rename(ast.NodeTransformer):
    """Replaces names of variables."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class Substitute(ast.NodeTransformer):
    """Replaces expressions and statements of a function's code.

    :param pairs: code, as `ast.unparse` writes it → the code in its place.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = pairs
        self.missing = set(pairs)
        """Code that has not been found."""

    def visit(self, node: ast.AST) -> Any:
        text = ast.unparse(node) if self.pairs and isinstance(node, ast.expr | ast.stmt) else ""
        if text not in self.pairs:
            return self.generic_visit(node)
        self.missing.discard(text)
        (made,) = ast.parse(self.pairs[text]).body
        new = made.value if isinstance(node, ast.expr) and isinstance(made, ast.Expr) else made
        for part in ast.walk(new):
            ast.copy_location(part, node)
        return new


class Within(ast.NodeTransformer):
    """Turns the code of a submodule into code of the layer that holds it: `self` becomes the submodule.

    `apply_chunking_to_forward(f, size, dim, *x)` becomes `f(*x)` where its chunk size is 0: chunks save memory and change no value.

    :param path: expression of the submodule in the layer's code, for example `self.attention.output`.
    """

    def __init__(self, layer: nn.Module, path: str) -> None:
        self.layer, self.path = layer, path

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id != "self" or self.path == "self":
            return node
        return ast.copy_location(ast.parse(self.path, mode="eval").body, node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func).rpartition(".")[2] != "apply_chunking_to_forward" or len(node.args) < 4:
            return node
        try:
            size = evaluate(node.args[1], {"self": self.layer})
        except Dynamic:
            return node
        return node if size else ast.copy_location(ast.Call(node.args[0], node.args[3:], []), node)


def arguments_of(definition: ast.FunctionDef, call: ast.Call, *, method: bool) -> dict[str, ast.expr] | None:
    """Parameter of a function → the expression that a call gives it, defaults included; `None` if that cannot be told.

    :param method: its first parameter is `self`, which is left out.
    """
    declared = definition.args
    names = [argument.arg for argument in (*declared.posonlyargs, *declared.args)][method:]
    only = [argument.arg for argument in declared.kwonlyargs]
    if any(isinstance(argument, ast.Starred) for argument in call.args) or len(call.args) > len(names):
        return None
    found: dict[str, ast.expr] = dict(zip(names, call.args, strict=False))
    found |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    if declared.vararg is not None or not found.keys() <= {*names, *only}:
        return None
    defaults: dict[str, ast.expr | None] = dict(zip(names[::-1], declared.defaults[::-1], strict=False))
    defaults |= dict(zip(only, declared.kw_defaults, strict=True))
    for name in (*names, *only):
        if name not in found:
            default = defaults.get(name)
            if not isinstance(default, ast.Constant):
                return None
            found[name] = default
    rest = [keyword.value for keyword in call.keywords if keyword.arg is None]
    if declared.kwarg is None:
        return None if rest else found
    if len(rest) > 1:
        return None
    return found | {declared.kwarg.arg: rest[0] if rest else ast.Dict([], [])}


def unassigned(definition: ast.FunctionDef, call: ast.Call, *, method: bool) -> set[str]:
    """Parameters of a function that a call does not name, so that `**kwargs` of the call could hold them."""
    declared = definition.args
    names = [argument.arg for argument in (*declared.posonlyargs, *declared.args)][method:]
    named = {*names[: len(call.args)], *(keyword.arg for keyword in call.keywords)}
    return {*names, *(argument.arg for argument in declared.kwonlyargs)} - named


def same_globals(definition: ast.FunctionDef, function: Callable[..., Any], globals_: Mapping[str, Any]) -> bool:
    """Whether the global names in a function's code mean the same in another module."""
    own = inspect.unwrap(function).__globals__
    return all(name in globals_ and globals_[name] is own[name] for name in _globals(definition) if name in own)


def _globals(definition: ast.FunctionDef) -> Iterator[str]:
    for statement in definition.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
                yield node.id
