"""Results of the diagnostics: frozen records, without torch. Layers are counted from 1, first layer first.

x¹ is the input of the first layer and xᴸ⁺¹ the output of the last layer, before the final norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from mixln.data.samples import ImageSample, TextSample
from mixln.diagnostics import former
from mixln.records import OPTIONAL
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
    :param tokens: number of tokens in the mean, padding excluded.
    :param convention: `all` tokens (Mix-LN), or the `last` of each sequence only (Gromov et al., arXiv:2403.17887).
    """

    distance: tuple[tuple[float, ...], ...]
    influence: tuple[float, ...]
    tokens: int
    convention: Literal["all", "last"]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """The effect of removing the layers `first`..`last` (arXiv:2412.13795, equation 9).

    :param value: the measure without these layers.
    :param change: `value` minus the measure of the whole model.
    :param low: lower end of the 95% interval of `change` over sequences; `None` for a single sequence.
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

    :param measure: the measure P, for example `loss`, or the metric of a `task`.
    :param task: lm-eval task, if P is its score; else empty.
    :param unit: unit of P, for example `nats per token`.
    :param better: whether a `lower` or a `higher` P is better. If lower is better, a positive ΔP is harm.
    :param original: P of the whole model.
    :param skipped: each layer skipped entirely, the definition of the papers. Empty if later layers read the outputs of earlier ones by
        their number.
    :param zeroed: each layer with both branches set to zero and its norms on the stream kept. Equal to `skipped` for Pre-LN but not
        for Post-LN. Empty if the model's branches are unknown or it was not measured.
    :param attention: each layer with only its attention set to zero; `feed_forward`: with only its feed-forward. The norms on the
        stream stay. Empty if the model's branches are unknown or it was not measured.
    :param blocks: blocks of two or more consecutive layers, skipped entirely.
    :param tokens: number of tokens (or images, or task questions) that P is measured on.
    :param sequences: number of sequences that contain them; the intervals are over sequences.
    """

    measure: str
    unit: str
    better: Literal["lower", "higher"]
    original: float
    skipped: tuple[Drop, ...]
    zeroed: tuple[Drop, ...] = ()
    attention: tuple[Drop, ...] = field(default=(), metadata=OPTIONAL)
    feed_forward: tuple[Drop, ...] = field(default=(), metadata=OPTIONAL)
    blocks: tuple[Drop, ...] = ()
    tokens: int
    sequences: int
    task: str = ""

    @property
    def harm(self) -> int:
        """Sign of a change for the worse: 1 if lower is better, else −1."""
        return 1 if self.better == "lower" else -1


def zeroing_differs(drops: Drops) -> bool:
    """Whether zeroing the branches and skipping the layer give different drops, beyond rounding: 1e-4 of the largest drop.

    So they do where layers can only be zeroed.
    """
    if not drops.skipped:
        return bool(drops.zeroed)
    skipped = {drop.first: drop.change for drop in drops.skipped}
    rounding = 1e-4 * max((abs(change) for change in skipped.values() if math.isfinite(change)), default=0.0)
    pairs = [(drop.change, skipped[drop.first]) for drop in drops.zeroed if drop.first in skipped]
    return not all(math.isclose(zeroed, change, abs_tol=rounding) for zeroed, change in pairs)


Units = Literal["layers", "attention", "feed-forward", "sublayers"]
"""Unit of removal: whole layers, only attention, only feed-forward, or sublayers (both kinds)."""
Side = Literal["attention", "feed-forward"]
Method = Literal["greedy", "one-shot", "contiguous"]
"""Selection method of a set; see :func:`mixln.diagnostics.selection.best_sets`."""


@dataclass(frozen=True, kw_only=True)
class RemovedPart:
    """A layer, or one branch of it, that is set to zero.

    :param side: the branch; `None` for the whole layer, which is skipped.
    """

    layer: int
    side: Side | None = None


