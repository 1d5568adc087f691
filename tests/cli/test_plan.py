"""`mixln plan`, as it is typed."""

from __future__ import annotations

import re

import pytest

from mixln.cli import main

NINE = ["plan", "--model", "9m", "--batch-size", "64", "--sequence-length", "128", "--steps", "100"]


def words(capsys, *arguments: str) -> str:
    assert main([*arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_it_says_everything(capsys):
    said = words(capsys, *NINE)
    for part in (
        "9m, placement pre",
        "9.00M, without embeddings and head 803,968",
        "64 × 128 tokens per step on 1 NVIDIA H100 SXM: 64 sequences × 1 on each",
        "819,200 in 100 steps",
        "6·N + 12·L·h·T",
        "at 40% of 989 TFLOP/s per device",
        "AdamW moments 0.07 0.07",
        "fits in 80 GB",
    ):
        assert part in said


def test_what_it_says_to_change_helps(capsys):
    said = words(capsys, *NINE, "--memory-per-device", "1.5")
    assert "does not fit in 1.5 GB" in said
    found = re.search(r"fits with (--micro-batch-size \d+)", said)
    assert found is not None
    assert "• fits in 1.5 GB" in words(capsys, *NINE, "--memory-per-device", "1.5", *found.group(1).split())


def test_where_nothing_helps_it_says_so(capsys):
    assert "no micro batch, sharding or checkpointing" in words(capsys, *NINE, "--memory-per-device", "1")


def test_several_trainings_and_checkpointing(capsys):
    said = words(capsys, *NINE, "--trials", "24", "--activation-checkpointing", "--devices", "8", "--parallel", "fsdp")
    assert "24 trainings" in said
    assert "computes the layers' forward pass twice" in said
    assert "FSDP layers in flight" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "70b"], "model '70b' is not known; did you mean 7b? known: tiny"),
        (["--devices", "3"], "batch-size must be a multiple of devices 3, got 512"),
        (["--utilisation", "2"], "utilisation must lie in (0, 1]"),
        (["--device", "abacus"], "abacus"),
        (["--placement", "mixed(0.25)"], "mixed"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line(capsys, arguments, said):
    try:
        code = main(["plan", *arguments])
    except SystemExit as stop:
        code = stop.code
    found = capsys.readouterr()
    assert (code, found.out) == (2, "")
    assert said in found.err
    assert found.err.count("\n") == 1
