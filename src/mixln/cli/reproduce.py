"""`mixln reproduce`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from mixln.cli.terminal import Terminal
from mixln.errors import SettingsError, unknown
from mixln.files import check_writable
from mixln.recipes import RECIPES, Scale
from mixln.recipes.deviations import DEVIATIONS, changed, deviations
from mixln.recipes.plan import check_machine, described, settings_of


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
                terminal.line(f"{name:<20} {recipe.title} ({recipe.paper})")
            terminal.line("\nwith --as-published, where the authors' code differs:")
            for each in DEVIATIONS.values():
                terminal.line(f"{each.name:<20} {each.what}")
            return 0
        recipe = RECIPES[self.recipe]
        chosen = deviations(self.as_published)
        if self.data is not None and not recipe.runs(self.scale, None):
            raise SettingsError(f"data is not asked for by {self.recipe}, which trains nothing; leave it out")
        runs = changed(recipe, recipe.runs(self.scale, self.data), chosen)
        for line in described(recipe, runs, self.scale):
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
