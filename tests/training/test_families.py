"""Training of other families than Llama: experts with their load-balancing loss, and gains that start from a pass over data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import GPT2Config, OlmoeConfig, TrainingArguments

import mixln
from mixln.nn.residual import placed_layers
from mixln.training.evaluation import evaluate
from mixln.training.language_modelling import PlacementTrainer, collate
from mixln.training.settings import TrainSettings
from tests import small

COEFFICIENT = 0.5
PLAIN = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def experts() -> OlmoeConfig:
    sizes = {**small.SIZES, "num_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": COEFFICIENT, **PLAIN}
    return OlmoeConfig(**sizes)


def trainer(model: nn.Module, folder, parts: int) -> PlacementTrainer:
    arguments = TrainingArguments(
        output_dir=str(folder), gradient_accumulation_steps=parts, use_cpu=True, report_to="none"
    )
    return PlacementTrainer(settings=TrainSettings(), warmup_steps=1, model=model, args=arguments)


@pytest.mark.parametrize("parts", [1, 4])
def test_loss_of_experts_has_their_balance_once_however_many_parts_an_update_has(text, tmp_path, parts):
    torch.manual_seed(0)
    model = mixln.from_config(experts(), placement="hybrid*")
    batch = collate([text.train[i] for i in range(4)])
    pieces = [{name: value[i::parts] for name, value in batch.items()} for i in range(parts)]
    tokens = batch["labels"][:, 1:].numel()
    wrapped = nn.DataParallel(model)  # has no config
    found = sum(
        trainer(model, tmp_path, parts).compute_loss(wrapped, piece, num_items_in_batch=tokens) for piece in pieces
    )
    balances = [model(**piece, output_router_logits=True).aux_loss for piece in pieces]
    language = evaluate(model, [batch]).loss
    assert found.item() == pytest.approx(language + COEFFICIENT * torch.stack(balances).mean().item(), rel=1e-5)


def test_balance_of_the_experts_has_a_gradient_and_the_held_out_loss_leaves_it_out(text, tmp_path):
    outcome = small.train(text, tmp_path, "pre", model=experts(), steps=120, learning_rate=1e-2)
    assert outcome.status == "finished"
    assert outcome.loss < outcome.train_curve[-1][1] - COEFFICIENT, "the balance of two layers' experts is about 2"
    again = mixln.from_pretrained(tmp_path / f"checkpoint-{outcome.step}")
    held_out = [collate([text.held_out[i]]) for i in range(len(text.held_out))]
    assert evaluate(again, held_out).loss == pytest.approx(outcome.loss, rel=1e-5)


def test_fused_family_trains(text, tmp_path):
    model = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48, **PLAIN)
    outcome = small.train(text, tmp_path, "hybrid*", model=model, steps=60)
    assert outcome.status == "finished"
    assert outcome.loss < text.info.unigram_loss
    assert len(outcome.gradient_norms[0].attention) == 2


@pytest.mark.long
@pytest.mark.parametrize("placement", ["dlcl", "resi-dual", "mhc", "siamese", "attnres", "gpas+mix(0.5)", "rezero"])
def test_every_kind_of_stream_trains(text, tmp_path, placement):
    outcome = small.train(text, tmp_path, placement, steps=60)
    assert outcome.status == "finished"
    assert all(math.isfinite(value) for value in outcome.residual_variance[-1].attention)


def test_admin_is_profiled_before_its_first_step_and_not_again_when_it_goes_on(text, tmp_path):
    outcome = small.train(text, tmp_path, "admin", steps=1, learning_rate=1e-9)
    trained = mixln.from_pretrained(tmp_path / f"checkpoint-{outcome.step}")
    gains = [residual.skip_gain.weight for layer in placed_layers(trained) for _, residual in layer.sublayers]
    assert gains[0].mean().item() == pytest.approx(1.0, abs=1e-4)
    assert all(gain.mean().item() < 0.5 for gain in gains[1:]), (
        "small weights make small branches, and small skips beside them"
    )
    found = mixln.profile(trained, collate([text.train[i] for i in range(4)]))
    assert [gain.mean().item() for gain in gains] == pytest.approx(found, rel=0.2)
