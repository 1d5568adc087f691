"""The table of one training of a model that exists: what its evaluation found before and after."""

from __future__ import annotations

from rich.console import RenderableType

from mixln.report import formats
from mixln.report.grid import Grid, terminal
from mixln.runs.outcome import Figure, Tuned, hacked

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


def terminal_tuned(tuned: Tuned) -> RenderableType:
    """The table for a terminal."""
    return terminal(
        Grid(
            head=(f"{tuned.held_out:,} held out", "before", f"after {tuned.step:,} steps"),
            rows=tuple(
                ((words,), (figure(name, tuned.before.get(name)),), (figure(name, tuned.after[name]),))
                for name, words in WORDS.items()
                if name in tuned.after
            ),
        )
    )


def tuned_notes(tuned: Tuned) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    if (kl := tuned.after.get("kl")) and kl.value < 0:
        notes.append(
            "A KL below zero is the noise of its estimate from one completion a prompt: the divergence itself never is."
        )
    if hacked(tuned):
        notes.append(
            "The reward rose while the policy itself got worse at telling chosen answers from rejected ones: a sign that the "
            "reward model was learnt, and not what it stands for."
        )
    return notes
