"""Is what `mixln tune` chose as good as the best of an exhaustive sweep, and for what share of its cost?

    python benchmarks/search.py TUNE SWEEP

TUNE is the folder of a `mixln tune`, SWEEP that of a comparison of the same model, data and settings with many placements and learning
rates, at the same seeds and more, such as a run of `mixln reproduce table5`. Costs are counted in steps of training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mixln.compare import words
from mixln.compare.measure import LANGUAGE
from mixln.compare.results import Summary, TrialResult
from mixln.compare.statistics import paired_difference
from mixln.records import difference, from_json, read_json
from mixln.search.results import Search

Setting = tuple[str, float]


def main(tuned: Path, swept: Path) -> None:
    search = from_json(Search, read_json(tuned / "tune.json"))
    summary = from_json(Summary, read_json(swept / "results.json"))
    if differs := difference(shared(search.settings, search.steps), shared(summary.settings, search.steps)):
        raise SystemExit(f"tune and sweep cannot be compared: {differs}")
    chosen = search.chosen
    if chosen is None:
        raise SystemExit("tune chose nothing")
    if missing := set(chosen.seeds) - set(summary.settings["seeds"]):
        raise SystemExit(f"the sweep has no seed {', '.join(map(str, missing))}, which tune has")
    trials = [result for result in summary.trials if result.trial.seed in chosen.seeds]
    if inits := {result.trial.init for result in trials} - {search.settings["init"]}:
        raise SystemExit(
            f"tune and sweep cannot be compared: init there {search.settings['init']}, here {', '.join(inits)}"
        )
    losses = of_settings(trials, chosen.seeds)
    best = min(losses, key=lambda setting: np.mean([*losses[setting].values()]))
    mine = {seed: loss for seed, loss in zip(chosen.seeds, chosen.losses, strict=True) if loss is not None}
    gap = paired_difference(mine, losses[best])
    assert gap is not None
    tells = (
        "worse beyond the noise between seeds"
        if gap.low is not None and gap.low > 0
        else "not worse beyond their noise"
    )
    steps = sum(result.step for result in trials) / search.steps
    print(f"tune's choice: {chosen.placement} at {chosen.learning_rate:g}, perplexity {shown([*mine.values()])}")
    print(f"sweep's best of {len(losses)}: {best[0]} at {best[1]:g}, perplexity {shown([*losses[best].values()])}")
    print(f"difference, paired by seed: {' '.join(LANGUAGE.difference(gap))}: {tells}")
    print(f"cost in full trainings: {search.cost:.1f} against {steps:.1f}, ratio {search.cost / steps:.2f}")


def shared(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """What both must have in common."""
    training = {**settings["training"], "steps": settings["training"]["steps"] or steps, "evaluations": None}
    return {"model": settings["model"], "layers": settings["layers"], "text": settings["text"], "training": training}


def of_settings(trials: list[TrialResult], seeds: tuple[int, ...]) -> dict[Setting, dict[int, float]]:
    """Placement and learning rate → seed → loss, of those that trained at all seeds."""
    found: dict[Setting, dict[int, float]] = {}
    for result in trials:
        if result.status == "finished" and result.loss is not None:
            setting = (result.trial.placement, result.trial.learning_rate)
            found.setdefault(setting, {})[result.trial.seed] = result.loss
    return {setting: losses for setting, losses in found.items() if len(losses) == len(seeds)}


def shown(losses: list[float]) -> str:
    return words.perplexity(float(np.exp(np.mean(losses))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", type=Path, metavar="TUNE")
    parser.add_argument("swept", type=Path, metavar="SWEEP")
    main(**vars(parser.parse_args()))
