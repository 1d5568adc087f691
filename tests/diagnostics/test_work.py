"""How often the diagnostics run a layer: what they cost, counted and not timed."""

from __future__ import annotations

import pytest
from torch import nn

from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import TokenLoss
from mixln.diagnostics.stack import find_stack
from tests.diagnostics import zoo


def layer_runs(family: str, work) -> tuple[int, int, int]:
    """Depth, batches, and how often all layers together were run."""
    model, batches = zoo.model(family), zoo.batches(family)
    stack, runs = find_stack(model), []
    for layer in stack.layers:
        # A layer that is passed over is still called: what counts is whether it computes.
        projection = next(module for module in layer.modules() if isinstance(module, nn.Linear))
        projection.register_forward_hook(lambda *_: runs.append(1))
    work(stack, batches)
    return len(stack), len(batches), len(runs)


def test_all_pairs_of_depths_take_one_forward_pass():
    depth, batches, runs = layer_runs("llama", angular_distance)
    assert runs == depth * batches


@pytest.mark.parametrize("family", ["llama", zoo.PLACED[0]])
def test_all_drops_take_half_a_forward_pass_a_layer(family):
    """Without layer l, only the layers after it are run: L(L − 1)/2 runs beside the whole model's L."""
    depth, batches, runs = layer_runs(
        family, lambda stack, batches: performance_drop(stack, batches, TokenLoss(shift=1), zeroed=False)
    )
    assert runs == batches * (depth + depth * (depth - 1) // 2)
