"""Titles, captions and labels of the figures of a comparison."""

from __future__ import annotations

from collections.abc import Iterable

from mixln.compare.tasks import TASKS
from mixln.report.wording.charts import CROSS, ChartText
from mixln.report.wording.nouns import EXPLAINED, Nouns, nouns
from mixln.report.wording.phrases import beside, capitalised

BY_RATE = "by learning rate"
VARIANCE = "variance"
START, END = "start", "end"
CONFIDENCE, OVERCONFIDENCE = "confidence, %", "accuracy − confidence, points"
PERFECT = "perfectly calibrated"
_PROFILE = (
    "Mean over the seeds that trained (over all seeds if none did), each placement at its best learning rate, at the start and at the end "
    "of training."
)
Ends = Iterable[tuple[str, str, int]]
"""Name, final value and number of stalled seeds of each placement."""


def loss(task: str, ends: Ends, floor: str, *, diverged: bool) -> ChartText:
    """Loss against steps."""
    words = nouns(task)
    return ChartText(
        title="Loss during training",
        caption=(
            f"Loss in nats per {words.unit} against optimizer steps; lower is better. Thick lines with markers: held-out loss, mean over "
            "seeds up to the last step that all of them reached (single seeds where some trained and others stalled); thin lines: single "
            f"seeds; faint lines: training loss{words.training_loss}. A model whose line stays at the dashed one ({words.floor}) has "
            f"learnt {words.at_floor}.{_cross(diverged)}"
        ),
        description=f"Line chart of the loss against steps. Held-out loss at the end, nats per {words.unit}: {_list(ends, words, floor)}",
    )


def ranking(task: str, ends: Ends, floor: str, *, diverged: bool) -> ChartText:
    """The metric by which placements are ranked, at the end of training."""
    metric, words = TASKS[task].metrics.ranking, nouns(task)
    name = capitalised(metric.name)
    return ChartText(
        title=f"{name} at the end of training",
        caption=(
            f"{name} ({EXPLAINED[metric.name]}) on the complete held-out set{', on a logarithmic axis' if metric.logarithmic else ''}; "
            f"{'lower' if metric.lower_is_better else 'higher'} is better. Large markers: mean over seeds"
            f"{' (of the loss)' if metric.logarithmic else ''}, or single seeds where some trained and others stalled; small dots: "
            f"single seeds. The {words.floor} {words.floor_is}.{_cross(diverged)}"
        ),
        description=f"Dot chart of the {metric.name} by placement: {_list(ends, words, floor)}",
    )


def gradients() -> ChartText:
    """Gradient norm by layer."""
    return ChartText(
        title="Gradient norm by layer",
        caption=(
            "L2 norm of the gradient of the attention and feed-forward weights in each layer, before clipping, on a logarithmic axis. "
            f"{_PROFILE} Where the line is level, all layers receive gradients of similar size; where it dips, layers hardly learn."
        ),
        description="Line charts of the gradient norm against the layer, for attention and feed-forward, at the start and at the end of "
        "training. The numbers are in results.json.",
    )


def residual() -> ChartText:
    """Variance of the residual stream by depth."""
    return ChartText(
        title="Variance of the residual stream by depth",
        caption=(
            "Variance over features (mean over tokens, dimensionless) of the residual stream after each layer's attention (at the "
            f"layer's number) and feed-forward (at the layer's number + ½), on a logarithmic axis. {_PROFILE} The larger the variance, "
            "the smaller the relative change that a later layer makes."
        ),
        description="Line charts of the variance of the residual stream against depth, at the start and at the end of training. The "
        "numbers are in results.json.",
    )


def calibration(errors: Iterable[tuple[str, float]], fewest: int) -> ChartText:
    """Accuracy minus confidence.

    :param errors: name and expected calibration error of each placement.
    :param fewest: minimum number of predictions of a bin that is shown.
    """
    listed = "; ".join(f"{name} {error:.3f}" for name, error in errors)
    return ChartText(
        title="Calibration",
        caption=(
            "Accuracy minus confidence, in percentage points, against confidence: the probability of a model's most probable class, in 15 "
            "bins of equal width, over the seeds that trained (all seeds if none did) at the placement's best learning rate. On the dashed "
            "line a model is perfectly calibrated; above it, it is underconfident (as label smoothing makes it), below it overconfident. "
            f"Bins of fewer than {fewest} predictions are omitted."
        ),
        description=f"Line chart of accuracy minus confidence against confidence. Expected calibration error, mean over seeds: {listed}.",
    )


def calibrated(name: str, confidence: float, accuracy: float, count: int) -> str:
    """Label of a point of the calibration chart; `confidence` and `accuracy` are fractions."""
    return f"{name}: confidence {100 * confidence:.1f}%, accuracy {100 * accuracy:.1f}%, {count:,} predictions"


def errors() -> str:
    """Caption of the most confident errors."""
    return (
        "Most confident errors of each placement (its best learning rate, the lowest seed) on held-out images: true class, predicted "
        "class and the probability of the latter. Some labels are themselves wrong or debatable."
    )


def profile(part: str, when: str, steps: Iterable[int]) -> str:
    """Title of a panel of profiles: `attention, start (step 1)`."""
    known = sorted(set(steps))
    at = "" if not known else f" (step {known[0]:,})" if len(known) == 1 else f" (steps {known[0]:,}–{known[-1]:,})"
    return f"{part}, {when}{at}".removeprefix(", ")


def loss_axis(task: str) -> str:
    """Label of the loss axis."""
    return f"loss, nats per {nouns(task).unit}"


def ranking_axis(task: str) -> str:
    """Label of the axis of the metric by which placements are ranked."""
    metric = TASKS[task].metrics.ranking
    return f"{metric.name}, {metric.unit}" if metric.unit else metric.name


def training(name: str) -> str:
    """Label of a line of training loss."""
    return f"{name}, training"


def ended(name: str, status: str) -> str:
    """Label of the line of one trial, with its status."""
    return f"{name}, {status}"


def held_out(name: str) -> str:
    """Label of a line of held-out loss."""
    return f"{name}, held out"


def _list(ends: Ends, words: Nouns, floor: str) -> str:
    return f"{'; '.join(f'{name} {number}{beside(stalled)}' for name, number, stalled in ends)}; {words.floor} {floor}."


def _cross(diverged: bool) -> str:
    return f" {CROSS}marks where a diverged trial ended." if diverged else ""
