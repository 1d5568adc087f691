"""The residual sublayers of a stock layer, read from its code: records, names of norms, and the code of the two branches."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from torch import nn

from mixln.hosts.algebra import Reader
from mixln.hosts.branch_code import BranchCode, header
from mixln.hosts.code import Definition
from mixln.hosts.syntax import Unreadable, is_norm, module_path
from mixln.hosts.terms import Dropped, LayerInput, Normed, Scaled, Sum, Term, is_stream, summands
from mixln.placement import Layer, Norm, Sublayer


@dataclass(frozen=True, kw_only=True)
class Read:
    """One residual sublayer as it was read.

    :param norms: slot of :class:`~mixln.placement.Sublayer` → path of the norm in the layer.
    :param module: the attention or the feed-forward: the submodule of the layer with the most parameters that the branch uses.
    :param modules: paths of all submodules that it uses, in the order of the code.
    :param dropout: probability of the dropout on the branch.
    :param arguments: arguments of the layer, other than its input, that the branch uses.
    :param passed: variables that this branch computes and the layer returns beside the stream; the branch returns them after its output.
    :param source: the submodule whose output, or the first entry of it, is the branch before its dropout and norm. Empty where code
        between a module and the sum makes the branch.
    :param output: the submodule whose output, or the first entry of it, is added to the stream: the norm on the branch, or else `source`.
    :param entry: the submodule that receives the stream to which the branch is added; empty if none receives it alone.
    """

    record: Sublayer
    norms: dict[str, str]
    branch: BranchCode
    module: str
    modules: tuple[str, ...]
    dropout: float
    arguments: tuple[str, ...]
    passed: tuple[str, ...]
    source: str
    output: str
    entry: str

    @property
    def plain(self) -> bool:
        """Whether the output of `module` is the branch before its norm, with nothing between."""
        return self.source == self.module

    @property
    def largest_first(self) -> tuple[str, ...]:
        """The submodules, `module` first."""
        return self.module, *(name for name in self.modules if name != self.module)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A stock layer as it was read; `sublayers` are attention, the cross-attention of a decoder layer that has one, and feed-forward.

    :param returns: for each entry beside the stream in the tuple that it returns, the index of the sublayer whose branch makes it;
        `None` for attention weights, which are not kept. `None` if it returns no tuple.
    """

    sublayers: tuple[Read, ...]
    returns: tuple[int | None, ...] | None = None
    parallel: Literal["separate", "shared"] | None = None

    @property
    def record(self) -> Layer:
        records = {side: read.record for side, read in self.sides.items()}
        return replace(Layer(parallel=self.parallel), **records)

    @property
    def sides(self) -> dict[str, Read]:
        """Entry of :class:`~mixln.placement.Layer` → sublayer."""
        names = (
            ("attention", "cross_attention", "feed_forward")
            if len(self.sublayers) > 2
            else ("attention", "feed_forward")
        )
        return dict(zip(names, self.sublayers, strict=True))

    @property
    def norms(self) -> dict[str, str]:
        """Name of a norm in a placed layer → its name in the stock layer."""
        return {
            f"{side}_residual.{slot}": path for side, read in self.sides.items() for slot, path in read.norms.items()
        }


def read_layer(layer: nn.Module, replaced: Mapping[str, str] = MappingProxyType({}), *, cross: bool = False) -> Reading:
    """Reads the residual sublayers of a stock layer.

    :param replaced: code of its `forward` → the code that is read in its place.
    :param cross: it is a decoder layer of an encoder-decoder, with cross-attention.
    :raises Unreadable: with the line of the family's code that records cannot express.
    """
    try:
        return _Match(Reader(layer, replaced=replaced, cross=cross), 2 + cross).reading()
    except Unreadable as outer:
        try:
            return _Match(Reader(layer, opening=True, replaced=replaced, cross=cross), 2 + cross).reading()
        except Unreadable:
            raise outer from None


