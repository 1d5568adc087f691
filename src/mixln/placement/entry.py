"""What a named placement is, and the layers that several of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mixln.errors import PlacementError
from mixln.placement.records import Layer, Norm, Placement, ProjectionNorm, Projections, Sublayer

HOST = Norm()

PRE = Layer(attention=Sublayer(branch_in=HOST), feed_forward=Sublayer(branch_in=HOST))
POST = Layer(attention=Sublayer(stream_out=HOST), feed_forward=Sublayer(stream_out=HOST))
SANDWICH = Layer(
    attention=Sublayer(branch_in=HOST, branch_out=HOST), feed_forward=Sublayer(branch_in=HOST, branch_out=HOST)
)
QKV_NORM = Projections(query=ProjectionNorm(), key=ProjectionNorm(), value=ProjectionNorm())
HYBRID = Layer(attention=Sublayer(stream_out=HOST), projections=QKV_NORM)
FULL_WIDTH = ProjectionNorm(width="full")
QK_NORM = Projections(query=ProjectionNorm(), key=ProjectionNorm())
FULL_QK_NORM = Projections(query=FULL_WIDTH, key=FULL_WIDTH)
RES_POST = Layer(attention=Sublayer(branch_out=HOST), feed_forward=Sublayer(branch_out=HOST), projections=FULL_QK_NORM)
SUB_LN = replace(PRE, projections=Projections(context=FULL_WIDTH, down=HOST))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named placement.

    :param build: (number of layers, arguments as text) → placement; the arguments are those in parentheses.
    :param arguments: notation of the arguments, for example `(α)`; empty if there are none.
    :param init: name of the recommended initialisation.
    :param notes: parts of the method that the formula does not show.
    :param known_for: published results in its favour, with the source; likewise `known_against`.
    :param elsewhere: other meanings of the name in other software, or other names for the method.
    """

    name: str
    title: str
    formula: str
    source: str
    build: Callable[..., Placement]
    arguments: str = ""
    init: str = "normal"
    notes: str = ""
    known_for: str = ""
    known_against: str = ""
    elsewhere: str = ""

    @property
    def example(self) -> str:
        """The name with its first form of arguments, as a user writes it."""
        return self.name + self.arguments.split(" ")[0]

    @property
    def facts(self) -> dict[str, str]:
        """Heading → published facts; empty ones are omitted."""
        facts = {"For": self.known_for, "Against": self.known_against, "Elsewhere": self.elsewhere}
        return {name: text for name, text in facts.items() if text}


def uniform(layer: Layer) -> Callable[[int], Placement]:
    """A factory that gives every layer the same record."""

    def build(layers: int) -> Placement:
        return Placement(name="", layers=(layer,) * layers)

    return build


def both(sublayer: Sublayer) -> Layer:
    """A layer with the same record for both sublayers."""
    return Layer(attention=sublayer, feed_forward=sublayer)


def positive(name: str, symbol: str, text: str, arguments: str = "") -> float:
    """A number above 0 from an argument.

    :param name: of the placement or modifier, `symbol`: of the argument, for the error; likewise all its `arguments`, if there are
        others.
    :raises PlacementError: if it is not such a number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise PlacementError(f"{name}({arguments or text}): {symbol} must be a number above 0, got {text!r}")
    return value
