"""`mixln diagnose`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mixln.cli.terminal import Terminal
from mixln.diagnostics.settings import DiagnoseSettings
from mixln.files import cache_folder
from mixln.memory import keep_freed_memory
from mixln.records import to_json
from mixln.runs.reports import ReportFolder


@dataclass(frozen=True, kw_only=True)
class Diagnose(DiagnoseSettings):
    __doc__ = DiagnoseSettings.__doc__
    INTERRUPTED: ClassVar[str] = "the report contains the models that were finished"

    def run(self) -> int:
        """Measures, prints a table and the verdict of each model, and writes the report."""
        terminal = Terminal()
        reports = ReportFolder(self.out, "diagnosis", _earlier)
        reports.check()
        terminal.loading()
        from mixln.compare.sources import find
        from mixln.diagnostics.models import diagnose_all, prepare_models
        from mixln.diagnostics.results import Diagnoses, Diagnosis
        from mixln.report.tables.layers import terminal_diagnosis
        from mixln.report.wording import diagnosis as wording
        from mixln.report.writing import write_diagnosis
        from mixln.runs.provenance import here

        keep_freed_memory()
        cache = cache_folder(self.cache)
        sources = [source for name in self.models for source in find(name, cache=cache)]
        prepared = prepare_models(sources, self.text, self.measure, cache=cache)

        settings = {name: value for name, value in to_json(self).items() if name not in ("out", "cache")}
        models: list[Diagnosis] = []
        page = self.out

        def done(diagnosis: Diagnosis) -> None:
            nonlocal page
            models.append(diagnosis)
            diagnoses = Diagnoses(settings=settings, models=tuple(models), provenance=here())
            paths = reports.publish(lambda folder: write_diagnosis(diagnoses, folder))
            page = next(path for path in paths if path.suffix == ".html")
            terminal.show(terminal_diagnosis(diagnosis))
            for sentence in wording.verdict(diagnosis):
                terminal.note(sentence)
            terminal.line()

        diagnose_all(prepared, self.measure, cache=cache, done=done)
        terminal.line(f"report: {page}")
        return 0


def _earlier(folder: Path) -> bool:
    """True if a folder holds only a diagnosis by an early version of mixln, which wrote no `asked.json`."""
    from mixln.diagnostics.results import DIAGNOSES

    DIAGNOSES.read(folder / DIAGNOSES.file)
    return all(path.suffix == ".png" or path.name in ("diagnosis.json", "report.html") for path in folder.iterdir())
