"""Evaluations of several models on equal terms: the same questions in the same words, one task after the other."""

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
"""Tokens up to which a hub data set is streamed for its held-out part."""
SCORES = "scores"
"""Folder of the scores that an evaluation has, one file a model and task."""
KEPT = Schema(
    kind="score",
    file="score.json",
    record=Score,
    upgrade=lambda kept: {"request": kept["asked"], "result": kept["score"]},
)


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """The models with their tokenizers, and the tasks with their data: everything that can be wrong has been looked at."""

    sources: Sequence[Source]
    titles: Sequence[str]
    tokenizers: Sequence[Any]
    harness: Harness
    settings: TaskSettings


def prepare_exam(sources: Sequence[Source], settings: TaskSettings, text: NamedText, *, cache: Path) -> EvaluationPlan:
    """Finds tasks, questions and tokenizers.

    :param text: of the task `perplexity`; where none is named, of trials what they held out.
    :raises SettingsError: for a task that is not known, or a model that is no decoder; :class:`DataError` for data that cannot be had
        or a tokenizer that does not fit.
    """
    if others := [source.title for source in sources if source.task != "causal-lm"]:
        raise SettingsError(
            f"models must be decoders with a language-model head, and {others[0]} is none; leave it out"
        )
    titles = titles_of(sources)
    tokenizers = [tokenizer_of(source) for source in sources]
    held_out: list[str] | None = None
    if PERPLEXITY in settings.tasks:
        wanted, trial = corpus_of([source for source in sources if source.trial is not None], text)
        # What is held out of a stream depends on how much of it there is.
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
    """Asks every model every task; what `folder` holds already is read and not asked again.

    :param done: told of each model when all its tasks are there.
    """
    run, found = RunFolder(folder, RunKind(noun="evaluation")), []
    for source, title, tokenizer in zip(exam.sources, exam.titles, exam.tokenizers, strict=True):
        asked = _asked(exam, source, tokenizer)
        kept = {
            name: f"{SCORES}/{slug(title).replace(' ', '')}/{slug(name)}-{_digest(asked[name])}.json" for name in asked
        }
        scores = {name: run.recall(KEPT, asked[name], file) for name, file in kept.items()}
        model = None
        for number, (name, file) in enumerate(kept.items(), 1):
            if scores[name] is None:
                if model is None:
                    log.info(f"{title}: loading")
                    model = load(source, dtype=exam.settings.precision, device=device())
                log.info(f"{title}: {name} ({number} of {len(kept)})")
                score = exam.harness.score(name, model, tokenizer, batch_size=exam.settings.batch_size)
                run.keep(KEPT, asked[name], score, file)
                keep_new()
                scores[name] = score
        del model  # before the next one is loaded
        every = tuple(score for score in scores.values() if score is not None)
        found.append(Scores(model=title, subject=model_facts(source), scores=every))
        done(found[-1])
    return tuple(found)


def evaluation(models: Sequence[Scores], exam: EvaluationPlan, settings: dict[str, Any]) -> Evaluation:
    """The scores of these models, each later one paired with the first."""
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
    """Everything that a score depends on, by task."""
    model = identity(source)
    words = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else str(sorted(tokenizer.get_vocab().items()))
    settings = {
        name: value
        for name, value in to_json(exam.settings).items()
        if name
        not in ("tasks", "task_folder", "trust_task_code", "questions")  # what is asked says more than where it lay
    }
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
