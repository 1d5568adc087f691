"""Frozen records that describe where the norms of a transformer are placed. Nothing here needs torch.

A layer is attention followed by a feed-forward network; in the decoder of an encoder-decoder, cross-attention stands between them.
Each of these is a function f in a residual sublayer:

    s = stream_in(x)
    y = stream_out( skip_scale · skip_gain ⊙ s + output_scale · branch_gain ⊙ branch_out( f( branch_scale · branch_in(s) ) ) )

and f may have norms on its projections. An absent norm or gain is `None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from mixln.errors import PlacementError, RecordError
from mixln.records import Sparse, from_json, to_json

NORM_KINDS = {"host": None, "group": "groups", "dyt": "alpha", "derf": "alpha", "bhyt": "alpha", "unit": None}
"""Kind of norm → the field of :class:`Norm` that it requires; kinds that do not require a field refuse it."""
LEGEND = (
    "N is the family's own norm (LayerNorm in GPT-2 and ViT, RMSNorm elsewhere), N[c] a norm whose gain starts at c, U(x) = x/‖x‖, "
    "N_4 an RMSNorm in 4 groups, A attention, A_qkv attention with per-head norms on q, k and v, A_QK attention with norms over the "
    "full width of q and k, A_c attention with a norm before its output projection, A_h attention with a gain per head, A_g attention "
    "with a gate before its output projection, A_1 attention whose values are λ·v + μ·v₁, v₁ those of the first layer, C "
    "cross-attention, with the same marks, F the feed-forward, F_n the feed-forward with a norm before its output projection, F_u with "
    "norms after its input projections, λ and ω learnable gains, α and β a learnable gate with α² + β² = 1, η a learnable rate, s "
    "learnable factors, t the optimizer step, G a GPAS gate, x₀ the layer's input, L the number of layers, l the layer's index from 1."
)
"""Symbols in the formulas."""
STREAMS: dict[str, str] = {
    "single": "",
    "anchored": "",
    "resi-dual": "",
    "dlcl": "",
    "mhc": "stream_count",
    "ihc": "stream_count",
    "gated-streams": "stream_count",
    "hc": "stream_count",
    "hc-static": "stream_count",
    "siamese": "",
    "attnres": "stream_period",
    "attnres-normed": "stream_period",
    "denseformer": "stream_period",
}
"""Form of the residual stream → the entry of :class:`Placement` that it takes and most others refuse; empty if there is none."""
MAPPED = ("mhc", "ihc", "gated-streams", "hc", "hc-static", "attnres", "attnres-normed")
"""Forms with learned maps in place of every skip; of a sublayer they use the branch only."""
BLOCKED = ("attnres", "attnres-normed")
"""Forms whose period must divide the number of layers."""
UNIT = ("mhc", "ihc")
"""Forms whose maps read a norm without gain of all streams together."""
NUMBERED = ("siamese",)
"""Forms with a scale that depends on the layer's number."""
ONE = ("single", "anchored")
"""Forms in which a layer's input and output are one residual stream."""
GATES = ("stream", "skip")
WIDTHS = ("head", "full")
PARALLEL = ("separate", "shared")
BRANCH = ("branch_in", "branch_out", "branch_scale", "branch_gain", "output_scale", "ramp")
"""Entries of a sublayer that concern its branch."""


MOST_LAYERS = 1_024
"""The deepest published model has 1,000 layers (DeepNet, arXiv:2203.00555). Building and counting this many takes one to two minutes."""
MOST_STREAMS = 64
"""Published models have 4."""
MOST_GROUPS = 1_000_000
"""Larger than the size of any normalized vector, in features."""
MOST_STEPS = 10**12
"""Largest number of optimizer steps in a record."""
STREAM_EPS = 1e-6
"""ε of the norm that the maps of several streams read, in DeepSeek-V4 and Qwen4-Exp; Hunyuan 4 has 1e-5."""
LARGEST_EPS = 0.01
LARGEST_SCALE = 10_000.0
"""Largest absolute factor in a record. Published ones are below 20, except KEEL's 2L; larger ones overflow within a few layers."""


def _check_scale(field: str, value: float) -> None:
    """:raises PlacementError: if a factor is NaN or so large that every float format overflows within a model."""
    if not -LARGEST_SCALE <= value <= LARGEST_SCALE:
        shown = f"{value:g}" if isinstance(value, float) or abs(value) < 10**300 else "a number of more than 300 digits"
        raise PlacementError(f"{field} must lie in [{-LARGEST_SCALE:,.0f}, {LARGEST_SCALE:,.0f}], got {shown}")


