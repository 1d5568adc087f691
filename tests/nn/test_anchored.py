"""Layers that read the embeddings again."""

from __future__ import annotations

import torch

from mixln.compat import checkpoint_activations
from tests.tiny import logits, placed, tokens


def test_layers_that_run_again_for_the_backward_pass_read_the_embeddings_of_their_own_forward_pass():
    """Two forward passes before one backward pass: a buffer of the embeddings would hold those of the second."""
    model = placed("x0+pre").train()
    texts = tokens(seed=1), tokens(seed=2)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        sum(model(ids, labels=ids).loss for ids in texts).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = gradients()
    checkpoint_activations(model)
    actual = gradients()
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def test_layers_that_neither_scale_nor_add_are_those_of_the_placement_on_normalized_embeddings():
    anchored, plain = placed("x0(1,0)+sandwich", gains=False), placed("peri", gains=False)
    torch.testing.assert_close(logits(anchored, tokens()), logits(plain, tokens()))
