"""`mixln reproduce`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from mixln.cli.terminal import Terminal
from mixln.compare.settings import VisionCompareSettings
from mixln.errors import SettingsError, unknown
from mixln.planning.settings import DEVICES
from mixln.recipes import RECIPES, Recipe, Run, Scale

if TYPE_CHECKING:
    from mixln.compare.results import Summary

IMAGENET_SIZE = (1_281_167, 1000)
"""Training images and classes of ImageNet-1K (arXiv:1409.0575)."""
UTILISATION = 0.3
"""Of a GPU's peak, that a time in a plan is reckoned with."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run what a paper published, and put its figures beside ours: mixln reproduce table4

    Run the same command again to finish what was cut off; nothing is repeated.
    """

    INTERRUPTED: ClassVar[str] = "run the same command again to go on from the last checkpoints"

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ""
    """Which table or figure; --list names them."""
    list: bool = False
    """Name all recipes, and what they are."""
    scale: Scale = "cpu"
    """cpu: made smaller by stated factors; paper: the sizes, data and steps of the paper, on GPUs."""
    plan: bool = False
    """Only say what would be run, and what it takes."""
    data: str | None = None
    """Where the data lie, if not where the recipe looks: for table4 at the paper's scale, the folder of ImageNet-1K."""
    out: Path | None = None
    """Folder to fill. Left out, runs/reproduce/NAME-SCALE."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text and images."""

    def __post_init__(self) -> None:
        if not self.list and self.recipe not in RECIPES:
            if not self.recipe:
                raise SettingsError(
                    f"recipe must be named: {', '.join(RECIPES)}; mixln reproduce --list says what they are"
                )
            raise SettingsError(unknown("recipe", self.recipe, RECIPES))

    def run(self) -> int:
        """Says what is run, runs it, and compares it with what was published."""
        terminal = Terminal()
        if self.list:
            for name, recipe in RECIPES.items():
                terminal.line(f"{name:<10} {recipe.title} ({recipe.source})")
            return 0
        recipe = RECIPES[self.recipe]
        runs = recipe.runs(self.scale, self.data)
        for line in _plan(recipe, runs, self.scale):
            terminal.line(line)
        if self.plan:
            return 0
        out = self.out or Path("runs/reproduce") / f"{self.recipe}-{self.scale}"
        from mixln.cli.compare import exit_code, show

        codes = []
        for run in runs:
            terminal.line(f"\n{run.name}")
            summary = show(dataclasses.replace(run.settings, out=out / run.name, cache=self.cache))
            codes.append(exit_code(summary))
            for sentence in _beside(recipe, run, summary):
                terminal.note(sentence)
        return max(codes)


def _plan(recipe: Recipe, runs: tuple[Run, ...], scale: Scale) -> Iterator[str]:
    yield f"{recipe.title} ({recipe.source})"
    yield recipe.reading
    if scale == "cpu":
        yield f"Made smaller: {recipe.scaled}."
        return
    from mixln.planning.vision import plan_vision

    device = DEVICES["h100"]
    for run in runs:
        assert isinstance(run.settings, VisionCompareSettings)
        images, classes = IMAGENET_SIZE
        plan = plan_vision(run.settings, images=images, classes=classes)
        hours = plan.flops / (UTILISATION * device.bfloat16 * 1e12) / 3600
        yield (
            f"{run.name}: {plan.trials} trials ({', '.join(run.settings.placements)}; seeds "
            f"{', '.join(map(str, run.settings.seeds))}), {plan.parameters / 1e6:.1f} million parameters, {plan.steps:,} steps of "
            f"{run.settings.training.batch_size:,} images each; {plan.per_image / 1e9:.1f} GFLOPs an image, {plan.flops:.1e} in all: "
            f"{hours:,.0f} hours of one {device.title} at {UTILISATION:.0%} of its peak, if the images come fast enough; one trial a GPU"
        )


def _beside(recipe: Recipe, run: Run, summary: Summary) -> Iterator[str]:
    """The published figures beside ours, and whether the order held."""
    from mixln.report.tables import measure_of

    measure = measure_of(summary)
    ours = {row.placement: row for row in summary.placements}
    if not run.published:
        sizes = [each for each in recipe.runs("paper", None) if each.published]
        said = "; ".join(
            f"{each.name} " + ", ".join(f"{name} {measure.text(value)}" for name, value in each.published.items())
            for each in sizes
        )
        yield f"Published, of other sizes and data, so that only the order can be compared: {said}."
    for name, value in run.published.items():
        yield f"{name}: published {measure.text(value)}, measured {measure.say(ours[name].best)}."
    published = run.published or recipe.runs("paper", None)[-1].published
    reference = summary.baseline
    for name, value in published.items():
        difference = ours[name].best.difference if name in ours else None
        if name == reference or difference is None:
            continue
        ahead = (value < published[reference]) == measure.lower_is_better
        worse = measure.worse(difference)
        held = (
            "these seeds do not tell"
            if not worse.excludes_zero
            else "it held"
            if (worse.mean < 0) == ahead
            else "it did not hold"
        )
        order = f"{name} {'ahead of' if ahead else 'behind'} {reference}"
        yield f"The paper has {order}. Here {' '.join(measure.difference(difference))}: {held}."
