"""The held-out loss is the mean over tokens, not over batches, and over all of them."""

from __future__ import annotations

import math

import pytest
import torch

import mixln
from mixln.data.packing import IGNORED
from mixln.training.evaluation import evaluate
from tests import small


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return mixln.from_config(small.config(initializer_range=0.3), placement="mix(0.5)")


def ragged_batches() -> list[dict[str, torch.Tensor]]:
    """Batches of 3, 2 and 1 rows whose padding differs: 30, 11 and 1 predicted tokens."""
    draw = torch.Generator().manual_seed(5)
    batches = []
    for lengths in ([11, 11, 11], [11, 2], [2]):
        inputs = torch.randint(0, 300, (len(lengths), 11), generator=draw)
        labels = inputs.clone()
        for row, length in enumerate(lengths):
            labels[row, length:] = IGNORED
        batches.append({"input_ids": inputs, "labels": labels})
    return batches


@torch.no_grad()
def token_losses(model, batch) -> list[float]:
    """−log p of every predicted token, one row at a time, in float64."""
    found = []
    for inputs, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        logits = model(input_ids=inputs[None]).logits[0].double()
        for position in range(1, len(labels)):
            if labels[position] != IGNORED:
                row = logits[position - 1]
                found.append((torch.logsumexp(row, 0) - row[labels[position]]).item())
    return found


def test_every_token_counts_the_same(model):
    losses = [token_losses(model.eval(), batch) for batch in ragged_batches()]
    flat = [loss for batch in losses for loss in batch]
    by_batch = [math.fsum(batch) / len(batch) for batch in losses]
    found = evaluate(model, ragged_batches())
    assert found.tokens == len(flat) == 30 + 11 + 1
    assert found.loss == pytest.approx(math.fsum(flat) / len(flat), rel=1e-6)
    assert abs(found.loss - sum(by_batch) / len(by_batch)) > 0.05


def test_the_result_does_not_depend_on_how_rows_are_batched(model):
    rows = {name: torch.cat([batch[name] for batch in ragged_batches()]) for name in ("input_ids", "labels")}
    whole = evaluate(model, [rows])
    one_by_one = evaluate(model, [{name: value[i : i + 1] for name, value in rows.items()} for i in range(6)])
    assert whole.tokens == one_by_one.tokens
    assert whole.loss == pytest.approx(one_by_one.loss, rel=1e-6)


def test_logits_that_say_nothing_give_the_logarithm_of_the_vocabulary(model):
    blank = mixln.from_config(small.config(), placement="pre")
    torch.nn.init.zeros_(blank.lm_head.weight)
    assert evaluate(blank, ragged_batches()).loss == pytest.approx(math.log(300), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode(model, training):
    model.train(training)
    evaluate(model, ragged_batches())
    assert model.training is training
