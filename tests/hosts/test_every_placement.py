"""Properties that every placement of the zoo must have as a Hugging Face model."""

from __future__ import annotations

import copy
import inspect
import pickle
from functools import partial
from importlib.metadata import version
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

import mixln
from mixln.compat import checkpoint_activations
from mixln.placement import Layer, Placement, Sublayer
from tests.tiny import EVERY, gradients, logits, placed, tiny_config, tokens

LAYERS, D, HEADS, HEAD_DIM, Q_WIDTH, K_WIDTH, FF = 3, 32, 4, 8, 32, 16, 48
RANK = 5  # of the gates of gated streams, 320/2048 · D
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PADDED = CLOSE if Version(version("transformers")) >= Version("5.23") else {"rtol": 1e-5, "atol": 2e-5}
"""With and without padding: the mask changes the kernel of attention. 1.04e-5 under transformers 5.9 and 5.17."""
CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""Argument and output that hold the cache: renamed in transformers 5.24."""

# Gains of the layers, the final norm not counted but for what it has more than D; a stock layer has 2·D.
GAINS = {
    "pre": LAYERS * 2 * D,
    "post": LAYERS * 2 * D,
    "mix": LAYERS * 2 * D,
    "hybrid": LAYERS * (D + 3 * HEAD_DIM),
    "hybrid*": (2 * D + 3 * HEAD_DIM) + (LAYERS - 1) * (D + 3 * HEAD_DIM),
    "deepnorm": LAYERS * 2 * D,
    "sandwich": LAYERS * 4 * D,
    "peri": LAYERS * 4 * D + D,
    "res-post": LAYERS * (2 * D + Q_WIDTH + K_WIDTH),
    "lns": LAYERS * 2 * D,
    "group": LAYERS * 2 * D,
    "mix(0.5)": LAYERS * 2 * D,
    "qknorm+pre": LAYERS * (2 * D + 2 * HEAD_DIM),
    "qkvnorm+post": LAYERS * (2 * D + 3 * HEAD_DIM),
    "group(4)+mix(0.5)": LAYERS * 2 * D,
    "post*1,pre*2": LAYERS * 2 * D,
    "admin": LAYERS * (2 * D + 2 * D),
    "b2t": LAYERS * 2 * D,
    "sub-ln": LAYERS * (2 * D + Q_WIDTH + FF),
    "keel": 2 * D + (LAYERS - 1) * 4 * D,
    "rezero": LAYERS * 2,
    "resi-dual": LAYERS * 2 * D + D,
    "dlcl": LAYERS * 2 * D + (LAYERS + 1) * D + (1 + 2 + 3) + 4,
    "stock": LAYERS * 2 * D,
    "mhc": LAYERS * 2 * D + LAYERS * 2 * (24 * 4 * D + 24 + 3) + (4 * 4 * D + 4 + 1),
    "ihc": LAYERS * 2 * D + LAYERS * 2 * (8 * 4 * D + 8 + 2) + (4 * 4 * D + 4 + 1),
    "gated-streams": (2 * LAYERS + 1) * (4 * D + 2 * RANK * 4 * D) + 2 * LAYERS * 4 * 4 * D,
    "hc": LAYERS * 2 * D + LAYERS * 2 * (4 * (4 + 2) + D + (4 + 2) * D + 2),
    "siamese": LAYERS * 6 * D + 2 * D,
    "attnres": LAYERS * 2 * D + 2 * LAYERS * D,
    "attnres(3,normed)": LAYERS * 2 * D + 2 * LAYERS * D,
    "denseformer": LAYERS * 2 * D + 2 + 3 + 4,
    "hc(2,static)": LAYERS * 2 * D + LAYERS * 2 * 2 * (2 + 2),
    "norm(qkvc,full)+post": LAYERS * (2 * D + 2 * Q_WIDTH + 2 * K_WIDTH),
    "dyt+pre": LAYERS * 2 * (2 * D + 1) + D + 1,
    "gpas+mix(0.5)": LAYERS * (2 * D + 2),
    "layerscale+pre": LAYERS * (2 * D + 2 * D),
    "hybrid(pre-kv-post)": LAYERS * (2 * D + 2 * HEAD_DIM),
    "hybrid(post-pre)": LAYERS * 2 * D,
    "dssn": LAYERS * 4 * D,
    "beam": LAYERS * 4 * D,
    "minimax": LAYERS * 2 * D,
    "muse": LAYERS * (4 * D + 2 * D),
    "hybrid-scaled": LAYERS * (D + 3 * HEAD_DIM),
    "span": LAYERS * 2 * D + D,
    "normformer": LAYERS * (3 * D + FF + HEADS),
    "simple": LAYERS * (2 * D + Q_WIDTH + 2 * K_WIDTH + 2 * FF),
    "x0+mix(0.5)": LAYERS * (2 * D + 2) + D,
    "prores+mix(0.5)": LAYERS * 2 * D,
    "gated+sub-ln": LAYERS * (2 * D + Q_WIDTH + FF + D * Q_WIDTH),
    "gated(head)+pre": LAYERS * (2 * D + D * HEADS),
    "multiplier+pre": LAYERS * 2 * D,
    "derf+pre": LAYERS * 2 * (2 * D + 2) + D + 2,
    "bhyt+post": LAYERS * 2 * (D + 1) + 1,
    # One rate a feature and sublayer; s on q, gate and up; s_z on the logits; no final norm.
    "ngpt": LAYERS * (2 * D + Q_WIDTH + 2 * FF) + 64 - D,
    "vres+mix(0.5)": LAYERS * 2 * D + (LAYERS - 1) * 2,
    "vres+x0+qkvnorm+pre": LAYERS * (2 * D + 3 * HEAD_DIM + 2) + D + (LAYERS - 1) * 2,
    "vres+dlcl": LAYERS * 2 * D + (LAYERS + 1) * D + (1 + 2 + 3) + 4 + (LAYERS - 1) * 2,
}

every = pytest.mark.parametrize("placement", EVERY)


@every
def test_parameter_count_is_that_of_the_stock_model_and_its_own_gains(placement):
    stock = LlamaForCausalLM(tiny_config()).num_parameters()
    assert placed(placement).num_parameters() == stock - LAYERS * 2 * D + GAINS[placement]


@every
@pytest.mark.parametrize("load", [mixln.from_pretrained, AutoModelForCausalLM.from_pretrained], ids=["mixln", "auto"])
def test_saved_and_loaded_model_gives_equal_logits(placement, load, tmp_path):
    model = placed(placement)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert type(again).__name__ == "PlacedLlamaForCausalLM"
    assert not again.training
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))
    assert again.config.placement == model.config.placement


@pytest.mark.parametrize("placement", ["peri", "hybrid*", "lns"])
def test_model_without_a_head_loads_from_the_same_checkpoint(placement, tmp_path):
    model = placed(placement)
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(base(tokens()).last_hidden_state, model.model(tokens()).last_hidden_state)


def test_head_that_a_checkpoint_lacks_is_drawn_and_the_rest_kept(tmp_path):
    body = placed("peri", init="small").model
    body.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(map(torch.equal, model.model.parameters(), body.parameters()))
    assert model.lm_head.weight.std().item() == pytest.approx((2 / (5 * D)) ** 0.5, rel=0.1)


def test_saving_a_loaded_model_gives_the_same_files(tmp_path):
    placed("mix(0.5)").save_pretrained(tmp_path / "one")
    mixln.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def generate(model: Any, ids: Tensor, *, use_cache: bool, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Greedy continuation by six tokens: (the new tokens, their logits)."""
    mask = torch.ones_like(ids) if mask is None else mask
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=6,
        use_cache=use_cache,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, dim=1)


