"""Diagnoses of several models on equal terms: the same documents, the same length of sequences, the same measures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixln.data.held_out import corpus_of
from mixln.data.image_folder import held_out_batches, image_batches
from mixln.data.samples import ImageSample, TextSample
from mixln.data.settings import CorpusSettings, ImageSettings, NamedText
from mixln.data.windows import Kind, Windows, text_windows
from mixln.diagnostics.diagnose import diagnose
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import EmbeddingChange, ImageAccuracy, ImageLoss, Measure, TokenLoss
from mixln.diagnostics.results import Diagnosis
from mixln.diagnostics.settings import MeasureSettings
from mixln.diagnostics.stack import Batch, find_stack
from mixln.diagnostics.tasks import task_drops
from mixln.errors import CheckpointError, SettingsError
from mixln.evaluation.harness import Harness
from mixln.hosts.configs import positions
from mixln.hosts.sources import Source, device, image_processor_of, load, titles_of, tokenizer_of
from mixln.records import from_json
from mixln.runs.provenance import model_facts

log = logging.getLogger(__name__)

LEAST_TOKENS = 8
"""Tokens of the shortest sequence that is measured."""


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model with its data, before it is loaded.

    :param text: what the batches are, or `images`.
    :param also: measures by which the performance drop is measured too.
    """

    source: Source
    title: str
    batches: Sequence[Batch]
    measure: Measure
    text: TextSample | None = None
    images: ImageSample | None = None
    also: tuple[Measure, ...] = ()
    tokenizer: Any = None


def prepare_models(
    sources: Sequence[Source], text: NamedText, settings: MeasureSettings, *, cache: Path
) -> list[PreparedModel]:
    """Cuts the text for every model, so that what is wrong with any of them shows before the first is measured.

    Text that a trial was trained on is not used: its experiment's held-out documents are, for all models of the run. An image
    classifier that is a trial looks at the images that its experiment held out, unless others are named.

    :param text: as far as one is named.
    :param cache: folder of prepared images.
    :raises DataError: if the text or the images cannot be read, or are too few.
    """
    if settings.tasks and (others := [source.title for source in sources if source.task != "causal-lm"]):
        raise SettingsError(
            f"tasks need decoders with a language-model head, and {others[0]} is none; leave out --tasks, or it"
        )
    corpus, trial = corpus_of([source for source in sources if source.trial is not None], text)
    length = min([settings.sequence_length, *(limit for source in sources for limit in _limits(source))])
    if length < settings.sequence_length:
        log.info(f"sequences of {length} tokens: the most that all of the models take or were trained on")
    titles = titles_of(sources)
    return [
        _prepare(source, title, corpus, settings, length, trial, named=text.data is not None, cache=cache)
        for source, title in zip(sources, titles, strict=True)
    ]


def diagnose_all(
    prepared: Sequence[PreparedModel],
    settings: MeasureSettings,
    *,
    cache: Path,
    done: Callable[[Diagnosis], None],
) -> tuple[Diagnosis, ...]:
    """Loads and measures one model after the other.

    :param cache: folder for what is prepared once.
    :param done: told of each diagnosis when it is there.
    :raises MixlnError: see :mod:`mixln.diagnostics`.
    """
    harness = (
        Harness(
            settings.tasks,
            cache=cache,
            folder=settings.task_folder,
            trusted=settings.trust_task_code,
            limit=settings.task_limit,
        )
        if settings.tasks
        else None
    )
    found = []
    for entry in prepared:
        log.info(f"{entry.title}: loading")
        model = load(entry.source, dtype=settings.precision, device=device())
        stack = find_stack(model, settings.layer_list)
        batches = [{name: value.to(model.device) for name, value in batch.items()} for batch in entry.batches]
        parameters = sum(parameter.numel() for parameter in model.parameters())
        diagnosis = diagnose(
            stack,
            batches,
            entry.measure,
            settings,
            name=entry.title,
        )
        subject = model_facts(entry.source, parameters=parameters, precision=settings.precision)
        diagnosis = replace(diagnosis, subject=subject, text=entry.text, images=entry.images)
        if settings.drop and entry.also:
            by = ", ".join(measure.name for measure in entry.also)
            log.info(f"{entry.title}: performance drop by {by}")
            drops = tuple(performance_drop(stack, batches, measure) for measure in entry.also)
            diagnosis = replace(diagnosis, tasks=drops)
        if harness is not None:
            drops = task_drops(harness, stack, entry.tokenizer, batch_size=settings.batch_size)
            diagnosis = replace(diagnosis, tasks=drops)
        found.append(diagnosis)
        done(diagnosis)
        del model, stack, batches  # before the next one is loaded
    return tuple(found)


def _prepare(
    source: Source,
    title: str,
    corpus: CorpusSettings,
    settings: MeasureSettings,
    length: int,
    trial: Source | None,
    *,
    named: bool,
    cache: Path,
) -> PreparedModel:
    if source.takes_images:
        many: Any = {"batch_size": settings.batch_size, "tokens": settings.tokens}
        images = None if source.images is None else from_json(ImageSettings, source.images)
        if images is not None and not named:
            batches, sample = held_out_batches(images, source.images_fingerprint, source.config, cache=cache, **many)
        else:
            if images is not None:
                log.info(
                    f"{title} was trained on {images.data}: if {corpus.data} holds the same images, it has seen what is "
                    "measured here"
                )
            batches, sample = image_batches(corpus.data, image_processor_of(source), source.config, **many)
        labelled = sample.labelled and source.task == "image-classification"
        return PreparedModel(
            source=source,
            title=title,
            batches=batches,
            images=sample,
            measure=ImageLoss() if labelled else EmbeddingChange(),
            also=(ImageAccuracy(),) if labelled else (),
        )
    tokenizer = tokenizer_of(source)
    kind: Kind = "none" if source.task == "image-classification" else source.task
    windows: Windows = text_windows(
        corpus,
        tokenizer,
        tokens=settings.tokens,
        sequence_length=length,
        held_out_only=trial is not None,
        kind=kind,
        seed=settings.seed,
        corpus_tokens=trial.trial_tokens if trial else None,
    )
    measures: dict[str, Measure] = {
        "causal-lm": TokenLoss(shift=1),
        "masked-lm": TokenLoss(shift=0),
        "none": EmbeddingChange(),
    }
    return PreparedModel(
        source=source,
        title=title,
        batches=list(windows.batches(settings.batch_size)),
        text=windows.sample,
        measure=measures[kind],
        tokenizer=tokenizer,
    )


def _limits(source: Source) -> list[int]:
    """The most tokens a sequence may have: by the model's positions, and by what a trial was trained on.

    :raises CheckpointError: if the model has too few positions to be measured.
    """
    if source.takes_images:
        return []
    most = positions(source.config)
    if most is not None and most < LEAST_TOKENS:
        raise CheckpointError(
            f"model {source.name} takes sequences of at most {most} tokens (max_position_embeddings), and at least {LEAST_TOKENS} are "
            "needed to measure it; mend its config, or name another model"
        )
    trained = source.trial["sequence_length"] if source.trial else None
    return [limit for limit in (most, trained) if limit is not None]
