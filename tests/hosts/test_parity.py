"""A Pre-LN placed Llama with a stock Llama's weights is the stock Llama, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mixln.hosts.families.llama import HOST as LLAMA
from transformers import LlamaForCausalLM, PreTrainedModel

import mixln
from mixln.errors import PlacementError
from mixln.hosts.family import copy_weights
from tests.tiny import gradients, logits, placed, randomise_gains, tiny_config, tokens

IDS = tokens(batch=3, length=8)
LEFT_PADDED = torch.ones_like(IDS)
LEFT_PADDED[0, :3] = 0
LEFT_PADDED[1, :1] = 0
RIGHT_PADDED = LEFT_PADDED.flip(1)


def pair(**changes: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Stock and placed, in evaluation mode, with the stock model's weights."""
    torch.manual_seed(0)
    attention = changes.pop("attn_implementation", "sdpa")
    stock = LlamaForCausalLM._from_config(tiny_config(**changes), attn_implementation=attention).eval()
    randomise_gains(stock)
    model = mixln.from_config(stock.config, placement="pre").eval()
    copy_weights(stock, model, LLAMA.canonical)
    return stock, model


PAIRS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedModel]]] = {
    "grouped-query": pair,
    "multi-head": lambda: pair(num_key_value_heads=4),
    "multi-query": lambda: pair(num_key_value_heads=1),
    "eager": lambda: pair(attn_implementation="eager"),
    "biases": lambda: pair(attention_bias=True, mlp_bias=True),
    "tied": lambda: pair(tie_word_embeddings=True),
    "own head_dim": lambda: pair(head_dim=16),
    "scaled rope": lambda: pair(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0}),
}


@pytest.mark.parametrize("mask", [None, LEFT_PADDED, RIGHT_PADDED], ids=["no mask", "left-padded", "right-padded"])
@pytest.mark.parametrize("kind", PAIRS)
def test_logits_and_all_gradients_equal_the_stock_models(kind, mask):
    stock, model = PAIRS[kind]()
    assert torch.equal(logits(model, IDS, attention_mask=mask), logits(stock, IDS, attention_mask=mask))
    expected = gradients(stock, IDS, attention_mask=mask)
    actual = {LLAMA.canonical(name): grad for name, grad in gradients(model, IDS, attention_mask=mask).items()}
    for name, grad in expected.items():
        assert torch.equal(actual.pop(LLAMA.canonical(name)), grad), name
    assert not actual


def test_padding_changes_what_the_padded_rows_see():
    """The parity under a mask is not one of ignoring it."""
    _, model = pair()
    plain, masked = logits(model, IDS), logits(model, IDS, attention_mask=LEFT_PADDED)
    assert not torch.allclose(plain[0, 3:], masked[0, 3:], atol=1e-3)
    assert torch.allclose(plain[2], masked[2], atol=1e-5)


def test_attention_maps_equal_the_stock_models():
    stock, model = pair(attn_implementation="eager")
    with torch.no_grad():
        expected, actual = (m(IDS, output_attentions=True).attentions for m in (stock, model))
    assert len(actual) == 3
    assert all(map(torch.equal, actual, expected))


def test_stock_config_is_left_as_it_was():
    config = tiny_config()
    before = config.to_dict()
    mixln.from_config(config, placement="post", init="small")
    assert config.to_dict() == before
    assert config.model_type == "llama"


def test_attention_implementation_follows_the_stock_config_or_the_argument():
    _, model = pair(attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    chosen = mixln.from_config(tiny_config(), placement="pre", attn_implementation="eager")
    assert chosen.config._attn_implementation == "eager"


@pytest.mark.parametrize("placement", ["post", "sandwich", "qknorm+pre", "hybrid"])
def test_stock_weights_do_not_go_into_another_placement(placement):
    stock = LlamaForCausalLM(tiny_config())
    with pytest.raises(PlacementError, match=r"layers\.0\.\S+ has no counterpart"):
        copy_weights(stock, placed(placement), LLAMA.canonical)
