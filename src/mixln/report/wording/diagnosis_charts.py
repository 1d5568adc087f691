"""Titles, captions and labels of the figures of a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mixln import formats
from mixln.diagnostics.results import Drop, Drops
from mixln.report.names import plain
from mixln.report.wording.charts import ChartText, bent
from mixln.report.wording.phrases import capitalised, layers

Bends = Sequence[tuple[str, float]]
"""Title of each panel, and the value up to which its vertical axis is linear (see :func:`bent`)."""
INFLUENCE, COSINE = "block influence", "1 − cosine"
ANGLE, FRACTION_OF_PI = "angle between input and output", "fraction of π"
STREAM_VARIANCE, VARIANCE = "variance of the stream", "variance"
STREAM_NORM, NORM = "norm of the stream", "L2 norm"
SHARE, GAIN = "share of the branch", "mean |gain|"
AS_LOADED, INITIAL = "as loaded", "re-initialised"
WHOLE_LAYER = "whole layer"
LARGEST = ("largest singular value of J", "σ₁(J)")
DISTANCE = ("distance from the identity", "σ₁(J − I)")
TYPICAL = ("typical size of J − I", "‖J − I‖ / √D (Frobenius)")
FROM_LAYER, LAYERS_APART = "from layer", "layers apart"
ANGLE_SCALE = "angle between the streams, fraction of π (0 same direction, 0.5 orthogonal)"
CIRCLES = "Circles: the layer's branches set to zero and its norms on the stream kept."
NOT_COMPARABLE = "The models have different measures: do not compare bars between them."
_TOKENS = {"all": "mean over all tokens", "last": "at the last token of each sequence"}
_SIGN = {
    "lower": "above zero the layer is needed, below zero the model is better without it",
    "higher": "below zero the layer is needed, above zero the model is better without it",
}


def angular(conventions: Iterable[str], least: Iterable[tuple[str, int]]) -> ChartText:
    """Angular distances of all blocks.

    :param least: name of each model, and its layer with the smallest angle.
    """
    averaged = " or ".join(_TOKENS[convention] for convention in dict.fromkeys(conventions))
    smallest = " ".join(f"{name} has its smallest angle in layer {layer}." for name, layer in least)
    return ChartText(
        title="Angular distance across blocks of layers",
        caption=(
            "Each cell is a block of consecutive layers: the horizontal axis gives its first layer, the vertical axis its number of "
            f"layers. The colour is the angle between the residual stream that enters the block and the one that leaves it ({averaged}): "
            "yellow for small angles, purple for large ones. A white dot marks the block of each length with the smallest angle, which is "
            "the one that Gromov et al. (arXiv:2403.17887) would remove. The lowest row shows single layers."
        ),
        description="Triangular heat maps of the angular distance between the inputs of any two layers, by the first layer and the number "
        f"of layers between them. {smallest}",
    )


def block_angle(layer: int, count: int, value: float) -> str:
    """Label of a cell of the heat map."""
    return f"{layers(layer, layer + count - 1)}: angle {formats.angle(value)} π"


def least_angle(cell: str, of: int) -> str:
    """Label of the smallest of the `of` cells in a row."""
    return f"{cell}, the smallest of {of}"


def influence(bends: Bends) -> ChartText:
    """Block influence and angle."""
    return ChartText(
        title="Change of the residual stream by layer",
        caption=(
            "Block influence is 1 − the cosine between each layer's input and output, mean over tokens (ShortGPT, arXiv:2403.03853); the "
            "angle between the two is the lowest row of the triangles above. Near zero, the layer hardly changes the stream."
            + bent(bends)
        ),
        description=_lines("block influence and of the angle between each layer's input and output"),
    )


def gradients(*, initial: bool, some_unknown: bool) -> ChartText:
    """Gradient norms by layer."""
    return ChartText(
        title="Gradient norm by layer",
        caption=(
            "L2 norm of the gradient of the weights in each layer, from one backward pass, on a logarithmic axis. Where the line is "
            "level, all layers receive gradients of similar size; where it dips, layers hardly learn."
            + (" Re-initialised: the same architecture before any training." if initial else "")
            + (
                " Where a model's branches are unknown, its feed-forward line is that of the whole layer."
                if some_unknown
                else ""
            )
        ),
        description=_lines("gradient norm"),
    )


def residual() -> ChartText:
    """The residual stream by depth."""
    return ChartText(
        title="Residual stream by depth",
        caption=(
            "Variance over features and L2 norm (means over tokens, dimensionless) of the stream before the first layer and after each "
            "layer's attention (at the layer's number) and feed-forward (at the layer's number + ½), on logarithmic axes; where a "
            "model's branches are unknown, only after each layer. Share: ‖branch‖ / (‖skip‖ + ‖branch‖), 0 where the branch adds nothing "
            "and 1 where it replaces the stream."
        ),
        description=_lines("variance and norm of the residual stream, and of the share of each branch"),
    )


def gains(hidden: int, bends: Bends) -> ChartText:
    """Gains of the norms.

    :param hidden: number of norms without a panel; not positive if all have one.
    """
    more = f" {hidden} more norms are not shown." if hidden > 0 else ""
    return ChartText(
        title="Gains of the norms",
        caption="Mean absolute gain (the norm's learnt weight; 1 if training has not changed it) of each norm within the layer, by layer."
        f"{more}{bent(bends)}",
        description=_lines("mean absolute gain of each norm"),
    )


def jacobian(bends: Bends) -> ChartText:
    """Jacobians of the layers."""
    return ChartText(
        title="Jacobian of each layer",
        caption=(
            "J is the derivative of a layer's output with respect to its input at the same token; values are means over sampled tokens. "
            "Its largest singular value is the largest factor by which the layer scales a small change of its input. J\u00a0−\u00a0I is 0 "
            "for a layer that returns its input unchanged; its typical size is the factor for a random direction."
            + bent(bends)
        ),
        description=_lines("largest singular value of the Jacobian, and of its distance from the identity"),
    )


def drops(
    of: str, every: Sequence[tuple[str, Drops]], bends: Bends, *, circles: bool, crosses: bool, shared: bool
) -> ChartText:
    """Performance drops.

    :param of: name of the measure if it is that of a task; empty for the model's own measure.
    :param every: name and drops of each model.
    :param shared: whether all models have the same measure.
    """
    return ChartText(
        title=f"Performance drop of each layer{f': {of}' if of else ''}",
        caption=(
            "ΔP = P without the layer − P of the complete model; each layer is skipped alone, so that its output is its input. "
            f"{_harm(drops for _, drops in every)} Thin lines: 95% interval."
            + f" {CIRCLES}" * circles
            + " ✕: not finite." * crosses
            + bent(bends)
            + ("" if shared else f" {NOT_COMPARABLE}")
        ),
        description="Bar charts of the performance drop by layer. "
        + " ".join(_most(name, drops) for name, drops in every),
    )


def gates(panels: Sequence[str], bend: float) -> ChartText:
    """First-order estimates beside exact drops.

    :param panels: titles of the panels.
    """
    return ChartText(
        title="First-order estimate of the loss increase",
        caption=(
            "Bars: the loss increase without each layer (its branches set to zero if that was measured, else the layer skipped). Circles: "
            "its first-order estimate from one backward pass, −∂loss/∂g for a gate g on the attention and one on the feed-forward, summed. "
            "The rank correlation (Spearman) is 1 where both rank the layers equally, and near 0 where the estimate is uninformative."
            f"{bent([('', bend)])}"
        ),
        description="Bar charts of the loss increase without each layer, with circles at its first-order estimate. "
        f"{'; '.join(panels)}.",
    )


def sublayers(bends: Bends) -> ChartText:
    """Drops of single branches."""
    return ChartText(
        title="Performance drop of the attention and of the feed-forward of each layer",
        caption=(
            "Bars: ΔP = P with only this branch of the layer set to zero − P of the complete model; the norms on the stream and the other "
            "branch stay. Circles: ΔP without the whole layer. Thin lines: 95% interval." + bent(bends)
        ),
        description="Bar charts of the performance drop without one branch of each layer, with circles at that of the whole layer. The "
        "numbers are in the table of layers.",
    )


def sublayer_panel(name: str, branch: str) -> str:
    """Title of a panel of drops of one branch."""
    return f"{name}: {branch}"


def whole_layer(name: str) -> str:
    """Label of the drops of one model without whole layers."""
    return f"{name}, whole layer"


def gates_panel(name: str, correlation: float | None) -> str:
    """Title of a panel of estimates."""
    return name if correlation is None else f"{name}: rank correlation {formats.correlation(correlation)}"


def gates_axis(units: Iterable[str]) -> str:
    """Label of the axis of loss increases."""
    return f"loss increase, {', '.join(dict.fromkeys(units))}"


def estimate(layer: int, value: float, unit: str) -> str:
    """Label of one circle in the chart of estimates."""
    return f"layer {layer}: {formats.signed(value)} {unit}"


def estimates(name: str) -> str:
    """Label of the circles of one model."""
    return f"{name}, estimate"


def zeroed(name: str) -> str:
    """Label of the drops of one model with zeroed branches."""
    return f"{name}, branches zeroed"


def measure(drops: Drops) -> str:
    """Name of the measure: `loss`, or `acc of arc_easy`."""
    return plain(f"{drops.measure} of {drops.task}" if drops.task else drops.measure)


def drops_panel(name: str, drops: Drops) -> str:
    """Title of a panel of drops."""
    return f"{name}: {measure(drops)} {formats.number(drops.original, 4)} with all layers"


def drops_axis(unit: str) -> str:
    """Label of the axis of drops."""
    return f"ΔP, {plain(unit)}"


def drop(skipped: Drop, drops: Drops) -> str:
    """`layer 5: +0.0123 nats per token [+0.01, +0.015]`."""
    change = f"{formats.signed(skipped.change)} {plain(drops.unit)}" if math.isfinite(skipped.change) else "not finite"
    return f"{layers(skipped.first, skipped.last)}: {change} {formats.interval(skipped.low, skipped.high)}".rstrip()


def depth(place: float, value: float) -> str:
    """Label of a point at a depth: the attention of layer l is at l, its output at l + ½, the input of layer 1 at ½."""
    layer = math.floor(place)
    after = f"after layer {layer}" if layer else "before layer 1"
    where = f"{after}'s attention" if place == layer else after
    return f"{where}: {formats.number(value, 4)}"


def branch_panel(branch: str, state: str) -> str:
    """Title of a panel of gradient norms."""
    return f"{branch}, {state}"


def share_panel(branch: str) -> str:
    """Title of a panel of the shares of a branch."""
    return f"share of the {branch} in its sum"


def gain_panel(norm: str) -> str:
    """Title of a panel of the gains of a norm."""
    return f"gain of {plain(norm)}"


def _lines(quantity: str) -> str:
    return f"Line charts of the {quantity} against the layer. The numbers are in the table of layers."


def _harm(measured: Iterable[Drops]) -> str:
    directions = dict.fromkeys(drops.better for drops in measured)
    if len(directions) == 1:
        return f"{capitalised(_SIGN[next(iter(directions))])}."
    return " ".join(f"Where {better} P is better, {_SIGN[better]}." for better in directions)


def _most(name: str, drops: Drops) -> str:
    most = max(drops.skipped, key=lambda skipped: drops.harm * skipped.change, default=None)
    return f"{name} depends most on {drop(most, drops)}." if most else ""
