"""Modifiers that change any placement, written before it with a +: `qknorm+pre`, `gpas+mix(0.25)`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mixln.errors import PlacementError
from mixln.placement.entry import positive
from mixln.placement.records import ONE, WIDTHS, Anchor, Gain, Layer, Norm, Placement, Projections, Sublayer
from mixln.placement.zoo import group_norm, projection_norms

NORM_SLOTS = ("stream_in", "branch_in", "branch_out", "stream_out")


@dataclass(frozen=True, kw_only=True)
class Modifier:
    """A change that applies to any placement.

    :param apply: (placement, arguments as text) → placement.
    :param arguments: notation of the arguments, for example `(groups)`; empty if there are none.
    :param notes: what a user needs to know besides the title.
    """

    name: str
    title: str
    source: str
    apply: Callable[..., Placement]
    arguments: str = ""
    notes: str = ""

    @property
    def example(self) -> str:
        """The name with its arguments, as a user writes it."""
        return self.name + self.arguments

    @property
    def facts(self) -> dict[str, str]:
        """Always empty: unlike placements, modifiers have no published results for or against them here."""
        return {}


def _each_layer(placement: Placement, change: Callable[[Layer], Layer]) -> Placement:
    return replace(placement, layers=tuple(change(layer) for layer in placement.layers))


def _each_sublayer(placement: Placement, change: Callable[[Sublayer], Sublayer]) -> Placement:
    return _each_layer(
        placement,
        lambda layer: replace(layer, attention=change(layer.attention), feed_forward=change(layer.feed_forward)),
    )


def _norm(placement: Placement, letters: str = "", width: str = "head") -> Placement:
    if not letters or set(letters) - set("qkvc") or len(set(letters)) < len(letters):
        raise PlacementError(
            f"norm({letters}): needs letters from qkvc (c is the context), each at most once, got {letters!r}; for example norm(qkv)+pre"
        )
    if width not in ("head", "full"):
        raise PlacementError(f"norm({letters},{width}): the width must be head or full, got {width!r}")
    added = {slot: norm for slot, norm in vars(projection_norms(letters, width)).items() if norm is not None}
    return _each_layer(placement, lambda layer: replace(layer, projections=replace(layer.projections, **added)))


def _named(letters: str) -> Callable[..., Placement]:
    def apply(placement: Placement, width: str = "head") -> Placement:
        return _norm(placement, letters, width)

    return apply


def _bare(placement: Placement) -> Placement:
    def remove(layer: Layer) -> Layer:
        kept = layer.projections
        return replace(
            layer,
            projections=Projections(heads=kept.heads, gate=kept.gate, first_value=kept.first_value),
        )

    return _each_layer(placement, remove)


def _gated(placement: Placement, width: str = "full") -> Placement:
    if width not in WIDTHS:
        raise PlacementError(f"gated({width}): the width must be head or full, got {width!r}")
    gate: Any = width
    return _each_layer(placement, lambda layer: replace(layer, projections=replace(layer.projections, gate=gate)))


def _of_kind(placement: Placement, norm: Norm) -> Placement:
    """Replaces every norm of the residual sublayers, and the norms of a multi-stream placement, by `norm`; initial gains stay.

    :raises PlacementError: for gated streams, whose only norms belong to their maps.
    """
    if placement.streams == "gated-streams":
        raise PlacementError(
            f"{norm.kind}: gated-streams normalizes each stream inside its maps, and has no other norm; choose another placement"
        )

    def change(sublayer: Sublayer) -> Sublayer:
        present = {slot: old for slot in NORM_SLOTS if (old := getattr(sublayer, slot)) is not None}
        return replace(sublayer, **{slot: replace(norm, gain=old.gain) for slot, old in present.items()})

    changed = _each_sublayer(placement, change)
    return changed if placement.streams in ONE else replace(changed, history_norm=norm)


def _group(placement: Placement, groups: str = "4") -> Placement:
    return _of_kind(placement, group_norm(groups))


def _everywhere(placement: Placement, norm: Norm) -> Placement:
    """Replaces the norms on the stream, including those on the embeddings and before the head."""
    on_embedding = None if placement.embedding_norm is None else norm
    return replace(_of_kind(placement, norm), embedding_norm=on_embedding, final_norm=norm)


def _dyt(placement: Placement, alpha: str = "0.5") -> Placement:
    return _everywhere(placement, Norm(kind="dyt", alpha=positive("dyt", "α", alpha)))


def _derf(placement: Placement, alpha: str = "0.5") -> Placement:
    return _everywhere(placement, Norm(kind="derf", alpha=positive("derf", "α", alpha)))


def _bhyt(placement: Placement, slope: str = "2") -> Placement:
    return _everywhere(placement, Norm(kind="bhyt", alpha=positive("bhyt", "λ", slope)))


def _multiplier(placement: Placement, constant: str = "") -> Placement:
    # MiniCPM's scale_depth of 1.4 over the root of the number of layers.
    factor = positive("multiplier", "c", constant) if constant else 1.4 / math.sqrt(len(placement.layers))
    return _each_sublayer(placement, lambda sublayer: replace(sublayer, output_scale=factor * sublayer.output_scale))


def _prores(placement: Placement, steps: str = "1000") -> Placement:
    if not steps.isdecimal() or len(steps) > 12 or int(steps) < 1:
        raise PlacementError(f"prores({steps}): T must be a number of optimizer steps of at least 1, got {steps!r}")

    def ramped(index: int, layer: Layer) -> Layer:
        attention, feed_forward = (replace(sub, ramp=int(steps) * index) for sub in layer.sublayers)
        return replace(layer, attention=attention, feed_forward=feed_forward)

    return replace(
        placement, layers=tuple(ramped(index, layer) for index, layer in enumerate(placement.layers, start=1))
    )


def _anchored(placement: Placement, keep: str | None = None, add: str = "0") -> Placement:
    if placement.streams != "single":
        raise PlacementError(
            f"x0: needs a placement of one residual stream, got {placement.streams}; choose one such as pre or mix(0.25)"
        )
    depth = len(placement.layers)
    if keep is not None:
        anchors = [_scalars("x0", keep, add)] * depth
    else:
        # Linear from the first layer to the last, as in nanochat.
        shares = [index / max(1, depth - 1) for index in range(depth)]
        anchors = [Anchor(keep=1.15 - 0.1 * share, add=0.2 - 0.15 * share) for share in shares]
    layers = tuple(replace(layer, anchor=anchor) for layer, anchor in zip(placement.layers, anchors, strict=True))
    return replace(placement, layers=layers, streams="anchored", embedding_norm=placement.embedding_norm or Norm())


def _scalars(name: str, keep: str, add: str) -> Anchor:
    values = {"λ": keep, "μ": add}
    for symbol, text in values.items():
        try:
            finite = math.isfinite(float(text))
        except ValueError:
            finite = False
        if not finite:
            raise PlacementError(f"{name}({keep},{add}): {symbol} must be a number, got {text!r}")
    return Anchor(keep=float(keep), add=float(add))


def _value_residual(placement: Placement, keep: str = "0.5", add: str = "0.5") -> Placement:
    mix = _scalars("vres", keep, add)
    mixed = (replace(layer, projections=replace(layer.projections, first_value=mix)) for layer in placement.layers[1:])
    return replace(placement, layers=(placement.layers[0], *mixed))


def _layer_scale(placement: Placement, start: str = "") -> Placement:
    if any(sub.branch_gain is not None for layer in placement.layers for sub in layer.sublayers):
        raise PlacementError(
            "layerscale: the branches already have a gain; remove layerscale, or choose a placement without a branch gain"
        )
    if any(sub.balance is not None or sub.rate is not None for layer in placement.layers for sub in layer.sublayers):
        raise PlacementError("layerscale: the placement has a gate that scales its branches; remove layerscale")
    depth = len(placement.layers)
    # Thresholds from the LayerScale paper (arXiv:2103.17239).
    rule = 0.1 if depth <= 18 else 1e-5 if depth <= 24 else 1e-6
    gain = Gain(initial=positive("layerscale", "λ", start) if start else rule)
    return _each_sublayer(placement, lambda sublayer: replace(sublayer, branch_gain=gain))


def _gpas(placement: Placement) -> Placement:
    def gate(sublayer: Sublayer) -> Sublayer:
        return replace(sublayer, gpas="stream" if sublayer.stream_out is None else "skip")

    return _each_sublayer(placement, gate)


MODIFIERS: dict[str, Modifier] = {
    modifier.name: modifier
    for modifier in (
        Modifier(
            name="qknorm",
            title="norms on q and k",
            source="arXiv:2010.04245",
            apply=_named("qk"),
            arguments="(width)",
            notes="Per head by default, with one gain shared by all heads; qknorm(full) normalizes over all heads together, as in OLMo 2.",
        ),
        Modifier(
            name="qkvnorm",
            title="norms on q, k and v",
            source="arXiv:2503.04598",
            apply=_named("qkv"),
            arguments="(width)",
        ),
        Modifier(
            name="norm",
            title="norms on any of q, k, v and c (the context, before the output projection)",
            source="arXiv:2503.04598",
            apply=_norm,
            arguments="(letters,width)",
            notes="For example norm(kv)+pre or norm(qkvc,full)+post; per head by default.",
        ),
        Modifier(
            name="bare",
            title="removes all norms on the projections, including the family's own",
            source="",
            apply=_bare,
            notes="For example, bare+stock on Qwen3 is Pre-LN without QK-norm.",
        ),
        Modifier(
            name="gated",
            title="a gate on the attention: its heads times σ(W x) before the output projection, x its input and W a new matrix",
            source="arXiv:2505.06708",
            apply=_gated,
            arguments="(width)",
            notes="One number per feature by default, the variant that its paper recommends; gated(head) has one per head. W starts like "
            "the other matrices. Used in Qwen3-Next and Arcee Trinity.",
        ),
        Modifier(
            name="group",
            title="norms of the residual sublayers normalize within groups of features",
            source="arXiv:1803.08494",
            apply=_group,
            arguments="(groups)",
        ),
        Modifier(
            name="dyt",
            title="dynamic tanh γ⊙tanh(αx) + β in place of the norms on the residual stream, including the final norm",
            source="arXiv:2503.10622",
            apply=_dyt,
            arguments="(α)",
            notes="α starts at 0.5 by default. For language models the paper chooses α by width, larger before attention, and adds a "
            "learnable scale after the embedding, which is not implemented here. Norms on projections are unchanged.",
        ),
        Modifier(
            name="derf",
            title="dynamic erf γ⊙erf(αx + s) + β in place of the norms on the residual stream, including the final norm",
            source="arXiv:2512.10938",
            apply=_derf,
            arguments="(α)",
            notes="α starts at 0.5 by default, s at 0. Norms on projections are unchanged.",
        ),
        Modifier(
            name="bhyt",
            title="bounded tanh γ⊙tanh(λx/(10·rms(x))) in place of the norms on the residual stream, including the final norm",
            source="arXiv:2601.09719",
            apply=_bhyt,
            arguments="(λ)",
            notes="BHyT* of the authors' code: every norm computes its own mean square. Their faster BHyT estimates that of the "
            "feed-forward's norm from the attention's and is not available. λ is learnable and starts at 2, as in that "
            "code; their runs set it per layer.",
        ),
        Modifier(
            name="multiplier",
            title="branches multiplied by a constant c",
            source="arXiv:2404.06395",
            apply=_multiplier,
            arguments="(c)",
            notes="By default 1.4/√L, as in MiniCPM; multiplier(0.22)+pre is Granite 3. Granite and MiniCPM also multiply embeddings and "
            "logits, which belong to the family.",
        ),
        Modifier(
            name="x0",
            title="every layer first mixes the embeddings e into its input, x ← λ·x + μ·e, with learnable scalars",
            source="transformers' neomme; karpathy/nanochat",
            apply=_anchored,
            arguments="(λ,μ)",
            notes="By default λ starts at 1.15 in the first layer and 1.05 in the last, μ at 0.2 and 0.05, as in nanochat; x0(1,0) is "
            "the start of neomme. e is normalized by the family's norm, as in both, which the first layer then reads. The tensor between "
            "layers holds e and x side by side. For placements of one stream. In nanochat the gain shrinks with depth: 0.0103 bits per "
            "byte at 8 layers, 0.0039 at 20 (its LOG.md).",
        ),
        Modifier(
            name="vres",
            title="value residual: every layer mixes the values v₁ of the first layer into its own, v ← λ·v + μ·v₁",
            source="arXiv:2410.17897",
            apply=_value_residual,
            arguments="(λ,μ)",
            notes="Learnable scalars, two per layer from the second on, ½ at the start: a learnable form of the paper. v is the output of "
            "the value projection, before a norm on it. v₁ goes along with the stream in the tensor between layers, and the cache holds "
            "the mixed values. If the first layer is skipped or removed, v₁ are the values of the next one. Not available for families "
            "without a value projection of its own in every layer. Its abstract: a Transformer's validation loss with 16.11% fewer "
            "parameters.",
        ),
        Modifier(
            name="prores",
            title="progressive residuals: the branches of layer l times min(t/(T·l), 1) at optimizer step t, deeper layers later",
            source="arXiv:2603.05369",
            apply=_prores,
            arguments="(T)",
            notes="T is 1000 steps by default, so the last of L layers is whole after 1000·L steps: choose T for shorter trainings. After "
            "the branch's norm, in front of the sum. mixln compare moves t; with transformers' Trainer, mixln.StepCallback does, and in "
            "other loops mixln.set_step(model, t). t is saved with the weights, and evaluation uses it as it stands, as in the authors' "
            "code; a training in which nothing moves it warns.",
        ),
        Modifier(
            name="layerscale",
            title="a learnable gain λ per feature on each branch",
            source="arXiv:2103.17239",
            apply=_layer_scale,
            arguments="(λ)",
            notes="By default λ starts at 0.1 for up to 18 layers, 1e-5 for up to 24 and 1e-6 above, as in the paper.",
        ),
        Modifier(
            name="gpas",
            title="gradient-preserving activation scaling G(x) = x − SiLU(g)·stopgrad(x), g = 0 at the start",
            source="arXiv:2506.22049",
            apply=_gpas,
            notes="Applied to the sum after each sublayer; if the sublayer ends in a norm, to the skip before the sum, as in the authors' "
            "code. Each sublayer has its own gate; in the authors' code both sublayers of a layer share one.",
        ),
    )
}
