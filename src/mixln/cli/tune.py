"""`mixln tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mixln.cli.terminal import Terminal
from mixln.search.settings import SearchSettings


@dataclass(frozen=True, kw_only=True)
class TuneCommand(SearchSettings):
    __doc__ = SearchSettings.__doc__
    INTERRUPTED: ClassVar[str] = "run the same command again to resume the search"

    def run(self) -> int:
        """Searches, prints the choice with its evidence, and writes the report."""
        terminal = Terminal()
        terminal.loading()
        from mixln.cli.progress import display
        from mixln.report.tables import grid
        from mixln.report.tables.search import finalists
        from mixln.report.wording.search import verdict
        from mixln.report.writing import write_search
        from mixln.search.tune import tune

        result = tune(self, display(terminal.console, "language"))
        paths = write_search(result, self.out)
        terminal.show(grid.terminal(finalists(result)))
        for sentence in verdict(result):
            terminal.note(sentence)
        terminal.line(f"\nreport: {next(path for path in paths if path.suffix == '.html')}")
        return int(result.chosen is None)
