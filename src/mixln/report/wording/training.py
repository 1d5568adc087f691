"""What single trainings show, in sentences."""

from __future__ import annotations

from mixln.runs.outcome import PostTrainingOutcome, hacked

FIGURES = {
    "loss": "held-out loss, nats",
    "accuracy": "held-out pairs: chosen above rejected, %",
    "margin": "held-out margin",
    "reward": "reward on held-out prompts",
    "kl": "KL from the initial policy, nats per completion",
    "length": "completion length, tokens",
}
"""Figure of an evaluation → its name in the table."""


def reason(found: str) -> str:
    """Why a training ended as it did; empty where it finished."""
    return found


def notes(tuned: PostTrainingOutcome) -> tuple[str, ...]:
    """What a reader of a training's table must know."""
    return tuple(filter(None, (_negative_kl(tuned), _hacking(tuned))))


def _negative_kl(tuned: PostTrainingOutcome) -> str:
    kl = tuned.after.get("kl")
    if kl is None or kl.value >= 0:
        return ""
    return "A KL divergence below zero is estimation noise (one completion per prompt): the divergence itself is never negative."


def _hacking(tuned: PostTrainingOutcome) -> str:
    if not hacked(tuned):
        return ""
    return (
        "The reward rose while the policy itself got worse at telling chosen answers from rejected ones: a sign of reward hacking "
        "(over-optimisation of the reward model)."
    )
