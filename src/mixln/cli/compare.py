"""`mixln compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mixln.compare.settings import CompareSettings

if TYPE_CHECKING:
    from mixln.compare.results import Summary


@dataclass(frozen=True, kw_only=True)
class Compare(CompareSettings):
    __doc__ = CompareSettings.__doc__
    INTERRUPTED: ClassVar[str] = "run the same command again to go on from the last checkpoints (one a minute)"

    def run(self) -> int:
        """Compares, prints the table and the verdict, and writes the report."""
        from rich.console import Console

        from mixln.cli.progress import display
        from mixln.compare.experiment import compare

        console = Console()
        paths: list[Path] = []

        def publish(summary: Summary) -> None:
            from mixln.report import write

            paths[:] = write(summary, self.out)

        summary = compare(self, display(console), publish)

        from mixln.report import terminal_chain, terminal_table

        console.print(terminal_table(summary))
        for sentence in summary.verdict:
            console.print(f"• {sentence}", highlight=False, markup=False)
        for diagnosis in summary.diagnoses:
            console.print(f"• {diagnosis.model}: {diagnosis.verdict[0]}", highlight=False, markup=False)
        if summary.chain is not None:
            console.print()
            console.print(terminal_chain(summary))
            for note in summary.chain.notes:
                console.print(f"• {note}", highlight=False, markup=False)
        page = next(path for path in paths if path.suffix == ".html")
        console.print(f"\nreport: {page}", highlight=False, markup=False, soft_wrap=True)
        failed = [result for result in summary.trials if result.status == "failed"]
        for result in failed:
            console.print(
                f"failed: {result.trial.placement}, seed {result.trial.seed}: {result.reason}",
                style="red",
                markup=False,
            )
        broken = summary.chain is not None and any(result.status == "failed" for result in summary.chain.results)
        return 1 if failed or broken else 0