@every
def test_generation_with_a_cache_equals_generation_without(placement):
    model = placed(placement)
    ids, mask = tokens(batch=2, length=6), torch.ones(2, 6, dtype=torch.long)
    ids[0, :3], mask[0, :3] = 0, 0
    new, scores = generate(model, ids, use_cache=True, mask=mask)
    uncached, uncached_scores = generate(model, ids, use_cache=False, mask=mask)
    alone, alone_scores = generate(model, ids[:1, 3:], use_cache=True)
    assert torch.equal(new, uncached)
    assert torch.equal(new[:1], alone)
    torch.testing.assert_close(scores, uncached_scores, **CLOSE)
    torch.testing.assert_close(scores[:1], alone_scores, **PADDED)


@every
def test_decoding_token_by_token_equals_the_full_forward_pass(placement):
    model = placed(placement)
    ids, cache, steps = tokens(length=6), None, []
    with torch.no_grad():
        for position in range(ids.shape[1]):
            out = model(ids[:, position : position + 1], **{CACHE: cache}, use_cache=True)
            cache = out[CACHE]
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), logits(model, ids), **CLOSE)


@every
def test_a_later_token_does_not_change_earlier_logits(placement):
    model = placed(placement)
    ids = tokens(length=8)
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] + 1) % 64
    before, after = logits(model, ids), logits(model, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before - after)[:, 5:].abs().amax(dim=(0, 2)) > 1e-3).all()


