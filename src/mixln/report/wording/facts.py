"""Facts on data, models, machines and versions, as pairs of label and text."""

from __future__ import annotations

from collections.abc import Iterator

from mixln.compare.results import Summary
from mixln.data.image_dataset import ImagesInfo
from mixln.data.samples import ImageSample, TextSample
from mixln.data.text import TextInfo
from mixln.diagnostics.results import Diagnosis
from mixln.report.wording.comparison import length
from mixln.report.wording.phrases import listed, plural
from mixln.runs.provenance import Hardware, ModelFacts, Provenance
from mixln.search.results import Search, Stress

Facts = Iterator[tuple[str, str]]
SHOWN_CLASSES = 20
"""Maximum number of image classes listed by name."""


def comparison(summary: Summary) -> Facts:
    """Facts on a comparison."""
    if summary.text is not None:
        yield from _text(summary.text, summary.length.predicted)
    if summary.images is not None:
        yield from _images(summary.images)
    yield "model", f"{summary.settings.get('model', '')}, {summary.parameters:,} parameters".removeprefix(", ")
    yield "training", f"each trial: {length(summary.length, summary.task)}"
    yield from provenance(summary.provenance)


def search(result: Search | Stress) -> Facts:
    """Facts on a search or a stress test."""
    if result.text is not None:
        yield from _text(result.text)
    yield from provenance(result.provenance)


def diagnosis(result: Diagnosis) -> Facts:
    """Facts on a diagnosed model."""
    if result.subject is not None:
        yield from _model(result.subject)
    if result.text is not None:
        yield "data", text_sample(result.text)
    if result.images is not None:
        yield "data", image_sample(result.images)


def provenance(origin: Provenance) -> Facts:
    """Machines, versions and commits."""
    if origin.hardware:
        yield "machine", "; ".join(map(hardware, origin.hardware))
    if origin.versions:
        yield "versions", listed(f"{name} {number}" for name, number in origin.versions.items())
    if origin.commits:
        yield "commit", "; ".join(origin.commits)


def hardware(machine: Hardware) -> str:
    """One machine, or a cluster."""
    if machine.gpus_per_trial is not None:
        return f"a Ray cluster; {machine.cores:g} processor cores and {machine.gpus_per_trial:g} GPUs per trial"
    parts = [*machine.gpus, f"{machine.cores:g} processor cores"]
    if machine.threads is not None:
        shared = f"{plural(machine.trials, 'trial')} in parallel, {plural(machine.threads, 'thread')} each"
    else:
        shared = "one trial at a time" + (f", on {machine.processes} processes" if machine.processes > 1 else "")
    return f"{listed(parts)}; {shared}"


def text_sample(sample: TextSample) -> str:
    """The text on which a model was measured."""
    which = f"{sample.held_out} of its {plural(sample.held_out_documents, 'held-out document')}"
    if sample.others:
        which += f" and {sample.others} others"
    if sample.from_beginning:
        which = "read from its beginning"
    size = f"{sample.tokens:,} tokens in {plural(sample.windows, 'window')} of {sample.length}"
    fewer = f", fewer than the {sample.asked:,} requested" if sample.tokens < sample.asked else ""
    return f"{sample.description}, {which}, {size}{fewer}"


def image_sample(sample: ImageSample) -> str:
    """The images on which a model was measured."""
    held_out = "held-out " if sample.held_out else ""
    return f"{sample.images:,} {held_out}images of {sample.description}{', labelled' if sample.labelled else ''}"


def _text(info: TextInfo, predicted: float | None = None) -> Facts:
    train = "streamed" if info.stream is not None else f"{info.documents:,} training"
    equal = f", of which {info.equal_documents} are also in the training split" if info.equal_documents else ""
    yield "text", f"{info.description}; {train} and {plural(info.held_out_documents, 'held-out document')}{equal}"
    if predicted is None:
        yield (
            "held out",
            f"{info.held_out_tokens:,} tokens, {info.held_out_bytes:,} bytes; every token has the same weight",
        )
    else:
        held_out = f"{predicted:.0%} of each sequence predicted, always the same tokens"
        yield "held out", f"{info.held_out_tokens:,} tokens, {held_out}"
    yield "vocabulary", f"{info.vocabulary_size:,} tokens"


def _images(info: ImagesInfo) -> Facts:
    counted = f"{info.train_images:,} training and {info.held_out_images:,} held-out images"
    yield "images", f"{info.description}; {counted} of {len(info.classes)} classes"
    more = " …" if len(info.classes) > SHOWN_CLASSES else ""
    yield "classes", listed(info.classes[:SHOWN_CLASSES]) + more
    yield "size", f"{info.size} × {info.size} pixels, {info.channels} channels"
    yield "skipped", plural(info.unreadable, "unreadable image")
    yield "converted", plural(info.converted, "image")


def _model(model: ModelFacts) -> Facts:
    yield "source", model.source
    yield "family", model.family
    if model.placement is not None:
        yield "placement", model.placement
    if model.parameters is not None:
        yield "parameters", f"{model.parameters:,}"
    if model.precision is not None:
        yield "precision", model.precision
