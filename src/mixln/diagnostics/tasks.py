"""Performance drop by lm-eval tasks. Optional: it needs the package lm-eval."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixln.diagnostics.drop import removal
from mixln.diagnostics.results import Drops
from mixln.diagnostics.stack import Stack, evaluating
from mixln.errors import DataError, SettingsError, first_line
from mixln.hosts.sources import Say, silent


class Tasks:
    """Tasks of lm-eval by name, whose data was loaded once to see that it can be had.

    :param names: tasks or groups of tasks.
    :param folder: holds task files of one's own; lm-eval's own tasks are then known too.
    :param limit: questions per task; `None` for all.
    :raises SettingsError: if lm-eval is not installed or does not know a task.
    :raises DataError: if a task's data cannot be had.
    """

    def __init__(self, names: Sequence[str], *, folder: Path | None = None, limit: int | None = None) -> None:
        if find_spec("lm_eval") is None:
            raise SettingsError('tasks need the package lm-eval; run pip install "mixln[tasks]"')
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"task-folder {folder} is no folder; name one that holds lm-eval task files (.yaml)")
        with _quiet():
            from lm_eval.tasks import TaskManager

            own = TaskManager(include_path=folder, include_defaults=False) if folder else None
            if own is not None and set(names) <= set(own.all_tasks):
                self.manager = own  # lm-eval's own tasks take 15 s to list
            else:
                self.manager = TaskManager(include_path=folder)
        for name in names:
            if name not in self.manager.all_tasks:
                alike = [known for known in self.manager.all_tasks if name.lower()[:4] in known.lower()][:5]
                near = f"; there are {', '.join(alike)}" if alike else ""
                raise SettingsError(f"tasks: lm-eval does not know {name!r}{near}; lm-eval ls tasks lists them all")
        self.names = names
        self.limit = limit
        for name in names:
            try:
                with _quiet():
                    self.manager.load([name])
            except Exception as error:  # the data sets of tasks come from anywhere
                raise DataError(
                    f"tasks: the data of {name} cannot be had: {type(error).__name__}: {first_line(error)}; "
                    "check the network, or give a task of your own with --task-folder"
                ) from error

    def drops(self, stack: Stack, tokenizer: Any, *, batch_size: int, say: Say = silent) -> tuple[Drops, ...]:
        """The performance drop of every layer, skipped whole, by each task: one evaluation for the whole model and one a layer.

        ΔP is the mean over questions of the task's first metric without the layer, minus that of the whole model; its
        interval is over questions.
        """
        found = []
        for name in self.names:
            metric, higher, whole = self._scores(name, stack, tokenizer, batch_size)
            drops = []
            for index in range(len(stack)):
                say(f"{name}: without layer {index + 1} of {len(stack)}")
                with stack.skipping([index]):
                    _, _, scores = self._scores(name, stack, tokenizer, batch_size)
                drops.append(removal(index, index, scores, whole, torch.ones_like(whole)))
            found.append(
                Drops(
                    measure=f"{metric} of {name}",
                    unit="mean over questions",
                    better="higher" if higher else "lower",
                    original=whole.mean().item(),
                    skipped=tuple(drops),
                    tokens=len(whole),
                    sequences=len(whole),
                )
            )
        return tuple(found)

    def _scores(self, name: str, stack: Stack, tokenizer: Any, batch_size: int) -> tuple[str, bool, Tensor]:
        """The task's first metric, whether higher is better, and its value for every question."""
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with _quiet(), evaluating(stack.model), torch.no_grad():
            model: Any = HFLM(pretrained=stack.model, tokenizer=tokenizer, batch_size=batch_size)  # type: ignore[call-arg]
            result: Any = simple_evaluate(
                model,
                tasks=[name],
                task_manager=self.manager,
                limit=self.limit,
                bootstrap_iters=0,
                log_samples=True,
            )
        samples = [sample for task in sorted(result["samples"]) for sample in result["samples"][task]]
        metrics = [m for m in samples[0]["metrics"] if all(isinstance(s.get(m), int | float) for s in samples)]
        if not metrics:
            raise SettingsError(f"tasks: {name} has no metric that is a mean over questions; name another task")
        higher = next(iter(result["higher_is_better"].values())).get(metrics[0], True)
        # The filters of one question each give a sample; the first of them is the one that lm-eval names first.
        first = samples[0]["filter"]
        return (
            metrics[0],
            bool(higher),
            torch.tensor(
                [float(sample[metrics[0]]) for sample in samples if sample["filter"] == first], dtype=torch.float64
            ),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps lm-eval's logs and progress bars from the terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
