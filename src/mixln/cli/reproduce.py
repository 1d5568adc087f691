"""`mixln reproduce`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from mixln.cli.terminal import Terminal
from mixln.compare.settings import CompareSettings, GridSettings, VisionCompareSettings
from mixln.errors import SettingsError, unknown
from mixln.files import check_writable
from mixln.planning.settings import DEVICES, PlanSettings
from mixln.recipes import RECIPES, Recipe, Run, Scale
from mixln.recipes.deviations import DEVIATIONS, Deviation, deviations

if TYPE_CHECKING:
    from mixln.planning.plan import Plan

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
    as_published: tuple[str, ...] = ()
    """Do as the authors' code does and the paper does not say, for example embedding bfloat16; --list names all. Of Mix-LN's tables of
    perplexities."""
    data: str | None = None
    """Where the data lie, if not where the recipe looks: for table4 at the paper's scale, the folder of ImageNet-1K."""
    out: Path | None = None
    """Folder to fill. Left out, runs/reproduce/NAME-SCALE."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text and images."""
    document: Path | None = None
    """Print what became of all recipes, in Markdown: of the files NAME.json of this folder, each the reproduction.json of one."""

    def __post_init__(self) -> None:
        if not self.list and self.document is None and self.recipe not in RECIPES:
            if not self.recipe:
                raise SettingsError(
                    f"recipe must be named: {', '.join(RECIPES)}; mixln reproduce --list says what they are"
                )
            raise SettingsError(unknown("recipe", self.recipe, RECIPES))

    def run(self) -> int:
        """Says what is run, runs it, and compares it with what was published."""
        terminal = Terminal()
        if self.document is not None:
            print(_document(self.document), end="")
            return 0
        if self.list:
            for name, recipe in RECIPES.items():
                terminal.line(f"{name:<20} {recipe.title} ({recipe.source.partition(',')[0]})")
            terminal.line("\nwith --as-published, where the authors' code differs:")
            for each in DEVIATIONS.values():
                terminal.line(f"{each.name:<20} {each.what}")
            return 0
        recipe = RECIPES[self.recipe]
        chosen = deviations(self.as_published)
        if self.data is not None and not recipe.runs(self.scale, None):
            raise SettingsError(f"data is not asked for by {self.recipe}, which trains nothing; leave it out")
        runs = changed(recipe, recipe.runs(self.scale, self.data), chosen)
        for line in _plan(recipe, runs, self.scale):
            terminal.line(line)
        if self.plan:
            return 0
        if self.scale == "paper" and runs:
            check_machine(runs)
        name = "-".join([self.recipe, self.scale, *(each.name for each in chosen)])
        out, cache = self.out or Path("runs/reproduce") / name, self.cache.expanduser()
        check_writable(out)
        from mixln.cli.compare import exit_code, show
        from mixln.compare.experiment import facts_of_run
        from mixln.recipes.gather import of_models, of_presets, of_run, placed, swept
        from mixln.recipes.outcome import measured, ordering
        from mixln.recipes.results import Reproduction
        from mixln.report import grid, reproduction, write_reproduction

        codes, seconds = [0], 0.0
        evidence, sweeps = {}, []
        for run in (placed(run, out, cache) for run in runs):
            terminal.line(f"\n{run.name}: {run.settings.model}, init {run.settings.init or 'as each placement has it'}")
            summary = show(run.settings)
            codes.append(exit_code(summary))
            seconds += sum(result.seconds for result in summary.trials)
            sweeps += swept(run, summary)
            evidence.update(of_run(run, summary, changed=chosen, cache=cache, say=terminal.news))
        evidence.update(of_models(recipe, self.scale, cache=cache, say=terminal.news))
        evidence.update(of_presets(recipe))
        found = Reproduction(
            recipe=self.recipe,
            title=recipe.title,
            source=recipe.source,
            reading=recipe.reading,
            scale=self.scale,
            scaled=recipe.scaled,
            command=" ".join(
                [
                    f"mixln reproduce {self.recipe}",
                    *(["--scale paper"] if self.scale == "paper" else []),
                    *([f"--data {self.data}"] if self.data else []),
                    *([f"--as-published {' '.join(each.name for each in chosen)}"] if chosen else []),
                ]
            ),
            deviations=tuple(each.what for each in chosen),
            settings=tuple(map(settings_of, runs)),
            measured=measured(recipe, evidence),
            orderings=tuple(
                found
                for claim in recipe.orderings
                if (found := ordering(claim, recipe, evidence)).verdict != "not measured"
            ),
            seconds=seconds,
            swept=tuple(sweeps),
            facts=facts_of_run(),
        )
        paths = write_reproduction(found, out)
        terminal.line()
        terminal.show(grid.terminal(reproduction.numbers(found)))
        if found.orderings:
            terminal.line()
            terminal.show(grid.terminal(reproduction.orders(found)))
        terminal.note(reproduction.tally(found))
        terminal.line(f"\nreport: {next(path for path in paths if path.suffix == '.md')}")
        return max(codes)


def _document(folder: Path) -> str:
    from mixln.recipes.results import Reproduction
    from mixln.records import from_json, read_json
    from mixln.report.reproduction import document

    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem not in RECIPES:
            raise SettingsError(f"document: {path} must be called as a recipe, {', '.join(RECIPES)}")
        try:
            found[path.stem] = from_json(Reproduction, read_json(path))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(
                f"document: {path} is no reproduction.json ({error}); take it out of the folder"
            ) from error
    if not found:
        raise SettingsError(f"document: {folder} holds no NAME.json of a recipe that was run")
    return document(RECIPES, found)


