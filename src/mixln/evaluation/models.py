"""Evaluates several models under equal conditions: the same questions and the same prompts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixln.data.documents import corpus
from mixln.data.held_out import corpus_of
from mixln.data.settings import NamedText
from mixln.errors import SettingsError
from mixln.evaluation.harness import Harness
from mixln.evaluation.offline import PERPLEXITY
from mixln.evaluation.paired import pairs
from mixln.evaluation.results import Evaluation, QuestionSources, Score, Scores
from mixln.evaluation.settings import TaskSettings
from mixln.files import keep_new
from mixln.hosts.sources import Source, device, identity, load, titles_of, tokenizer_of
from mixln.records import to_json
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.names import slug
from mixln.runs.provenance import here, model_facts
from mixln.runs.schema import Schema

log = logging.getLogger(__name__)

HUB_TOKENS = 2_000_000
"""Number of tokens to stream from a hub data set, of which the held-out part is used."""
SCORES = "scores"
"""Folder of the finished scores in an evaluation's folder, one file per model and task."""
KEPT = Schema(
    kind="score",
    file="score.json",
    record=Score,
    upgrades=(lambda kept: {"request": kept["asked"], "result": kept["score"]},),
)


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """The models, not yet loaded, with their tokenizers, and the tasks with their data. All inputs have been checked."""

    sources: Sequence[Source]
    titles: Sequence[str]
    tokenizers: Sequence[Any]
    harness: Harness
    settings: TaskSettings


def prepare_exam(sources: Sequence[Source], settings: TaskSettings, text: NamedText, *, cache: Path) -> EvaluationPlan:
    """Loads the tasks, their questions and the tokenizers.

    :param text: text of the task `perplexity`. By default the held-out documents of a trial among the models.
    :param cache: folder for task files.
    :raises SettingsError: if a task is unknown or a model is not a decoder.
    :raises DataError: if data cannot be loaded or a tokenizer does not match its model.
    """
    if others := [source.title for source in sources if source.task != "causal-lm"]:
        raise SettingsError(f"models must be decoders with a language-model head, and {others[0]} is not one; omit it")
    titles = titles_of(sources)
    tokenizers = [tokenizer_of(source) for source in sources]
    held_out: list[str] | None = None
    if PERPLEXITY in settings.tasks:
        wanted, trial = corpus_of([source for source in sources if source.trial is not None], text)
        # The held-out documents of a stream depend on its length, so a trial's are found with the trial's length.
        held_out = corpus(wanted, tokens=(trial and trial.trial_tokens) or HUB_TOKENS).held_out
    log.info(f"tasks: {', '.join(settings.tasks)}")
    harness = Harness(
        settings.tasks,
        cache=cache,
        folder=settings.task_folder,
        trusted=settings.trust_task_code,
        where=settings.questions,
        texts=held_out,
        limit=settings.limit,
        shots=settings.shots,
    )
    return EvaluationPlan(sources=sources, titles=titles, tokenizers=tokenizers, harness=harness, settings=settings)


def examine(exam: EvaluationPlan, folder: Path, *, done: Callable[[Scores], None]) -> tuple[Scores, ...]:
    """Evaluates every model on every task. Scores that `folder` already contains are read, not computed again.

    :param done: called with the scores of each model once all its tasks are finished.
    """
    run, results = RunFolder(folder, RunKind(noun="evaluation")), []
    for source, title, tokenizer in zip(exam.sources, exam.titles, exam.tokenizers, strict=True):
        asked = _asked(exam, source, tokenizer)
        # The request's digest in the name keeps the scores of other settings beside these.
        files = {
            name: f"{SCORES}/{slug(title).replace(' ', '')}/{slug(name)}-{_digest(asked[name])}.json" for name in asked
        }
        scores = {name: run.recall(KEPT, asked[name], file) for name, file in files.items()}
        model = None  # loaded only if a score is missing
        for number, (name, file) in enumerate(files.items(), 1):
            if scores[name] is None:
                if model is None:
                    log.info(f"{title}: loading")
                    model = load(source, dtype=exam.settings.precision, device=device())
                log.info(f"{title}: {name} ({number} of {len(files)})")
                score = exam.harness.score(name, model, tokenizer, batch_size=exam.settings.batch_size)
                run.keep(KEPT, asked[name], score, file)
                keep_new()
                scores[name] = score
        del model  # frees the memory before the next model is loaded
        finished = tuple(score for score in scores.values() if score is not None)
        results.append(Scores(model=title, subject=model_facts(source), scores=finished))
        done(results[-1])
    return tuple(results)


def evaluation(models: Sequence[Scores], exam: EvaluationPlan, settings: dict[str, Any]) -> Evaluation:
    """The evaluation of these models, with every later model compared with the first.

    :param settings: settings of the command, which are stored.
    """
    harness = exam.harness
    return Evaluation(
        settings=settings,
        models=tuple(models),
        pairs=tuple(pair for model in models[1:] for pair in pairs(model, models[0])),
        question_limit=exam.settings.limit,
        questions=QuestionSources(
            package=tuple(harness.local),
            hub=tuple(name for name in harness.names if name not in harness.local),
            lm_eval=version("lm-eval"),
        ),
        provenance=here(),
    )


def _asked(exam: EvaluationPlan, source: Source, tokenizer: Any) -> dict[str, Any]:
    """Task → the request of its score: everything that the score depends on."""
    model = identity(source)
    words = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else str(sorted(tokenizer.get_vocab().items()))
    # The digest of the questions stands for their sources: the same questions from another source give the same score.
    sources = ("tasks", "task_folder", "trust_task_code", "questions")
    settings = {name: value for name, value in to_json(exam.settings).items() if name not in sources}
    return {
        name: to_json(
            {
                "model": model,
                "tokenizer": hashlib.sha256(words.encode("utf-8")).hexdigest(),
                "settings": settings,
                "questions": exam.harness.digest(name),
                "lm_eval": version("lm-eval"),
            }
        )
        for name in exam.settings.tasks
    }


def _digest(asked: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8")).hexdigest()[:12]
