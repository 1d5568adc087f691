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
    """What `mixln compare` does, whatever the task."""

    SETTINGS: ClassVar[type[GridSettings]]
    out: Path
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to go on from the last checkpoints (one a minute, or as --checkpoint-seconds says)"
    )

    def run(self) -> int:
        """Compares, prints the table and the verdict, and writes the report."""
        announce(self.out)
        own = {item.name: getattr(self, item.name) for item in fields(self.SETTINGS)}
        return exit_code(
            show(self.SETTINGS(**own))
        )  # a worker can be sent these, and not this class, which has no module


def _command(settings: type[GridSettings]) -> type[CompareCommand]:
    """The command of a task: its settings, and what is done with them."""
    made = type(settings.__name__, (settings, CompareCommand), {"__doc__": settings.__doc__, "SETTINGS": settings})
    return dataclass(frozen=True, kw_only=True)(made)


COMMANDS: dict[str, type[CompareCommand]] = {name: _command(task.settings) for name, task in TASKS.items()}
"""Task → command: each has options of its own."""
Compare = COMMANDS[CompareSettings.task]


def task_asked(arguments: list[str]) -> str:
    """The `--task` among these arguments, or what it is without one."""
    return given(arguments).get("task", CompareSettings.task)


def command_of(arguments: list[str]) -> tuple[type[CompareCommand], Any]:
    """The command that `mixln compare` with these arguments is, and the settings that stand for options that are not given.

    :raises SettingsError: if there is no such task.
    :raises StoreError: if `--out` holds a corrupt experiment.
    """
    options, asked = given(arguments), task_asked(arguments)
    if asked not in COMMANDS:
        raise SettingsError(unknown("task", asked, COMMANDS))
    out = Path(options.get("out") or COMMANDS[asked].out)
    present = stored_in(out)
    there = None if present is None else task_of(present).name
    command = COMMANDS[there if there is not None and "task" not in options else asked]
    if present is None or COMMANDS[task_of(present).name] is not command:
        return command, tyro.MISSING_NONPROP
    return command, defaults(command, present, out, options)


def announce(out: Path) -> None:
    """Says that a folder's experiment is continued, whose settings stand for options that are not given."""
    if stored_in(out) is not None:
        Terminal().news(f"out {out} holds an experiment: options that are not given are as there")


def show(settings: GridSettings, workers: Workers | None = None, *, report: Path | None = None) -> Summary:
    """Runs a comparison, prints what it found, and writes its report.

    :param workers: see :func:`mixln.compare.experiment.compare`.
    :param report: of an experiment that several comparisons share, where the report of this one lies; it then has only its own trials.
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
    for each in summary.diagnoses:
        terminal.note(f"{each.model}: {diagnosis.verdict(each)[0]}")
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
    """1 if a trial, or its chain, failed with an error, which is no result."""
    chained = () if summary.chain is None else summary.chain.results
    return int(any(result.status == "failed" for result in (*summary.trials, *chained)))
