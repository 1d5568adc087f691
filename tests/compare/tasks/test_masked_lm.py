"""Masked language modelling: the masks, what the loss is taken of, resumption, and a comparison from the command line to its report."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

import mixln
from mixln.cli import main
from mixln.compare.tasks import TASKS
from mixln.compare.tasks.masked_lm import MaskedCompareSettings, MaskedTokens
from mixln.data.packing import IGNORED
from mixln.runs.metrics import read_metrics
from mixln.training.pretraining import PretrainingConfig, PretrainingRun
from mixln.training.run import run
from mixln.training.settings import EngineSettings, TrainSettings
from tests import small

TASK = TASKS["masked-lm"]
TOKENS = MaskedTokens(mask=299, special=(0,), vocabulary=300, share=0.15)
"""Of 300 tokens, the last of which is the mask token and the first an end of text."""


def batch(rows: int, length: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 299, (rows, length), generator=torch.Generator().manual_seed(seed))


def hidden(ids: torch.Tensor, **changes: int) -> dict[str, torch.Tensor]:
    return TOKENS.training({"input_ids": ids}, **{"seed": 1, "step": 5, "row": 0, **changes})


def test_15_percent_are_predicted_of_which_80_are_hidden_10_replaced_and_10_kept():
    ids = batch(200, 128)
    found = hidden(ids)
    chosen = found["labels"] != IGNORED
    candidates = (ids != 0).sum(1)
    assert chosen.sum(1).tolist() == [round(0.15 * count) for count in candidates.tolist()]
    assert torch.equal(found["labels"][chosen], ids[chosen])
    assert torch.equal(found["input_ids"][~chosen], ids[~chosen])
    assert not (chosen & (ids == 0)).any()
    assert found["shift_labels"] is found["labels"]
    masked = (found["input_ids"] == TOKENS.mask)[chosen].float().mean().item()
    kept = (found["input_ids"] == ids)[chosen].float().mean().item()
    deviation = math.sqrt(0.8 * 0.2 / int(chosen.sum()))  # of the share, about 0.0065
    assert masked == pytest.approx(0.8, abs=4 * deviation)
    assert kept == pytest.approx(0.1, abs=4 * deviation)
    assert chosen.float().mean(0).min() > 0  # at every position


def test_masks_are_a_function_of_seed_step_and_sequence_and_of_nothing_else():
    ids = batch(8, 32)
    whole = hidden(ids)["input_ids"]
    torch.manual_seed(3)
    np.random.seed(3)  # the masks must not depend on it
    assert torch.equal(hidden(ids)["input_ids"], whole)
    parts = [hidden(ids[start : start + 2], row=start)["input_ids"] for start in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts), whole)
    for change in ({"seed": 2}, {"step": 6}, {"row": 8}):
        assert not torch.equal(hidden(ids, **change)["input_ids"], whole)


@pytest.mark.parametrize("length", [1, 2, 6])
def test_of_a_short_sequence_one_token_is_predicted(length):
    assert (hidden(torch.full((3, length), 7))["labels"] != IGNORED).sum(1).tolist() == [1, 1, 1]
    assert (hidden(torch.zeros(3, length, dtype=torch.long))["labels"] == IGNORED).all(), "nothing but ends of text"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return small.prepared(tmp_path_factory.mktemp("text"))


def objective(text):
    return TASK.objective(MaskedCompareSettings(), text.folder)


def train(text, folder, placement="pre", *, checkpoint_seconds=1e9, **settings):
    model = small.config(vocab_size=301)
    model.is_causal = False
    config = PretrainingConfig(
        model=model,
        placement=placement,
        init="normal",
        learning_rate=settings.pop("learning_rate", 1e-2),
        seed=settings.pop("seed", 0),
        settings=TrainSettings(**{"steps": 12, "batch_size": 4, "precision": "float32", **settings}),
        engine=EngineSettings(checkpoint_seconds=checkpoint_seconds, compile="off"),
    )
    return run(PretrainingRun(objective=objective(text), config=config, folder=folder))


def rows(folder):
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found]


def test_the_loss_is_that_of_the_hidden_tokens_of_what_is_held_out(text, tmp_path):
    outcome = train(text, tmp_path)
    assert outcome.bits_per_byte is None
    checkpoint = tmp_path / "checkpoint-12"
    model = mixln.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.mask_token_id == 300
    sequences = objective(text).target.held_out(text.held_out)
    inputs, labels = (torch.stack([each[name] for each in sequences]).long() for name in ("input_ids", "labels"))
    assert (labels[:, 0] == IGNORED).all(), "a window's first token is the last of the one before"
    assert (inputs == 300).any()
    with torch.no_grad():
        logits = model(input_ids=inputs).logits
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    assert loss.item() == pytest.approx(outcome.loss, rel=1e-5)


def test_the_training_loss_weighs_every_hidden_token_the_same(text, tmp_path):
    """However the batch is taken apart, though its parts have different numbers of them."""
    whole = train(text, tmp_path / "whole", steps=4)
    parts = train(text, tmp_path / "parts", steps=4, micro_batch_size=1)
    for (step, one), (other, two) in zip(whole.train_curve, parts.train_curve, strict=True):
        assert step == other
        assert one == pytest.approx(two, rel=1e-4)


def test_an_interrupted_training_ends_with_the_same_numbers(text, tmp_path):
    train(text, tmp_path / "whole", "mix(0.5)", checkpoint_seconds=0)
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(cut / "checkpoint-12")
    left = sorted(int(path.name.removeprefix("checkpoint-")) for path in cut.glob("checkpoint-*"))
    assert left
    assert left[-1] < 12
    train(text, cut, "mix(0.5)")
    assert rows(cut) == rows(tmp_path / "whole")


def test_both_sides_tell_more_than_frequencies(text, tmp_path):
    outcome = train(text, tmp_path, steps=300, evaluations=1)
    assert outcome.status == "finished", outcome.reason
    assert outcome.loss < text.info.unigram_loss - 0.3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json", num_hidden_layers=4)
    return folder


def arguments(files, out, *more):
    return [
        "compare", "--task", "masked-lm", "--data", str(files / "text"), "--model", str(files / "config.json"), "--out", str(out),
        "--cache", str(files / "cache"), "--sequence-length", "16", "--batch-size", "4", "--held-out", "0.1", "--steps", "6",
        "--evaluations", "2", "--precision", "float32", "--compile", "off", "--jobs", "1", "--placements", "pre", "post", "--seeds", "0",
        *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "masked"
    assert main(arguments(files, out)) == 0
    return out


@pytest.mark.long
def test_a_comparison_from_the_command_line_to_its_report(done, capsys):
    found = json.loads((done / "results.json").read_text())
    assert found["task"] == "masked-lm"
    assert found["settings"]["mask_share"] == 0.15
    assert found["floor"]["bits_per_byte"] is None
    assert [row["best"]["bits_per_byte"] for row in found["placements"]] == [None, None]
    assert json.loads((done / "experiment.json").read_text())["model"]["is_causal"] is False
    assert "masked perplexity" in (done / "table.md").read_text()
    assert (done / "masked-perplexity.png").is_file()
    assert "bits" not in (done / "table.md").read_text()
    assert main(["compare", "--out", str(done)]) == 0  # its task is taken from there
    assert "2 of 2 done, nothing to run" in capsys.readouterr().out


@pytest.mark.long
def test_a_trial_is_diagnosed_on_hidden_tokens_and_asked_no_questions(files, done, tmp_path, capsys):
    trial = str(done / "pre_lr0.003_seed0")
    shared = ("--cache", str(files / "cache"))
    assert main(["diagnose", trial, "--out", str(tmp_path / "a"), "--tokens", "64", "--no-drop", *shared]) == 0
    assert main(["evaluate", trial, "--tasks", "piqa", "--out", str(tmp_path / "b"), *shared]) == 2
    assert "decoder" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--mask-share", "0.3"), "holds another experiment: mask-share was 0.15, now 0.3"),
        (("--mask-share", "1"), "mask-share must lie in (0, 0.9]"),
        (("--task", "masked"), "task 'masked' is not known; did you mean"),
        (("--task", "language"), "holds another experiment"),
        (("--chain", "evaluate"), "Unrecognized options: --chain"),
    ],
)
def test_what_does_not_go_is_one_line(files, done, capsys, more, said):
    try:
        code = main([*arguments(files, done), *more])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert said in error
