"""The frozen records that say where the norms of a transformer stand, and nothing else (no torch here).

One layer is attention, then feed-forward. Each of the two is a function f in a residual sublayer:

    s = stream_in(x)
    y = stream_out( skip_scale · skip_gain ⊙ s + branch_gain ⊙ branch_out( f( branch_scale · branch_in(s) ) ) )

and f may carry norms on its own projections. An absent norm or gain is `None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mixln.errors import PlacementError, RecordError
from mixln.records import Sparse, from_json, to_json

NORM_KINDS = {"host": None, "group": "groups", "dyt": "alpha"}
"""Kind of norm → the entry of :class:`Norm` that it needs, and that no other kind has."""
LEGEND = (
    "N is the family's own norm (LayerNorm in GPT-2 and ViT, RMSNorm in the others), N_4 one in 4 groups, A attention, A_qkv with "
    "norms per head on q, k and v, A_QK with norms over the full width of q and k, A_c with one on the context before its last "
    "projection, F the feed-forward, F_n with a norm before its last projection, λ and ω learnable gains, G a GPAS gate, "
    "x₀ the layer's input, L the number of layers, l the layer, counted from 1."
)
"""The symbols of the formulas."""
STREAMS = ("single", "resi-dual", "dlcl")
GATES = ("stream", "skip")


MOST_LAYERS = 1_024
"""The deepest published model has 1,000 layers (DeepNet, arXiv:2203.00555). To build and count this many takes a minute or two."""
MOST_GROUPS = 1_000_000
"""More features than any vector that is normalized has."""
LARGEST_SCALE = 10_000.0
"""Magnitude of the largest factor in a record. Published ones lie below 20; powers of larger ones overflow within a few layers."""


def _check_scale(field: str, value: float) -> None:
    """:raises PlacementError: if a factor is not a number, or too large for any float format to carry through a model."""
    if not -LARGEST_SCALE <= value <= LARGEST_SCALE:
        shown = f"{value:g}" if isinstance(value, float) or abs(value) < 10**300 else "a number of more than 300 digits"
        raise PlacementError(f"{field} must lie from {-LARGEST_SCALE:,.0f} to {LARGEST_SCALE:,.0f}, got {shown}")


@dataclass(frozen=True, kw_only=True)
class Norm(Sparse):
    """What kind of norm stands in a slot.

    :param kind: `host`: the norm of the model family (RMSNorm for Llama); `group`: RMSNorm within groups of features;
        `dyt`: dynamic tanh, γ ⊙ tanh(αx) + β.
    :param groups: for `group`, the number of groups; it must divide the size of the vector it normalizes.
    :param alpha: for `dyt`, what the learnable scalar α starts at.
    """

    kind: Literal["host", "group", "dyt"] = "host"
    groups: int | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in NORM_KINDS:
            raise PlacementError(f"norm kind must be one of {', '.join(NORM_KINDS)}, got {self.kind!r}")
        for kind, entry in NORM_KINDS.items():
            if entry is not None and (self.kind == kind) != (getattr(self, entry) is not None):
                raise PlacementError(
                    f"{entry} belongs to the norm kind {kind!r} only, got kind={self.kind!r}, {entry}={getattr(self, entry)}"
                )
        if self.groups is not None and self.groups < 1:
            raise PlacementError(f"groups must be at least 1, got {self.groups}")
        if self.groups is not None and self.groups > MOST_GROUPS:
            raise PlacementError(
                f"groups must be at most {MOST_GROUPS:,}, got {self.groups if self.groups < 2**63 else 'far more'}"
            )
        if self.alpha is not None:
            _check_scale("alpha", self.alpha)

    def call(self, argument: str) -> str:
        """This norm of something, as in an equation: `N(x)`."""
        symbol = {"host": "N", "group": f"N_{self.groups}", "dyt": "DyT"}[self.kind]
        return f"{symbol}({argument})"


@dataclass(frozen=True, kw_only=True)
class Gain(Sparse):
    """A learnable factor on the skip or on the branch.

    :param width: `features`: one factor a feature; `scalar`: one for all.
    :param initial: the value of every factor at the start of training.
    :param profiled: the start is measured by one pass over a batch of data instead (Admin); `initial` holds until then.
    """

    width: Literal["features", "scalar"] = "features"
    initial: float = 1.0
    profiled: bool = False

    def __post_init__(self) -> None:
        if self.width not in ("features", "scalar"):
            raise PlacementError(f"width of a gain must be 'features' or 'scalar', got {self.width!r}")
        _check_scale("initial", self.initial)


@dataclass(frozen=True, kw_only=True)
class ProjectionNorm(Sparse):
    """A norm on the output of a q, k or v projection, or on the input of an output projection.

    :param width: `head`: over head_dim, one gain of shape (head_dim,) shared by all heads; `full`: over all heads at once.
    """

    norm: Norm = field(default_factory=Norm)
    width: Literal["head", "full"] = "head"

    def __post_init__(self) -> None:
        if self.width not in ("head", "full"):
            raise PlacementError(f"width of a projection norm must be 'head' or 'full', got {self.width!r}")


@dataclass(frozen=True, kw_only=True)
class Projections(Sparse):
    """Norms inside the branches: after q, k and v (before rotary embedding), before the attention's output projection
    (`context`), and before the feed-forward's (`down`)."""

    query: ProjectionNorm | None = None
    key: ProjectionNorm | None = None
    value: ProjectionNorm | None = None
    context: ProjectionNorm | None = None
    down: Norm | None = None

    @property
    def letters(self) -> str:
        """The normalized projections of the attention by their first letters, `qkv` for QKV-norm; empty without any."""
        return self.symbol.lower()

    @property
    def symbol(self) -> str:
        """As :attr:`letters`, with a capital for a norm over the full width: `QK` in OLMo 2, `qk` in Qwen3."""
        present = {"q": self.query, "k": self.key, "v": self.value, "c": self.context}
        return "".join(
            letter if norm.width == "head" else letter.upper() for letter, norm in present.items() if norm is not None
        )


