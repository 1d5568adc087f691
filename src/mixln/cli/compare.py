"""`mixln compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mixln.cli.terminal import Terminal
from mixln.compare.settings import CompareSettings

if TYPE_CHECKING:
    from mixln.compare.results import Summary
    from mixln.compare.runner import Workers


@dataclass(frozen=True, kw_only=True)
class Compare(CompareSettings):
    __doc__ = CompareSettings.__doc__
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to go on from the last checkpoints (one a minute, or as --checkpoint-seconds says)"
    )

    def run(self) -> int:
        """Compares, prints the table and the verdict, and writes the report."""
        return show(self)


def show(settings: CompareSettings, workers: Workers | None = None) -> int:
    """Runs a comparison, prints what it found, and returns the exit code: 1 if a trial failed.

    :param workers: see :func:`mixln.compare.experiment.compare`.
    """
    from mixln.cli.progress import display
    from mixln.compare.experiment import compare

    terminal = Terminal()
    paths: list[Path] = []

    def publish(summary: Summary) -> None:
        from mixln.report import write

        paths[:] = write(summary, settings.out)

    summary = compare(settings, display(terminal.console), publish, workers)

    from mixln.report import terminal_chain, terminal_table

    terminal.show(terminal_table(summary))
    for sentence in summary.verdict:
        terminal.note(sentence)
    for diagnosis in summary.diagnoses:
        terminal.note(f"{diagnosis.model}: {diagnosis.verdict[0]}")
    if summary.chain is not None:
        terminal.line()
        terminal.show(terminal_chain(summary))
        for note in summary.chain.notes:
            terminal.note(note)
    page = next(path for path in paths if path.suffix == ".html")
    terminal.line(f"\nreport: {page}")
    failed = [result for result in summary.trials if result.status == "failed"]
    for result in failed:
        terminal.line(f"failed: {result.trial.placement}, seed {result.trial.seed}: {result.reason}", style="red")
    broken = summary.chain is not None and any(result.status == "failed" for result in summary.chain.results)
    return 1 if failed or broken else 0
