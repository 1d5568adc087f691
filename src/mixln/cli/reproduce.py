"""`mixln reproduce`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from mixln.bounds import Range, Seed
from mixln.cli.terminal import Terminal
from mixln.compare.settings import ExecutorSettings
from mixln.errors import SettingsError, unknown
from mixln.files import cache_folder, check_writable
from mixln.launch import launched
from mixln.recipes import RECIPES, Scale
from mixln.recipes.deviations import DEVIATIONS, RecipeVariant, check, variants
from mixln.recipes.folders import TRAININGS, ended, folder_of, placed, seeds_of
from mixln.recipes.plan import check_machine
from mixln.recipes.records import Recipe, Run
from mixln.runs.reports import ReportFolder
from mixln.training.settings import EngineSettings, Parallel

if TYPE_CHECKING:
    from mixln.compare.execution.runner import Workers
    from mixln.compare.results import Summary
    from mixln.compare.settings import GridSettings


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run what a paper published, and put its figures beside ours: mixln reproduce table4

    Run the same command again to finish what was cut off; nothing is repeated.
    """

    TOGETHER: ClassVar[bool] = True
    INTERRUPTED: ClassVar[str] = "run the same command again to go on from the last checkpoints"

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ""
    """Which table or figure; --list names them."""
    list: bool = False
    """Name all recipes, and what they are."""
    scale: Scale = "cpu"
    """cpu: made smaller by stated factors; paper: the sizes, data and steps of the paper, on GPUs."""
    plan: bool = False
    """Only say what would be run, and what it takes."""
    only: tuple[str, ...] = ()
    """Of several models only these, by the paper's names, for example LLaMA-71M."""
    as_published: tuple[str, ...] = ()
    """Once more as the authors' code does and the paper does not say, each alone: for example embedding bfloat16 (--list names all), or
    several at once: embedding+bfloat16. as-published.json has those that are named together, and says what each makes of every
    difference. Of Mix-LN's language models."""
    data: str | None = None
    """Where the data lie, if not where the recipe looks: for table4 at the paper's scale, the folder of ImageNet-1K."""
    out: Path = Path("runs/reproduce")
    """Folder of all recipes: NAME-SCALE holds a recipe's report (with what else was asked for in its name: NAME-SCALE-seeds-0-1) and within
    it that of each of its comparisons, and trainings what was trained. Recipes that have trainings in common share them."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text and images."""
    seeds: tuple[Seed, ...] = ()
    """Other seeds than the recipe's, for example 0 1 2 3 4 where three do not tell; what was trained before is kept."""
    micro_batch_size: Annotated[int, Range(least=0, most=10**7)] | None = None
    """At most so many sequences or images per forward pass of the pre-training, to save memory. What was trained with more at a time is
    trained again. Left out, what the recipe has for its scale."""
    execution: Annotated[ExecutorSettings, tyro.conf.arg(name="")] = field(default_factory=ExecutorSettings)
    engine: Annotated[EngineSettings, tyro.conf.arg(name="")] = field(default_factory=EngineSettings)
    parallel: Parallel = "ddp"
    """Under torchrun, all of whose processes train one model after the other: what each holds, the whole model (ddp), or a share of its
    weights, gradients and optimizer (fsdp)."""
    document: Path | None = None
    """Print what became of all recipes, in Markdown, and draw their figures: of the files of this folder, each the reproduction.json of a
    recipe as NAME.json, or its as-published.json as NAME.as-published.json. The figures lie in the same folder, and what is printed
    belongs into a file beside it."""

    def __post_init__(self) -> None:
        if not self.list and self.document is None and self.recipe not in RECIPES:
            if not self.recipe:
                raise SettingsError(
                    f"recipe must be named: {', '.join(RECIPES)}; mixln reproduce --list says what they are"
                )
            raise SettingsError(unknown("recipe", self.recipe, RECIPES))
        self.engine.check(self.parallel)

    def run(self) -> int:
        """Says what is run, runs it, and compares it with what was published."""
        terminal = Terminal()
        if self.document is not None:
            print(_document(self.document), end="")
            return 0
        if self.list:
            for name, recipe in RECIPES.items():
                terminal.line(f"{name:<20} {recipe.title} ({recipe.paper})")
            terminal.line("\nwith --as-published, where the authors' code differs:")
            for each in DEVIATIONS.values():
                terminal.line(f"{each.name:<20} {each.what}")
            return 0
        recipe, chosen = self._recipe(), variants(self.as_published)
        runs = recipe.runs(self.scale, self.data)
        if not runs and (given := self._of_trainings()):
            raise SettingsError(f"{given[0]} is not asked for by {self.recipe}, which trains nothing; leave it out")
        for variant in chosen:
            check(recipe, runs, variant)
        processes = launched()[1]
        if processes > 1 and (refused := next((run.name for run in runs if run.settings.after.chain), None)):
            raise SettingsError(
                f"torchrun started {processes} processes, and what follows the pre-training of {refused} takes one device each; "
                "start it without torchrun"
            )
        if not self.plan:
            if self.scale == "paper" and runs:
                check_machine(runs, processes=processes, parallel=self.parallel)
            check_writable(self.out)
        from mixln.report.wording.recipe_plan import described

        for line in described(recipe, runs, self.scale, chosen, done=self._done):
            terminal.prose(line)
        if self.plan:
            return 0
        if processes == 1:
            return self._carry_out(recipe, chosen, terminal)
        from mixln.compare.execution.torchrun import on_all

        trainings = [run.settings.training for run in runs]
        return on_all(self.parallel, trainings, lambda workers: self._carry_out(recipe, chosen, terminal, workers))

    def _carry_out(
        self, recipe: Recipe, chosen: tuple[RecipeVariant, ...], terminal: Terminal, workers: Workers | None = None
    ) -> int:
        from mixln.cli.compare import exit_code, show
        from mixln.recipes.reproducing import RecipeRunner
        from mixln.report.tables import grid, reproduction
        from mixln.report.wording.reproduction import tally
        from mixln.report.writing import write_reproduction

        parts = [
            *map(folder_of, sorted(self.only)),
            *([folder_of(Path(self.data).name)] if self.data else []),
            *([seeds_of(self.seeds)] if self.seeds else []),
            *([f"micro-{self.micro_batch_size}"] if self.micro_batch_size else []),
        ]
        report = self.out / "-".join([self.recipe, self.scale, *parts])
        reports = ReportFolder(report, "reproduction", _earlier)
        reports.check()
        codes = [0]

        def shown(settings: GridSettings, name: str) -> Summary:
            summary = show(settings, workers, report=report / folder_of(name))
            codes.append(exit_code(summary))
            return summary

        carrier = RecipeRunner(
            name=self.recipe,
            recipe=recipe,
            only=self.only,
            scale=self.scale,
            data=self.data,
            command=self._command(chosen),
            out=self.out,
            cache=cache_folder(self.cache),
            show=shown,
        )
        plain = carrier.plain()
        reports.claim()
        paths = write_reproduction(plain.found, report)
        terminal.line()
        terminal.show(grid.terminal(reproduction.numbers(plain.found)))
        if plain.found.orderings:
            terminal.line()
            terminal.show(grid.terminal(reproduction.orders(plain.found)))
        terminal.note(tally(plain.found))
        beside = None
        for beside in carrier.varied(chosen, plain):
            paths = write_reproduction(plain.found, report, beside)
        if beside is not None:
            for table in (reproduction.numbers_beside, reproduction.differences_beside, reproduction.changes_beside):
                terminal.line()
                terminal.show(grid.terminal(table(beside)))
        terminal.line(f"\nreport: {paths[-1]}")
        return max(codes)

    def _of_trainings(self) -> tuple[str, ...]:
        """The options that were given and are of trainings."""
        engine = [item.name for item in fields(EngineSettings) if getattr(self.engine, item.name) != item.default]
        own = [name for name in ("data", "seeds", "micro_batch_size") if getattr(self, name) not in (None, ())]
        return tuple(name.replace("_", "-") for name in (*own, *engine))

    def _recipe(self) -> Recipe:
        """What of the recipe was asked for, and how."""
        recipe = RECIPES[self.recipe]
        if self.only:
            recipe = recipe.only(self.only, self.scale)
        runs = recipe.runs
        asked = replace(
            recipe, runs=lambda scale, data: tuple(replace(run, settings=self._asked(run)) for run in runs(scale, data))
        )
        trials, own = (sum(run.trials for run in each.runs(self.scale, self.data)) for each in (asked, recipe))
        return replace(asked, minutes=max(1, round(recipe.minutes * trials / own))) if own else asked

    def _asked(self, run: Run) -> GridSettings:
        settings = run.settings
        training, micro = settings.training, self.micro_batch_size
        if micro is not None and micro < (training.micro_batch_size or training.batch_size):
            training = replace(training, micro_batch_size=micro)
        seeds = self.seeds or settings.seeds
        return replace(settings, seeds=seeds, training=training, engine=self.engine, execution=self.execution)

    def _done(self, run: Run) -> int:
        return ended(placed(run, self.out / TRAININGS, self.cache))

    def _command(self, chosen: tuple[RecipeVariant, ...]) -> str:
        parts = [
            f"mixln reproduce {self.recipe}",
            *(["--scale paper"] if self.scale == "paper" else []),
            *([f"--only {' '.join(map(shlex.quote, self.only))}"] if self.only else []),
            *([f"--data {shlex.quote(self.data)}"] if self.data else []),
            *([f"--seeds {' '.join(map(str, self.seeds))}"] if self.seeds else []),
            *([f"--micro-batch-size {self.micro_batch_size}"] if self.micro_batch_size else []),
            *([f"--as-published {' '.join(variant.name for variant in chosen)}"] if chosen else []),
        ]
        return " ".join(parts)


