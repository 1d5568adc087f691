"""`mixln stress`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mixln.cli.terminal import Terminal
from mixln.search.settings import StressSettings

if TYPE_CHECKING:
    from mixln.runs.trials import TrialResult


@dataclass(frozen=True, kw_only=True)
class StressCommand(StressSettings):
    __doc__ = StressSettings.__doc__
    INTERRUPTED: ClassVar[str] = "run the same command again to resume from the last checkpoints"

    def run(self) -> int:
        """Runs the ramps, prints the table and the verdict, and writes the report."""
        terminal = Terminal()
        terminal.loading()
        from mixln.cli.progress import display
        from mixln.report.tables import grid
        from mixln.report.tables.stress import table
        from mixln.report.wording.stress import verdict
        from mixln.report.writing import write_stress
        from mixln.search.stress import stress

        result = stress(self, display(terminal.console, "language", _ended))
        paths = write_stress(result, self.out)
        terminal.show(grid.terminal(table(result)))
        for sentence in verdict(result):
            terminal.note(sentence)
        failed = [ramp for ramp in result.ramps if ramp.error]
        for ramp in failed:
            terminal.line(f"failed: {ramp.placement}, seed {ramp.seed}: {ramp.error}", style="red")
        terminal.line(f"\nreport: {next(path for path in paths if path.suffix == '.html')}")
        return int(bool(failed))


def _ended(result: TrialResult) -> str:
    """The line on a ramp that has ended."""
    if result.status == "failed":
        return f"{result.trial.placement}, seed {result.trial.seed}: failed ({result.reason})"
    end = f"diverged at step {result.step:,}" if result.status == "diverged" else "completed the ramp"
    return f"{result.trial.placement}, seed {result.trial.seed}: {end}"
