"""The tables of a chain: task accuracy after fine-tuning, as in Table 2 of the Mix-LN paper, and rewards, as in its Table 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from mixln import formats
from mixln.compare.results import AVERAGE, REWARD, Chain, ChainRow, Interval, Mean, Summary
from mixln.report.names import plain
from mixln.report.tables.comparison import baseline_title
from mixln.report.tables.grid import TableGrid, markdown, terminal
from mixln.report.wording import tables as words
from mixln.report.wording.phrases import Pieces

SHARES = ("reward accuracy", "rlhf accuracy before", "rlhf accuracy")
"""Measurements that are fractions, shown in percent."""


def grids(summary: Summary) -> Iterator[TableGrid]:
    """The tables for which there are measurements."""
    chain = summary.chain
    if chain is None:
        return
    if chain.tasks:
        yield _tasks(summary, chain, _with_interval)
    for title, figures in words.CHAIN_TRAININGS.items():
        if any(name in row.figures for row in chain.rows for name in figures):
            yield _trainings(summary, chain, title, figures)


def chain_markdown(summary: Summary) -> str:
    """The tables in GitHub's Markdown; empty without a chain."""
    return "".join(f"\n{markdown(grid)}" for grid in grids(summary))


def terminal_chain(summary: Summary) -> RenderableType:
    """The tables for a terminal: single tasks without intervals, and trainings with one row per measurement."""
    chain = summary.chain
    if chain is None:
        return Group()
    tasks = [_tasks(summary, chain, lambda mean, share: _with_interval(mean, share)[:1])] if chain.tasks else []
    trainings = [_turned(grid) for grid in grids(summary)][len(tasks) :]
    parts = [part for grid in (*tasks, *trainings) for part in (terminal(grid), "")]
    return Group(*parts, *(Text(text, style="dim") for text in dict.fromkeys(grid.caption for grid in trainings)))


def _turned(grid: TableGrid) -> TableGrid:
    """The transposed table."""
    return TableGrid(
        title=grid.title,
        head=("", *(" ".join(row[0]) for row in grid.rows)),
        rows=tuple(((name,), *(row[index] for row in grid.rows)) for index, name in enumerate(grid.head) if index),
        caption=grid.caption,
    )


def _tasks(summary: Summary, chain: Chain, cell: Callable[[Mean | None, bool], Pieces]) -> TableGrid:
    headings = (words.TASK_NAMES.get(task, task) for task in chain.tasks)
    rows = []
    for row in chain.rows:
        average = row.figures.get(AVERAGE)
        rows.append(
            (
                (plain(row.title),),
                *(cell(row.figures.get(task), True) for task in chain.tasks),
                _with_interval(average, True),
                _difference(row, average.difference if average else None, True, summary.baseline),
            )
        )
    chance = (f"{100 * chain.chance[task]:.1f}" for task in (*chain.tasks, AVERAGE))
    rows.append(((words.CHANCE,), *((text,) for text in chance), ("",)))
    return TableGrid(
        title=words.CHAIN_TASKS,
        head=(words.PLACEMENT, *headings, words.MEAN, words.difference_from(baseline_title(summary))),
        rows=tuple(rows),
        caption=words.CHAIN_TASKS_CAPTION,
    )


def _trainings(summary: Summary, chain: Chain, title: str, figures: Mapping[str, str]) -> TableGrid:
    head = [words.PLACEMENT]
    columns: list[list[Pieces]] = [[(plain(row.title),) for row in chain.rows]]
    for name, heading in figures.items():
        means = [row.figures.get(name) for row in chain.rows]
        if not any(means):
            continue
        head.append(heading)
        columns.append([_with_interval(mean, name in SHARES) for mean in means])
        if name == REWARD:
            head.append(words.difference_from(baseline_title(summary)))
            columns.append(
                [
                    _difference(row, mean.difference if mean else None, False, summary.baseline)
                    for row, mean in zip(chain.rows, means, strict=True)
                ]
            )
    return TableGrid(
        title=title,
        head=tuple(head),
        rows=tuple(zip(*columns, strict=True)),
        caption=words.CHAIN_TRAININGS_CAPTION,
    )


def _with_interval(mean: Mean | None, share: bool) -> Pieces:
    if mean is None:
        return (formats.NOTHING,)
    middle = _number(mean.value, share)
    if mean.low is None or mean.high is None:
        return (middle, f"(n = {mean.seeds})")
    low, high = (max(0.0, mean.low), min(1.0, mean.high)) if share else (mean.low, mean.high)
    return (middle, f"[{_number(low, share)}, {_number(high, share)}]")


def _number(value: float, share: bool) -> str:
    return formats.decimals(100 * value, 1) if share else formats.number(value)


def _difference(row: ChainRow, interval: Interval | None, share: bool, baseline: str) -> Pieces:
    if row.placement == baseline:
        return formats.NOTHING, words.BASELINE
    if interval is None:
        return (formats.NOTHING,)
    number = formats.points if share else formats.signed
    middle = number(interval.mean)
    if interval.low is None or interval.high is None:
        return middle, f"(n = {interval.pairs},", "no interval)"
    return middle, f"[{number(interval.low)}, {number(interval.high)}]"
