"""The table of one post-training run: its evaluation before and after."""

from __future__ import annotations

from rich.console import RenderableType

from mixln import formats
from mixln.report.tables.grid import TableGrid, terminal
from mixln.report.wording import tables as words
from mixln.report.wording.training import FIGURES
from mixln.runs.outcome import PostTrainingOutcome, ValueWithError


def figure(name: str, value: ValueWithError | None) -> str:
    """A measurement with its standard error."""
    if value is None:
        return formats.NOTHING
    scale = 100 if name == "accuracy" else 1
    error = f" ±{formats.number(scale * value.error, 2)}" if value.error is not None else ""
    return f"{formats.number(scale * value.value)}{error}"


def terminal_tuned(tuned: PostTrainingOutcome) -> RenderableType:
    """The table for a terminal."""
    return terminal(
        TableGrid(
            head=words.training(tuned.held_out, tuned.step),
            rows=tuple(
                ((heading,), (figure(name, tuned.before.get(name)),), (figure(name, tuned.after[name]),))
                for name, heading in FIGURES.items()
                if name in tuned.after
            ),
        )
    )
