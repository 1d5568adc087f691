"""Admin's profiling pass against a pass done by hand."""

from __future__ import annotations

import math

import pytest
import torch

import mixln
from tests.tiny import logits, placed, tiny_config, tokens

IDS = tokens(batch=4, length=16)


def by_hand(model: torch.nn.Module) -> list[float]:
    """ω of every sublayer, with the model's own attention and feed-forward and the lines of the authors' code (fairseq's
    transformer_layer.py in Transformer-Clinic): the ratio that one sublayer leaves is the gain of the next."""
    body = model.model
    x = body.embed_tokens(IDS)
    position = torch.arange(IDS.shape[1])[None]
    ratio, omegas = 1.0, []
    for layer in body.layers:
        for side, residual in enumerate((layer.attention_residual, layer.feed_forward_residual)):
            omegas.append(ratio)
            residual_var = (x * ratio).var(correction=0).item()
            if side == 0:
                rotary = body.rotary_emb(x, position)
                mask = torch.full((IDS.shape[1],) * 2, -math.inf).triu(1)[None, None]
                branch = layer.self_attn(x, position_embeddings=rotary, attention_mask=mask)[0]
            else:
                branch = layer.mlp(x)
            x = residual.stream_out(ratio * x + branch)
            ratio = math.sqrt(residual_var + branch.var(correction=0).item())
    return omegas


@torch.no_grad()
def test_gains_are_the_roots_of_the_variances_below():
    model = placed("admin", gains=False)
    expected = by_hand(model)
    assert mixln.profile(model, {"input_ids": IDS}) == pytest.approx(expected, rel=1e-5)
    gains = [residual.skip_gain.weight for layer in model.model.layers for _, residual in layer.sublayers]
    assert all(torch.equal(gain, torch.full_like(gain, gain[0].item())) for gain in gains)
    assert [gain[0].item() for gain in gains] == pytest.approx(expected, rel=1e-5)
    assert expected[0] == 1.0
    assert expected[-1] > 1.5


def test_gains_grow_like_an_unnormalized_stream():
    """ω² is about the variance of the embeddings and of all branches below: the streams between them have variance 1."""
    model = placed("admin", gains=False, init="embedding(1)+normal")
    variances: list[float] = []
    for layer in model.model.layers:
        for name in layer.branches:
            layer.get_submodule(name).register_forward_hook(
                lambda module, args, out: variances.append(
                    (out[0] if isinstance(out, tuple) else out).var(correction=0).item()
                )
            )
    omegas = mixln.profile(model, {"input_ids": IDS})
    start = model.model.embed_tokens(IDS).var(correction=0).item()
    sums = [start + sum(variances[:below]) for below in range(1, 6)]
    assert [omega**2 for omega in omegas[1:]] == pytest.approx(sums, rel=0.1)


def test_profiled_gains_are_weights_of_the_checkpoint(tmp_path):
    model = placed("admin", gains=False)
    before = logits(model, IDS)
    mixln.profile(model, {"input_ids": IDS})
    model.save_pretrained(tmp_path)
    assert not torch.allclose(logits(model, IDS), before)
    assert torch.equal(logits(mixln.from_pretrained(tmp_path), IDS), logits(model, IDS))


def test_only_the_admin_layers_of_a_mixture_are_set_and_all_branches_count():
    model = placed("pre*1,admin", gains=False)
    found = mixln.profile(model, {"input_ids": IDS})
    assert len(found) == 6
    assert model.model.layers[0].attention_residual.skip_gain is None
    assert model.model.layers[1].attention_residual.skip_gain.weight[0].item() == pytest.approx(found[2])


def test_other_models_are_left_alone_and_training_mode_is_kept():
    model = placed("gpas+pre", gains=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert mixln.profile(model, {"input_ids": IDS}) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    training = mixln.from_config(tiny_config(attention_dropout=0.5), placement="admin").train()
    first = mixln.profile(training, {"input_ids": IDS, "labels": IDS})
    assert training.training
    assert mixln.profile(training, {"input_ids": IDS}) == first, "without dropout, and from the same start"


def test_growing_branches_are_profiled_as_they_will_be_when_grown():
    whole, growing = (mixln.from_config(tiny_config(), placement=name) for name in ("admin", "prores+admin"))
    growing.load_state_dict(whole.state_dict(), strict=False)
    assert mixln.profile(growing, {"input_ids": IDS}) == mixln.profile(whole, {"input_ids": IDS})
    assert growing.model.layers[2].attention_residual.ramp.step == 0
