"""Sentences on a single post-training run."""

from __future__ import annotations

from mixln.report.wording.phrases import REWARD_HACKING
from mixln.runs.outcome import PostTrainingOutcome, hacked

FIGURES = {
    "loss": "held-out loss, nats",
    "accuracy": "held-out pairs: chosen above rejected, %",
    "margin": "held-out margin",
    "reward": "reward on held-out prompts",
    "kl": "KL from the initial policy, nats per completion",
    "length": "completion length, tokens",
}
"""Name of a measurement → its name in the table."""


def notes(tuned: PostTrainingOutcome) -> tuple[str, ...]:
    """Caveats on the table of a training."""
    return tuple(filter(None, (_negative_kl(tuned), _hacking(tuned))))


def _negative_kl(tuned: PostTrainingOutcome) -> str:
    kl = tuned.after.get("kl")
    if kl is None or kl.value >= 0:
        return ""
    return (
        "A negative KL estimate is sampling noise (one completion per prompt): the divergence itself is never negative."
    )


def _hacking(tuned: PostTrainingOutcome) -> str:
    return f"The reward {REWARD_HACKING}" if hacked(tuned) else ""
