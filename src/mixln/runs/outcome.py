"""Results of training runs as records; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, overload

from mixln.records import OPTIONAL, derived
from mixln.runs.profile import LayerProfile

Status = Literal["finished", "diverged", "stalled", "failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one training run.

    :param status: `finished`; `diverged` (non-finite loss, or above its initial value for long); `stalled` (no better than a unigram
        model at the end); `failed` (an error).
    :param reason: reason for the status as text; empty for `finished`.
    :param step: optimizer steps completed.
    :param tokens: training tokens seen.
    :param loss: held-out loss at the end, nats per token; `None` if it was not measured.
    :param bits_per_byte: held-out loss per byte of text, bits.
    :param tokens_per_second: training tokens per second of training steps; evaluation and the first step excluded.
    :param seconds: wall time including evaluation; after a resumption, that of the last process only.
    :param figures: other metrics of the last evaluation, by name: for images `accuracy`, `top5` and `calibration`.
    :param first_step_seconds: wall time of the first step of the last process, including the compilation of layers.
    :param compiled: whether the last process compiled the layers, which changes rounding; `None` if not known.
    :param train_curve: (step, mean training loss since the previous row).
    :param eval_curve: (step, held-out loss).
    :param gradient_norms: L2 norm of the gradient of each sublayer's weights before clipping, first and last record.
    :param residual_variance: variance of the residual stream leaving each sublayer, first and last evaluation.
    """

    status: Status
    reason: str = ""
    step: int
    tokens: int
    loss: float | None
    bits_per_byte: float | None
    tokens_per_second: float | None
    seconds: float
    figures: dict[str, float] = field(default_factory=dict, metadata=OPTIONAL)
    first_step_seconds: float | None = field(default=None, metadata=OPTIONAL)
    compiled: bool | None = field(default=None, metadata=OPTIONAL)
    train_curve: tuple[tuple[int, float], ...] = ()
    eval_curve: tuple[tuple[int, float], ...] = ()
    gradient_norms: tuple[LayerProfile, ...] = ()
    residual_variance: tuple[LayerProfile, ...] = ()

    @derived
    def perplexity(self) -> float | None:
        """exp(loss); infinity on overflow."""
        return perplexity(self.loss)


@dataclass(frozen=True, kw_only=True)
class ValueWithError:
    """A number with its standard error, `None` if not known."""

    value: float
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class PostTrainingOutcome:
    """Result of post-training (fine-tuning, reward modelling or RL).

    :param reason: reason for a divergence as text; empty for `finished`.
    :param step: optimizer steps completed.
    :param examples: number of training examples; `held_out` of evaluation examples.
    :param removed: examples omitted because an evaluation uses them; `too_long` because they do not fit the context.
    :param before: metrics of the evaluation before training, by name; `after` at the end; empty if it diverged.
    :param curves: metric → (step, value); names of evaluation metrics begin with `eval_`.
    :param seconds: wall time; after a resumption, that of the last process only.
    """

    status: Literal["finished", "diverged"]
    reason: str
    step: int
    examples: int
    held_out: int
    removed: int
    too_long: int
    before: dict[str, ValueWithError]
    after: dict[str, ValueWithError]
    curves: dict[str, tuple[tuple[int, float], ...]]
    gradient_norms: tuple[LayerProfile, ...]
    seconds: float


def hacked(tuned: PostTrainingOutcome) -> bool:
    """Whether the policy shows reward hacking: the reward rose while its accuracy at preferring chosen to rejected answers fell.

    Both changes must exceed 1.96 standard errors, those of independent samples; on the same prompts the true error is smaller.
    """
    if not {"reward", "accuracy"} <= tuned.before.keys() & tuned.after.keys():
        return False

    def change(name: str) -> float:
        before, after = tuned.before[name], tuned.after[name]
        moved, noise = after.value - before.value, 1.96 * math.hypot(before.error or 0.0, after.error or 0.0)
        return moved if abs(moved) > noise else 0.0

    return change("reward") > 0 > change("accuracy")


@overload
def perplexity(loss: float) -> float: ...
@overload
def perplexity(loss: None) -> None: ...
def perplexity(loss: float | None) -> float | None:
    """exp(loss) for a loss in nats per token; `None` for `None`, infinity on overflow."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf  # exp overflows float64 above 709
