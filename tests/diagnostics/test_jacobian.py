"""The Jacobian's singular values on known maps, and against the whole matrix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixln.diagnostics.jacobian import jacobian
from mixln.diagnostics.stack import find_stack, recording
from tests.diagnostics import zoo


def states() -> torch.Tensor:
    return torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))


def test_an_identity_layer_is_at_distance_zero():
    found = jacobian(find_stack(zoo.toy(nn.Identity())), {"inputs_embeds": states()})
    assert found.largest == pytest.approx((1,))
    assert found.distance == found.typical == pytest.approx((0,), abs=1e-7)
    assert found.tokens == 3


def test_a_scaled_rotation_has_its_scale():
    """cR − I, for R a turn by θ in a plane: c² − 2c cos θ + 1 in the plane, (c − 1)² elsewhere, squared."""
    angle, scale = 2.0, 1.5
    found = jacobian(
        find_stack(zoo.toy(zoo.Rotation(angle, scale))), {"inputs_embeds": states()}, iterations=200, tolerance=1e-6
    )
    turned = scale**2 - 2 * scale * torch.tensor(angle).cos().item() + 1
    assert found.largest[0] == pytest.approx(1.5, rel=1e-4)
    assert found.distance[0] == pytest.approx(turned**0.5, rel=1e-3)


def test_the_typical_distance_is_the_frobenius_norm_over_the_root_of_the_size():
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4000, 1, 8, generator=torch.Generator().manual_seed(2))
    found = jacobian(find_stack(zoo.toy(zoo.Function(lambda x: x @ matrix.T))), {"inputs_embeds": x}, iterations=1)
    assert found.typical[0] == pytest.approx((matrix - torch.eye(8)).norm().item() / 8**0.5, rel=0.03)


@pytest.mark.parametrize("family", ["pre", "post", "hybrid*", "peri", "llama", "olmoe", "gpt2", "bert", "vit"])
def test_equal_to_the_whole_matrix(family):
    """∂y_t/∂x_t for the last real token t of each sequence, entry by entry, and its singular values."""
    stack, batch = find_stack(zoo.model(family)), zoo.batches(family, 1)[0]
    found = jacobian(stack, batch, iterations=400, tolerance=1e-5)
    last = [16, 16, 16] if family == "vit" else [8, 6, 3]
    assert found.tokens == 3
    with torch.no_grad(), recording(stack, batch) as record:
        stack.run(batch)
    for index in range(len(stack)):
        x = record.entered(index)
        wholes = []
        for row, token in enumerate(last):

            def single(x_D, row=row, token=token, x=x, index=index):
                changed = x.clone()
                changed[row, token] = x_D
                with stack.past_entry():
                    return record.advance(index, changed)[row, token]

            wholes.append(torch.autograd.functional.jacobian(single, x[row, token]).double())
        values = [torch.linalg.svdvals(whole)[0].item() for whole in wholes]
        assert found.largest[index] == pytest.approx(sum(values) / 3, rel=5e-3)
        less = [torch.linalg.svdvals(whole - torch.eye(32))[0].item() for whole in wholes]
        assert found.distance[index] == pytest.approx(sum(less) / 3, rel=5e-3)


def test_nothing_of_the_model_is_left_changed():
    model, batch = zoo.model("mix(0.5)").train(), zoo.batches("mix(0.5)")[0]
    jacobian(find_stack(model), batch, iterations=2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["pre", "bert"])
def test_bfloat16_gives_about_the_same(family):
    batch = zoo.batches(family, 1)[0]
    exact = jacobian(find_stack(zoo.model(family)), batch)
    rough = jacobian(find_stack(zoo.model(family).to(torch.bfloat16)), batch)
    assert rough.largest == pytest.approx(exact.largest, rel=0.1)
    assert rough.typical == pytest.approx(exact.typical, rel=0.1)


def test_the_embedding_norm_is_no_part_of_the_first_layer():
    model = zoo.model("peri")
    with torch.no_grad():
        for residual in (model.model.layers[0].attention_residual, model.model.layers[0].feed_forward_residual):
            residual.branch_out.weight.zero_()
    found = jacobian(find_stack(model), zoo.batches("peri")[0])
    assert found.largest[0] == pytest.approx(1, abs=1e-6)
    assert found.distance[0] == pytest.approx(0, abs=1e-6)
