"""`mixln reproduce`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from mixln.bounds import Range, Seed, check_numbers
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
    """Reproduce a table or figure of a paper, and compare the published numbers with ours: mixln reproduce table4

    Run the same command again to resume an interrupted run; finished work is not repeated.
    """

    TOGETHER: ClassVar[bool] = True
    INTERRUPTED: ClassVar[str] = "run the same command again to resume from the last checkpoints"

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ""
    """Name of the table or figure; see --list."""
    list: bool = False
    """List all recipes with their titles."""
    scale: Scale = "cpu"
    """cpu: scaled down by stated factors; paper: the sizes, data and steps of the paper, on GPUs."""
    plan: bool = False
    """Only print the plan: what would be run, and the compute that it needs."""
    only: tuple[str, ...] = ()
    """Restrict the recipe to these models, by their names in the paper, for example LLaMA-71M."""
    as_published: tuple[str, ...] = ()
    """Repeat the recipe with these deviations of the authors' code from the paper (see --list), each alone, as in embedding bfloat16, or
    combined, as in embedding+bfloat16. as-published.json reports the effect of each on every difference. Only for the language models of
    the Mix-LN paper."""
    data: str | None = None
    """Data to use instead of those of the recipe: for table4 at the paper's scale, the folder of ImageNet-1K."""
    out: Path = Path("runs/reproduce")
    """Folder of all recipes. NAME-SCALE holds the report of a recipe and within it those of its comparisons; other options are appended to
    its name, as in NAME-SCALE-seeds-0-1. The subfolder trainings holds the trials, which are shared between recipes."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text and images."""
    seeds: tuple[Seed, ...] = ()
    """Seeds to use instead of those of the recipe, for example 0 1 2 3 4 if three give too wide an interval; finished trials are kept."""
    micro_batch_size: Annotated[int, Range(least=0, most=10**7)] | None = None
    """Maximum number of sequences or images per forward pass of pre-training, to save memory. Trials that ran with more are repeated. By
    default that of the recipe."""
    execution: Annotated[ExecutorSettings, tyro.conf.arg(name="")] = field(default_factory=ExecutorSettings)
    engine: Annotated[EngineSettings, tyro.conf.arg(name="")] = field(default_factory=EngineSettings)
    parallel: Parallel = "ddp"
    """Under torchrun, whose processes all train the same model: each holds the complete model (ddp), or a shard of its weights, gradients
    and optimizer state (fsdp)."""
    document: Path | None = None
    """Print the outcomes of all recipes in Markdown, and draw their figures, from the files in this folder: the reproduction.json of a
    recipe as NAME.json, and its as-published.json as NAME.as-published.json. The figures are written to the same folder; save the printed
    text in a file beside it."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.list and self.document is None and self.recipe not in RECIPES:
            if not self.recipe:
                raise SettingsError(f"recipe must be one of {', '.join(RECIPES)}; see mixln reproduce --list")
            raise SettingsError(unknown("recipe", self.recipe, RECIPES))
        self.engine.check(self.parallel)

    def run(self) -> int:
        """Prints the plan, runs it, and compares the results with the published ones."""
        terminal = Terminal()
        if self.document is not None:
            print(_document(self.document), end="")
            return 0
        if self.list:
            for name, recipe in RECIPES.items():
                terminal.line(f"{name:<20} {recipe.title} ({recipe.paper})")
            terminal.line("\nwith --as-published, where the authors' code differs:")
            for deviation in DEVIATIONS.values():
                terminal.line(f"{deviation.name:<20} {deviation.what}")
            return 0
        recipe, chosen = self._recipe(), variants(self.as_published)
        runs = recipe.runs(self.scale, self.data)
        if not runs and (given := self._of_trainings()):
            raise SettingsError(f"{given[0]} does not apply to {self.recipe}, which trains nothing; remove it")
        for variant in chosen:
            check(recipe, runs, variant)
        processes = launched()[1]
        if processes > 1 and (chained := next((run.name for run in runs if run.settings.after.chain), None)):
            raise SettingsError(
                f"torchrun started {processes} processes, but the steps after the pre-training of {chained} run on one device each; "
                "start the command without torchrun"
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
        terminal.loading()
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

        runner = RecipeRunner(
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
        plain = runner.plain()
        reports.claim()
        paths = write_reproduction(plain.found, report)
        terminal.line()
        terminal.show(grid.terminal(reproduction.numbers(plain.found)))
        if plain.found.orderings:
            terminal.line()
            terminal.show(grid.terminal(reproduction.orders(plain.found)))
        terminal.note(tally(plain.found))
        beside = None
        for beside in runner.varied(chosen, plain):
            paths = write_reproduction(plain.found, report, beside)
        if beside is not None:
            for table in (reproduction.numbers_beside, reproduction.differences_beside, reproduction.changes_beside):
                terminal.line()
                terminal.show(grid.terminal(table(beside)))
        terminal.line(f"\nreport: {paths[-1]}")
        return max(codes)

    def _of_trainings(self) -> tuple[str, ...]:
        """Names of the given options that apply to training only."""
        engine = [item.name for item in fields(EngineSettings) if getattr(self.engine, item.name) != item.default]
        options = [name for name in ("data", "seeds", "micro_batch_size") if getattr(self, name) not in (None, ())]
        return tuple(name.replace("_", "-") for name in (*options, *engine))

    def _recipe(self) -> Recipe:
        """The recipe, restricted to the requested models, with the requested seeds, micro batch and engine."""
        recipe = RECIPES[self.recipe]
        if self.only:
            recipe = recipe.only(self.only, self.scale)
        runs = recipe.runs
        asked = replace(
            recipe, runs=lambda scale, data: tuple(replace(run, settings=self._asked(run)) for run in runs(scale, data))
        )
        trials, default = (
            sum(run.trials for run in version.runs(self.scale, self.data)) for version in (asked, recipe)
        )
        return replace(asked, minutes=max(1, round(recipe.minutes * trials / default))) if default else asked

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
    """True if a folder holds a complete or partial report by an early version of mixln, which wrote no `asked.json`."""
    from mixln.recipes.results import REPRODUCTION

    if (path := folder / "reproduction.json").is_file():
        REPRODUCTION.read(path)
        return True
    return all((path / "results.json").is_file() for path in folder.iterdir() if not path.name.startswith("."))


def _document(folder: Path) -> str:
    from mixln.recipes.results import AS_PUBLISHED, REPRODUCTION, DeviationStudy, Reproduction
    from mixln.report.writing import reproductions

    folder = folder.resolve()  # links contain its name, which "." lacks
    outcomes: dict[str, Reproduction] = {}
    beside: dict[str, DeviationStudy] = {}
    for path in sorted(folder.glob("*.json")):
        name = path.name.partition(".")[0]
        if name not in RECIPES or path.name not in (f"{name}.json", f"{name}.as-published.json"):
            raise SettingsError(
                f"document: {path} must be named after a recipe, with .json or .as-published.json; recipes: {', '.join(RECIPES)}"
            )
        try:
            if path.name == f"{name}.json":
                record = outcomes[name] = REPRODUCTION.read(path)
            else:
                record = beside[name] = AS_PUBLISHED.read(path)
            if record.recipe != name:
                raise ValueError(f"its recipe is {record.recipe}")
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"document: {path} is not a file written by mixln reproduce ({error}); remove it from the folder"
            ) from error
    if not outcomes:
        raise SettingsError(f"document: {folder} holds no NAME.json of a recipe; copy a reproduction.json there")
    try:
        return reproductions(outcomes, beside, folder)
    except KeyError as error:
        raise SettingsError(f"document: {error} is not known to this version of mixln; run its recipe again") from error