@every
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(placement):
    model = placed(placement)
    found = gradients(model, tokens(batch=4, length=12))
    assert [name for name, grad in found.items() if not torch.isfinite(grad).all()] == []
    assert [name for name, grad in found.items() if not grad.abs().max() > 1e-6] == []


@every
def test_gradient_checkpointing_gives_equal_gradients(placement):
    model = placed(placement).train()
    calls = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = gradients(model, tokens())
    assert len(calls) == 1
    checkpoint_activations(model)
    actual = gradients(model, tokens(), use_cache=False)
    assert len(calls) == 3, "the backward pass computes a checkpointed layer again"
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


@every
def test_hidden_states_are_the_inputs_of_the_layers_and_the_final_norms_output(placement):
    model = placed(placement)
    inputs: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, args, kwargs: inputs.append(args[0]), with_kwargs=True)
    with torch.no_grad():
        out = model.model(tokens(), output_hidden_states=True)
    assert len(out.hidden_states) == LAYERS + 1
    assert len(inputs) == LAYERS
    # Of several streams, what the final norm would read there.
    fold = (lambda states: states) if model.model.stream_fold is None else partial(model.model.folded, "norm")
    assert all(map(torch.equal, out.hidden_states[:-1], map(fold, inputs)))
    assert torch.equal(out.hidden_states[0], model.model.embed_tokens(tokens()))
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)


@every
def test_copies_and_pickles_are_the_same_model_and_independent(placement):
    model = placed(placement)
    expected = logits(model, tokens())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin, tokens()), expected)
        with torch.no_grad():
            twin.lm_head.weight.zero_()
    assert torch.equal(logits(model, tokens()), expected)


@pytest.mark.parametrize(("text", "same"), [("mix(0)", "pre"), ("mix(1)", "post"), ("mix(0.34)", "post*1,pre*2")])
def test_equal_placements_are_equal_models(text, same):
    here, there = placed(text), placed(same)
    assert here.state_dict().keys() == there.state_dict().keys()
    assert torch.equal(logits(here, tokens()), logits(there, tokens()))


def test_placement_can_be_a_finished_record_and_follows_it():
    """No norm in the layers at all: x + A(x), then x + F(x)."""
    bare = Placement(name="none", layers=(Layer(attention=Sublayer(skip_scale=2.0)),) * LAYERS)
    model = placed(bare)
    assert [name for name, p in model.named_parameters() if p.ndim == 1] == ["model.norm.weight"]
    assert Placement.from_json(model.config.placement) == bare


@pytest.mark.parametrize("placement", ["mix(2/3)", "lns", "hybrid*", "deepnorm"])
def test_removing_a_layer_leaves_the_role_of_the_others(placement, tmp_path):
    """The surviving layers, saved and loaded again, do what they did in the deeper model."""
    model = placed(placement)
    before = Placement.from_json(model.config.placement)
    shorter = Placement(name="pruned", layers=before.layers[:1] + before.layers[2:])
    pruned = placed(shorter, num_hidden_layers=LAYERS - 1)
    kept = {
        name.replace("layers.2.", "layers.1."): value
        for name, value in model.state_dict().items()
        if "layers.1." not in name
    }
    pruned.load_state_dict(kept)
    pruned.save_pretrained(tmp_path)
    model.model.layers[1].forward = lambda x, *args, **kwargs: x
    torch.testing.assert_close(logits(mixln.from_pretrained(tmp_path), tokens()), logits(model, tokens()))


def test_already_placed_config_gets_another_placement():
    config = mixln.placed_config(mixln.placed_config(tiny_config(), "hybrid"), "post")
    assert (config.placement["name"], config.init) == ("post", "normal")
    assert config.num_hidden_layers == LAYERS


@pytest.mark.parametrize("placement", EVERY)
def test_bfloat16_model_keeps_its_dtype_throughout(placement):
    model = placed(placement).to(torch.bfloat16)
    assert logits(model, tokens()).dtype == torch.bfloat16
    assert torch.isfinite(logits(model, tokens())).all()
