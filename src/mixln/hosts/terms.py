"""Terms of the residual algebra: what a value in a layer's code is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """What a value is."""


@dataclass(frozen=True)
class LayerInput(Term):
    """The layer's input."""


@dataclass(frozen=True)
class Free(Term):
    """Independent of the layer's input: masks, positions, caches, numbers."""


@dataclass(frozen=True)
class Normed(Term):
    """A norm of the layer, by its path, applied to a value."""

    norm: str
    of: Term


@dataclass(frozen=True)
class Dropped(Term):
    """Dropout with probability `p` > 0."""

    p: float
    of: Term


@dataclass(frozen=True)
class Scaled(Term):
    """A constant times a value."""

    factor: float
    of: Term


@dataclass(frozen=True)
class Sum(Term):
    left: Term
    right: Term


@dataclass(frozen=True)
class Tupled(Term):
    """A tuple of variables, and perhaps another tuple after them whose entries are not known.

    :param rest: variable of that tuple.
    """

    items: tuple[str, ...]
    rest: str | None = None


@dataclass(frozen=True)
class Opaque(Term):
    """A value that other code computes; `name` is its variable."""

    name: str


def is_stream(term: Term) -> bool:
    """Whether a value is the residual stream at some point, possibly normalized."""
    match term:
        case LayerInput():
            return True
        case Normed() | Dropped() | Scaled():
            return is_stream(term.of)
        case Sum():
            return is_stream(term.left) or is_stream(term.right)
    return False


def summands(term: Term) -> Iterator[Term]:
    """The summands of a sum; a term that is none is its own only summand."""
    if isinstance(term, Sum):
        yield from summands(term.left)
        yield from summands(term.right)
    else:
        yield term
