"""Sentences on a single training of an existing model."""

from __future__ import annotations

from mixln.report.wording.phrases import REWARD_HACKING
from mixln.runs.outcome import Outcome, PostTrainingOutcome, hacked

FIGURES = {
    "loss": "held-out loss, nats",
    "accuracy": "held-out pairs: chosen above rejected, %",
    "margin": "held-out margin",
    "reward": "reward on held-out prompts",
    "kl": "KL from the initial policy, nats per completion",
    "length": "completion length, tokens",
}
"""Name of a measurement → its name in the table."""


def continued(outcome: Outcome) -> tuple[str, ...]:
    """What a continued pre-training has changed."""
    if outcome.status == "diverged":
        return (f"Diverged at step {outcome.step:,}: {outcome.reason}; no model was written.",)
    (_, before), *_, (_, after) = outcome.eval_curve
    reached = "" if outcome.bits_per_byte is None else f" ({outcome.bits_per_byte:.3f} bits per byte)"
    loss = f"Held-out loss {before:.3f} → {after:.3f} nats per token{reached} in {outcome.step:,} steps, {outcome.tokens:,} tokens."
    return (loss, f"Stalled: {outcome.reason}.") if outcome.status == "stalled" else (loss,)


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
