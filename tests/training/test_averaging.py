"""The moving average of weights, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from mixln.training.averaging import Averaging


def stepped(average: Averaging, model: nn.Module, values: list[float], tmp_path, first: int = 0) -> None:
    arguments, state = TrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerState()
    for step, value in enumerate(values, start=first + 1):
        model.weight.data.fill_(value)
        state.global_step = step
        average.on_step_end(arguments, state, TrainerControl())


def test_three_steps_by_hand(tmp_path):
    """The start weighs little at first: d is 2/11, 3/12, then 0.3 where 4/13 would be more."""
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = Averaging(model, 0.3)
    stepped(average, model, [2.0, 3.0, 4.0], tmp_path)
    expected = 1.0
    for decay, value in ((2 / 11, 2.0), (3 / 12, 3.0), (0.3, 4.0)):
        expected = decay * expected + (1 - decay) * value
    with average.swapped():
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 4.0


def test_it_goes_on_from_where_it_was_saved(tmp_path):
    models = [nn.Linear(3, 2, bias=False) for _ in range(2)]
    whole = Averaging(models[0], 0.99)
    stepped(whole, models[0], [1.0, 2.0], tmp_path)
    whole.save(tmp_path)
    resumed = Averaging(models[1], 0.99)
    resumed.load(tmp_path)
    for average, model in ((whole, models[0]), (resumed, models[1])):
        stepped(average, model, [5.0], tmp_path, first=2)
    assert torch.equal(whole.average["weight"], resumed.average["weight"])
