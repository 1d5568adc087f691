"""`mixln compare`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro

from mixln.cli.given import given
from mixln.cli.stored import defaults, stored_in
from mixln.cli.terminal import Terminal
from mixln.compare.settings import CompareSettings, GridSettings
from mixln.compare.tasks import TASKS, task_of
from mixln.errors import SettingsError, unknown

if TYPE_CHECKING:
    from mixln.compare.execution.runner import Workers
    from mixln.compare.results import Summary


class CompareCommand:
    """`mixln compare` for any task."""

    SETTINGS: ClassVar[type[GridSettings]]
    out: Path
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to resume from the last checkpoints (one per minute, or as set by --checkpoint-seconds)"
    )

    def run(self) -> int:
        """Compares, prints the table and the verdict, and writes the report."""
        Terminal().loading()
        announce(self.out)
        settings = {item.name: getattr(self, item.name) for item in fields(self.SETTINGS)}
        return exit_code(
            show(self.SETTINGS(**settings))
        )  # picklable for workers, unlike this class, which is created at run time


def _command(settings: type[GridSettings]) -> type[CompareCommand]:
    """The command of a task: a class of its settings with :meth:`CompareCommand.run`."""
    made = type(settings.__name__, (settings, CompareCommand), {"__doc__": settings.__doc__, "SETTINGS": settings})
    return dataclass(frozen=True, kw_only=True)(made)


COMMANDS: dict[str, type[CompareCommand]] = {name: _command(task.settings) for name, task in TASKS.items()}
"""Task → its command, since each task has its own options."""
Compare = COMMANDS[CompareSettings.task]


def task_asked(arguments: list[str]) -> str:
    """The `--task` among these arguments, or the default."""
    return given(arguments).get("task", CompareSettings.task)


def command_of(arguments: list[str]) -> tuple[type[CompareCommand], Any]:
    """The command for these arguments of `mixln compare`, and the default values of its options.

    The defaults are the settings of the experiment in `--out`, if it holds one of this task.

    :raises SettingsError: if there is no such task.
    :raises StoreError: if `--out` holds a corrupt experiment.
    """
    options, asked = given(arguments), task_asked(arguments)
    if asked not in COMMANDS:
        raise SettingsError(unknown("task", asked, COMMANDS))
    out = Path(options.get("out") or COMMANDS[asked].out)
    present = stored_in(out)
    stored_task = None if present is None else task_of(present).name
    command = COMMANDS[asked if stored_task is None or "task" in options else stored_task]
    if present is None or COMMANDS[task_of(present).name] is not command:
        return command, tyro.MISSING_NONPROP
    return command, defaults(command, present, out, options)


def announce(out: Path) -> None:
    """Announces that the experiment in a folder is continued with its settings as defaults."""
    if stored_in(out) is not None:
        Terminal().news(f"out {out} holds an experiment: options not given keep its settings")


def show(settings: GridSettings, workers: Workers | None = None, *, report: Path | None = None) -> Summary:
    """Runs a comparison, prints its results, and writes its report.

    :param workers: see :func:`mixln.compare.experiment.compare`.
    :param report: folder of the report, if several comparisons share the experiment; it then has only the trials of this one.
    """
    from mixln.cli.progress import display
    from mixln.compare.experiment import compare

    terminal = Terminal()
    paths: list[Path] = []

    def publish(summary: Summary) -> None:
        from mixln.report.writing import write

        paths[:] = write(summary, report or settings.out)

    summary = compare(settings, display(terminal.console, settings.task), publish, workers, alone=report is not None)

    from mixln.report.tables.chain import terminal_chain
    from mixln.report.tables.comparison import terminal_table
    from mixln.report.wording import chain, comparison, diagnosis

    terminal.show(terminal_table(summary))
    for sentence in comparison.verdict(summary):
        terminal.note(sentence)
    for model in summary.diagnoses:
        terminal.note(f"{model.model}: {diagnosis.verdict(model)[0]}")
    if summary.chain is not None:
        terminal.line()
        terminal.show(terminal_chain(summary))
        for note in chain.notes(summary):
            terminal.note(note)
    page = next(path for path in paths if path.suffix == ".html")
    terminal.line(f"\nreport: {page}")
    failed = [result for result in summary.trials if result.status == "failed"]
    for result in failed:
        terminal.line(f"failed: {result.trial.placement}, seed {result.trial.seed}: {result.reason}", style="red")
    return summary


def exit_code(summary: Summary) -> int:
    """1 if a trial or its chain failed with an error, which is not a result; else 0."""
    chained = () if summary.chain is None else summary.chain.results
    return int(any(result.status == "failed" for result in (*summary.trials, *chained)))
