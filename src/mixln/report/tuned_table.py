"""The table of one training of a model that exists: what its evaluation found before and after."""

from __future__ import annotations

from rich import box
from rich.table import Table

from mixln.report import formats
from mixln.training.outcome import Figure, Tuned

WORDS = {
    "loss": "held-out loss, nats",
    "accuracy": "held-out pairs: chosen above rejected, %",
    "margin": "held-out margin",
    "reward": "reward on held-out prompts",
    "kl": "KL from the start, nats per completion",
    "length": "length of a completion, tokens",
}
"""What an evaluation finds, in words."""


def figure(name: str, value: Figure | None) -> str:
    """A figure with its standard error."""
    if value is None:
        return formats.NOTHING
    scale = 100 if name == "accuracy" else 1
    error = f" ±{formats.number(scale * value.error, 2)}" if value.error is not None else ""
    return f"{formats.number(scale * value.value)}{error}"


def terminal_tuned(tuned: Tuned) -> Table:
    """The table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(f"{tuned.held_out:,} held out")
    for name in ("before", f"after {tuned.step:,} steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, words in WORDS.items():
        if name in tuned.after:
            table.add_row(words, figure(name, tuned.before.get(name)), figure(name, tuned.after[name]))
    return table
