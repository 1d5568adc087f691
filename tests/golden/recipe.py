"""`mixln reproduce` of a small recipe: `python -m tests.golden.recipe FOLDER`, with text and config.json in it."""

from __future__ import annotations

import sys
from pathlib import Path

from mixln.cli import main
from mixln.compare.settings import CompareSettings, ExecutorSettings
from mixln.data.settings import TextSettings
from mixln.recipes import RECIPES
from mixln.recipes.curves import CURVES
from mixln.recipes.records import Ordering, Recipe, Run, row
from mixln.training.settings import TrainSettings

UNEVEN = "gradient-unevenness"


def small(folder: Path) -> Recipe:
    """Two placements of four layers, two learning rates, two seeds."""
    settings = CompareSettings(
        model=str(folder / "config.json"),
        placements=("pre", "mix(0.5)"),
        learning_rates=(3e-3, 1e-2),
        seeds=(0, 1),
        init="normal",
        execution=ExecutorSettings(jobs=1),
        text=TextSettings(data=str(folder / "text"), sequence_length=16, vocabulary_size=300, held_out=0.2),
        training=TrainSettings(steps=20, batch_size=4, precision="float32", evaluations=2),
    )
    return Recipe(
        title="A table", source="Mix-LN, arXiv:2412.13795, a table", reading="As printed.", terms="As others.",
        scaled="everything", minutes=1,
        runs=lambda scale, data: (Run(name="Small", settings=settings, diagnosed=True),),
        published={"perplexity": row("Small", {"pre": 20.0, "mix(0.5)": 19.0})},
        stated_orderings=(Ordering(quantity=UNEVEN, ahead=("Small", "mix(0.5)"), behind=("Small", "pre")),),
        angles=True,
        curves=tuple(CURVES),
    )  # fmt: skip


if __name__ == "__main__":
    here = Path(sys.argv[1])
    RECIPES["small"] = small(here)
    sys.exit(main(["reproduce", "small", "--out", str(here / "out"), "--cache", str(here / "cache")]))
