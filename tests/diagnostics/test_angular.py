"""Angular distance on known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.stack import find_stack
from mixln.errors import CheckpointError, DataError
from tests import tiny
from tests.diagnostics import zoo


def states(batch: int = 2, length: int = 5, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, length, 8, generator=torch.Generator().manual_seed(seed))


def in_plane(batch: int = 2, length: int = 5) -> torch.Tensor:
    """States within the plane in which a rotation turns."""
    found = states(batch, length)
    found[..., 2:] = 0
    return found


def distance(model, x, **options):
    return angular_distance(find_stack(model), [{"inputs_embeds": x}], **options)


def test_an_identity_layer_has_angle_zero():
    found = distance(zoo.toy(nn.Identity(), nn.Identity(), nn.Identity()), states())
    assert found.distance == tuple(pytest.approx((0,) * n, abs=1e-8) for n in (3, 2, 1))
    assert found.influence == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.mark.parametrize("angle", [1e-4, 0.1, math.pi / 2, 3.0])
def test_a_rotation_has_its_angle_and_a_scale_has_none(angle):
    found = distance(zoo.toy(zoo.Rotation(angle, 7.0)), in_plane())
    assert found.distance[0][0] == pytest.approx(angle / math.pi, rel=1e-3)
    assert found.influence[0] == pytest.approx(1 - math.cos(angle), rel=1e-2)


def test_the_opposite_direction_has_angle_one():
    assert distance(zoo.toy(zoo.Function(torch.neg)), states()).distance[0][0] == pytest.approx(1)


def test_random_orthogonal_states_are_half_a_turn_apart():
    swap = zoo.Function(lambda x: torch.cat([x[..., 4:], x[..., :4]], dim=-1))
    half = states()
    half[..., 4:] = 0
    assert distance(zoo.toy(swap), half).distance[0][0] == pytest.approx(0.5)


def test_three_layers_for_every_pair_by_hand():
    """Turns by 0.3, 0.5 and -0.2: the distance between two depths is the sum of the turns between them."""
    model = zoo.toy(*(zoo.Rotation(angle) for angle in (0.3, 0.5, -0.2)))
    found = distance(model, in_plane())
    expected = [[0.3, 0.8, 0.6], [0.5, 0.3], [0.2]]
    for row, angles in zip(found.distance, expected, strict=True):
        assert row == pytest.approx([angle / math.pi for angle in angles], rel=1e-5)


def test_the_mean_is_over_angles_and_tokens_whatever_the_batches():
    """Half of the tokens turn by 0.2, the others by 1.0; the mean angle is 0.6, and not that of the mean cosine."""
    turns = (zoo.Rotation(0.2), zoo.Rotation(1.0))
    layer = zoo.Function(lambda x: torch.cat([turns[0](x[:, :3]), turns[1](x[:, 3:])], dim=1))
    stack, x = find_stack(zoo.toy(layer)), in_plane(4, 6)
    whole = angular_distance(stack, [{"inputs_embeds": x}])
    parts = angular_distance(stack, [{"inputs_embeds": part} for part in (x[:1], x[1:])])
    assert whole.distance[0][0] == pytest.approx(0.6 / math.pi, rel=1e-6)
    assert parts.distance[0] == pytest.approx(whole.distance[0], rel=1e-12)
    assert parts.tokens == whole.tokens == 24


def test_padding_does_not_count_and_last_means_the_last_token():
    turns = [0.1, 0.2, 0.3, 0.4]
    layer = zoo.Function(lambda x: torch.stack([zoo.Rotation(a)(x[:, i]) for i, a in enumerate(turns)], dim=1))
    stack, x = find_stack(zoo.toy(layer)), in_plane(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    batch = {"inputs_embeds": x, "attention_mask": mask}
    found = angular_distance(stack, [batch])
    assert found.distance[0][0] * math.pi == pytest.approx((1.0 + 0.3 + 0.5) / 8, rel=1e-5)
    assert found.tokens == 8
    last = angular_distance(stack, [batch], convention="last")
    assert last.distance[0][0] * math.pi == pytest.approx((0.4 + 0.2 + 0.3) / 3, rel=1e-5)
    assert (last.tokens, last.convention) == (3, "last")


def test_nothing_but_padding_is_an_error():
    x = states()
    with pytest.raises(DataError, match="at least one token"):
        angular_distance(
            find_stack(zoo.toy(nn.Identity())), [{"inputs_embeds": x, "attention_mask": torch.zeros(2, 5)}]
        )


def test_the_last_state_is_before_the_final_norm():
    model = tiny.placed("pre")
    stack, ids = find_stack(model), tiny.tokens()
    before = angular_distance(stack, [{"input_ids": ids}])
    with torch.no_grad():
        model.model.norm.weight.copy_(torch.linspace(-3, 3, 32))
    assert angular_distance(stack, [{"input_ids": ids}]) == before
    with torch.no_grad():
        seen = model(ids, output_hidden_states=True).hidden_states
    cosine = nn.functional.cosine_similarity(seen[0].double(), seen[2].double(), dim=-1)
    assert before.distance[0][1] == pytest.approx((cosine.arccos() / math.pi).mean().item(), rel=1e-6)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_the_first_layer_that_is_not_finite_is_named(broken):
    layers = [nn.Identity() for _ in range(3)]
    layers[broken] = zoo.Function(lambda x: x / 0)
    with pytest.raises(CheckpointError, match=f"after layer {broken + 1} are not finite"):
        distance(zoo.toy(*layers), states())
    with pytest.raises(CheckpointError, match="before layer 1 are not finite"):
        distance(zoo.toy(*layers), states() * float("nan"))


def test_the_embedding_norm_of_a_placed_model_comes_before_the_first_state():
    """Peri-LN's norm of the embeddings sits in the first layer; it is no contribution of that layer."""
    model = tiny.placed("peri")
    with torch.no_grad():
        for layer in model.model.layers:
            for residual in (layer.attention_residual, layer.feed_forward_residual):
                residual.branch_out.weight.zero_()
    found = angular_distance(find_stack(model), [{"input_ids": tiny.tokens()}])
    assert found.distance[0] == pytest.approx((0, 0, 0), abs=1e-7)


def test_nothing_of_the_model_is_left_changed():
    model = tiny.placed("mix(0.5)").train()
    angular_distance(find_stack(model), [{"input_ids": tiny.tokens()}])
    assert model.training
    assert all(
        not m._forward_hooks and not m._forward_pre_hooks and "forward" not in m.__dict__ for m in model.modules()
    )
