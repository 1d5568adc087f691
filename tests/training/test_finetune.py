"""Fine-tuning: the loss by hand, LoRA against its equation, an interrupted run against an uninterrupted one, and every family."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import Qwen3MoeForCausalLM

import mixln
from mixln.hosts.sources import find_model, load, tokenizer_of
from mixln.training.lora import targets
from mixln.training.rlhf import log_likelihoods
from tests import decoders, tiny
from tests.hosts.families import CONFIGS, config_of
from tests.training.tuned import COMPLETIONS, cut_at, source, tune

pytestmark = pytest.mark.filterwarnings("default")  # TRL's own


def by_hand(model) -> float:
    """−Σ log p over the tokens of the held-out completions and their ends of text, divided by their number."""
    tokenizer = decoders.tokenizer()
    total, count = 0.0, 0
    for row in COMPLETIONS.held_out:
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = [*tokenizer(row["prompt"] + row["completion"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logs = model(torch.tensor([whole]), use_cache=False).logits[0].log_softmax(dim=-1)
        for place in range(len(prompt), len(whole)):
            total -= logs[place - 1, whole[place]].item()
            count += 1
    return total / count


@pytest.mark.parametrize("placement", ["mix(0.5)", "hybrid*", None])
def test_the_loss_is_that_of_the_completions_alone_and_falls(tmp_path, placement):
    model = source(tmp_path, placement)
    found = tune(tmp_path / "out", model)
    assert found.before["loss"].value == pytest.approx(by_hand(load(model)), rel=1e-5)
    trained = find_model(str(tmp_path / "out/model"), cache=tmp_path)
    assert found.after["loss"].value == pytest.approx(by_hand(load(trained)), rel=1e-5)
    assert found.after["loss"].value < 0.9 * found.before["loss"].value
    assert type(load(trained)) is type(load(model))
    assert len(tokenizer_of(trained)) == 300
    assert (found.status, found.step, found.examples, found.held_out) == ("finished", 12, 30, 6)
    assert [step for step, _ in found.curves["eval_loss"]] == [0, 3, 6, 9, 12]
    assert len(found.gradient_norms[0].attention) == 3  # of stock models whose branches are known too


@pytest.mark.long
@pytest.mark.parametrize("lora", [None, 4])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch, lora):
    model = source(tmp_path)
    whole = tune(tmp_path / "whole", model, lora=lora)

    with cut_at(8):
        tune(tmp_path / "cut", model, lora=lora, checkpoint_seconds=0)
    resumed = []
    train = transformers.Trainer.train
    monkeypatch.setattr(
        transformers.Trainer, "train", lambda self, **k: resumed.append(k["resume_from_checkpoint"]) or train(self, **k)
    )
    cut = tune(tmp_path / "cut", model, lora=lora)
    assert resumed[0].endswith("checkpoint-7")
    assert (cut.before, cut.after, cut.curves) == (whole.before, whole.after, whole.curves)
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_decide_the_order(tmp_path):
    model = source(tmp_path)
    losses = [tune(tmp_path / str(n), model, seed=seed).curves["loss"] for n, seed in enumerate((0, 0, 1))]
    assert losses[0] == losses[1] != losses[2]


def test_lora_adapts_a_projection_before_its_norm(tmp_path):
    """y = N(Wx + α/r BAx), literally; merged, W + α/r BA; and nothing else has changed."""
    model = source(tmp_path, "hybrid*")
    tune(tmp_path / "out", model, lora=2, lora_alpha=6)
    before, after = load(model), load(find_model(str(tmp_path / "out/model"), cache=tmp_path))
    weights = load_file(tmp_path / "out/adapter/adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (weights[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    heads = (x @ before.get_submodule(name).weight.T + 3.0 * x @ a.T @ b.T).view(5, 4, 8)
    attention = after.get_submodule(name.removesuffix(".q_proj"))
    gain = dict(attention.named_parameters())["query_norm.weight"]
    normed = heads / (heads.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain
    actual = attention.normed("q_proj", attention.q_proj(x)).view(5, 4, 8)
    torch.testing.assert_close(actual, normed, rtol=1e-4, atol=1e-5)
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[key])}
    assert changed == {f"{target}.weight" for target in targets(before)}
    assert f"{name}.weight" in changed


def test_lora_leaves_norms_routers_embeddings_and_heads_alone():
    for placement in ("pre", "hybrid*", "norm(qkvc,full)+post"):
        names = targets(tiny.placed(placement))
        assert len(names) == 3 * 7
        assert not [name for name in names if "norm" in name.rpartition(".")[2] or "embed" in name or "head" in name]
    experts = mixln.from_config(config_of("olmoe"), placement="mix(0.5)")
    assert {name.rpartition(".")[2] for name in targets(experts)} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }


@pytest.mark.parametrize("stock", [False, True])
def test_lora_adapts_the_dense_layers_between_layers_of_experts(tmp_path, stock):
    config = config_of("qwen3_moe", vocab_size=300, eos_token_id=0)  # experts, dense, experts
    made = Qwen3MoeForCausalLM(config) if stock else mixln.from_config(config, placement="mix(0.5)")
    made.save_pretrained(tmp_path / "model")
    decoders.tokenizer().save_pretrained(tmp_path / "model")
    model = find_model(str(tmp_path / "model"), cache=tmp_path)
    tune(tmp_path / "out", model, steps=2, learning_rate=1e-2, lora=2)
    before, after = load(model), load(find_model(str(tmp_path / "out/model"), cache=tmp_path))
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[key])}
    assert changed == {f"{target}.weight" for target in targets(before)}
    assert {f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")} <= changed


@pytest.mark.parametrize("family", sorted(set(CONFIGS) - {"vit"}))
def test_every_family_is_fine_tuned(tmp_path, family):
    """TRL takes the loss from the hidden states and the head's weight: the same as the model's own, at the first step."""
    config = config_of(family, vocab_size=300, eos_token_id=0)
    torch.manual_seed(0)
    made = mixln.from_config(config, placement="mix(0.5)")
    made.save_pretrained(tmp_path / "model")
    decoders.tokenizer().save_pretrained(tmp_path / "model")
    model = find_model(str(tmp_path / "model"), cache=tmp_path)
    found = tune(tmp_path / "out", model, steps=2, batch_size=30, learning_rate=1e-3)
    tokenizer = decoders.tokenizer()
    pairs = [
        (tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id])
        for row in COMPLETIONS.train
    ]
    expected = -log_likelihoods(made.eval(), pairs, 30).sum().item() / sum(len(tokens) for _, tokens in pairs)
    balance = getattr(config, "router_aux_loss_coef", 0.0) or 0.0
    assert found.curves["loss"][0][1] == pytest.approx(expected, rel=1e-4, abs=5 * balance)
    assert found.after["loss"].value < found.before["loss"].value


def test_what_lies_in_the_folder(tmp_path):
    tune(tmp_path / "out", source(tmp_path), steps=2)
    rows = [json.loads(line) for line in (tmp_path / "out/checkpoints/metrics.jsonl").read_text().splitlines()]
    assert {"step", "eval_loss"} == rows[0].keys()
    assert any("gradient_norms" in row for row in rows)
    assert not (tmp_path / "out/adapter").exists()
