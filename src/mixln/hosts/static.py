"""Evaluates the expressions of a family's code that depend on nothing but a module or a config, without running the code.

A layer's `forward` asks, for example, `if self.layer_type == "linear_attention"`: for a given layer this has one answer.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda value, group: value in group,
    ast.NotIn: lambda value, group: value not in group,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
FUNCTIONS = {"isinstance": isinstance, "hasattr": hasattr, "getattr": getattr, "len": len, "float": float, "int": int}
CHANGING = ("training", "gradient_checkpointing", "_attn_implementation")
"""Attributes of a module that change between calls."""


class Dynamic(Exception):
    """An expression depends on more than the module or config."""


def evaluate(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """The value of an expression.

    :param names: name → value, for example `self` → a module.
    :raises Dynamic: if it depends on another name, or is of a kind that is not evaluated.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() if node.id in names:
            return names[node.id]
        case ast.Attribute() if node.attr not in CHANGING:
            try:
                return getattr(evaluate(node.value, names), node.attr)
            except AttributeError as error:
                raise Dynamic from error
        case ast.Subscript():
            return _call(operator.getitem, [evaluate(node.value, names), evaluate(node.slice, names)])
        case ast.UnaryOp():
            return _call(OPERATORS.get(type(node.op)), [evaluate(node.operand, names)])
        case ast.BinOp():
            return _call(OPERATORS.get(type(node.op)), [evaluate(node.left, names), evaluate(node.right, names)])
        case ast.IfExp():
            return evaluate(node.body if evaluate(node.test, names) else node.orelse, names)
        case ast.BoolOp():
            return _bool(node, names)
        case ast.Compare():
            return _compare(node, names)
        case ast.Tuple() | ast.List() | ast.Set():
            return [evaluate(item, names) for item in node.elts]
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS and not node.keywords:
            return _call(FUNCTIONS[name], [evaluate(argument, names) for argument in node.args])
    raise Dynamic


def _bool(node: ast.BoolOp, names: Mapping[str, Any]) -> Any:
    """`and` and `or`: one operand may decide although another is dynamic, as in `self.training and self.p > 0`."""
    wanted, unknown, value = isinstance(node.op, ast.Or), False, None
    for part in node.values:
        try:
            value = evaluate(part, names)
        except Dynamic:
            unknown = True
            continue
        if bool(value) is wanted:
            return value
    if unknown:
        raise Dynamic
    return value


def _compare(node: ast.Compare, names: Mapping[str, Any]) -> bool:
    values = [evaluate(value, names) for value in (node.left, *node.comparators)]
    pairs = zip(node.ops, values[:-1], values[1:], strict=True)
    return all(_call(OPERATORS[type(op)], [left, right]) for op, left, right in pairs)


def _call(function: Callable[..., Any] | None, arguments: list[Any]) -> Any:
    if function is None:
        raise Dynamic
    try:
        return function(*arguments)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise Dynamic from error
