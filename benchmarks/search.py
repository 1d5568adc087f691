"""Is what `mixln tune` chose as good as the best of an exhaustive sweep, and for what share of its cost?

    python benchmarks/search.py TUNE SWEEP

TUNE is the folder of a `mixln tune`, SWEEP that of a comparison of the same model, data, settings and seeds with many placements and
learning rates, such as a run of `mixln reproduce table5`. Costs are counted in steps of training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mixln.compare import words
from mixln.compare.measure import LANGUAGE
from mixln.compare.results import Summary, TrialResult
from mixln.compare.statistics import paired_difference
from mixln.records import from_json, read_json
from mixln.search.results import Search

Setting = tuple[str, float]


def main(tuned: str, swept: str) -> None:
    search = from_json(Search, read_json(Path(tuned) / "tune.json"))
    summary = from_json(Summary, read_json(Path(swept) / "results.json"))
    chosen = search.chosen
    if chosen is None:
        raise SystemExit("tune chose nothing")
    losses = of_settings(summary.trials, chosen.seeds)
    best = min(losses, key=lambda setting: np.mean([*losses[setting].values()]))
    mine = {seed: loss for seed, loss in zip(chosen.seeds, chosen.losses, strict=True) if loss is not None}
    gap = paired_difference(mine, losses[best])
    assert gap is not None
    said = " ".join(LANGUAGE.difference(gap))
    tells = (
        "above the sweep's best beyond the noise between seeds"
        if gap.low is not None and gap.low > 0
        else "within the noise of it"
    )
    steps = sum(result.step for result in summary.trials) / search.steps
    print(f"tune's choice: {chosen.placement} at {chosen.learning_rate:g}, perplexity {shown([*mine.values()])}")
    print(f"sweep's best of {len(losses)}: {best[0]} at {best[1]:g}, perplexity {shown([*losses[best].values()])}")
    print(f"difference, paired by seed: {said}; {tells}")
    print(f"cost in full trainings: {search.cost:.1f} against {steps:.1f}, ratio {search.cost / steps:.2f}")


def of_settings(trials: tuple[TrialResult, ...], seeds: tuple[int, ...]) -> dict[Setting, dict[int, float]]:
    """Placement and learning rate → seed → loss, of those that trained at all seeds."""
    found: dict[Setting, dict[int, float]] = {}
    for result in trials:
        if result.status == "finished" and result.loss is not None and result.trial.seed in seeds:
            setting = (result.trial.placement, result.trial.learning_rate)
            found.setdefault(setting, {})[result.trial.seed] = result.loss
    return {setting: losses for setting, losses in found.items() if len(losses) == len(seeds)}


def shown(losses: list[float]) -> str:
    return words.perplexity(float(np.exp(np.mean(losses))))


if __name__ == "__main__":
    main(*sys.argv[1:])