class _Match:
    """Matches the term that a layer returns with the form of `number` residual sublayers, two or three."""

    def __init__(self, reader: Reader, number: int) -> None:
        self.reader, self.number = reader, number
        self.variables: dict[Term, str] = {}
        for name, term in reader.terms.items():
            self.variables.setdefault(term, name)

    def reading(self) -> Reading:
        term = self.reader.terms[self.reader.output]
        if self.number == 2 and (side_by_side := self._side_by_side(term)) is not None:
            return side_by_side
        reads = list(self._sublayers(term))[::-1]
        if len(reads) != self.number:
            wanted = (
                "attention and a feed-forward" if self.number == 2 else "attention, cross-attention and a feed-forward"
            )
            raise self._refuse(None, f"has {len(reads)} residual sublayers, not {wanted}")
        attention, *cross, feed_forward = reads
        if self._reach(feed_forward) >= self._reach(attention):
            raise self._refuse(None, "does not call attention first and a feed-forward second")
        if cross and ["encoder_hidden_states" in read.arguments for read in reads] != [False, True, False]:
            raise self._refuse(None, "does not call its cross-attention second")
        self._check_norms(reads)
        return Reading(sublayers=tuple(reads), returns=self._returns(reads))

    def _returns(self, reads: Sequence[Read]) -> tuple[int | None, ...] | None:
        """See :attr:`Reading.returns`.

        :raises Unreadable: if the layer returns a value that no branch computes.
        """
        if self.reader.beside is None:
            return None
        made = {name: side for side, read in enumerate(reads) for name in read.passed}
        if made.keys() != {*self.reader.passed}:
            raise self.reader.returns_more()
        return tuple(made.get(name) for name in self.reader.beside)

    def _reach(self, read: Read) -> tuple[int, bool]:
        """The number of the layer's arguments that a branch uses, and whether `**kwargs` is among them."""
        rest = self.reader.definition.args.kwarg
        return len(read.arguments), rest is not None and rest.arg in read.arguments

    def _side_by_side(self, term: Term) -> Reading | None:
        """Reads a sum of the layer's input, attention and feed-forward; `None` for a layer of another form."""
        parts = list(summands(term))
        branches = [part for part in parts if not is_stream(part)]
        if len(parts) != 3 or len(branches) != 2 or LayerInput() not in parts:
            return None
        entries = {self.reader.terms[name] for part in branches for name in self._inputs(part)}
        if not all(
            entry == LayerInput() or (isinstance(entry, Normed) and entry.of == LayerInput()) for entry in entries
        ):
            return None
        reads = [self._sublayer(LayerInput(), branch, {})[0] for branch in branches]
        attention, feed_forward = sorted(reads, key=lambda read: -len(read.arguments))
        if len(attention.arguments) == len(feed_forward.arguments):
            raise self._refuse(term, "adds two branches of which neither is a feed-forward")
        shared = attention.norms == feed_forward.norms
        if shared:
            feed_forward = replace(feed_forward, norms={}, record=replace(feed_forward.record, branch_in=None))
        self._check_norms([attention, feed_forward])
        parallel = "shared" if shared else "separate"
        sublayers = attention, feed_forward
        return Reading(sublayers=sublayers, returns=self._returns([*sublayers]), parallel=parallel)

    def _inputs(self, branch: Term) -> set[str]:
        """The streams that a branch reads."""
        while isinstance(branch, Normed | Dropped):
            branch = branch.of
        return self.reader.closure(self.variables[branch])[1]

    def _check_norms(self, reads: list[Read]) -> None:
        """:raises Unreadable: if a norm of the layer has two places, or is inside a branch."""
        used = [path for read in reads for path in read.norms.values()]
        if doubled := sorted({path for path in used if used.count(path) > 1}):
            raise self._refuse(None, f"uses {doubled[0]} in two places")
        for read in reads:
            for name in read.modules:
                if is_norm(self.reader.layer.get_submodule(name)):
                    raise self._refuse(None, f"has the norm {name} where no record has one")

    def _sublayers(self, term: Term) -> Iterator[Read]:
        """The sublayers that end in a term, last first."""
        while not isinstance(term, LayerInput):
            norms: dict[str, str] = {}
            if isinstance(term, Normed) and isinstance(term.of, Sum):
                norms["stream_out"], term = term.norm, term.of
            if not isinstance(term, Sum):
                raise self._refuse(term, "does not end in a sum of stream and branch")
            skip, branch = (term.left, term.right) if is_stream(term.left) else (term.right, term.left)
            if is_stream(branch):
                raise self._refuse(term, "adds two residual streams")
            if not is_stream(skip):
                raise self._refuse(term, "does not add a branch to the residual stream")
            read, term = self._sublayer(skip, branch, norms)
            yield read

    def _sublayer(self, skip: Term, branch: Term, norms: dict[str, str]) -> tuple[Read, Term]:
        """Reads one sublayer and returns it with the term that it starts from."""
        skip_scale = branch_scale = 1.0
        if isinstance(skip, Scaled):
            skip_scale, skip = skip.factor, skip.of
        if isinstance(branch, Normed):
            norms["branch_out"], branch = branch.norm, branch.of
        dropout = 0.0
        if isinstance(branch, Dropped):
            dropout, branch = branch.p, branch.of
        if isinstance(branch, Normed | Dropped | Scaled):
            raise self._refuse(branch, "has more between a branch and the stream than a norm")
        root = self.variables[branch]
        code, streams, shapes = self.reader.closure(root)
        inputs = {self.reader.terms[name] for name in streams}
        if len(inputs) != 1:
            raise self._refuse(branch, f"has a branch that reads {len(inputs)} different values of the stream")
        (entry,) = inputs
        if entry != skip:
            if isinstance(entry, Scaled):
                branch_scale, entry = entry.factor, entry.of
            if isinstance(entry, Normed) and entry != skip:
                norms["branch_in"], entry = entry.norm, entry.of
            if entry != skip:
                raise self._refuse(branch, "has a branch that does not read the stream to which it is added")
        if isinstance(skip, Normed) and isinstance(skip.of, LayerInput):
            norms["stream_in"], skip = skip.norm, skip.of
        passed = tuple(name for name in self.reader.passed if self.reader.definitions.get(name) in code)
        source, arguments = self._source((root, *passed), code, streams | shapes)
        modules, called = self._modules(code)
        largest = max(called or modules, key=self._size)
        origin = self._origin(root)
        read = Read(
            record=replace(
                Sublayer(skip_scale=skip_scale, branch_scale=branch_scale), **{slot: Norm() for slot in norms}
            ),
            norms=norms,
            branch=BranchCode(self.reader.cls, source),
            module=largest,
            modules=modules,
            dropout=dropout,
            arguments=arguments,
            passed=passed,
            source=origin,
            output=norms.get("branch_out", origin),
            entry=norms.get("branch_in") or self._receiver(code, streams, branch_scale),
        )
        return read, skip

    def _source(
        self, returned: tuple[str, ...], code: list[Definition], inputs: set[str]
    ) -> tuple[str, tuple[str, ...]]:
        """The code of a branch as a function that returns some variables, and the arguments of the layer that it uses."""
        entry = self.reader.entry
        bound = [
            f"if {name} is not None: raise ValueError('{name} needs cross-attention, which a placed layer does not have')"
            for name in self.reader.absent
            if name != "output_attentions"
        ]
        bound += [
            f"if {name} is None: raise ValueError('{name} is missing: this layer has cross-attention')"
            for name in self.reader.present
        ]
        if "output_attentions" in self.reader.absent:
            bound.append("if output_attentions: raise ValueError('a placed layer does not return attention weights')")
        bound += [f"{name} = {entry}" for name in sorted(inputs) if name != entry]
        statements = [ast.unparse(statement) for made in code for statement in made.statements]
        body = [*bound, *statements, f"return {', '.join(returned)}"]
        lines = "\n".join(line for text in body for line in text.splitlines())
        used = {node.id for text in statements for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        indented = "\n".join("    " + line for line in lines.splitlines())
        named = tuple(name for name in self.reader.parameters[1:] if name in used)
        return f"{header(self.reader.cls)}\n{indented}\n", named

    def _origin(self, root: str) -> str:
        """The submodule that returned a variable, alone or first in a tuple; empty if another expression made it."""
        (statement, *others) = self.reader.definitions[root].statements
        if others or not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            return ""
        (target,) = statement.targets
        first = target.elts[0] if isinstance(target, ast.Tuple) else target
        return self._called(statement.value) if ast.unparse(first) == root else ""

    def _receiver(self, code: list[Definition], streams: set[str], scale: float) -> str:
        """The first submodule that some code calls with a stream; empty if there is none, or the stream is scaled before."""
        for node in (node for made in code for statement in made.statements for node in ast.walk(statement)):
            if scale == 1.0 and isinstance(node, ast.Call) and (name := self._called(node)):
                first = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "hidden_states")][:1]
                if any(isinstance(value, ast.Name) and value.id in streams for value in first):
                    return name
        return ""

    def _called(self, node: ast.Call) -> str:
        """The path of the submodule that is called; empty for a function."""
        function = node.func
        path = module_path(self.reader.layer, function)
        whole = isinstance(function, ast.Attribute) and path.rpartition(".")[2] == function.attr
        return path if whole else ""

    def _modules(self, code: list[Definition]) -> tuple[tuple[str, ...], set[str]]:
        """Paths of the submodules that some code uses, in the order of the code, and which of them it calls."""
        used: dict[str, None] = {}
        called: set[str] = set()
        for made in code:
            for node in (node for statement in made.statements for node in ast.walk(statement)):
                if isinstance(node, ast.Attribute) and (path := module_path(self.reader.layer, node)):
                    used[path] = None
                if isinstance(node, ast.Call) and (path := self._called(node)):
                    called.add(path)
        # `self.attention.output` is read on the way to `self.attention.output.dense`.
        inner = tuple(name for name in used if not any(other.startswith(f"{name}.") for other in used))
        if not any(self._size(name) for name in inner):
            raise self._refuse(None, "has a branch without a module")
        return inner, called.intersection(inner)

    def _size(self, path: str) -> int:
        return sum(parameter.numel() for parameter in self.reader.layer.get_submodule(path).parameters())

    def _refuse(self, term: Term | None, why: str) -> Exception:
        made = (
            self.reader.definitions.get(self.variables[term]) if term is not None and term in self.variables else None
        )
        if made is None:
            return self.reader.unreadable(self.reader.definition.body[-1], why)
        return self.reader.unreadable(_original(self.reader.definition, made.line), why)


def _original(definition: ast.FunctionDef, line: int) -> ast.AST:
    """The innermost statement of a function that starts at a line."""
    found: ast.AST = definition.body[-1]
    for node in ast.walk(definition):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            found = node
    return found
