"""`mixln diagnose`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from mixln.cli.terminal import Terminal
from mixln.diagnostics.settings import DiagnoseSettings
from mixln.files import cache_folder, check_writable
from mixln.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Diagnose(DiagnoseSettings):
    __doc__ = DiagnoseSettings.__doc__
    INTERRUPTED: ClassVar[str] = "the report has the models that were done"

    def run(self) -> int:
        """Measures, prints a table and the verdict of each model, and writes the report."""
        terminal = Terminal()
        check_writable(self.out)
        terminal.news("loading libraries")
        from mixln.compare.diagnosis import diagnose_all, prepare_models
        from mixln.compare.experiment import facts_of_run
        from mixln.compare.sources import find
        from mixln.diagnostics.results import Diagnoses, Diagnosis
        from mixln.report import terminal_diagnosis, write_diagnosis

        keep_freed_memory()
        cache = cache_folder(self.cache)
        sources = [source for name in self.models for source in find(name, cache=cache, say=terminal.news)]
        prepared = prepare_models(sources, self.text, self.measure, cache=cache, say=terminal.news)

        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("out", "cache")}
        models: list[Diagnosis] = []
        page = self.out

        def done(diagnosis: Diagnosis) -> None:
            nonlocal page
            models.append(diagnosis)
            paths = write_diagnosis(Diagnoses(settings=settings, models=tuple(models), facts=facts_of_run()), self.out)
            page = next(path for path in paths if path.suffix == ".html")
            terminal.show(terminal_diagnosis(diagnosis))
            for sentence in diagnosis.verdict:
                terminal.note(sentence)
            terminal.line()

        diagnose_all(prepared, self.measure, cache=cache, say=terminal.news, done=done)
        terminal.line(f"report: {page}")
        return 0
