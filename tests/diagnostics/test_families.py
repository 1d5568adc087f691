"""What is read of every family's layer holds in the family's own code."""

from __future__ import annotations

import pytest
import torch

from mixln.diagnostics.residual import branch_terms
from mixln.diagnostics.stack import find_stack, recording
from mixln.hosts.reading import read_layer
from tests.diagnostics import zoo

AFTER_THE_SUM = {"bert", "roberta", "xlm-roberta", "electra", "distilbert"}
"""Families with a norm on the stream."""


@pytest.mark.parametrize("family", zoo.MODELS)
@torch.no_grad()
def test_the_stream_is_the_sum_of_its_branches(family):
    """The input of a layer and its two branches add up to its output: through the family's norms where it has some on the stream."""
    model = zoo.model(family)
    stack = find_stack(model)
    batch = zoo.batches(family, 1)[0]
    with recording(stack, batch) as record, branch_terms(stack) as seen:
        stack.run(batch)
    assert stack.branches is not None
    for index, layer in enumerate(stack.layers):
        attention, feed_forward = seen[index, 0, "branch"], seen[index, 1, "branch"]
        x, after, y = seen[index, 0, "stream"], seen[index, 1, "stream"], record.states[index + 1]
        torch.testing.assert_close(x, record.states[index])
        if family == "gpt_neox":  # parallel: both branches leave from the layer's input
            torch.testing.assert_close(after, x)
            after = x + attention
        elif family in AFTER_THE_SUM:
            first, second = (layer.get_submodule(read.norms["stream_out"]) for read in read_layer(layer).sublayers)
            torch.testing.assert_close(after, first(x + attention))
            torch.testing.assert_close(y, second(after + feed_forward))
            continue
        else:
            torch.testing.assert_close(after, x + attention)
        torch.testing.assert_close(y, after + feed_forward)


@pytest.mark.parametrize("family", zoo.MODELS)
def test_every_weight_of_a_layer_belongs_to_one_branch(family):
    stack = find_stack(zoo.model(family))
    assert stack.branches is not None
    for layer, branches in zip(stack.layers, stack.branches, strict=True):
        held = [
            {id(p) for name in branch.weights for p in layer.get_submodule(name).parameters()} for branch in branches
        ]
        assert not held[0] & held[1]
        assert held[0] | held[1] == {id(p) for p in layer.parameters()}
