"""The operations of a token, by hand and against torch's own count of a real forward pass."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, MixtralConfig

import mixln
from mixln.planning.flops import count_flops, parameters
from mixln.presets import PRESETS, model_config
from tests.test_presets import MILLIONS
from tests.tiny import tiny_config


def on_meta(config, placement="pre"):
    with torch.device("meta"):
        return mixln.from_config(config, placement=placement)


@pytest.mark.parametrize("name", PRESETS)
def test_the_parameters_of_every_size(name):
    """Those of the paper's Table 7 among them, as docs and `tests/test_presets.py` have them."""
    assert tuple(round(count / 1e6, 2) for count in parameters(on_meta(model_config(name)))) == MILLIONS[name]


def test_a_small_llama_by_hand():
    # 3 layers, d = 32, 4 heads of 8, 2 of keys and values, feed-forward 48, vocabulary 64, sequences of 10.
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    flops = count_flops(on_meta(tiny_config()), 10)
    assert (flops.weights, flops.head) == (3 * layer + 64 * 32, 64 * 32)
    assert flops.attention == 3 * 32 * 10
    assert flops.model == 6 * (3 * layer + 64 * 32) + 12 * 3 * 32 * 10
    assert flops.executed(False) == flops.model
    # Checkpointing: a third more of everything but the head.
    assert flops.executed(True) == flops.model + 2 * 3 * layer + 4 * 3 * 32 * 10


def test_tied_embeddings_multiply_once():
    untied, tied = (on_meta(tiny_config(tie_word_embeddings=tie)) for tie in (False, True))
    assert count_flops(tied, 10) == count_flops(untied, 10)
    assert parameters(untied)[0] - parameters(tied)[0] == 64 * 32
    assert parameters(untied)[1] == parameters(tied)[1]


def test_of_the_experts_those_count_that_a_token_visits():
    # olmoe-tiny: 12 layers, d = 96, 8 experts of width 128, 2 for each token, vocabulary 2048.
    flops = count_flops(on_meta(model_config("olmoe-tiny")), 128)
    assert flops.weights == 12 * (4 * 96 * 96 + 8 * 96 + 2 * 3 * 96 * 128) + 2048 * 96


CONFIGS = {
    "llama": lambda: tiny_config(),
    "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=64),
    "mixtral": lambda: MixtralConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64, experts_implementation="grouped_mm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*"])
def test_it_is_what_torch_counts_in_a_forward_pass(family, placement):
    config = CONFIGS[family]()
    # Its count knows plain matrix products, not a processor's fused attention.
    model = mixln.from_config(config, placement=placement, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(2, 10, dtype=torch.long), use_cache=False)
    # A third of training is the forward pass.
    assert counter.get_total_flops() == 2 * 10 * count_flops(model, 10).model // 3


def test_mixtral_by_hand():
    flops = count_flops(on_meta(CONFIGS["mixtral"]()), 10)
    assert flops.weights == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 4 * 32 + 2 * 3 * 32 * 48) + 64 * 32