@dataclass(frozen=True, kw_only=True)
class Norm(Sparse):
    """The kind of norm in a slot.

    :param kind: `host`: the norm of the model family (RMSNorm for Llama); `group`: RMSNorm within groups of features;
        `dyt`: dynamic tanh, γ ⊙ tanh(αx) + β; `derf`: γ ⊙ erf(αx + s) + β; `bhyt`: γ ⊙ tanh(αx / (10·rms(x))); `unit`: x / ‖x‖.
    :param groups: for `group`, the number of groups; must divide the size of the normalized vector.
    :param alpha: for `dyt`, `derf` and `bhyt`, the initial value of the learnable scalar α.
    :param gain: the factor of every feature at the start of training; `unit` has none.
    """

    kind: Literal["host", "group", "dyt", "derf", "bhyt", "unit"] = "host"
    groups: int | None = None
    alpha: float | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in NORM_KINDS:
            raise PlacementError(f"norm kind must be one of {', '.join(NORM_KINDS)}, got {self.kind!r}")
        for entry in filter(None, dict.fromkeys(NORM_KINDS.values())):
            if (NORM_KINDS[self.kind] == entry) != (getattr(self, entry) is not None):
                kinds = " or ".join(repr(kind) for kind, required in NORM_KINDS.items() if required == entry)
                raise PlacementError(
                    f"{entry} is required for norm kind {kinds} and for no other, got kind={self.kind!r}, {entry}={getattr(self, entry)}"
                )
        if self.groups is not None and self.groups < 1:
            raise PlacementError(f"groups must be at least 1, got {self.groups}")
        if self.groups is not None and self.groups > MOST_GROUPS:
            raise PlacementError(
                f"groups must be at most {MOST_GROUPS:,}, got {self.groups if self.groups < 2**63 else 'far more'}"
            )
        if self.alpha is not None:
            _check_scale("alpha", self.alpha)
        _check_scale("gain", self.gain)
        if self.kind == "unit" and self.gain != 1.0:
            raise PlacementError(f"gain must be absent for norm kind 'unit', got {self.gain:g}")

    def call(self, argument: str) -> str:
        """The norm of `argument` as an equation, for example `N(x)`."""
        symbol = {"host": "N", "group": f"N_{self.groups}", "dyt": "DyT", "derf": "Derf", "bhyt": "BHyT", "unit": "U"}[
            self.kind
        ]
        return f"{symbol}{'' if self.gain == 1.0 else f'[{self.gain:.4g}]'}({argument})"


@dataclass(frozen=True, kw_only=True)
class Gain(Sparse):
    """A learnable factor on the skip or the branch.

    :param width: `features`: one factor per feature; `scalar`: one for all features.
    :param initial: value of every factor at the start of training.
    :param profiled: the initial value is measured in one forward pass over a batch (Admin); `initial` holds until then.
    """

    width: Literal["features", "scalar"] = "features"
    initial: float = 1.0
    profiled: bool = False

    def __post_init__(self) -> None:
        if self.width not in ("features", "scalar"):
            raise PlacementError(f"width of a gain must be 'features' or 'scalar', got {self.width!r}")
        _check_scale("initial", self.initial)


