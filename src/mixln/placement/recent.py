"""Placements of one residual stream in models and papers of 2025 and 2026, and NormFormer.

Formulas as in :mod:`mixln.placement.zoo`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mixln.errors import PlacementError
from mixln.placement.entry import FULL_WIDTH, HOST, HYBRID, PRE, QKV_NORM, SANDWICH, Entry, both, positive, uniform
from mixln.placement.records import Balance, Layer, Norm, Placement, ProjectionNorm, Projections, Rate, Sublayer


def _dssn(layers: int, constant: str = "1") -> Placement:
    start = positive("dssn", "c", constant) / math.sqrt(layers)
    return uniform(both(Sublayer(branch_in=HOST, branch_out=Norm(gain=start))))(layers)


def _beam(layers: int) -> Placement:
    def average(count: int) -> Sublayer:
        return replace(SANDWICH.attention, skip_scale=math.sqrt((count - 1) / count), output_scale=1 / math.sqrt(count))

    # The embeddings are the first of the averaged terms, so the first sublayer is the second.
    records = (
        Layer(attention=average(2 * index), feed_forward=average(2 * index + 1)) for index in range(1, layers + 1)
    )
    return Placement(name="", layers=tuple(records))


def _minimax(layers: int, skip: str = "", branch: str = "1") -> Placement:
    alpha = positive("minimax", "α", skip, f"{skip},{branch}") if skip else (2 * layers) ** 0.25
    beta = positive("minimax", "β", branch, f"{skip},{branch}")
    return uniform(both(Sublayer(stream_in=HOST, skip_scale=alpha, output_scale=beta)))(layers)


def _muse(layers: int, temperature: str = "0.3") -> Placement:
    balance = Balance(temperature=positive("muse", "the temperature", temperature))
    return uniform(both(replace(SANDWICH.attention, balance=balance)))(layers)


def _hybrid_scaled(layers: int) -> Placement:
    def scaled(index: int) -> Layer:
        attention, feed_forward = (replace(sub, output_scale=1 / math.sqrt(index)) for sub in HYBRID.sublayers)
        return Layer(attention=attention, feed_forward=feed_forward, projections=QKV_NORM)

    return Placement(name="", layers=tuple(scaled(index) for index in range(1, layers + 1)))


def _span(layers: int) -> Placement:
    layer = replace(both(Sublayer(stream_out=HOST)), span=True)
    first = replace(layer, attention=Sublayer(branch_in=HOST, stream_out=HOST))
    return Placement(name="", layers=(first,) + (layer,) * (layers - 1))


NORMFORMER = Layer(
    attention=SANDWICH.attention, feed_forward=PRE.feed_forward, projections=Projections(heads=True, down=HOST)
)
SIMPLE = replace(
    both(Sublayer(branch_out=HOST)),
    projections=Projections(query=FULL_WIDTH, key=FULL_WIDTH, value=FULL_WIDTH, inner=HOST),
)

UNIT = Norm(kind="unit")


def _ngpt(layers: int, rate: str = "0.05") -> Placement:
    eta = positive("ngpt", "η₀", rate)
    if eta > 1:
        raise PlacementError(f"ngpt({rate}): η₀ must be at most 1, got {rate!r}")
    on_sphere = ProjectionNorm(norm=UNIT)
    layer = replace(
        both(Sublayer(branch_out=UNIT, stream_out=UNIT, rate=Rate(initial=eta))),
        projections=Projections(query=on_sphere, key=on_sphere, unit_scale=True),
    )
    return Placement(name="", layers=(layer,) * layers, embedding_norm=UNIT, final_norm=UNIT)


RECENT = (
    Entry(
        name="dssn",
        title="depth-scaled sandwich norm",
        arguments="(c)",
        formula="x ← x + N[c/√L](A(N(x)));  x ← x + N[c/√L](F(N(x)))",
        source="arXiv:2504.07866, arXiv:2602.17004",
        build=_dssn,
        notes="Sandwich-LN whose outer norms start with the gain c/√L, by default c = 1 as in Arcee Trinity; Pangu Ultra tunes c. "
        "The gains are learnable. Pangu Ultra adds TinyInit, N(0, 1/(2dL)) for every matrix, which is not the recommended init here.",
        known_for="No loss spike in the 10 to 17 trillion tokens of Arcee Trinity (arXiv:2602.17004); used in Pangu Ultra and Pangu Ultra "
        "MoE (arXiv:2504.07866, arXiv:2505.04519).",
        elsewhere="transformers' afmoe has the four norms and not their initial gain.",
    ),
    Entry(
        name="beam",
        title="depth-averaging sandwich",
        formula="x ← √((k−1)/k)·x + √(1/k)·N(A(N(x)));  same for F;  k = 2, 3, 4, … over the sublayers",
        source="transformers' beam (Beam-1.0-501B-A23B)",
        build=_beam,
        notes="The stream is the sum of the embeddings and all branches so far, divided by the root of their number; the constants are "
        "those of the whole model in a mixture. In exact arithmetic it is Sandwich-LN whose stream is divided by √k: all that read the "
        "stream normalize it. The stream keeps the variance of its terms, which matters for ε, low precision and GPAS.",
    ),
    Entry(
        name="minimax",
        title="MiniMax's Post-LN with constants",
        arguments="(α,β)",
        formula="x ← α·N(x) + β·A(N(x));  x ← α·N(x) + β·F(N(x))",
        source="arXiv:2501.08313",
        build=_minimax,
        notes="By default α = (2L)^¼, which is the 3.5566 of MiniMax-Text-01's 80 layers, and β = 1. Its layers alternate linear and "
        "softmax attention, each with constants in the config; here one pair holds for all.",
        known_for="The placement of MiniMax-Text-01 with 456 billion parameters (arXiv:2501.08313).",
        known_against="MiniMax-M2 is Pre-LN (transformers' minimax_m2).",
    ),
    Entry(
        name="muse",
        title="Muse Spark's residual gate",
        arguments="(temperature)",
        formula="x ← α⊙x + β⊙N(A(N(x)));  x ← α⊙x + β⊙N(F(N(x)));  β = σ(g/0.3), α = √(1−β²)",
        source="transformers' muse_spark (Muse-Spark-Open-816B-A42B)",
        build=_muse,
        notes="One learnable g per feature, 0 at the start, so β = ½ and α = 0.866. Muse Spark draws g from N(0, 0.02²), whose mean "
        "that is; gains draw nothing here, so that placements share their other weights. It has no gain in the norm after the attention, "
        "and scales the feed-forward's output before its norm; here both are the family's own norm.",
    ),
    Entry(
        name="hybrid-scaled",
        title="HybridNorm with branches scaled by depth",
        formula="x ← N(x + A_qkv(x)/√l);  x ← x + F(x)/√l",
        source="arXiv:2602.08064",
        build=_hybrid_scaled,
        init="megatron",
        notes="From a comparison in the SiameseNorm paper, whose layer index starts at 0: 1/√(l+1) there is 1/√l here.",
        known_for="Trains at a learning rate of 1e-3, where HybridNorm diverges: perplexity 10.65 at 1.3B (arXiv:2602.08064, table 1).",
        known_against="Behind SiameseNorm in the same table: 10.43 at 1e-3 (arXiv:2602.08064).",
    ),
    Entry(
        name="span",
        title="SpanNorm",
        formula="x₀ ← x;  x ← N(x + A(x));  x ← N(x₀ + F(x));  in layer 1 A(N(x))",
        source="arXiv:2601.22580",
        build=_span,
        init="scaled",
        notes="The skip of the feed-forward starts at the layer's input. No code of its authors was found; the first layer follows "
        "another implementation of the paper's equations 5 to 8.",
        known_for="Trains up to 128 layers and 6.5B parameters (arXiv:2601.22580).",
        known_against="Reported to diverge at a learning rate of 2e-3 (arXiv:2602.08064).",
        elsewhere="FuseNorm (OpenReview azXOzJFwuf) is by the same group.",
    ),
    Entry(
        name="normformer",
        title="NormFormer",
        formula="x ← x + N(A_h(N(x)));  x ← x + W_2 N(act(W_1 N(x)))",
        source="arXiv:2110.09456",
        build=uniform(NORMFORMER),
        notes="A_h has a learnable gain per head before its output projection, initially 1. The paper's optional gain on the skip of the "
        "feed-forward is left out. In a gated feed-forward the norm is before the output projection. Not available for families whose "
        "experts hold their output projections in one tensor.",
        known_for="Reaches Pre-LN's perplexity at 1.3B parameters 24% faster (arXiv:2110.09456).",
    ),
    Entry(
        name="simple",
        title="SimpleNorm",
        formula="x ← x + N(A_QKV(x));  x ← x + N(F_u(x))",
        source="arXiv:2602.01212",
        build=uniform(SIMPLE),
        notes="A norm over the full width directly after every linear map: q, k, v, o, gate, up and down; none before. The norms after o "
        "and down are those on the branch. Not available where the gate and up projections are one tensor, as in experts. Its authors "
        "use embeddings of variance 1: --init embedding(1)+normal.",
        known_for="Training loss 2.208 against 2.290 at 7B; trains at 3 to 10 times the learning rate (arXiv:2602.01212).",
        elsewhere="Norms over the full width of q and k are in OLMo 2.",
    ),
    Entry(
        name="ngpt",
        title="normalized transformer on the unit sphere",
        arguments="(η₀)",
        formula="x ← U((1−η)⊙x + η⊙U(A_qks(x)));  x ← U((1−η)⊙x + η⊙U(F_s(x)))",
        source="arXiv:2410.01131",
        build=_ngpt,
        notes="U(x) = x/‖x‖, without a gain; η = |λ|·η₀·√d starts at η₀ per feature, 0.05 as in the authors' code. Every matrix holds "
        "unit vectors along the hidden size, again after every step: mixln compare and pretrain see to it, with transformers' "
        "Trainer mixln.StepCallback does, and in other loops mixln.set_step(model, t); a training in which nothing does warns. q "
        "and k are unit vectors per head and the softmax's scale is √E, E the head size; s per feature on q (squared), on the "
        "gate and up projections (√d·s), and per token on the logits. The authors have one s_qk for q and k after the rotary "
        "embedding; here s_qk² stands on q before it, where every family has a place, which at the start is the same. Left out: "
        "s_u and s_v of experts whose weights are one tensor, s_z of heads that are not for tokens; routers stay as they are. The"
        " authors use no weight decay and no warm-up.",
        known_for="The loss of a GPT in 4 to 20 times fewer steps (its abstract); used in Nemotron Labs Dory (transformers' dory).",
        known_against="Its learning rate does not transfer across width, depth and horizon (arXiv:2604.27077, read second-hand).",
        elsewhere="transformers' dory adds norms before the output projections and a gate, and applies s_qk² to q after the rotary "
        "embedding.",
    ),
)
"""Entries of the zoo."""
