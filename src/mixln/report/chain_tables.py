"""The tables of a chain: tasks after fine-tuning, in the shape of the Mix-LN paper's Table 2, and rewards, in that of its Table 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from mixln.compare.chain_statistics import AVERAGE
from mixln.compare.results import Chain, ChainRow, Interval, Mean, Summary
from mixln.report import formats
from mixln.report.grid import Grid, html, markdown, terminal
from mixln.report.skeleton import grouped, scroll, section
from mixln.report.tables import Pieces, baseline_title

SHARE = 100
"""What a share is multiplied by to be percent."""
TASKS = {
    "mmlu": "MMLU",
    "boolq": "BoolQ",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "piqa": "PIQA",
    "hellaswag": "HellaSwag",
    "openbookqa": "OBQA",
    "winogrande": "WinoGrande",
    "social_iqa": "SIQA",
    "commonsense_qa": "CSQA",
}
"""Names of tasks as papers write them."""
TRAININGS = (
    ("finetune loss before", "loss before fine-tuning", 1),
    ("finetune loss", "loss after", 1),
    ("reward accuracy", "reward model: pairs right, %", SHARE),
    ("rlhf reward before", "reward before", 1),
    ("rlhf reward", "final reward", 1),
    ("rlhf kl", "KL, nats", 1),
    ("rlhf length", "length, tokens", 1),
    ("rlhf accuracy before", "policy: pairs right before, %", SHARE),
    ("rlhf accuracy", "after, %", SHARE),
)
"""Figure of a training → its heading, and what it is multiplied by."""


def grids(summary: Summary) -> Iterator[Grid]:
    """The tables that there is something for."""
    chain = summary.chain
    if chain is None:
        return
    if chain.tasks:
        yield _tasks(summary, chain, _with_interval)
    if "finetune" in chain.steps or "rlhf" in chain.steps:
        yield _trainings(summary, chain)


def chain_section(summary: Summary) -> str:
    """The part of the comparison's page; nothing without a chain."""
    chain = summary.chain
    if chain is None:
        return ""
    tables = [scroll(" ".join(chain.steps), html(grid)) for grid in grids(summary)]
    return section(f"After the pre-training: {', '.join(chain.steps)}", grouped({"": chain.notes}), *tables)


def chain_markdown(summary: Summary) -> str:
    """The tables in GitHub's Markdown; empty without a chain."""
    return "".join(f"\n{markdown(grid)}" for grid in grids(summary))


def terminal_chain(summary: Summary) -> RenderableType:
    """The tables for a terminal; of single tasks the means alone."""
    chain = summary.chain
    parts: list[RenderableType] = []
    if chain is not None and chain.tasks:
        parts.append(terminal(_tasks(summary, chain, lambda mean, scale: _with_interval(mean, scale)[:1])))
    if chain is not None and ("finetune" in chain.steps or "rlhf" in chain.steps):
        grid = _trainings(summary, chain)
        turned = Grid(  # a row for each figure: there are more of them than placements
            head=("", *("\n".join(row[0]) for row in grid.rows)),
            rows=tuple(((name,), *(row[index] for row in grid.rows)) for index, name in enumerate(grid.head) if index),
            caption=grid.caption,
        )
        parts += ["", terminal(turned), "", Text(grid.caption, style="dim")]
    return Group(*parts)


def _tasks(summary: Summary, chain: Chain, cell: Callable[[Mean | None, float], Pieces]) -> Grid:
    reference = baseline_title(summary)
    head = ("placement", *(TASKS.get(task, task) for task in chain.tasks), "mean", f"difference from {reference}")
    rows = []
    for row in chain.rows:
        average = row.figures.get(AVERAGE)
        rows.append(
            (
                (formats.plain(row.title),),
                *(cell(row.figures.get(task), SHARE) for task in chain.tasks),
                _with_interval(average, SHARE),
                _difference(row, average.difference if average else None, SHARE, summary.baseline),
            )
        )
    guessing = (f"{100 * chain.chance[task]:.1f}" for task in (*chain.tasks, AVERAGE))
    rows.append((("guessing",), *((text,) for text in guessing), ("",)))
    return Grid(
        head=head,
        rows=tuple(rows),
        caption="Accuracy in percent, the mean over seeds with its 95% confidence interval; difference: of the mean accuracy, in points, "
        "paired by seed.",
    )


def _trainings(summary: Summary, chain: Chain) -> Grid:
    known = [entry for entry in TRAININGS if any(entry[0] in row.figures for row in chain.rows)]
    reference = baseline_title(summary)
    rewarded = any("rlhf reward" in row.figures for row in chain.rows)
    rows = []
    for row in chain.rows:
        reward = row.figures.get("rlhf reward")
        cells = [_with_interval(row.figures.get(name), scale) for name, _, scale in known]
        if rewarded:
            cells.append(_difference(row, reward.difference if reward else None, 1, summary.baseline))
        rows.append(((formats.plain(row.title),), *cells))
    head = ("placement", *(heading for _, heading, _ in known))
    return Grid(
        head=(*head, f"final reward, difference from {reference}") if rewarded else head,
        rows=tuple(rows),
        caption="On held-out examples, pairs and prompts: means over seeds with their 95% confidence intervals; differences are paired "
        "by seed.",
    )


def _with_interval(mean: Mean | None, scale: float) -> Pieces:
    if mean is None:
        return (formats.NOTHING,)
    middle = _number(mean.value, scale)
    if mean.low is None or mean.high is None:
        return (middle, f"(n = {mean.seeds})")
    low, high = (max(0.0, mean.low), min(1.0, mean.high)) if scale == SHARE else (mean.low, mean.high)
    return (middle, f"[{_number(low, scale)}, {_number(high, scale)}]")


def _number(value: float, scale: float) -> str:
    return f"{scale * value:.1f}".replace("-", formats.MINUS) if scale == SHARE else formats.number(value)


def _difference(row: ChainRow, interval: Interval | None, scale: float, baseline: str) -> Pieces:
    if row.placement == baseline:
        return formats.NOTHING, "(baseline)"
    if interval is None:
        return (formats.NOTHING,)
    number = formats.points if scale == SHARE else formats.signed
    middle = number(scale * interval.mean)
    if interval.low is None or interval.high is None:
        return middle, f"(n = {interval.pairs},", "no interval)"
    return middle, f"[{number(scale * interval.low)}, {number(scale * interval.high)}]"