def _earlier(folder: Path) -> bool:
    """True if a folder holds a report of mixln's first versions, which wrote no `asked.json`, whole or as far as it is."""
    from mixln.recipes.results import REPRODUCTION

    if (path := folder / "reproduction.json").is_file():
        REPRODUCTION.read(path)
        return True
    return all((path / "results.json").is_file() for path in folder.iterdir() if not path.name.startswith("."))


def _document(folder: Path) -> str:
    from mixln.recipes.results import AS_PUBLISHED, REPRODUCTION, DeviationStudy, Reproduction
    from mixln.report.writing import reproductions

    folder = folder.resolve()  # whose name the links have
    found: dict[str, Reproduction] = {}
    beside: dict[str, DeviationStudy] = {}
    for path in sorted(folder.glob("*.json")):
        name = path.name.partition(".")[0]
        if name not in RECIPES or path.name not in (f"{name}.json", f"{name}.as-published.json"):
            raise SettingsError(
                f"document: {path} must be called as a recipe, {', '.join(RECIPES)}, with .json or .as-published.json"
            )
        try:
            if path.name == f"{name}.json":
                record = found[name] = REPRODUCTION.read(path)
            else:
                record = beside[name] = AS_PUBLISHED.read(path)
            if record.recipe != name:
                raise ValueError(f"it is of {record.recipe}")
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"document: {path} is none of the files that mixln reproduce writes ({error}); take it out of the folder"
            ) from error
    if not found:
        raise SettingsError(f"document: {folder} holds no NAME.json of a recipe that was run")
    try:
        return reproductions(found, beside, folder)
    except KeyError as error:
        raise SettingsError(f"document: {error} is not known to this mixln; run its recipe again") from error