@dataclass(frozen=True, kw_only=True)
class Balance(Sparse):
    """A learnable gate between skip and branch, per feature: β = σ(g / temperature), α = √(1 − β²), y = α ⊙ skip + β ⊙ branch.

    :param initial: value of every g at the start of training.
    """

    temperature: float
    initial: float = 0.0

    def __post_init__(self) -> None:
        _check_scale("initial", self.initial)
        if not 0 < self.temperature <= LARGEST_SCALE:
            raise PlacementError(
                f"temperature of a balance must be above 0 and at most {LARGEST_SCALE:,.0f}, got {self.temperature:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Rate(Sparse):
    """A learnable rate η per feature at which the stream turns towards the branch: y = (1 − η) ⊙ skip + η ⊙ branch (nGPT).

    The matrices of such a layer are to be unit vectors along the hidden size, and so are the embeddings and the head beside it.

    :param initial: value of every η at the start of training.
    """

    initial: float

    def __post_init__(self) -> None:
        if not 0 < self.initial <= 1:
            raise PlacementError(f"initial of a rate must be above 0 and at most 1, got {self.initial:g}")


@dataclass(frozen=True, kw_only=True)
class Anchor(Sparse):
    """Initial values of the learnable scalars of keep·x + add·e: x a layer's input and e the embeddings, or its values and the first's."""

    keep: float
    add: float

    def __post_init__(self) -> None:
        for name in ("keep", "add"):
            _check_scale(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class ProjectionNorm(Sparse):
    """A norm on the output of a q, k or v projection, or on the input of the output projection.

    :param width: `head`: over head_dim, one gain of shape (head_dim,) shared by all heads; `full`: over all heads together.
    """

    norm: Norm = field(default_factory=Norm)
    width: Literal["head", "full"] = "head"

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise PlacementError(f"width of a projection norm must be 'head' or 'full', got {self.width!r}")


@dataclass(frozen=True, kw_only=True)
class Projections(Sparse):
    """Norms and gains inside the branches: after q, k and v (before rotary embedding), before the attention's output projection
    (`context`), and before the feed-forward's (`down`). Those of the attention are also those of the cross-attention.

    :param heads: a learnable gain per head before the attention's output projection, after the norm there.
    :param gate: multiplies the input of the attention's output projection by σ(W x), with x the attention's input and W a matrix of its
        own: one number per feature (`full`) or per head (`head`); after norm and gain there.
    :param inner: norm after each input projection of the feed-forward (gate and up).
    :param unit_scale: learnable factors for unit vectors: on q E·s², with E the head size, which makes the softmax's scale √E, and √D·s
        after the feed-forward's input projections, where it has any of its own.
    :param first_value: the output of the value projection is mixed with that of the model's first layer, before norms.
    """

    query: ProjectionNorm | None = None
    key: ProjectionNorm | None = None
    value: ProjectionNorm | None = None
    context: ProjectionNorm | None = None
    down: Norm | None = None
    heads: bool = False
    gate: Literal["head", "full"] | None = None
    inner: Norm | None = None
    unit_scale: bool = False
    first_value: Anchor | None = None

    def __post_init__(self) -> None:
        if self.gate not in (None, *WIDTHS):
            raise PlacementError(f"gate of the attention must be 'head', 'full' or absent, got {self.gate!r}")

    @property
    def letters(self) -> str:
        """First letters of the normalized attention projections: `qkv` for QKV-norm; empty if none is normalized."""
        return self.symbol.lower()

    @property
    def symbol(self) -> str:
        """:attr:`letters` with a capital for a norm over the full width: `QK` in OLMo 2, `qk` in Qwen3."""
        present = {"q": self.query, "k": self.key, "v": self.value, "c": self.context}
        letters = (
            letter if norm.width == "head" else letter.upper() for letter, norm in present.items() if norm is not None
        )
        return "".join(letters)

    @property
    def attention(self) -> str:
        """Name of the attention in formulas, for example `A_qkv`."""
        return self._named("A")

    @property
    def cross_attention(self) -> str:
        """Name of the cross-attention in formulas, for example `C_qkv`."""
        return self._named("C")

    def _named(self, letter: str) -> str:
        marks = (
            self.symbol + ("h" if self.heads else "") + ("g" if self.gate else "") + ("1" if self.first_value else "")
        )
        return f"{letter}_{marks}" if marks else letter

    @property
    def feed_forward(self) -> str:
        """Name of the feed-forward in formulas, for example `F_n`."""
        marks = ("s" if self.unit_scale else "") + ("u" if self.inner else "") + ("n" if self.down else "")
        return f"F_{marks}" if marks else "F"


@dataclass(frozen=True, kw_only=True)
class Sublayer(Sparse):
    """One residual sublayer.

    s = stream_in(x)
    y = stream_out( skip_scale · skip_gain ⊙ s + output_scale · branch_gain ⊙ branch_out( f( branch_scale · branch_in(s) ) ) )

    :param ramp: optimizer steps over which a factor of the branch grows from 0 to 1; absent, it is 1.
    :param balance: a gate between skip and branch in place of the two gains; likewise `rate`.
    :param gpas: position of a GPAS gate G(x) = x − SiLU(g)·stopgrad(x): on the sum (`stream`) or on the skip alone (`skip`).
    """

    stream_in: Norm | None = None
    branch_in: Norm | None = None
    branch_out: Norm | None = None
    stream_out: Norm | None = None
    branch_scale: float = 1.0
    skip_scale: float = 1.0
    branch_gain: Gain | None = None
    skip_gain: Gain | None = None
    output_scale: float = 1.0
    balance: Balance | None = None
    rate: Rate | None = None
    ramp: int | None = None
    gpas: Literal["stream", "skip"] | None = None

    def __post_init__(self) -> None:
        if self.gpas not in (None, *GATES):
            raise PlacementError(f"gpas must be one of {', '.join(GATES)} or absent, got {self.gpas!r}")
        for name in ("branch_scale", "skip_scale", "output_scale"):
            _check_scale(name, getattr(self, name))
        if self.ramp is not None and not 1 <= self.ramp <= MOST_STEPS:
            raise PlacementError(f"ramp must be a number of steps from 1 to {MOST_STEPS:,}, got {self.ramp}")
        gate = "balance" if self.balance is not None else "rate" if self.rate is not None else ""
        for name in ("branch_gain", "skip_gain", "rate"):
            if gate and gate != name and getattr(self, name) is not None:
                raise PlacementError(f"{name} must be absent in a sublayer with a {gate}, which scales skip and branch")

    def formula(self, function: str, also: str = "", start: str = "") -> str:
        """The sublayer as an equation, for example `x ← N(x + A(x))`.

        :param function: name of f, for example `A` or `F`.
        :param also: a further summand, for example ` + x₀`.
        :param start: where the skip starts, for example `x₀`, if that is not the branch's input.
        """
        x = _call(self.stream_in, "x")
        branch = self.branch(function, x)
        skip = start or x
        skip = _times("ω", self.skip_gain, skip if self.skip_scale == 1.0 else f"{self.skip_scale:.4g}·{skip}")
        skip = f"α⊙{skip}" if self.balance is not None else f"(1−η)⊙{skip}" if self.rate is not None else skip
        skip = f"G({skip})" if self.gpas == "skip" else skip
        total = f"{skip}{also} + {branch}"
        total = f"G({total})" if self.gpas == "stream" else total
        return f"x ← {_call(self.stream_out, total)}"

    def branch(self, function: str, x: str) -> str:
        """The branch as an expression, for example `A(N(x))`.

        :param function: name of f; `x`: its input before its norm.
        """
        inner = _call(self.branch_in, x)
        if self.branch_scale != 1.0:
            inner = f"{self.branch_scale:.4g}·{inner}"
        branch = _times("λ", self.branch_gain, _call(self.branch_out, f"{function}({inner})"))
        branch = branch if self.output_scale == 1.0 else f"{self.output_scale:.4g}·{branch}"
        branch = f"β⊙{branch}" if self.balance is not None else f"η⊙{branch}" if self.rate is not None else branch
        return branch if self.ramp is None else f"min(t/{self.ramp}, 1)·{branch}"


@dataclass(frozen=True, kw_only=True)
class Layer(Sparse):
    """Attention followed by feed-forward, each with its own norms; or both side by side.

    :param bottom_to_top: add the layer's input again before the layer's last norm (B2T).
    :param anchor: the layer first mixes the embeddings into its input; requires `streams='anchored'` of the placement.
    :param span: the skip of the feed-forward starts at the layer's input and not after the attention (SpanNorm).
    :param parallel: both read the layer's input, y = x + (A(N(x)) + F(N'(x))), as in GPT-NeoX: `separate` norms, or the attention's
        norm is `shared` by both, as in GPT-J. The sublayers then have nothing but norms, scales and gains of their branches.
    :param number: the layer's number l, from 1, in SiameseNorm's scale 1/√(2l), if it is not its place: where layers were removed.
    :param cross_attention: the sublayer between the two, in the decoder of an encoder-decoder; absent elsewhere.
    """

    attention: Sublayer = field(default_factory=Sublayer)
    cross_attention: Sublayer | None = None
    feed_forward: Sublayer = field(default_factory=Sublayer)
    projections: Projections = field(default_factory=Projections)
    bottom_to_top: bool = False
    span: bool = False
    anchor: Anchor | None = None
    parallel: Literal["separate", "shared"] | None = None
    number: int | None = None

    def __post_init__(self) -> None:
        if self.number is not None and not 1 <= self.number <= MOST_LAYERS:
            shown = self.number if abs(self.number) < 2**63 else "far more"
            raise PlacementError(f"number of a layer must lie in [1, {MOST_LAYERS}], got {shown}")
        if self.parallel not in (None, *PARALLEL):
            raise PlacementError(f"parallel must be one of {', '.join(PARALLEL)} or absent, got {self.parallel!r}")
        if self.span and self.bottom_to_top:
            raise PlacementError(
                "bottom_to_top must be absent in a layer with span, whose skip is that from the layer's input"
            )
        if self.parallel is None:
            return
        for name, sub in (("attention", self.attention), ("feed_forward", self.feed_forward)):
            branch = Sublayer(**{entry: getattr(sub, entry) for entry in BRANCH})
            if sub != branch:
                raise PlacementError(
                    f"{name} of a parallel layer must have entries of its branch only ({', '.join(BRANCH)})"
                )
        shared = self.parallel == "shared" and self.feed_forward.branch_in is not None
        cross = self.cross_attention is not None
        entries = {"bottom_to_top": self.bottom_to_top, "span": self.span, "feed_forward.branch_in": shared}
        entries["cross_attention"] = cross
        if entry := next((name for name, present in entries.items() if present), None):
            raise PlacementError(f"{entry} must be absent in a layer with parallel={self.parallel!r}")

    @property
    def formula(self) -> str:
        """The sublayers as equations, in the symbols of :data:`LEGEND`."""
        attention, feed_forward = self.projections.attention, self.projections.feed_forward
        if self.parallel is not None:
            entry = _call(self.attention.branch_in, "x") if self.parallel == "shared" else "x"
            return f"x ← x + {self.attention.branch(attention, 'x')} + {self.feed_forward.branch(feed_forward, entry)}"
        second = self.feed_forward.formula(
            feed_forward, also=" + x₀" if self.bottom_to_top else "", start="x₀" if self.span else ""
        )
        kept = "x₀ ← x;  " if self.bottom_to_top or self.span else ""
        first = f"{kept}{self.attention.formula(attention)}"
        if self.cross_attention is not None:
            first = f"{first};  {self.cross_attention.formula(self.projections.cross_attention)}"
        return f"{first};  {second}"

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """Attention, the cross-attention if there is one, and feed-forward."""
        cross = () if self.cross_attention is None else (self.cross_attention,)
        return self.attention, *cross, self.feed_forward


@dataclass(frozen=True, kw_only=True)
class Placement(Sparse):
    """The position of every norm in a model: one record per layer.

    :param name: the text it was built from, for example `mix(0.25)`.
    :param layers: one record per layer, first layer first.
    :param encoder: likewise for the encoder of an encoder-decoder, of which `layers` is the decoder; empty elsewhere. Both stacks have
        the same norms outside their layers.
    :param embedding_norm: norm on the embeddings, before the first layer.
    :param final_norm: norm after the last layer; every placement has one.
    :param streams: form of the residual stream: `single`; `anchored`: the embeddings go along beside it; `resi-dual`: a Post-LN and a
        Pre-LN stream side by side (ResiDual); `dlcl`: each layer reads a learned combination of the outputs of all earlier layers;
        `hc`, `hc-static`, `mhc`, `ihc`, `gated-streams`: several streams that learned maps read, write and mix; `siamese`: a Post-LN
        and a Pre-LN stream that each branch reads together (SiameseNorm); `attnres`, `attnres-normed`: attention over the sums of
        earlier blocks of layers; `denseformer`: as `dlcl` without norms.
    :param stream_count: number of streams of those that have maps; 1 for all others.
    :param stream_period: layers of a block of `attnres`, or from one weighted sum of `denseformer` to the next; 1 for all others.
    :param stream_eps: ε of the norm without gain that the maps of `mhc` and `ihc` read; it is added to the mean square.
    :param history_norm: norm that several streams use outside the layers.
    :param init: initialisation recommended by the method's authors.
    """

    name: str
    layers: tuple[Layer, ...]
    encoder: tuple[Layer, ...] = ()
    embedding_norm: Norm | None = None
    final_norm: Norm = field(default_factory=Norm)
    streams: Literal[
        "single", "anchored", "resi-dual", "dlcl", "mhc", "ihc", "gated-streams", "hc", "hc-static", "siamese", "attnres",
        "attnres-normed", "denseformer",
    ] = "single"  # fmt: skip
    stream_count: int = 1
    stream_period: int = 1
    stream_eps: float = STREAM_EPS
    history_norm: Norm = field(default_factory=Norm)
    init: str = "normal"

    def __post_init__(self) -> None:
        if not self.layers:
            raise PlacementError(f"placement {self.name!r} needs at least one layer, got none")
        if self.streams not in STREAMS:
            raise PlacementError(f"streams must be one of {', '.join(STREAMS)}, got {self.streams!r}")
        for entry in ("bottom_to_top", "span", "parallel"):
            if self.streams not in ONE and any(getattr(layer, entry) for layer in self.layers):
                raise PlacementError(f"placement {self.name!r}: {entry} requires a single stream, got {self.streams!r}")
        if not self.numbered and any(layer.number is not None for layer in self.layers):
            raise PlacementError(
                f"placement {self.name!r}: number requires streams {', '.join(NUMBERED)}, got {self.streams!r}; omit it"
            )
        if any((layer.anchor is not None) != (self.streams == "anchored") for layer in self.layers):
            raise PlacementError(
                f"placement {self.name!r}: every layer needs an anchor if streams is 'anchored', and none otherwise, got {self.streams!r}"
            )
        if self.streams != "single" and (self.encoder or any(layer.cross_attention for layer in self.layers)):
            raise PlacementError(
                f"placement {self.name!r}: an encoder and cross-attention require a single stream, got {self.streams!r}"
            )
        self._check_streams()

    def _check_streams(self) -> None:
        """:raises PlacementError: for a number of streams that the form does not have, or a skip that its maps replace."""
        title, depth = self.name or self.streams, len(self.layers)
        for entry in ("stream_count", "stream_period"):
            value, own = getattr(self, entry), STREAMS[self.streams] == entry
            shown = value if abs(value) < 2**63 else "far more"
            if not own and value != 1:
                raise PlacementError(
                    f"placement {title!r}: {entry} must be absent for streams {self.streams!r}, got {shown}"
                )
            least, most = (2, MOST_STREAMS) if entry == "stream_count" else (1, depth)
            if own and not least <= value <= most:
                raise PlacementError(
                    f"placement {title!r}: {entry} of {self.streams} must lie in [{least}, {most}], got {shown}"
                )
        if not 0 < self.stream_eps <= LARGEST_EPS:
            raise PlacementError(
                f"placement {title!r}: stream_eps must lie in (0, {LARGEST_EPS:g}], got {self.stream_eps:g}"
            )
        if self.streams not in UNIT and self.stream_eps != STREAM_EPS:
            raise PlacementError(
                f"placement {title!r}: stream_eps requires streams {', '.join(UNIT)}, got {self.streams!r}; omit it"
            )
        if self.streams in BLOCKED and depth % self.stream_period:
            raise PlacementError(
                f"placement {title!r}: stream_period of {self.streams} must divide the {depth} layers, got {self.stream_period}"
            )
        if self.streams not in MAPPED:
            return
        for sub in (sub for layer in self.layers for sub in layer.sublayers):
            for entry, value in vars(sub).items():
                if entry not in BRANCH and value != getattr(Sublayer(), entry):
                    raise PlacementError(
                        f"placement {title!r}: {entry} must be absent, because the maps of {self.streams} replace the "
                        f"skip; a sublayer may have {', '.join(BRANCH)}"
                    )

    @property
    def unit(self) -> tuple[bool, ...]:
        """For each layer, whether its matrices hold unit vectors."""
        return tuple(any(sub.rate is not None for sub in layer.sublayers) for layer in self.layers)

    @property
    def carries_values(self) -> bool:
        """Whether a layer reads the first layer's values, which the stream then carries."""
        return any(layer.projections.first_value is not None for layer in self.layers)

    @property
    def only_layers(self) -> bool:
        """Whether the layer records are the whole placement: embeddings, final norm and stream are those of a stock model."""
        neutral = Placement(name="", layers=(Layer(),))
        others = [entry.name for entry in fields(self) if entry.name not in ("name", "layers", "encoder", "init")]
        return all(getattr(self, name) == getattr(neutral, name) for name in others)

    @property
    def stacks(self) -> tuple[Placement, ...]:
        """The placement of each stack of layers: that of the encoder, if there is one, and that of `layers`."""
        encoder = (replace(self, layers=self.encoder, encoder=()),) if self.encoder else ()
        return *encoder, replace(self, encoder=())

    @property
    def numbered(self) -> bool:
        """Whether a scale of each layer depends on its number."""
        return self.streams in NUMBERED

    @property
    def profiled(self) -> bool:
        """Whether some gains are initialised by a forward pass over data (Admin)."""
        gains = (gain for layer in self.layers for sub in layer.sublayers for gain in (sub.skip_gain, sub.branch_gain))
        return any(gain is not None and gain.profiled for gain in gains)

    def to_json(self) -> dict[str, Any]:
        """The placement as plain JSON types, name and init first; absent norms and neutral scales are omitted."""
        return {"name": self.name, "init": self.init, **to_json(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Placement:
        """Rebuilds a placement from :meth:`to_json`.

        :raises PlacementError: for an invalid, unknown or missing entry, with its path.
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