@dataclass(frozen=True, kw_only=True)
class Sublayer(Sparse):
    """One residual sublayer.

    s = stream_in(x);  y = stream_out( skip_scale · skip_gain ⊙ s + branch_gain ⊙ branch_out( f( branch_scale · branch_in(s) ) ) )

    :param gpas: where a GPAS gate G(x) = x − SiLU(g)·stopgrad(x) stands: on the sum (`stream`), or on the skip alone (`skip`).
    """

    stream_in: Norm | None = None
    branch_in: Norm | None = None
    branch_out: Norm | None = None
    stream_out: Norm | None = None
    branch_scale: float = 1.0
    skip_scale: float = 1.0
    branch_gain: Gain | None = None
    skip_gain: Gain | None = None
    gpas: Literal["stream", "skip"] | None = None

    def __post_init__(self) -> None:
        if self.gpas not in (None, *GATES):
            raise PlacementError(f"gpas must be one of {', '.join(GATES)} or absent, got {self.gpas!r}")
        for name in ("branch_scale", "skip_scale"):
            _check_scale(name, getattr(self, name))

    def formula(self, function: str, also: str = "") -> str:
        """This sublayer as an equation, for example `x ← N(x + A(x))`.

        :param function: the name of f, for example `A` or `F`.
        :param also: what else is added to the sum.
        """
        x = _call(self.stream_in, "x")
        branch = _call(self.branch_in, x)
        if self.branch_scale != 1.0:
            branch = f"{self.branch_scale:.4g}·{branch}"
        branch = _times("λ", self.branch_gain, _call(self.branch_out, f"{function}({branch})"))
        skip = _times("ω", self.skip_gain, x if self.skip_scale == 1.0 else f"{self.skip_scale:.4g}·{x}")
        skip = f"G({skip})" if self.gpas == "skip" else skip
        total = f"{skip}{also} + {branch}"
        total = f"G({total})" if self.gpas == "stream" else total
        return f"x ← {_call(self.stream_out, total)}"


