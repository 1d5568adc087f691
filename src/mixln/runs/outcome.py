"""How a training ended, as a record; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, overload

from mixln.records import OPTIONAL, derived
from mixln.runs.profile import LayerProfile

Status = Literal["finished", "diverged", "stalled", "failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one training ended.

    :param status: `finished`; `diverged` (non-finite, or long above its start); `stalled` (ends no better than a unigram model);
        `failed` (an error, not a result).
    :param reason: why, in words; empty for `finished`.
    :param step: optimizer steps done.
    :param tokens: training tokens seen.
    :param loss: held-out loss at the end, nats per token; `None` where there is none.
    :param bits_per_byte: held-out loss per byte of text, bits.
    :param tokens_per_second: training tokens per second of training steps; evaluation and the first step excluded.
    :param seconds: wall time, evaluation included; of the last part where the training was resumed.
    :param figures: what else the last evaluation found, by name: of images `accuracy`, `top5` and `calibration`.
    :param first_step_seconds: of the first step in the process that ended it; compiling layers is part of it.
    :param compiled: whether the process that ended it had the layers compiled, which changes roundings; `None` where that is not known.
    :param train_curve: (step, mean training loss since the row before).
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
        """exp(loss); infinite where that is too large to represent."""
        return perplexity(self.loss)


@dataclass(frozen=True, kw_only=True)
class ValueWithError:
    """A number with its standard error, `None` where it has none."""

    value: float
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class PostTrainingOutcome:
    """How a training of a model that exists ended.

    :param reason: why it diverged; empty if it did not.
    :param step: optimizer steps done.
    :param examples: that it learnt from; `held_out` that it was evaluated on.
    :param removed: left out because an evaluation asks them; `too_long` because they do not fit the context.
    :param before: what the evaluation found at the start, by name; `after` at the end; empty if it diverged.
    :param curves: of the training, name → (step, value); what an evaluation found begins with `eval_`.
    :param seconds: wall time; of the last part where the training was resumed.
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
    """Whether the reward rose while the policy itself got worse at telling chosen answers from rejected ones, both by more than
    1.96 standard errors of the change (as of independent samples: on the same prompts it is less)."""
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
    """exp(loss) for a loss in nats per token; `None` for none, infinity where it overflows."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf
