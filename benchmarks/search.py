"""Is what `mixln tune` chose as good as the best of an exhaustive sweep, and for what share of its cost?

    python benchmarks/search.py TUNE SWEEP MODEL

TUNE is the folder of a `mixln tune`, SWEEP the reproduction.json of a recipe with several learning rates, and MODEL the model of it that
was tuned, with the same data and settings, at the same seeds:

    mixln tune --beta2 0.999 --weight-decay 0 --out runs/tune-12
    python benchmarks/search.py runs/tune-12 docs/papers/table5.json "12 layers"
    mixln tune --beta2 0.999 --weight-decay 0 --model tiny-24 --out runs/tune-24
    python benchmarks/search.py runs/tune-24 docs/papers/table5.json LLaMA-1B

Costs are counted in full trainings.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mixln import formats
from mixln.compare.metrics import PERPLEXITY
from mixln.compare.settings import CompareSettings, GridSettings
from mixln.compare.statistics import paired_difference
from mixln.recipes import RECIPES
from mixln.recipes.results import REPRODUCTION
from mixln.records import difference, to_json
from mixln.report.wording.phrases import differs
from mixln.search.results import SEARCH

Setting = tuple[str, float]


def main(tuned: Path, swept: Path, model: str) -> None:
    search = SEARCH.read(tuned / SEARCH.file)
    found = REPRODUCTION.read(swept)
    runs = {run.name: run.settings for run in RECIPES[found.recipe].runs(found.scale, None)}
    if model not in {each.run for each in found.swept}:
        raise SystemExit(f"{swept} has no sweep of {model}, it has {', '.join({each.run: 0 for each in found.swept})}")
    if other := difference(shared(search.settings, search.steps), shared(*of_recipe(runs[model]))):
        raise SystemExit(f"tune and sweep cannot be compared: {other}")
    chosen = search.chosen
    if chosen is None:
        raise SystemExit("tune chose nothing")
    if chosen.seeds != runs[model].seeds:
        raise SystemExit(f"tune and sweep cannot be compared: seeds {chosen.seeds} here, {runs[model].seeds} there")
    cells = [each for each in found.swept if each.run == model]
    losses: dict[Setting, dict[int, float]] = {
        (each.placement, each.learning_rate): dict(zip(chosen.seeds, map(float, each.losses), strict=True))  # type: ignore[arg-type]
        for each in cells
        if each.trained == len(chosen.seeds)
    }
    best = min(losses, key=lambda setting: np.mean([*losses[setting].values()]))
    mine = {seed: loss for seed, loss in zip(chosen.seeds, chosen.losses, strict=True) if loss is not None}
    gap = paired_difference(mine, losses[best])
    assert gap is not None
    tells = "significantly worse" if gap.low is not None and gap.low > 0 else "not significantly worse"
    trainings = sum(len(each.losses) for each in cells)
    print(f"tune's choice: {chosen.placement} at {chosen.learning_rate:g}, perplexity {shown([*mine.values()])}")
    print(f"sweep's best of {len(cells)}: {best[0]} at {best[1]:g}, perplexity {shown([*losses[best].values()])}")
    print(f"difference, paired by seed: {differs(PERPLEXITY, gap)}: {tells}")
    print(f"cost in full trainings: {search.cost:.1f} against {trainings}, ratio {search.cost / trainings:.3f}")


def of_recipe(settings: GridSettings) -> tuple[dict[str, Any], int]:
    """The settings of a recipe's run as those of a search are written, and its steps."""
    assert isinstance(settings, CompareSettings)
    return to_json({**settings.shared(), "init": settings.init or "normal"}), settings.steps


def shared(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """What both must have in common; the precision is left out, which the machine decides."""
    training = {
        name: value
        for name, value in settings["training"].items()
        if name not in ("steps", "tokens", "evaluations", "precision")
    }
    kept = {name: settings[name] for name in ("model", "layers", "init", "text")}
    return {**kept, "training": training, "steps": steps}


def shown(losses: list[float]) -> str:
    return formats.perplexity(float(np.exp(np.mean(losses))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", type=Path, metavar="TUNE")
    parser.add_argument("swept", type=Path, metavar="SWEEP")
    parser.add_argument("model", metavar="MODEL")
    main(**vars(parser.parse_args()))
