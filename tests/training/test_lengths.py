"""Batches split by length: the cheapest split, every row once, and a fine-tuning that gives the numbers of whole batches."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixln.training import finetune, reward
from mixln.training.lengths import PASS, cuts, split
from tests.training.tuned import judge, source, tune

pytestmark = pytest.mark.filterwarnings("default")  # TRL's own


def price(lengths: list[int], parts: list[int], cost: int) -> int:
    starts = [sum(parts[:index]) for index in range(len(parts))]
    return sum(cost + count * lengths[start] for start, count in zip(starts, parts, strict=True))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=7), st.integers(0, 300))
def test_no_other_split_is_cheaper(lengths, cost):
    lengths = sorted(lengths, reverse=True)
    every = [
        [end - start for start, end in zip((0, *inner), (*inner, len(lengths)), strict=True)]
        for count in range(len(lengths))
        for inner in combinations(range(1, len(lengths)), count)
    ]
    found = cuts(lengths, cost)
    assert sum(found) == len(lengths)
    assert price(lengths, found, cost) == min(price(lengths, parts, cost) for parts in every)


def test_every_row_is_in_one_part_without_columns_of_padding():
    lengths = torch.tensor([3, 200, 4, 190, 3])
    mask = (torch.arange(200) < lengths[:, None]).long()
    batch = {"input_ids": mask * torch.arange(1, 6)[:, None], "attention_mask": mask}
    parts = split(batch)
    assert [part["input_ids"].shape for part in parts] == [(2, 200), (3, 4)]
    assert [part["attention_mask"].sum(dim=1).tolist() for part in parts] == [[200, 190], [4, 3, 3]]
    assert [part["input_ids"][:, 0].tolist() for part in parts] == [[2, 4], [3, 1, 5]]


def test_the_two_answers_of_a_prompt_stay_together():
    lengths = torch.tensor([3, 200, 4, 8, 190, 3])  # chosen 3, 200, 4; rejected 8, 190, 3
    mask = (torch.arange(200) < lengths[:, None]).long()
    parts = split({"input_ids": mask * torch.arange(1, 7)[:, None], "attention_mask": mask}, answers=2)
    assert [part["input_ids"].shape for part in parts] == [(2, 200), (4, 8)]
    assert [part["input_ids"][:, 0].tolist() for part in parts] == [[2, 5], [1, 3, 4, 6]]


def test_equal_lengths_are_one_part():
    assert cuts([50] * 16, PASS) == [16]


@pytest.mark.parametrize(("module", "train"), [(finetune, tune), (reward, judge)], ids=["completions", "pairs"])
def test_a_training_in_parts_gives_the_numbers_of_whole_batches(tmp_path, monkeypatch, module, train):
    model = source(tmp_path, "mix(0.5)")
    seen = []
    monkeypatch.setattr("mixln.training.lengths.PASS", 0)
    monkeypatch.setattr(module, "split", lambda *batch, **more: seen.append(parts := split(*batch, **more)) or parts)
    parted = train(tmp_path / "parted", model)
    assert max(map(len, seen)) > 1
    monkeypatch.setattr(module, "split", lambda batch, **_: [batch])
    whole = train(tmp_path / "whole", model)
    assert ("accuracy" in parted.curves) == (module is reward)
    for name in {"loss", "eval_loss", "accuracy"} & parted.curves.keys():
        assert dict(parted.curves[name]) == pytest.approx(dict(whole.curves[name]), rel=1e-5)
    assert parted.gradient_norms[-1].attention == pytest.approx(whole.gradient_norms[-1].attention, rel=1e-3)
