"""`mixln diagnose`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from mixln.diagnostics.settings import DiagnoseSettings
from mixln.files import check_writable
from mixln.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Diagnose(DiagnoseSettings):
    __doc__ = DiagnoseSettings.__doc__
    INTERRUPTED: ClassVar[str] = "the report has the models that were done"

    def run(self) -> int:
        """Measures, prints a table and the verdict of each model, and writes the report."""
        from rich.console import Console

        console = Console()

        def say(text: str) -> None:
            console.print(text, highlight=False, markup=False, soft_wrap=True, style="dim")

        check_writable(self.out)
        say("loading libraries")
        from mixln.compare.diagnosis import diagnose_all, prepare_models
        from mixln.compare.experiment import facts_of_run
        from mixln.compare.sources import find
        from mixln.diagnostics.results import Diagnoses, Diagnosis
        from mixln.report import terminal_diagnosis, write_diagnosis

        keep_freed_memory()
        cache = self.cache.expanduser()
        sources = [source for name in self.models for source in find(name, cache=cache, say=say)]
        prepared = prepare_models(sources, self.text, self.measure, say=say)

        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("out", "cache")}
        models: list[Diagnosis] = []
        page = self.out

        def done(diagnosis: Diagnosis) -> None:
            nonlocal page
            models.append(diagnosis)
            paths = write_diagnosis(Diagnoses(settings=settings, models=tuple(models), facts=facts_of_run()), self.out)
            page = next(path for path in paths if path.suffix == ".html")
            console.print(terminal_diagnosis(diagnosis))
            for sentence in diagnosis.verdict:
                console.print(f"• {sentence}", highlight=False, markup=False)
            console.print()

        diagnose_all(prepared, self.measure, cache=cache, say=say, done=done)
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
        return 0
