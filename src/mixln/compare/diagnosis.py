"""Diagnoses of several models on equal terms: the same documents, the same length of sequences, the same measures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixln.compare.sources import find, trial_of
from mixln.data.documents import path_of
from mixln.data.images import held_out_batches, image_batches
from mixln.data.settings import CorpusSettings, NamedText
from mixln.data.windows import Kind, Windows, text_windows
from mixln.diagnostics.diagnose import diagnose
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import EmbeddingChange, ImageAccuracy, ImageLoss, Measure, TokenLoss
from mixln.diagnostics.results import Diagnosis
from mixln.diagnostics.settings import MeasureSettings
from mixln.diagnostics.stack import Batch, find_stack
from mixln.diagnostics.tasks import task_drops
from mixln.errors import CheckpointError, MixlnError, SettingsError, first_line
from mixln.evaluation.harness import Harness
from mixln.files import write_atomic
from mixln.hosts.configs import positions
from mixln.hosts.sources import Say, Source, device, image_processor_of, load, tokenizer_of
from mixln.records import from_json, read_json, to_json

LEAST_TOKENS = 8
"""Tokens of the shortest sequence that is measured."""
KEPT = "diagnosis.json"
"""Name of the file in a trial's folder that holds its diagnosis."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model with its data, before it is loaded.

    :param also: measures by which the performance drop is measured too.
    """

    source: Source
    title: str
    batches: Sequence[Batch]
    description: str
    measure: Measure
    also: tuple[Measure, ...] = ()
    tokenizer: Any = None


def prepare_models(
    sources: Sequence[Source], text: NamedText, settings: MeasureSettings, *, cache: Path, say: Say
) -> list[Prepared]:
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
    corpus, trial = corpus_of([source for source in sources if source.trial is not None], text, say)
    length = min([settings.sequence_length, *(limit for source in sources for limit in _limits(source))])
    if length < settings.sequence_length:
        say(f"sequences of {length} tokens: the most that all of the models take or were trained on")
    titles = titles_of(sources)
    return [
        _prepare(source, title, corpus, settings, length, trial, named=text.data is not None, cache=cache, say=say)
        for source, title in zip(sources, titles, strict=True)
    ]


def diagnose_all(
    prepared: Sequence[Prepared],
    settings: MeasureSettings,
    *,
    cache: Path,
    say: Say,
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
        say(f"{entry.title}: loading")
        model = load(entry.source, dtype=settings.precision, device=device(), say=say)
        stack = find_stack(model, settings.layer_list)
        batches = [{name: value.to(model.device) for name, value in batch.items()} for batch in entry.batches]
        parameters = sum(parameter.numel() for parameter in model.parameters())
        diagnosis = diagnose(
            stack,
            batches,
            entry.measure,
            settings,
            name=entry.title,
            facts={
                **entry.source.facts,
                "parameters": f"{parameters:,}",
                "data": entry.description,
                "number format": settings.precision,
            },
            say=say,
        )
        if settings.drop and entry.also:
            by = ", ".join(measure.name for measure in entry.also)
            say(f"{entry.title}: performance drop by {by}")
            drops = tuple(performance_drop(stack, batches, measure) for measure in entry.also)
            diagnosis = replace(diagnosis, tasks=drops)
        if harness is not None:
            drops = task_drops(harness, stack, entry.tokenizer, batch_size=settings.batch_size, say=say)
            diagnosis = replace(diagnosis, tasks=drops)
        found.append(diagnosis)
        done(diagnosis)
        del model, stack, batches  # before the next one is loaded
    return tuple(found)


def diagnose_experiment(
    folder: Path, cache: Path, labels: dict[str, str], *, say: Say
) -> tuple[tuple[Diagnosis, ...], tuple[str, ...]]:
    """The diagnoses of a comparison: of each placement, its representative trial. Each is kept in the trial's folder.

    :param labels: placement → what the comparison calls it; others are left out.
    :returns: the diagnoses, and a warning for each trial that could not be diagnosed.
    """
    settings = MeasureSettings()
    found: list[Diagnosis] = []
    failures: list[str] = []

    def failed(text: str) -> None:
        failures.append(text)
        say(f"warning: {text}")

    try:
        sources = find(str(folder), cache=cache, say=failed)
    except MixlnError as error:
        failed(f"nothing could be diagnosed: {error}")
        return (), tuple(failures)
    for source in sources:
        label = labels.get(trial_of(Path(source.path).parent).placement)
        if label is None:
            continue
        try:
            found.append(replace(diagnose_trial(source, settings, cache=cache, say=say), model=label))
        except (MixlnError, RuntimeError, OSError) as error:
            failed(f"{source.title} could not be diagnosed: {first_line(error)}")
    return tuple(found), tuple(failures)


def diagnose_trial(source: Source, settings: MeasureSettings, *, cache: Path, say: Say) -> Diagnosis:
    """The diagnosis of one trial, measured or, where it has been measured before with the same settings, read from its folder."""
    checkpoint = Path(source.path)
    kept = checkpoint.parent / KEPT
    weights = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(checkpoint.glob("*.safetensors"))
    ]
    asked = {"version": version("mixln"), "weights": weights, **to_json(asdict(settings))}
    del asked["trust_task_code"]  # which changes no number
    if (diagnosis := _read(kept, asked)) is None:
        prepared = prepare_models([source], NamedText(), settings, cache=cache, say=say)
        (diagnosis,) = diagnose_all(prepared, settings, cache=cache, say=say, done=lambda diagnosis: None)
        write_atomic(kept, json.dumps({"settings": asked, "diagnosis": to_json(diagnosis)}, indent=1))
    return diagnosis


def _read(path: Path, asked: dict[str, Any]) -> Diagnosis | None:
    """A diagnosis that was kept, if it is one of the same settings."""
    try:
        kept = read_json(path)
        return from_json(Diagnosis, kept["diagnosis"]) if kept["settings"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is damaged: it is measured again


def corpus_of(trials: Sequence[Source], named: NamedText, say: Say) -> tuple[CorpusSettings, Source | None]:
    """The text for all models, and the trial whose comparison held out the part of it that is to be used.

    Where no text is named, it is the first trial's.

    :raises SettingsError: if two trials were trained on different parts of it, or another part of it is named than a trial's.
    """
    names = [item.name for item in fields(CorpusSettings)]
    own = [CorpusSettings(**{name: (trial.trial or {})[name] for name in names}) for trial in trials]
    if not own:
        return named.over(CorpusSettings()), None
    wanted = named.over(own[0] if named.data is None else CorpusSettings())
    same = [(text, trial) for text, trial in zip(own, trials, strict=True) if _place(text) == _place(wanted)]
    for text, trial in zip(own, trials, strict=True):
        if _place(text) != _place(wanted):
            say(
                f"{trial.title} was trained on {text.data}: if {wanted.data} holds the same text, it has seen what is measured here"
            )
    if not same:
        return wanted, None
    text, trial = same[0]
    for name in ("held_out", "text_column"):
        if getattr(named, name) not in (None, getattr(text, name)):
            raise SettingsError(
                f"{name.replace('_', '-')} was {getattr(text, name)} where {trial.title} was trained, and other parts of {text.data} "
                f"it has seen: got {getattr(named, name)}; leave it out"
            )
    for other, second in same:
        if (other.held_out, other.text_column) != (text.held_out, text.text_column):
            raise SettingsError(
                f"models {trial.title} and {second.title} held out different parts of {text.data} ({text.held_out} and {other.held_out}): "
                "diagnose them apart, or give --data a text that neither was trained on"
            )
    return replace(text, data=wanted.data), trial


def _place(text: CorpusSettings) -> str:
    """What tells one text from another: where it lies, or the name of a hub data set."""
    path = path_of(text.data)
    return str(path.resolve()) if path.exists() else text.data


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
    say: Say,
) -> Prepared:
    if source.takes_images:
        many: Any = {"batch_size": settings.batch_size, "tokens": settings.tokens}
        if source.images is not None and not named:
            batches, description, labelled = held_out_batches(
                source.images, source.images_fingerprint, source.config, cache=cache, say=say, **many
            )
        else:
            if source.images is not None:
                say(
                    f"{title} was trained on {source.images.data}: if {corpus.data} holds the same images, it has seen what is "
                    "measured here"
                )
            batches, description, labelled = image_batches(
                corpus.data, image_processor_of(source), source.config, **many
            )
        labelled = labelled and source.task == "image-classification"
        return Prepared(
            source=source,
            title=title,
            batches=batches,
            description=description,
            measure=ImageLoss() if labelled else EmbeddingChange(),
            also=(ImageAccuracy(),) if labelled else (),
        )
    tokenizer = tokenizer_of(source, say=say)
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
    return Prepared(
        source=source,
        title=title,
        batches=list(windows.batches(settings.batch_size)),
        description=windows.description,
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


def titles_of(sources: Sequence[Source]) -> list[str]:
    """A different name for each model: its title, or what the user gave where two have the same."""
    count = Counter(source.title for source in sources)
    names = [s.title if count[s.title] == 1 else f"{s.title} ({s.name})" for s in sources]
    if len(set(names)) < len(names):
        doubled = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"models must not repeat, got {doubled} twice")
    return names
