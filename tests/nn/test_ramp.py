"""Branches that grow with the optimizer step."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import Trainer, TrainingArguments

import mixln
from mixln.errors import PlacementWarning, SettingsError
from mixln.nn.ramp import RampedScale
from mixln.nn.residual import Residual
from mixln.placement import Norm, Sublayer
from tests.tiny import logits, placed, tiny_config, tokens

IDS = tokens()


def steps_of(model: torch.nn.Module) -> set[int]:
    return {module.step.item() for module in model.modules() if isinstance(module, RampedScale)}


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (1, 0.01), (50, 0.5), (100, 1.0), (101, 1.0), (10**9, 1.0)])
def test_factor_stands_after_the_branchs_norm_and_follows_the_step(step, factor):
    residual = Residual(Sublayer(branch_out=Norm(), ramp=100), lambda slot: slot and torch.nn.RMSNorm(4, eps=1e-6), 4)
    mixln.set_step(residual, step)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(residual(x, torch.tanh), x + factor * residual.branch_out(torch.tanh(x)))
    assert residual.branch_end == "ramp"


@pytest.mark.parametrize("name", ["pre", "post", "beam", "muse", "resi-dual", "dlcl", "keel", "rezero", "b2t"])
def test_after_the_last_ramp_every_placement_is_what_it_was(name):
    plain, ramped = placed(name), placed(f"prores+{name}")
    mixln.set_step(ramped, 3000)
    assert torch.equal(logits(ramped, IDS), logits(plain, IDS))
    mixln.set_step(ramped, 2999)
    assert not torch.equal(logits(ramped, IDS), logits(plain, IDS))


def test_no_branch_is_there_before_the_first_step():
    model = placed("prores+pre", gains=False)
    with torch.no_grad():
        embedded = model.lm_head(model.model.norm(model.model.embed_tokens(IDS)))
    assert torch.equal(logits(model, IDS), embedded)


def test_step_is_saved_and_half_precision_does_not_round_it(tmp_path):
    model = placed("prores+pre").to(torch.bfloat16)
    mixln.set_step(model, 2999)
    model.save_pretrained(tmp_path)
    again = mixln.from_pretrained(tmp_path)
    assert steps_of(again) == {2999}


def training(folder, steps: int, callbacks: list, model=None):
    model = model or mixln.from_config(tiny_config(), placement="prores(2)+pre")
    arguments = TrainingArguments(
        str(folder), max_steps=steps, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    rows = [{"input_ids": row, "labels": row} for row in tokens(batch=16)]
    seen: list[set[int]] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(steps_of(module)))
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=callbacks).train()
    return model, seen


def test_callback_moves_the_step_of_transformers_trainer(tmp_path):
    model, seen = training(tmp_path, 3, [mixln.StepCallback()])
    assert seen == [{0}, {1}, {2}]
    assert steps_of(model) == {3}
    _, seen = training(tmp_path, 2, [mixln.StepCallback(done=3)], model)
    assert seen[-2:] == [{3}, {4}]


def test_training_without_anything_that_moves_the_step_warns_once_a_sublayer_and_not_when_it_is_done(tmp_path):
    with pytest.warns(
        PlacementWarning, match=r"step stands at 0 of 2, because nothing moves it; add mixln\.StepCallback\(\)"
    ):
        model, _ = training(tmp_path, 2, [])
    whole = mixln.from_config(tiny_config(), placement="prores(2)+pre")
    for module in whole.modules():
        if isinstance(module, RampedScale):
            module.step.fill_(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train()(IDS)  # has warned
        whole.train()(IDS)
        mixln.from_config(tiny_config(), placement="prores(2)+pre").eval()(IDS)


def test_step_below_zero_is_refused_and_other_models_are_left_alone():
    with pytest.raises(SettingsError, match="step must be at least 0, got -1"):
        mixln.set_step(placed("prores+pre"), -1)
    model = placed("pre")
    before = logits(model, IDS)
    mixln.set_step(model, 5)
    assert torch.equal(logits(model, IDS), before)