def changed(recipe: Recipe, runs: tuple[Run, ...], chosen: tuple[Deviation, ...]) -> tuple[Run, ...]:
    """The runs as the published code would do them.

    :raises SettingsError: if one of the deviations would change nothing.
    """
    if not chosen:
        return runs
    settings = [run.settings for run in runs if isinstance(run.settings, CompareSettings)]
    if not settings or not recipe.source.startswith("Mix-LN"):
        raise SettingsError("as-published is of the code of the Mix-LN paper's language models; leave it out here")
    for each in chosen:
        if not any(each.of(one) for one in settings):
            raise SettingsError(f"as-published {each.name} would change nothing in this recipe; leave it out")
    made = []
    for run in runs:
        one = run.settings
        for each in chosen:
            if isinstance(one, CompareSettings) and each.of(one):
                one = each.apply(one)
        made.append(dataclasses.replace(run, settings=one))
    return tuple(made)


def settings_of(run: Run) -> str:
    """What one run trains, in a line."""
    settings = run.settings
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    return (
        f"{run.name}: {settings.model}; {', '.join(settings.placements)}; learning rate{'s' if ',' in rates else ''} {rates}; "
        f"seeds {', '.join(map(str, settings.seeds))}; {_length(settings)}; init {settings.init or 'as each placement has it'}"
    )


def _length(settings: GridSettings) -> str:
    training = settings.training
    if isinstance(settings, CompareSettings):
        length = settings.text.sequence_length
        return f"{settings.steps:,} steps of {training.batch_size} × {length} tokens"
    assert isinstance(settings, VisionCompareSettings)
    return f"{settings.training.epochs:g} epochs, {training.batch_size} images a step"


def check_machine(runs: tuple[Run, ...]) -> None:
    """:raises SettingsError: if a run at the paper's scale cannot go on here: it says what is needed and what is there."""
    import torch

    if torch.cuda.is_available():
        have = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
        for run in runs:
            if (need := memory_of(run)) > have:
                raise SettingsError(
                    f"scale paper needs {need / 1e9:.0f} GB of a GPU for {run.name}, and this machine's have {have / 1e9:.0f} GB; "
                    "train such "
                    "models one by one with torchrun -m mixln pretrain --parallel fsdp, or run --scale cpu"
                )
        return
    cores = torch.get_num_threads()
    raise SettingsError(
        f"scale paper needs a GPU for each training ({', '.join(run.settings.model for run in runs)}), and this machine has none and "
        f"{cores} cores; see it with --plan, or run --scale cpu"
    )


def _plan(recipe: Recipe, runs: tuple[Run, ...], scale: Scale) -> Iterator[str]:
    yield f"{recipe.title} ({recipe.source})"
    yield recipe.reading
    if scale == "cpu":
        yield f"Made smaller: {recipe.scaled}. About {recipe.minutes} minutes on two cores."
    for run in runs:
        count = len(run.settings.placements) * len(run.settings.learning_rates) * len(run.settings.seeds)
        yield f"{settings_of(run)}: {count} trials"
        if scale == "paper":
            yield f"  {_needs(run, count)}"
    for name, model in recipe.models(scale).items():
        held = f"the checkpoint in the package {model.removeprefix('package:').partition('/')[0].replace('_', '-')}"
        yield f"{name}: a diagnosis of {held if model.startswith('package:') else model}"


def _needs(run: Run, trials: int) -> str:
    """What one run takes at the paper's scale."""
    device, settings = DEVICES["h100"], run.settings
    if isinstance(settings, VisionCompareSettings):
        from mixln.planning.vision import plan_vision

        images, classes = IMAGENET_SIZE
        plan = plan_vision(settings, images=images, classes=classes)
        hours = plan.flops / (UTILISATION * device.bfloat16 * 1e12) / 3600
        return (
            f"{plan.parameters / 1e6:.1f} million parameters, {plan.steps:,} steps of {settings.training.batch_size:,} images each; "
            f"{plan.per_image / 1e9:.1f} GFLOPs an image, {plan.flops:.1e} in all: {hours:,.0f} hours of one {device.title} at "
            f"{UTILISATION:.0%} of its peak, if the images come fast enough; one trial a GPU"
        )
    made, asked = _planned(settings, trials)
    hours = trials * made.seconds / 3600
    memory = made.memory.total / 1e9
    fit = f"{memory:.0f} GB of a device's {asked.memory / 1e9:.0f}"
    if not made.fits:
        fit += ", which do not fit: such models are trained one at a time by mixln pretrain on several devices (docs/scaling.md)"
    return (
        f"{made.parameters / 1e6:,.0f} million parameters, {made.tokens / 1e9:,.1f} billion tokens each; {trials * made.model_flops:.1e} "
        f"FLOPs in all: {hours:,.0f} hours of one {device.title} at {UTILISATION:.0%} of its peak; {fit}; one trial a GPU"
    )


def memory_of(run: Run) -> float:
    """Bytes of a GPU that one trial needs; of images, which are small models, 0."""
    return _planned(run.settings, 1)[0].memory.total if isinstance(run.settings, CompareSettings) else 0.0


def _planned(settings: GridSettings, trials: int) -> tuple[Plan, PlanSettings]:
    from mixln.planning.plan import make_plan

    assert isinstance(settings, CompareSettings)
    asked = PlanSettings(
        model=settings.model,
        sequence_length=settings.text.sequence_length,
        batch_size=settings.training.batch_size,
        micro_batch_size=settings.training.micro_batch_size,
        steps=settings.steps,
        trials=trials,
        utilisation=UTILISATION,
    )
    return make_plan(asked), asked
