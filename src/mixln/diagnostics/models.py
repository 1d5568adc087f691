"""Diagnoses several models under equal conditions: the same documents, sequence length and measures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from mixln.data.held_out import corpus_of
from mixln.data.image_folder import held_out_batches, image_batches
from mixln.data.samples import ImageSample, TextSample
from mixln.data.settings import CorpusSettings, ImageSettings, NamedText
from mixln.data.windows import Kind, Windows, text_windows
from mixln.diagnostics.diagnose import diagnose
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import EmbeddingChange, ImageAccuracy, ImageLoss, Measure, TokenLoss
from mixln.diagnostics.results import Diagnosis, Selection
from mixln.diagnostics.selection import Enough, best_sets
from mixln.diagnostics.settings import ChoiceSettings, MeasureSettings
from mixln.diagnostics.stack import Batch, Stack, find_stack
from mixln.diagnostics.tasks import task_drops
from mixln.errors import CheckpointError, SettingsError
from mixln.evaluation.harness import Harness
from mixln.hosts.configs import positions
from mixln.hosts.sources import Source, device, head_of, image_processor_of, load, titles_of, tokenizer_of
from mixln.records import from_json
from mixln.runs.provenance import model_facts

log = logging.getLogger(__name__)

LEAST_TOKENS = 8
"""Smallest sequence length, in tokens, that a model must accept."""


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model, not yet loaded, and its data.

    :param text: describes the batches of a language model, `images` those of an image model.
    :param also: further measures of the performance drop.
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
    """Prepares the data of all models, so that an error in any of them is raised before the first is measured.

    If a trial was trained on this text, all models are measured on its held-out documents only. An image classifier that is a
    trial uses the held-out images of its experiment unless `text` names other images.

    :param text: the text or images that the user named; fields that are `None` were not given.
    :param cache: folder for prepared images.
    :raises SettingsError: if lm-eval tasks are requested and a model is not a decoder.
    :raises CheckpointError: if a model accepts too few positions.
    :raises DataError: if the text or the images cannot be read, or are too few.
    """
    if settings.tasks and (others := [source.title for source in sources if source.task != "causal-lm"]):
        raise SettingsError(
            f"tasks need decoders with a language-model head, and {others[0]} is not one; omit --tasks, or this model"
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
    """Loads and diagnoses the models one after the other.

    :param cache: folder for prepared task files.
    :param done: called with each finished diagnosis.
    :raises MixlnError: see :func:`~mixln.diagnostics.diagnose.diagnose`.
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
    diagnoses = []
    for entry in prepared:
        log.info(f"{entry.title}: loading")
        model = load(entry.source, dtype=settings.precision, device=device())
        stack = find_stack(model, settings.layer_list)
        batches = [{name: value.to(model.device) for name, value in batch.items()} for batch in entry.batches]
        parameters = sum(parameter.numel() for parameter in model.parameters())
        diagnosis = diagnose(stack, batches, entry.measure, settings, name=entry.title)
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
        diagnoses.append(diagnosis)
        done(diagnosis)
        del model, stack, batches  # frees the memory before the next model is loaded
    return tuple(diagnoses)


def choose_layers(
    source: Source,
    stack: Stack,
    enough: Enough,
    settings: ChoiceSettings,
    text: NamedText,
    *,
    cache: Path,
    layer_list: str | None = None,
) -> Selection:
    """Chooses the layers of a loaded model to remove together, on text that a trial was not trained on.

    :param stack: the model as it was saved; it is loaded again if its class has not the head that measures it.
    :raises MixlnError: see :func:`prepare_models` and :func:`~mixln.diagnostics.selection.best_sets`.
    """
    measured = MeasureSettings(
        tokens=settings.tokens, sequence_length=settings.sequence_length, batch_size=settings.batch_size
    )
    (entry,) = prepare_models([source], text, measured, cache=cache)
    dtype = str(stack.model.dtype).removeprefix("torch.")
    if type(stack.model) is not head_of(source):
        stack = find_stack(load(source, dtype=dtype, device=device()), layer_list)
    before = stack.model.device
    nn.Module.to(stack.model, device())
    batches = [{name: value.to(stack.model.device) for name, value in batch.items()} for batch in entry.batches]
    methods = (settings.method,)
    selection = best_sets(stack, batches, entry.measure, units="layers", enough=enough, methods=methods)
    nn.Module.to(stack.model, before)
    return selection


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
    """:param named: whether the user named the data, which then takes precedence over a trial's held-out images."""
    if source.takes_images:
        return _prepare_images(source, title, corpus, settings, named=named, cache=cache)
    return _prepare_text(source, title, corpus, settings, length, trial)


def _prepare_images(
    source: Source,
    title: str,
    corpus: CorpusSettings,
    settings: MeasureSettings,
    *,
    named: bool,
    cache: Path,
) -> PreparedModel:
    size: Any = {"batch_size": settings.batch_size, "tokens": settings.tokens}
    images = None if source.images is None else from_json(ImageSettings, source.images)
    if images is not None and not named:
        batches, sample = held_out_batches(images, source.images_fingerprint, source.config, cache=cache, **size)
    else:
        if images is not None:
            log.info(
                f"{title} was trained on {images.data}: if {corpus.data} holds the same images, it has seen what is "
                "measured here"
            )
        batches, sample = image_batches(corpus.data, image_processor_of(source), source.config, **size)
    labelled = sample.labelled and source.task == "image-classification"
    return PreparedModel(
        source=source,
        title=title,
        batches=batches,
        images=sample,
        measure=ImageLoss() if labelled else EmbeddingChange(),
        also=(ImageAccuracy(),) if labelled else (),
    )


def _prepare_text(
    source: Source,
    title: str,
    corpus: CorpusSettings,
    settings: MeasureSettings,
    length: int,
    trial: Source | None,
) -> PreparedModel:
    """:param length: tokens per sequence.

    :param trial: the trial whose experiment's held-out documents are used, if any.
    """
    tokenizer = tokenizer_of(source)
    # Image classifiers are prepared above, and encoder-decoders refused; this narrows the type.
    kind: Kind = source.task if source.task in ("causal-lm", "masked-lm") else "none"
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
    """Upper bounds of the sequence length, in tokens: the model's positions, and the sequence length that a trial was trained with.

    :raises CheckpointError: if the model has fewer than `LEAST_TOKENS` positions.
    """
    if source.takes_images:
        return []
    most = positions(source.config)
    if most is not None and most < LEAST_TOKENS:
        raise CheckpointError(
            f"max_position_embeddings of model {source.name} must be at least {LEAST_TOKENS} to measure it, got {most}; "
            "correct its config, or choose another model"
        )
    trained = source.trial["sequence_length"] if source.trial else None
    return [limit for limit in (most, trained) if limit is not None]
