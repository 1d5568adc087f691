"""Placements that transformers ships, against the decoder layers of the families that ship them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixln.nn.residual import Residual
from mixln.placement import Norm, Sublayer, placement

D, LAYERS = 16, 3
SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": D, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32, "attn_implementation": "eager",
}  # fmt: skip
X = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))


class Constant(nn.Module):
    """A branch that is a fixed map, in place of attention and feed-forward, returned as the family returns it."""

    def __init__(self, seed: int, tuple_of: int | None = None) -> None:
        super().__init__()
        self.tuple_of = tuple_of
        self.map = torch.randn(D, D, generator=torch.Generator().manual_seed(seed)) / D**0.5

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = torch.tanh(hidden_states @ self.map)
        return out if self.tuple_of is None else (out, *[None] * (self.tuple_of - 1))


def family_layer(family: str, config_class: str, layer_class: str, index: int, **changes: Any) -> Any:
    """The family's own layer with other branches; norms and gates are random."""
    try:
        module = import_module(f"transformers.models.{family}.modeling_{family}")
        configs = import_module(f"transformers.models.{family}.configuration_{family}")
    except ImportError:
        pytest.skip(f"transformers has no {family}")
    config = getattr(configs, config_class)(**{**SIZES, **changes})
    layer = getattr(module, layer_class)(config, index)
    layer.self_attn, layer.mlp = Constant(1, tuple_of=2), Constant(2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(0.5, 1.5, generator=generator)
    return layer


def sublayer(record: Sublayer, modules: dict[str, nn.Module]) -> Residual:
    """Our sublayer with the family's norms in its slots."""
    residual = Residual(record, lambda slot: None if slot is None else nn.Identity(), D)
    for name, module in modules.items():
        assert getattr(residual, name) is not None
        setattr(residual, name, module)
    return residual


def ours(text: str, layer: Any, index: int, attention: dict[str, str], feed_forward: dict[str, str]) -> Tensor:
    """:param attention: slot of the residual sublayer → attribute of the family's layer; likewise `feed_forward`."""
    record = placement(text, LAYERS).layers[index]
    x = X
    for sub, slots, branch in zip(
        record.sublayers, (attention, feed_forward), (layer.self_attn, layer.mlp), strict=True
    ):
        x = sublayer(sub, {slot: getattr(layer, name) for slot, name in slots.items()})(x, branch)
    return x


SANDWICH = (
    {"branch_in": "input_layernorm", "branch_out": "post_attention_layernorm"},
    {"branch_in": "pre_feedforward_layernorm", "branch_out": "post_feedforward_layernorm"},
)
PRE = ({"branch_in": "input_layernorm"}, {"branch_in": "post_attention_layernorm"})


@pytest.mark.parametrize("index", range(LAYERS))
def test_beam_is_the_layer_of_the_beam_family(index):
    layer = family_layer("beam", "BeamConfig", "BeamDecoderLayer", index, mlp_layer_types=["dense"] * LAYERS)
    torch.testing.assert_close(ours("beam", layer, index, *SANDWICH), layer(X, None))


def test_residual_multiplier_is_that_of_granite():
    layer = family_layer("granite", "GraniteConfig", "GraniteDecoderLayer", 0, residual_multiplier=0.22)
    torch.testing.assert_close(ours("multiplier(0.22)+pre", layer, 0, *PRE), layer(X))


def test_minimax_is_the_layer_of_the_minimax_family():
    factors = {
        "full_attn_alpha_factor": 3.5,
        "full_attn_beta_factor": 0.5,
        "mlp_alpha_factor": 3.5,
        "mlp_beta_factor": 0.5,
    }
    kinds = {"layer_types": ["full_attention"] * LAYERS, "num_local_experts": 2, "num_experts_per_tok": 1}
    layer = family_layer("minimax", "MiniMaxConfig", "MiniMaxDecoderLayer", 0, **factors, **kinds)
    slots = ({"stream_in": "input_layernorm"}, {"stream_in": "post_attention_layernorm"})
    torch.testing.assert_close(ours("minimax(3.5,0.5)", layer, 0, *slots), layer(X))


def test_gate_of_muse_is_that_of_the_muse_spark_family():
    kinds = {"mlp_layer_types": ["dense"] * LAYERS}
    layer = family_layer("muse_spark", "MuseSparkTextConfig", "MuseSparkTextDecoderLayer", 0, **kinds)
    gates = layer.post_attention_residual_gate, layer.post_feedforward_residual_gate
    record = placement("muse", LAYERS).layers[0]
    x = X
    for sub, slots, gate, branch in zip(record.sublayers, SANDWICH, gates, (layer.self_attn, layer.mlp), strict=True):
        residual = sublayer(sub, {slot: getattr(layer, name) for slot, name in slots.items()})
        assert residual.balance.temperature == gate.temperature
        residual.balance.weight = gate.gate
        x = residual(x, branch)
    torch.testing.assert_close(x, layer(X))


def test_norms_of_the_depth_scaled_sandwich_are_those_of_the_afmoe_family():
    layer = family_layer("afmoe", "AfmoeConfig", "AfmoeDecoderLayer", 0)
    slots = ({"branch_in": "input_layernorm", "branch_out": "post_attention_layernorm"},
             {"branch_in": "pre_mlp_layernorm", "branch_out": "post_mlp_layernorm"})  # fmt: skip
    assert placement("dssn", LAYERS).layers[0].attention.branch_in == Norm()
    torch.testing.assert_close(ours("dssn", layer, 0, *slots), layer(X))
