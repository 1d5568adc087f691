"""The variables that a layer's `forward` computes: what each is, and the code that computes it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mixln.hosts.syntax import Substitute, Unreadable, parsed
from mixln.hosts.terms import Free, LayerInput, Opaque, Term, is_stream

ABSENT: dict[str, Any] = {"encoder_hidden_states": None, "encoder_attention_mask": None, "output_attentions": False}
"""Argument → its value in a placed layer, which has no cross-attention and returns no attention weights."""
ENCODED: dict[str, Any] = {"encoder_hidden_states": object()}
"""Argument → a stand-in for its value in a placed layer with cross-attention: something that is not `None`."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Statements that compute variables.

    :param reads: variables that they read; `shapes`: variables of which they read only shape, dtype or device.
    """

    statements: tuple[ast.stmt, ...]
    reads: frozenset[str]
    shapes: frozenset[str]
    line: int


class Code:
    """The variables of one layer's `forward`; each is assigned once.

    :param layer: the layer, with its submodules.
    :param replaced: code of the layer's `forward` → the code that is read in its place.
    :param cross: the layer is read with the output of an encoder, as a decoder layer of an encoder-decoder.
    :raises Unreadable: if the layer takes no input, or does not have that code.
    """

    def __init__(self, layer: nn.Module, replaced: Mapping[str, str], *, cross: bool) -> None:
        self.layer = layer
        self.cls = type(layer)
        self.definition, self.first = parsed(self.cls.forward)
        self.function: Callable[..., Any] = inspect.unwrap(self.cls.forward)
        self.globals: dict[str, Any] = self.function.__globals__
        self.terms: dict[str, Term] = {}
        """Variable → what it is."""
        self.definitions: dict[str, Definition] = {}
        """Variable → the code that computes it."""
        substitute = Substitute(replaced)
        substitute.visit(self.definition)
        if substitute.missing:
            raise self.unreadable(self.definition, f"does not have the code {min(substitute.missing)}")
        arguments = self.definition.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
        if len(names) < 2:
            raise self.unreadable(self.definition, "has no input")
        self.entry = names[1]
        self.parameters = names[1:]
        self.terms |= {name: Free() for name in names[2:]} | {self.entry: LayerInput()}
        self.counter = 0
        self.present = tuple(name for name in names if name in ENCODED) if cross else ()
        self.absent = tuple(name for name in names if name in ABSENT and not (cross and name.startswith("encoder_")))
        self.known: dict[str, Any] = {n: v for n, v in self.globals.items() if isinstance(v, type | bool)}
        self.known["self"] = layer
        """Names whose values are known in every function of the layer."""
        stated = {name: ABSENT[name] for name in self.absent} | {name: ENCODED[name] for name in self.present}
        self.conditions: dict[str, Any] = self.known | stated
        """Names whose values are known in the function that is being read."""

    def unreadable(self, node: ast.AST, why: str) -> Unreadable:
        """The error for a line of the family's code."""
        file = (inspect.getsourcefile(self.function) or "").rpartition("/")[2]
        line = self.first + getattr(node, "lineno", 1) - 1
        text = ast.unparse(node).splitlines()[0]
        text = text if len(text) <= 100 else text[:97] + "..."
        return Unreadable(f"{self.cls.__name__} {why}: {file}:{line}: {text}")

    def fresh(self, hint: str) -> str:
        """A new name for a variable."""
        self.counter += 1
        return f"{hint.strip('_') or 'unused'}__{self.counter}"

    def define(
        self, names: Iterable[str], statements: list[ast.stmt], reads: set[str], shapes: set[str], node: ast.AST
    ) -> None:
        """Records the statements that compute variables, which are opaque or free of the layer's input."""
        for statement in statements:
            ast.fix_missing_locations(ast.copy_location(statement, node))
        line = getattr(node, "lineno", 1)
        made = Definition(statements=tuple(statements), reads=frozenset(reads), shapes=frozenset(shapes), line=line)
        depends = any(not isinstance(self.terms[name], Free) for name in reads)
        for name in names:
            self.definitions[name] = made
            self.terms[name] = Opaque(name) if depends else Free()

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
