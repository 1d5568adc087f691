"""Residual streams of several states: their norms, their start, and their number format."""

from __future__ import annotations

import pytest
import torch

from mixln.errors import PlacementError
from mixln.nn.norms import DyT, GroupRMSNorm
from mixln.nn.streams import Combination
from mixln.placement import Layer, Placement
from tests.tiny import placed, tokens


def test_combination_is_the_weighted_sum_of_its_states():
    combination = Combination(3)
    states = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(combination(states), (states[..., :4] + states[..., 4:8] + states[..., 8:]) / 3)
    with torch.no_grad():
        combination.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(combination(states), states[..., :4] - 2 * states[..., 4:8] + 0.5 * states[..., 8:])


@pytest.mark.parametrize("placement", ["pre", "resi-dual", "dlcl", "x0+pre", "prores+beam", "muse", "gated+minimax"])
def test_under_autocast_the_stream_stays_float32(placement):
    model, seen = placed(placement), []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(tokens())
    assert seen == [torch.float32] * 3


@pytest.mark.parametrize(("modifier", "kind"), [("dyt", DyT), ("group(4)", GroupRMSNorm)])
def test_modifiers_of_norms_reach_those_of_the_streams(modifier, kind):
    assert isinstance(placed(f"{modifier}+resi-dual").model.stream_fold.dual_norm, kind)
    layers = placed(f"{modifier}+dlcl").model.layers
    assert isinstance(layers[0].embedding_history_norm, kind)
    assert all(isinstance(layer.history_norm, kind) for layer in layers)


def test_bottom_to_top_is_for_one_stream():
    with pytest.raises(PlacementError, match="bottom_to_top requires a single stream, got 'dlcl'"):
        Placement(name="own", layers=(Layer(bottom_to_top=True),), streams="dlcl")
