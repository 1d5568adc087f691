"""The frozen records that say where the norms of a transformer stand, and nothing else (no torch here).

One layer is attention, then feed-forward. Each of the two is a function f in a residual sublayer:

    y = stream_out( skip_scale · x + branch_out( f( branch_scale · branch_in(x) ) ) )

and f may carry norms on its own projections. An absent norm is `None`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal

from mixln.errors import PlacementError

NORM_KINDS = ("host", "group")


@dataclass(frozen=True, kw_only=True)
class Norm:
    """What kind of norm stands in a slot.

    :param kind: `host`: the norm of the model family (RMSNorm for Llama); `group`: RMSNorm within groups of features.
    :param groups: for `group`, the number of groups; it must divide the size of the vector it normalizes.
    """

    kind: Literal["host", "group"] = "host"
    groups: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in NORM_KINDS:
            raise PlacementError(f"norm kind must be one of {', '.join(NORM_KINDS)}, got {self.kind!r}")
        if (self.kind == "group") != (self.groups is not None):
            raise PlacementError(
                f"groups belongs to the norm kind 'group' only, got kind={self.kind!r}, groups={self.groups}"
            )
        if self.groups is not None and self.groups < 1:
            raise PlacementError(f"groups must be at least 1, got {self.groups}")


@dataclass(frozen=True, kw_only=True)
class ProjectionNorm:
    """A norm on the output of a q, k or v projection, or on the input of an output projection.

    :param width: `head`: over head_dim, one gain of shape (head_dim,) shared by all heads; `full`: over all heads at once.
    """

    norm: Norm = field(default_factory=Norm)
    width: Literal["head", "full"] = "head"

    def __post_init__(self) -> None:
        if self.width not in ("head", "full"):
            raise PlacementError(f"width of a projection norm must be 'head' or 'full', got {self.width!r}")


@dataclass(frozen=True, kw_only=True)
class Projections:
    """Norms inside the attention: after q, k and v (before rotary embedding), and before the output projection (`context`)."""

    query: ProjectionNorm | None = None
    key: ProjectionNorm | None = None
    value: ProjectionNorm | None = None
    context: ProjectionNorm | None = None

    @property
    def letters(self) -> str:
        """The normalized projections by their first letters, `qkv` for QKV-norm; empty without any."""
        present = {"q": self.query, "k": self.key, "v": self.value, "c": self.context}
        return "".join(letter for letter, norm in present.items() if norm is not None)


@dataclass(frozen=True, kw_only=True)
class Sublayer:
    """One residual sublayer: y = stream_out( skip_scale · x + branch_out( f( branch_scale · branch_in(x) ) ) )."""

    branch_in: Norm | None = None
    branch_out: Norm | None = None
    stream_out: Norm | None = None
    branch_scale: float = 1.0
    skip_scale: float = 1.0

    def formula(self, function: str) -> str:
        """This sublayer as an equation, for example `x ← N(x + A(x))`.

        :param function: the name of f, for example `A` or `F`.
        """
        branch = _call(self.branch_in, "x")
        if self.branch_scale != 1.0:
            branch = f"{self.branch_scale:.4g}·{branch}"
        branch = _call(self.branch_out, f"{function}({branch})")
        skip = "x" if self.skip_scale == 1.0 else f"{self.skip_scale:.4g}·x"
        return f"x ← {_call(self.stream_out, f'{skip} + {branch}')}"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Attention, then feed-forward, each with its own norms."""

    attention: Sublayer = field(default_factory=Sublayer)
    feed_forward: Sublayer = field(default_factory=Sublayer)
    projections: Projections = field(default_factory=Projections)

    @property
    def formula(self) -> str:
        """Both sublayers as equations; A_qkv is an attention with norms on q, k and v."""
        letters = self.projections.letters
        return f"{self.attention.formula('A_' + letters if letters else 'A')};  {self.feed_forward.formula('F')}"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where every norm of a model stands: one record a layer.

    :param name: the text that it came from, for example `mix(0.25)`.
    :param layers: one record a layer, the first layer first.
    :param embedding_norm: a norm on the embeddings, before the first layer.
    :param init: the initialisation that the method's authors recommend.
    """

    name: str
    layers: tuple[Layer, ...]
    embedding_norm: Norm | None = None
    init: str = "normal"

    def __post_init__(self) -> None:
        if not self.layers:
            raise PlacementError(f"placement {self.name!r} needs at least one layer, got none")

    def to_json(self) -> dict[str, Any]:
        """The expanded placement as plain JSON types; absent norms and neutral scales are left out."""
        return {"name": self.name, "init": self.init, **_compact(self, skip=("name", "init"))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Placement:
        """Reads what :meth:`to_json` wrote.

        :raises PlacementError: on an unknown or missing entry, with its path.
        """
        if not isinstance(data, Mapping) or "layers" not in data:
            raise PlacementError("a stored placement needs the entry 'layers', one record a layer")
        return _expand(cls, data, "placement")


def _call(norm: Norm | None, argument: str) -> str:
    if norm is None:
        return argument
    return f"N({argument})" if norm.kind == "host" else f"N_{norm.groups}({argument})"


def _compact(record: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """A record as a dict without the entries that have their default value."""
    entries = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if item.name in skip or value == _default(item):
            continue
        if dataclasses.is_dataclass(value):
            value = _compact(value)
        elif isinstance(value, tuple):
            value = [_compact(entry) for entry in value]
        entries[item.name] = value
    return entries


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


_RECORDS: dict[str, type] = {
    record.__name__: record for record in (Norm, ProjectionNorm, Projections, Sublayer, Layer, Placement)
}


def _expand(record: type, data: Any, path: str) -> Any:
    """Builds `record` from what :func:`_compact` wrote, refusing entries that the record does not have."""
    if not isinstance(data, Mapping):
        raise PlacementError(f"{path} must be a JSON object, got {data!r}")
    fields = {item.name: item for item in dataclasses.fields(record)}
    if extra := sorted(set(data) - set(fields)):
        raise PlacementError(f"{path} has the unknown entry {extra[0]!r}; known: {', '.join(fields)}")
    values = {name: _value(str(fields[name].type), value, f"{path}.{name}") for name, value in data.items()}
    try:
        return record(**values)
    except TypeError as error:
        raise PlacementError(f"{path}: {error}") from error


def _value(annotation: str, value: Any, path: str) -> Any:
    """One entry as its annotation wants it: a record, a tuple of records, a text or a number."""
    nested = next((word for word in re.findall(r"\w+", annotation) if word in _RECORDS), None)
    if nested is None:
        wanted = {"str": str, "float": (int, float), "int | None": (int, NoneType)}.get(annotation, str)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise PlacementError(f"{path} must be {'a text' if wanted is str else 'a number'}, got {value!r}")
        return value
    if not annotation.startswith("tuple"):
        return _expand(_RECORDS[nested], value, path)
    if not isinstance(value, list | tuple):
        raise PlacementError(f"{path} must be a list, one entry a layer, got {value!r}")
    return tuple(_expand(_RECORDS[nested], entry, f"{path}[{index}]") for index, entry in enumerate(value))
