"""Facts about data, models, machines and versions, as pairs of label and text."""

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
"""Classes of images that are named."""


def comparison(summary: Summary) -> Facts:
    """Of a comparison."""
    if summary.text is not None:
        yield from _text(summary.text, summary.length.predicted)
    if summary.images is not None:
        yield from _images(summary.images)
    yield "model", f"{summary.settings.get('model', '')}, {summary.parameters:,} parameters".removeprefix(", ")
    yield "training", f"each trial: {length(summary.length, summary.task)}"
    yield from provenance(summary.provenance)


def search(found: Search | Stress) -> Facts:
    """Of a search or a stress test."""
    if found.text is not None:
        yield from _text(found.text)
    yield from provenance(found.provenance)


def diagnosis(found: Diagnosis) -> Facts:
    """Of a diagnosed model."""
    if found.subject is not None:
        yield from _model(found.subject)
    if found.text is not None:
        yield "data", text_sample(found.text)
    if found.images is not None:
        yield "data", image_sample(found.images)


def provenance(found: Provenance) -> Facts:
    """Machines, versions and commits."""
    if found.hardware:
        yield "machine", "; ".join(map(hardware, found.hardware))
    if found.versions:
        yield "versions", listed(f"{name} {number}" for name, number in found.versions.items())
    if found.commits:
        yield "commit", "; ".join(found.commits)


def hardware(found: Hardware) -> str:
    """One machine, or a cluster."""
    if found.gpus_per_trial is not None:
        return f"a Ray cluster; {found.cores:g} processor cores and {found.gpus_per_trial:g} GPUs per trial"
    parts = [*found.gpus, f"{found.cores:g} processor cores"]
    if found.threads is not None:
        shared = f"{plural(found.trials, 'trial')} in parallel, {plural(found.threads, 'thread')} each"
    else:
        shared = "one trial at a time" + (f", on {found.processes} processes" if found.processes > 1 else "")
    return f"{listed(parts)}; {shared}"


def text_sample(found: TextSample) -> str:
    """The text that a model was measured on."""
    which = f"{found.held_out} of its {plural(found.held_out_documents, 'held-out document')}"
    if found.others:
        which += f" and {found.others} others"
    if found.from_beginning:
        which = "read from its beginning"
    size = f"{found.tokens:,} tokens in {plural(found.windows, 'window')} of {found.length}"
    fewer = f", fewer than the {found.asked:,} asked for" if found.tokens < found.asked else ""
    return f"{found.description}, {which}, {size}{fewer}"


def image_sample(found: ImageSample) -> str:
    """The images that a model was measured on."""
    held_out = "held-out " if found.held_out else ""
    return f"{found.images:,} {held_out}images of {found.description}{', labelled' if found.labelled else ''}"


def _text(info: TextInfo, predicted: float | None = None) -> Facts:
    train = "streamed" if info.stream is not None else f"{info.documents:,} training"
    equal = f", of which {info.equal_documents} are in the training part too" if info.equal_documents else ""
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
    yield "left out", f"{info.unreadable:,} unreadable images; {info.converted:,} were converted"


def _model(found: ModelFacts) -> Facts:
    yield "source", found.source
    yield "family", found.family
    if found.placement is not None:
        yield "placement", found.placement
    if found.parameters is not None:
        yield "parameters", f"{found.parameters:,}"
    if found.precision is not None:
        yield "precision", found.precision
