"""Facts about data, models, machines and versions, as text."""

from __future__ import annotations

import dataclasses

import pytest

from mixln.data.image_dataset import ImagesInfo
from mixln.data.samples import ImageSample, TextSample
from mixln.report.wording import facts
from mixln.runs.provenance import Hardware, ModelFacts, Provenance
from tests.report import diagnosis_samples, samples
from tests.search.records import searched

SAMPLE = TextSample(
    description="corpus.txt", tokens=4096, asked=4096, windows=32, length=128, held_out=3, held_out_documents=10
)


def test_the_facts_of_a_comparison() -> None:
    summary = dataclasses.replace(samples.usual(), settings={"model": "tiny"})
    assert dict(facts.comparison(summary)) == {
        "text": "corpus.txt; 90 training and 10 held-out documents",
        "held out": "312,448 tokens, 1,240,000 bytes; every token has the same weight",
        "vocabulary": "2,048 tokens",
        "model": "tiny, 9,437,184 parameters",
        "training": "each trial: 2,457,600 tokens in 300 steps",
        "machine": "2 processor cores; 2 trials in parallel, 1 thread each",
        "versions": "mixln 0.1.0, torch 2.13.0, transformers 5.23.0",
        "commit": "0123abcd",
    }


def test_a_text_that_is_streamed_or_repeats_itself() -> None:
    streamed = dataclasses.replace(samples.TEXT, stream={}, equal_documents=2)
    summary = dataclasses.replace(samples.usual(), text=streamed)
    assert dict(facts.comparison(summary))["text"] == (
        "corpus.txt; streamed and 10 held-out documents, of which 2 are also in the training split"
    )


def test_the_facts_of_images() -> None:
    images = ImagesInfo(
        description="digits",
        fingerprint="",
        classes=tuple(map(str, range(25))),
        size=8,
        channels=1,
        train_images=1500,
        held_out_images=297,
        mean=(0.5,),
        deviation=(0.2,),
        unreadable=2,
        converted=1,
        majority=0.1,
        frequency_loss=2.3,
    )
    found = dict(facts.comparison(dataclasses.replace(samples.pictures(), images=images)))
    assert found["images"] == "digits; 1,500 training and 297 held-out images of 25 classes"
    assert found["classes"] == f"{', '.join(map(str, range(20)))} …"
    assert found["size"] == "8 × 8 pixels, 1 channels"
    assert (found["skipped"], found["converted"]) == ("2 unreadable images", "1 image")


@pytest.mark.parametrize(
    ("hardware", "text"),
    [
        (Hardware(cores=4), "4 processor cores; one trial at a time"),
        (Hardware(cores=4, trials=2, threads=2), "4 processor cores; 2 trials in parallel, 2 threads each"),
        (Hardware(cores=8, processes=4), "8 processor cores; one trial at a time, on 4 processes"),
        (
            Hardware(gpus=("NVIDIA H200", "NVIDIA H200"), cores=16, trials=1, threads=8),
            "NVIDIA H200, NVIDIA H200, 16 processor cores; 1 trial in parallel, 8 threads each",
        ),
        (
            Hardware(cores=2.0, gpus_per_trial=0.5),
            "a Ray cluster; 2 processor cores and 0.5 GPUs per trial",
        ),
    ],
)
def test_hardware(hardware: Hardware, text: str) -> None:
    assert facts.hardware(hardware) == text


def test_several_machines_and_none() -> None:
    several = Provenance(hardware=(Hardware(cores=4), Hardware(cores=8)), commits=("a", "b"))
    assert dict(facts.provenance(several)) == {
        "machine": "4 processor cores; one trial at a time; 8 processor cores; one trial at a time",
        "commit": "a; b",
    }
    assert dict(facts.provenance(Provenance())) == {}


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (SAMPLE, "corpus.txt, 3 of its 10 held-out documents, 4,096 tokens in 32 windows of 128"),
        (
            dataclasses.replace(SAMPLE, others=7, asked=10_000, windows=1, held_out_documents=1),
            "corpus.txt, 3 of its 1 held-out document and 7 others, 4,096 tokens in 1 window of 128, fewer than the 10,000 "
            "requested",
        ),
        (
            dataclasses.replace(SAMPLE, from_beginning=True),
            "corpus.txt, read from its beginning, 4,096 tokens in 32 windows of 128",
        ),
    ],
)
def test_a_sample_of_a_text(sample: TextSample, text: str) -> None:
    assert facts.text_sample(sample) == text


def test_a_sample_of_images() -> None:
    sample = ImageSample(description="digits (local)", images=1200, labelled=True, held_out=True)
    assert facts.image_sample(sample) == "1,200 held-out images of digits (local), labelled"
    plain = dataclasses.replace(sample, labelled=False, held_out=False)
    assert facts.image_sample(plain) == "1,200 images of digits (local)"


def test_the_facts_of_a_diagnosis() -> None:
    found = dict(facts.diagnosis(diagnosis_samples.model("a", 4)))
    assert found == {
        "source": "runs/a",
        "family": "llama",
        "parameters": "1,234,567",
        "precision": "float32",
        "data": facts.text_sample(SAMPLE),
    }
    placed = ModelFacts(source="m", family="llama", placement="mix(0.5)")
    images = ImageSample(description="digits", images=10, labelled=False, held_out=False)
    other = dataclasses.replace(diagnosis_samples.minimal("b"), subject=placed, images=images)
    assert dict(facts.diagnosis(other)) == {
        "source": "m",
        "family": "llama",
        "placement": "mix(0.5)",
        "data": facts.image_sample(images),
    }


def test_the_facts_of_a_search() -> None:
    found = dataclasses.replace(searched(chosen=False), text=samples.TEXT, provenance=samples.PROVENANCE)
    whole = dict(facts.comparison(samples.usual()))
    assert dict(facts.search(found)) == {name: whole[name] for name in whole if name not in ("model", "training")}
