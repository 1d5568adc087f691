"""`mixln evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mixln.cli.terminal import Terminal
from mixln.errors import MixlnError
from mixln.evaluation.settings import EvaluateSettings
from mixln.files import cache_folder, undone_on
from mixln.memory import keep_freed_memory
from mixln.records import to_json
from mixln.runs.reports import ReportFolder


@dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateSettings):
    __doc__ = EvaluateSettings.__doc__
    INTERRUPTED: ClassVar[str] = "run the same command again to resume after the finished tasks"

    def run(self) -> int:
        """Evaluates, prints the table, and writes it."""
        terminal = Terminal()
        reports = ReportFolder(self.out, "evaluation", _earlier)
        reports.check()
        terminal.loading()
        from mixln.compare.sources import find
        from mixln.evaluation.models import evaluation, examine, prepare_exam
        from mixln.evaluation.results import Evaluation, Scores
        from mixln.report.tables.evaluation import terminal_evaluation
        from mixln.report.wording.evaluation import notes
        from mixln.report.writing import write_evaluation

        keep_freed_memory()
        cache = cache_folder(self.cache)
        sources = [source for name in self.models for source in find(name, cache=cache)]
        exam = prepare_exam(sources, self.asking, self.text, cache=cache)
        if (self.out / "evaluation.json").exists():
            terminal.news(f"out {self.out} holds an evaluation: its table is replaced, all answers are kept")
        settings = {name: value for name, value in to_json(self).items() if name not in ("out", "cache")}
        models: list[Scores] = []

        def so_far() -> Evaluation:
            return evaluation(models, exam, settings)

        def done(scores: Scores) -> None:
            models.append(scores)
            reports.publish(lambda folder: write_evaluation(so_far(), folder))

        with undone_on(self.out, MixlnError):
            reports.claim()
            examine(exam, self.out, done=done)
        result = so_far()
        terminal.show(terminal_evaluation(result))
        for note in notes(result):
            terminal.note(note)
        terminal.line(f"\ntable: {self.out / 'table.md'}")
        return 0


def _earlier(folder: Path) -> bool:
    """True if a folder holds only an evaluation by an early version of mixln, which wrote no `asked.json`."""
    from mixln.evaluation.results import EVALUATION

    names = {path.name for path in folder.iterdir()}
    if "evaluation.json" in names:
        EVALUATION.read(folder / EVALUATION.file)
    return names <= {"evaluation.json", "table.md", "scores"} and bool(names & {"evaluation.json", "scores"})
