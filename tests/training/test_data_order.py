"""The same seed gives the same batches in the same order, whatever the placement."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests import small

STEPS = 60
"""More than one pass over the 182 sequences in batches of 4."""


def batches(fed, text, folder, placement="pre", **settings) -> torch.Tensor:
    fed.clear()
    small.train(text, folder, placement, **{"steps": STEPS, "evaluations": 1, **settings})
    return torch.cat(fed)


@pytest.fixture
def reference(fed, text, tmp_path) -> torch.Tensor:
    return batches(fed, text, tmp_path / "reference")


@pytest.mark.parametrize("placement", ["post", "hybrid*"])
def test_two_placements_see_the_same_batches_in_the_same_order(fed, text, tmp_path, reference, placement):
    assert len(reference) == STEPS * 4
    assert torch.equal(batches(fed, text, tmp_path / placement, placement), reference)


def test_micro_batches_see_the_same_sequences_in_the_same_order(fed, text, tmp_path, reference):
    assert torch.equal(batches(fed, text, tmp_path / "micro", micro_batch_size=2), reference)


def test_another_seed_gives_another_order(fed, text, tmp_path, reference):
    assert not torch.equal(batches(fed, text, tmp_path / "other", seed=1), reference)


def test_each_pass_sees_every_sequence_once_and_in_a_new_order(text, reference):
    whole = len(text.train) // 4 * 4
    rows = Counter(tuple(row) for row in text.train[:whole]["input_ids"].tolist())
    assert Counter(map(tuple, reference[:whole].tolist())) == rows
    assert not torch.equal(reference[whole : whole + 40], reference[:40])
