"""What the diagnostics found, as frozen records without torch. Layers are counted from 1, first layer first.

x¹ is the input of the first layer and xᴸ⁺¹ the output of the last one, before the final norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from mixln.data.samples import ImageSample, TextSample
from mixln.diagnostics import former
from mixln.runs.profile import Profile
from mixln.runs.provenance import ModelFacts, Provenance
from mixln.runs.schema import Schema


@dataclass(frozen=True, kw_only=True)
class Angular:
    """Angular distance between the residual stream at any two depths (Mix-LN, arXiv:2412.13795, equation 8).

    :param distance: `distance[l - 1][n - 1]` is d(xˡ, xˡ⁺ⁿ), the angle as a fraction of π, mean over tokens, for every
        layer l in 1..L and every n in 1..L + 1 − l: row l has L + 1 − l entries.
    :param influence: block influence of each layer, 1 − cosine between its input and its output, mean over tokens
        (ShortGPT, arXiv:2403.03853).
    :param tokens: tokens averaged over; padding excluded.
    :param convention: `all` tokens (Mix-LN), or the `last` of each sequence only (Gromov et al., arXiv:2403.17887).
    """

    distance: tuple[tuple[float, ...], ...]
    influence: tuple[float, ...]
    tokens: int
    convention: Literal["all", "last"]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """What removing the layers `first`..`last` does to the model (equation 9).

    :param value: the measure without these layers.
    :param change: `value` minus the measure of the whole model.
    :param low: lower end of the change's 95% interval over sequences; `None` where it cannot be had.
    :param high: upper end.
    """

    first: int
    last: int
    value: float
    change: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Drops:
    """Performance drop of every layer: ΔP = P without the layer − P of the whole model.

    :param measure: what P is, for example `loss`, or the metric of a `task`.
    :param task: of lm-eval, if P is the score of one.
    :param unit: its unit, for example `nats per token`.
    :param better: whether a `lower` or a `higher` P is better; where lower is, a positive ΔP is harm.
    :param original: P of the whole model.
    :param skipped: each layer skipped whole, which is the papers' definition.
    :param zeroed: each layer with its two branches set to zero and its norms on the stream kept; equal to `skipped` for
        Pre-LN, and not for Post-LN; empty where the model's branches are not known or it was not measured.
    :param blocks: blocks of two and more consecutive layers, skipped whole.
    :param tokens: tokens (or images, or task questions) that P is measured on.
    :param sequences: sequences that they are in, which the intervals are over.
    """

    measure: str
    unit: str
    better: Literal["lower", "higher"]
    original: float
    skipped: tuple[Drop, ...]
    zeroed: tuple[Drop, ...] = ()
    blocks: tuple[Drop, ...] = ()
    tokens: int
    sequences: int
    task: str = ""

    @property
    def harm(self) -> int:
        """The sign of a change that is harm."""
        return 1 if self.better == "lower" else -1


def zeroing_differs(drops: Drops) -> bool:
    """Whether zeroed branches do anything else than a skipped layer, beyond rounding."""
    skipped = {drop.first: drop.change for drop in drops.skipped}
    rounding = 1e-4 * max((abs(change) for change in skipped.values() if math.isfinite(change)), default=0.0)
    pairs = [(drop.change, skipped[drop.first]) for drop in drops.zeroed if drop.first in skipped]
    return not all(math.isclose(zeroed, change, abs_tol=rounding) for zeroed, change in pairs)


@dataclass(frozen=True, kw_only=True)
class ResidualStream:
    """The residual stream by depth, means over tokens.

    :param entry_variance: variance over features of x¹; `variance` is that of the stream where it leaves each sublayer.
    :param entry_norm: L2 norm of x¹; `norm` is that of the stream where it leaves each sublayer.
    :param share: ‖branch‖ / (‖skip‖ + ‖branch‖) in the sum of each sublayer: 0 adds nothing, 1 replaces the stream.
        Empty where the model's branches are not known.
    :param gains: norm's name within the layer → its mean |gain| in each layer; `None` where a layer has no such norm.
    """

    entry_variance: float
    entry_norm: float
    variance: Profile
    norm: Profile
    share: Profile
    gains: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Gradients of the mean loss, from one backward pass.

    :param norm: L2 norm of the gradient of each sublayer's weights, its own norms included.
    :param gate: ∂loss/∂g for a gate g = 1 on each branch; −∂loss/∂g estimates the loss added by removing the branch.
    :param loss: the mean loss, nats per token.
    :param tokens: predicted tokens of the batches.
    """

    norm: Profile
    gate: Profile
    loss: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Jacobian:
    """The Jacobian J = ∂y_t/∂x_t of each layer's output with respect to its input at the same token, mean over tokens.

    :param largest: its largest singular value.
    :param distance: the largest singular value of J − I, 0 for an identity map.
    :param typical: root mean square of ‖(J − I)v‖ over random directions v of length 1, which is ‖J − I‖_F / √D.
    :param tokens: sampled tokens.
    """

    largest: tuple[float, ...]
    distance: tuple[float, ...]
    typical: tuple[float, ...]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Omission:
    """A part of a diagnosis that could not be measured.

    :param kind: `unknown-branches`: where the branches of a layer are is not known; `no-loss`: the model has no loss on this data.
    :param model_type: of the model.
    """

    kind: Literal["unknown-branches", "no-loss"]
    model_type: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was measured of one model.

    :param model: a short name that differs from those of the other models in the same report.
    :param subject: which model it is, and `text` or `images` what it was measured on.
    :param drops: by the model's own measure; `None` if it was not asked for.
    :param tasks: the same by lm-eval tasks, or of images by accuracy.
    :param initial: gradients of the same architecture with re-initialised weights.
    :param omitted: what was asked for and could not be measured.
    """

    model: str
    layers: int
    angular: Angular
    stream: ResidualStream
    drops: Drops | None = None
    tasks: tuple[Drops, ...] = ()
    gradients: Gradients | None = None
    initial: Gradients | None = None
    jacobian: Jacobian | None = None
    omitted: tuple[Omission, ...] = ()
    subject: ModelFacts | None = None
    text: TextSample | None = None
    images: ImageSample | None = None


@dataclass(frozen=True, kw_only=True)
class Diagnoses:
    """The diagnoses of several models on equal terms.

    :param settings: the settings of the run.
    """

    settings: dict[str, Any]
    models: tuple[Diagnosis, ...]
    provenance: Provenance = field(default_factory=Provenance)


DIAGNOSES = Schema(
    kind="diagnosis", file="diagnosis.json", record=Diagnoses, upgrade=former.diagnoses, computed=("findings",)
)
