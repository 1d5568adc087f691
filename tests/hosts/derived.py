"""What is checked of every family that is derived from transformers' code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mixln
from mixln.errors import PlacementError
from mixln.hosts import Host
from mixln.hosts.probe import probe
from mixln.hosts.shrunken import shrunken
from mixln.hosts.verify import verify

HYBRID = "hybrid*"
CACHE_DIFFERS = ("m2m_100", "moshi", "nllb-moe", "prophetnet")
"""Families whose stock class gives other scores with a cache than without one."""

WITHOUT_GRADIENT = {
    "afmoe": "expert_bias",
    "axk2": "indexer",
    "deepseek_v32": "indexer",
    "deepseek_v4": "indexer",
    "glm_moe_dsa": "indexer",
    "hy_v4": "indexer",
    "hy_v4_vl_text": "indexer",
    "ernie4_5_moe": "e_score_correction_bias",
    "laguna": "e_score_correction_bias",
    "longformer": "_global",
    "mra": "attention",
    "nllb-moe": "experts",
    "phimoe": "router",
    "switch_transformers": "experts",
}
"""Family → weights of its layers to which its own code gives no gradient here: those that choose tokens or experts, experts that few
tokens choose, global attention, which no token of the input has, and MRA's attention, which returns zeros without its GPU kernel."""


def check_family(host: Host, folder: Path) -> None:
    """Stock parity, a training step under Mix-LN and HybridNorm*, saving and loading, and generation with a cache."""
    assert verify(host).failure == ""
    model = trained(host, "mix(0.25)")
    check_saved(model, folder)
    if host.model_type in CACHE_DIFFERS:
        stock = next(iter(host.heads.values()))[0](shrunken(host.config)).float().eval()
        with pytest.raises(AssertionError):
            check_cache(stock)
    elif model.can_generate() and is_causal(model):
        check_cache(model)
    if {"query", "key", "value"} <= host.projections.keys():
        trained(host, HYBRID)
    else:
        with pytest.raises(PlacementError, match=r"a norm on the (query|key|value) projection cannot be placed"):
            trained(host, HYBRID)


def trained(host: Host, placement: str, resting: str = "$^", **changes: Any) -> mixln.hosts.PreTrainedModel:
    """A small placed model after one step of SGD, for which every weight of its layers must have had a gradient.

    :param resting: regular expression of weights that have none in the first step; `changes`: entries of its config.
    """
    torch.manual_seed(0)
    model = mixln.from_config(shrunken(host.config, **changes), placement=placement).float().train()
    outputs_of(model).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # Not `base_model`, which goes by a name that other parts of the model may have.
    # A head of T5 has none, and holds the stacks itself.
    body = next((module for module in model.modules() if isinstance(module, host.base)), model)
    weights = [pair for stack in host.stacks for pair in body.get_submodule(stack.layers).named_parameters()]
    missed = [name for name, parameter in weights if parameter.grad is None or not parameter.grad.any()]
    expected = f"{WITHOUT_GRADIENT.get(host.model_type, '$^')}|{resting}"
    assert [name for name in missed if not re.search(expected, name)] == []
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    return model.eval()


@torch.no_grad()
def check_saved(model: mixln.hosts.PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    again = mixln.from_pretrained(folder).eval()
    assert type(again) is type(model)
    # Loaded weights lie where they are in the file; sums over memory that is not aligned are rounded in another order.
    again.load_state_dict({name: value.clone() for name, value in again.state_dict().items()}, assign=True)
    assert torch.equal(outputs_of(again), outputs_of(model))


def outputs_of(model: mixln.hosts.PreTrainedModel) -> Tensor:
    """Logits of a small input, or the last hidden state of a model without a head."""
    outputs = model(**probe(model, length=12))
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state


@torch.no_grad()
def is_causal(model: mixln.hosts.PreTrainedModel) -> bool:
    """Whether no token sees later ones, unlike in an encoder with a head that generates."""
    inputs = probe(model, length=6)
    name = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
    changed = {**inputs, name: inputs[name].clone()}
    changed[name][:, -1] += 1
    return torch.allclose(model(**inputs).logits[:, :-1], model(**changed).logits[:, :-1], atol=1e-5)


@torch.no_grad()
def check_cache(model: mixln.hosts.PreTrainedModel) -> None:
    """Generation with a cache gives the scores of generation without one."""
    inputs = probe(model, length=6)
    settings = {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    if model.config.is_encoder_decoder:
        settings["decoder_start_token_id"] = 1  # T5 has none without a tokenizer
    cached, whole = (
        model.generate(**inputs, **settings, use_cache=cache, eos_token_id=None, pad_token_id=0)
        for cache in (True, False)
    )
    assert torch.equal(cached.sequences, whole.sequences)
    for ours, theirs in zip(cached.logits, whole.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