@dataclass(frozen=True, kw_only=True)
class RemovedSet:
    """Parts of a model that one method chose, and the model without all of them.

    :param parts: in the order of their removal (greedy) or of their drops (one-shot); a block in the order of depth.
    :param value: the measure without them; `change`: `value` minus the measure of the whole model; `low`, `high`: ends of its 95%
        interval over sequences, `None` for a single sequence. The interval does not account for the choice.
    :param parameters: number of parameters that are saved.
    :param path: harm after each removal, for `greedy`; else empty.
    """

    method: Method
    parts: tuple[RemovedPart, ...]
    value: float
    change: float
    low: float | None
    high: float | None
    parameters: int
    path: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Sets of layers or branches to remove together, one for each method.

    :param measure: the measure, `unit` and `better` as in :class:`Drops`; `original`: that of the whole model.
    :param candidates: number of parts among which each method chose.
    :param parameters: number of parameters of the whole model.
    """

    units: Units
    measure: str
    unit: str
    better: Literal["lower", "higher"]
    original: float
    tokens: int
    sequences: int
    candidates: int
    parameters: int
    sets: tuple[RemovedSet, ...]


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Distribution of the tokens over the experts of each layer; padding is left out.

    :param layers: the layers that have experts.
    :param chosen: `chosen[i][e]` is the share of tokens for which layer `layers[i]` chose expert e, counted from 0.
    :param weight: `weight[i][e]` is the mean weight of the expert's output over the tokens for which it was chosen; `None` if it never was.
    :param per_token: number of experts chosen for each token; the sum of each row of `chosen`.
    """

    layers: tuple[int, ...]
    chosen: tuple[tuple[float, ...], ...]
    weight: tuple[tuple[float | None, ...], ...]
    per_token: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class ResidualStream:
    """Statistics of the residual stream by depth, means over tokens.

    :param entry_variance: variance over features of x¹; `variance`: that of the stream after each sublayer.
    :param entry_norm: L2 norm of x¹; `norm`: that of the stream after each sublayer.
    :param share: ‖branch‖ / (‖skip‖ + ‖branch‖) in the sum of each sublayer. 0: the branch adds nothing; 1: it replaces the stream.
        Empty if the model's branches are unknown, or add to several streams.
    :param gains: name of a norm within the layer → its mean |gain| in each layer; `None` for layers without this norm.
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
    :param gate: ∂loss/∂g for a gate g = 1 on each branch; −∂loss/∂g is the first-order estimate of the loss increase without it.
    :param loss: the mean loss, nats per token (or image).
    :param tokens: number of predicted tokens (or images).
    """

    norm: Profile
    gate: Profile
    loss: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Jacobian:
    """The Jacobian J = ∂y_t/∂x_t of each layer's output with respect to its input at the same token, mean over tokens.

    :param largest: largest singular value of J.
    :param distance: largest singular value of J − I; 0 for an identity map.
    :param typical: root mean square of ‖(J − I)v‖ over random unit vectors v, an estimate of ‖J − I‖_F / √D.
    :param tokens: number of sampled tokens.
    """

    largest: tuple[float, ...]
    distance: tuple[float, ...]
    typical: tuple[float, ...]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Omission:
    """A part of a diagnosis that could not be measured.

    :param kind: `unknown-branches`: the branches of the family's layers are unknown; `no-loss`: the model has no loss on this data;
        `no-skipping`: later layers read the outputs of earlier ones by their number, so none can be skipped.
    :param model_type: `model_type` of the model's config.
    """

    kind: Literal["unknown-branches", "no-loss", "no-skipping"]
    model_type: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All measurements of one model.

    :param model: short name, unique among the models of a report.
    :param subject: identity of the model; `text` or `images`: the data that it was measured on.
    :param drops: performance drop by the model's own measure; `None` if it was not requested.
    :param tasks: performance drop by lm-eval tasks, or for images by accuracy.
    :param initial: gradients of the same architecture with re-initialised weights.
    :param omitted: measurements that were requested but not possible.
    :param selection: sets of layers or branches to remove together; `None` if it was not requested.
    :param experts: use of the experts; `None` if the model has none, or their router cannot be read.
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
    selection: Selection | None = field(default=None, metadata=OPTIONAL)
    experts: Experts | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Diagnoses:
    """Diagnoses of several models on the same data.

    :param settings: settings of the command.
    """

    settings: dict[str, Any]
    models: tuple[Diagnosis, ...]
    provenance: Provenance = field(default_factory=Provenance)


DIAGNOSES = Schema(
    kind="diagnosis", file="diagnosis.json", record=Diagnoses, upgrades=(former.diagnoses,), computed=("findings",)
)