@dataclass(frozen=True, kw_only=True)
class Layer(Sparse):
    """Attention, then feed-forward, each with its own norms.

    :param bottom_to_top: the layer's input is added once more before the last norm of the layer (B2T).
    """

    attention: Sublayer = field(default_factory=Sublayer)
    feed_forward: Sublayer = field(default_factory=Sublayer)
    projections: Projections = field(default_factory=Projections)
    bottom_to_top: bool = False

    @property
    def formula(self) -> str:
        """Both sublayers as equations, in the symbols of :data:`LEGEND`."""
        symbol = self.projections.symbol
        attention = self.attention.formula("A_" + symbol if symbol else "A")
        inner = "" if self.projections.down is None else "_n"
        feed_forward = self.feed_forward.formula(f"F{inner}", also=" + x₀" if self.bottom_to_top else "")
        return f"{'x₀ ← x;  ' if self.bottom_to_top else ''}{attention};  {feed_forward}"

    @property
    def sublayers(self) -> tuple[Sublayer, Sublayer]:
        """Attention and feed-forward."""
        return self.attention, self.feed_forward


@dataclass(frozen=True, kw_only=True)
class Placement(Sparse):
    """Where every norm of a model stands: one record a layer.

    :param name: the text that it came from, for example `mix(0.25)`.
    :param layers: one record a layer, the first layer first.
    :param embedding_norm: a norm on the embeddings, before the first layer.
    :param final_norm: the norm after the last layer, which every placement keeps.
    :param streams: how the residual stream is kept: `single`; `resi-dual`: a Post-LN and a Pre-LN stream side by
        side (ResiDual); `dlcl`: every layer reads a learned combination of the outputs of all layers before it.
    :param history_norm: the norms that several streams have of their own, outside the layers.
    :param init: the initialisation that the method's authors recommend.
    """

    name: str
    layers: tuple[Layer, ...]
    embedding_norm: Norm | None = None
    final_norm: Norm = field(default_factory=Norm)
    streams: Literal["single", "resi-dual", "dlcl"] = "single"
    history_norm: Norm = field(default_factory=Norm)
    init: str = "normal"

    def __post_init__(self) -> None:
        if not self.layers:
            raise PlacementError(f"placement {self.name!r} needs at least one layer, got none")
        if self.streams not in STREAMS:
            raise PlacementError(f"streams must be one of {', '.join(STREAMS)}, got {self.streams!r}")
        if self.streams != "single" and any(layer.bottom_to_top for layer in self.layers):
            raise PlacementError(f"placement {self.name!r}: bottom_to_top is for a single stream, got {self.streams!r}")

    @property
    def only_layers(self) -> bool:
        """Whether the records of the layers say all: embeddings, final norm and stream are as in a stock model."""
        return self == Placement(name=self.name, layers=self.layers, init=self.init)

    @property
    def profiled(self) -> bool:
        """Whether gains start at what a pass over data measures (Admin)."""
        gains = (gain for layer in self.layers for sub in layer.sublayers for gain in (sub.skip_gain, sub.branch_gain))
        return any(gain is not None and gain.profiled for gain in gains)

    def to_json(self) -> dict[str, Any]:
        """The expanded placement as plain JSON types; absent norms and neutral scales are left out, name and init come first."""
        return {"name": self.name, "init": self.init, **to_json(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Placement:
        """Reads what :meth:`to_json` wrote.

        :raises PlacementError: for an entry that is wrong, unknown or missing, with its path.
        """
        try:
            return from_json(cls, data, "placement")
        except RecordError as error:
            raise PlacementError(str(error)) from error


def _call(norm: Norm | None, argument: str) -> str:
    return argument if norm is None else norm.call(argument)


def _times(symbol: str, gain: Gain | None, argument: str) -> str:
    if gain is None:
        return argument
    return f"{symbol}{'⊙' if gain.width == 'features' else '·'}{argument}"
