"""The tables of a chain: tasks after fine-tuning, in the shape of the Mix-LN paper's Table 2, and rewards, in that of its Table 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from rich.console import Group, RenderableType
from rich.text import Text

from mixln.compare.results import AVERAGE, Chain, ChainRow, Interval, Mean, Summary
from mixln.report import formats
from mixln.report.grid import Grid, html, markdown, terminal
from mixln.report.skeleton import closed_pairs, flat, grouped, scroll, section
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
LEARNING = (
    ("finetune loss before", "held-out loss before", 1),
    ("finetune loss", "after fine-tuning", 1),
    ("reward accuracy", "reward model: pairs right, %", SHARE),
    ("perplexity", "bits per byte of the held-out text", 1),
)
"""Figure of a training → its heading, and what it is multiplied by."""
REWARD = "rlhf reward"
REINFORCEMENT = (
    (REWARD, "final reward", 1),
    ("rlhf reward before", "reward before", 1),
    ("rlhf kl", "KL, nats", 1),
    ("rlhf length", "length, tokens", 1),
    ("rlhf accuracy before", "policy: pairs right before, %", SHARE),
    ("rlhf accuracy", "after, %", SHARE),
)
"""The same of reinforcement learning."""
TRAININGS = {
    "Learning on examples and pairs": LEARNING,
    "Reinforcement learning, as in Table 3 of the Mix-LN paper": REINFORCEMENT,
}
"""Title of a table → its figures."""


def grids(summary: Summary) -> Iterator[Grid]:
    """The tables that there is something for."""
    chain = summary.chain
    if chain is None:
        return
    if chain.tasks:
        yield _tasks(summary, chain, _with_interval)
    for title, figures in TRAININGS.items():
        if any(name in row.figures for row in chain.rows for name, _, _ in figures):
            yield _trainings(summary, chain, title, figures)


def chain_section(summary: Summary) -> str:
    """The part of the comparison's page; nothing without a chain."""
    chain = summary.chain
    if chain is None:
        return ""
    tables = [f"<h3>{escape(grid.title)}</h3>\n{scroll(grid.title, html(grid))}" for grid in grids(summary)]
    # What tells the examples from others is for the store, not for readers.
    settings = {
        step: {name: value for name, value in asked.items() if name != "examples"}
        for step, asked in chain.settings.items()
    }
    title = f"After the pre-training: {', '.join(chain.steps)}"
    details = closed_pairs("Settings of these steps", flat(settings))
    return section(title, grouped({"": chain.notes}), *tables, details)


def chain_markdown(summary: Summary) -> str:
    """The tables in GitHub's Markdown; empty without a chain."""
    return "".join(f"\n{markdown(grid)}" for grid in grids(summary))


def terminal_chain(summary: Summary) -> RenderableType:
    """The tables for a terminal: of single tasks the means alone, and of trainings a row for each figure."""
    chain = summary.chain
    if chain is None:
        return Group()
    tasks = [_tasks(summary, chain, lambda mean, scale: _with_interval(mean, scale)[:1])] if chain.tasks else []
    trainings = [_turned(grid) for grid in grids(summary)][len(tasks) :]
    parts = [part for grid in (*tasks, *trainings) for part in (terminal(grid), "")]
    return Group(*parts, *(Text(text, style="dim") for text in dict.fromkeys(grid.caption for grid in trainings)))


def _turned(grid: Grid) -> Grid:
    """The same with its columns as rows."""
    return Grid(
        title=grid.title,
        head=("", *(" ".join(row[0]) for row in grid.rows)),
        rows=tuple(((name,), *(row[index] for row in grid.rows)) for index, name in enumerate(grid.head) if index),
        caption=grid.caption,
    )


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
        title="Tasks, as in Table 2 of the Mix-LN paper",
        head=head,
        rows=tuple(rows),
        caption="Accuracy in percent, the mean over seeds with its 95% confidence interval; difference: of the mean accuracy, in points, "
        "paired by seed.",
    )


def _trainings(summary: Summary, chain: Chain, title: str, figures: Sequence[tuple[str, str, int]]) -> Grid:
    known = [entry for entry in figures if any(entry[0] in row.figures for row in chain.rows)]
    head = ["placement"]
    columns: list[list[Pieces]] = [[(formats.plain(row.title),) for row in chain.rows]]
    for name, heading, scale in known:
        head.append(heading)
        columns.append([_with_interval(row.figures.get(name), scale) for row in chain.rows])
        if name == REWARD:
            head.append(f"difference from {baseline_title(summary)}")
            means = [row.figures.get(name) for row in chain.rows]
            columns.append(
                [
                    _difference(row, mean.difference if mean else None, scale, summary.baseline)
                    for row, mean in zip(chain.rows, means, strict=True)
                ]
            )
    return Grid(
        title=title,
        head=tuple(head),
        rows=tuple(zip(*columns, strict=True)),
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
