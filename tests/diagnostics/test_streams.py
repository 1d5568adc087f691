"""Several residual streams: what is read of them, a layer skipped by hand, and what is not defined."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.diagnose import diagnose
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.jacobian import jacobian
from mixln.diagnostics.measures import TokenLoss
from mixln.diagnostics.prune import prune
from mixln.diagnostics.residual import residual_stream, residual_variance
from mixln.diagnostics.selection import best_sets, count
from mixln.diagnostics.settings import MeasureSettings
from mixln.diagnostics.stack import find_stack, recording
from mixln.errors import SettingsError
from mixln.placement import Placement
from tests import tiny
from tests.diagnostics import zoo

MAPS = ("mhc", "ihc", "gated-streams", "hc", "hc(2,static)")
LOSS = TokenLoss(shift=1)


@torch.no_grad()
def ends(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """The states after each layer, by the model's own hidden states and the input of its final norm."""
    last: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0]))
    states = model.model(ids, output_hidden_states=True).hidden_states
    handle.remove()
    return [*states[1:-1], *last]


@torch.no_grad()
def expanded(model: Any, placement: str, ids: torch.Tensor) -> torch.Tensor:
    """The states at the start, (B, T, S·D), written out."""
    x = model.model.embed_tokens(ids)
    if placement.startswith("x0"):
        x = model.model.layers[0].stream_in(x)
    if placement in ("siamese", "resi-dual", "x0+pre", "x0+b2t"):
        return torch.cat((x, x), dim=-1)
    if placement in zoo.KEEPING:
        return torch.cat([x] * Placement.from_json(model.config.placement).stream_count, dim=-1)
    return model.model.layers[0].embedding_history_norm(x) if placement == "dlcl" else x


@torch.no_grad()
def silence(model: Any) -> Any:
    """Sets all branches to zero."""
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


@pytest.mark.parametrize("placement", [*zoo.KEEPING, *zoo.GROWING])
def test_angles_are_those_of_what_the_next_layer_would_read(placement):
    model, ids = tiny.placed(placement), tiny.tokens()
    found = angular_distance(find_stack(model), [{"input_ids": ids}])
    with torch.no_grad():
        first = model.model.stream_fold.fold(expanded(model, placement, ids))
    states = [state.double() for state in (first, *ends(model, ids))]
    for a, row in enumerate(found.distance):
        for n, value in enumerate(row):
            cosine = F.cosine_similarity(states[a], states[a + n + 1], dim=-1).clamp(-1, 1)
            assert value == pytest.approx((cosine.arccos() / torch.pi).mean().item(), abs=1e-6)


@pytest.mark.parametrize("placement", [*zoo.KEEPING, *zoo.GROWING])
def test_variance_and_norm_are_those_of_what_the_next_layer_would_read(placement):
    model, ids, inner = tiny.placed(placement), tiny.tokens(), []
    found = residual_stream(find_stack(model), [{"input_ids": ids}])
    for layer in model.model.layers:
        layer.feed_forward_residual.register_forward_pre_hook(lambda module, inputs: inner.append(inputs[0]))
    after = ends(model, ids)
    with torch.no_grad():
        first = model.model.stream_fold.fold(expanded(model, placement, ids))
        between = [model.model.stream_fold(state) for state in inner]
    assert found.entry_norm == pytest.approx(first.norm(dim=-1).mean().item(), rel=1e-5)
    assert found.norm.attention == pytest.approx([state.norm(dim=-1).mean().item() for state in between], rel=1e-5)
    assert found.norm.feed_forward == pytest.approx([state.norm(dim=-1).mean().item() for state in after], rel=1e-5)
    variances = [state.var(dim=-1, correction=0).mean().item() for state in after]
    assert found.variance.feed_forward == pytest.approx(variances, rel=1e-5)
    # Inside a layer of DLCL, DenseFormer and x0 there is one stream; elsewhere a branch is added to several.
    single = placement in ("dlcl", "denseformer", "x0+pre", "x0+b2t")
    assert bool(found.share.attention) == bool(found.share.feed_forward) == single
    if placement not in ("dlcl", "denseformer"):
        recorded = residual_variance(model, {"input_ids": ids}, step=0)
        assert found.variance.attention == pytest.approx(recorded.attention, rel=1e-5)


@pytest.mark.parametrize("placement", MAPS)
def test_streams_that_no_branch_adds_to_do_not_turn_and_no_layer_is_missed(placement):
    """Equal streams stay equal under a carry map whose rows sum to 1, and so under that of a new model."""
    model = silence(tiny.placed(placement, gains=False))
    stack, batches = find_stack(model), zoo.batches(placement)
    found = angular_distance(stack, batches)
    assert max(map(max, found.distance)) < 1e-3
    assert found.influence == pytest.approx((0,) * 3, abs=1e-6)
    assert [drop.change for drop in performance_drop(stack, batches, LOSS).skipped] == pytest.approx([0] * 3, abs=1e-5)
    stream = residual_stream(stack, batches)
    assert stream.norm.feed_forward == pytest.approx((stream.entry_norm,) * 3, rel=1e-4)


def test_hyper_connections_without_branches_end_as_the_sum_of_their_copies():
    model, ids = silence(tiny.placed("hc", gains=False)), tiny.tokens()
    found = residual_stream(find_stack(model), [{"input_ids": ids}])
    with torch.no_grad():
        x = model.model.embed_tokens(ids)
    assert found.entry_norm == pytest.approx(4 * x.norm(dim=-1).mean().item(), rel=1e-5)
    assert found.variance.attention == pytest.approx([16 * x.var(dim=-1, correction=0).mean().item()] * 3, rel=1e-5)


@pytest.mark.parametrize("placement", zoo.KEEPING)
@pytest.mark.parametrize("removed", [0, 1, 2])
@torch.no_grad()
def test_the_drop_is_that_of_layers_run_by_hand(placement, removed):
    """Expands the embeddings, runs the other two layers on the states, reads them, and takes the loss."""
    model, ids = tiny.placed(placement), tiny.tokens()
    found = performance_drop(find_stack(model), [{"input_ids": ids, "labels": ids}], LOSS).skipped[removed]
    calls: list[dict[str, Any]] = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    model(ids, use_cache=False)
    states = expanded(model, placement, ids)
    twin = copy.deepcopy(model)
    for index, layer in enumerate(twin.model.layers):
        if index != removed:
            attention, feed_forward = layer.calls
            kept, bottom = states[..., :32], states
            if placement.startswith("x0"):
                bottom = layer.anchor.keep * states[..., 32:] + layer.anchor.add * kept
            also = {"also": bottom} if placement == "x0+b2t" else {}
            states = layer.attention_residual(bottom, attention, **calls[index])
            states = layer.feed_forward_residual(states, feed_forward, **also, **calls[index])
            states = torch.cat((kept, states), dim=-1) if placement.startswith("x0") else states
    logits = twin.lm_head(twin.model.norm(twin.model.stream_fold.fold(states)))
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()
    assert found.value == pytest.approx(loss, abs=1e-6)
    assert abs(found.change) > 1e-4


def test_a_layer_of_siamese_norm_keeps_its_scale_when_pruned_twice(tmp_path):
    """The branch is added with 1/√(2l), and l is the number that the layer was trained with."""
    model = tiny.placed("siamese", num_hidden_layers=5)
    once = prune(find_stack(model), {2})
    prune(find_stack(once), {1, 3}).save_pretrained(tmp_path)
    twice = type(model).from_pretrained(tmp_path).eval()
    assert [layer.number for layer in Placement.from_json(twice.config.placement).layers] == [3, 5]
    stack, ids = find_stack(model), tiny.tokens()
    with torch.no_grad(), stack.skipping([0, 1, 3]):
        expected = model(ids).logits
    torch.testing.assert_close(tiny.logits(twice, ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("placement", ["mhc", "siamese"])
def test_a_pruned_model_generates_with_a_cache(placement):
    smaller, ids = prune(find_stack(tiny.placed(placement)), {1}), tiny.tokens(1, 5)
    whole, cached = (smaller.generate(ids, max_new_tokens=6, do_sample=False, use_cache=use) for use in (False, True))
    assert torch.equal(whole, cached)


@pytest.mark.parametrize("placement", ["mhc", "siamese"])
def test_the_states_that_do_not_fit_are_recomputed(placement):
    stack, batches = find_stack(tiny.placed(placement)), zoo.batches(placement)
    kept, recomputed = (performance_drop(stack, batches, LOSS, memory=memory) for memory in (10**9, 1))
    assert kept == recomputed
    assert stack.state_bytes(batches[0]) == 3 * 9 * 32 * 4 * (4 if placement == "mhc" else 2)


@pytest.mark.parametrize("placement", ["hc(2,static)", "siamese", "resi-dual"])
def test_the_jacobian_is_that_of_all_states(placement):
    """∂y_t/∂x_t is 64 × 64 for two streams of 32 features."""
    stack, ids = find_stack(tiny.placed(placement)), tiny.tokens()
    found = jacobian(stack, {"input_ids": ids}, iterations=400, tolerance=1e-5)
    with torch.no_grad(), recording(stack, {"input_ids": ids}) as record:
        stack.run({"input_ids": ids})
    for index in range(len(stack)):
        x = record.entered(index)
        values = []
        for row in range(2):

            def single(token, row=row, x=x, index=index):
                changed = x.clone()
                changed[row, -1] = token
                with stack.past_entry():
                    return record.advance(index, changed)[row, -1]

            whole = torch.autograd.functional.jacobian(single, x[row, -1]).double()
            assert whole.shape == (64, 64)
            values.append(torch.linalg.svdvals(whole - torch.eye(64))[0].item())
        assert found.distance[index] == pytest.approx(sum(values) / 2, rel=5e-3)


def test_the_jacobian_of_streams_that_keep_themselves_is_the_identity():
    found = jacobian(find_stack(silence(tiny.placed("hc(2,static)", gains=False))), {"input_ids": tiny.tokens()})
    assert found.largest == pytest.approx((1,) * 3)
    assert found.distance == pytest.approx((0,) * 3, abs=1e-6)


@pytest.mark.parametrize("placement", zoo.GROWING)
def test_of_growing_states_layers_are_measured_with_zeroed_branches_only(placement):
    model, batches = tiny.placed(placement), zoo.batches(placement)
    found = performance_drop(find_stack(model), batches, LOSS, sublayers=True)
    assert (found.skipped, found.blocks) == ((), ())
    sides = {
        "zeroed": ("self_attn.o_proj", "mlp.down_proj"),
        "attention": ("self_attn.o_proj",),
        "feed_forward": ("mlp.down_proj",),
    }
    for kind, names in sides.items():
        for index, drop in enumerate(getattr(found, kind)):
            changed = copy.deepcopy(model)
            for name in names:
                nn.init.zeros_(changed.model.layers[index].get_submodule(name).weight)
            whole = performance_drop(find_stack(changed), batches, LOSS).original
            assert drop.value == pytest.approx(whole, abs=1e-6)
            assert abs(drop.change) > 1e-5


@pytest.mark.parametrize("placement", zoo.GROWING)
def test_of_growing_states_no_layer_is_skipped_or_removed(placement):
    stack, batches = find_stack(tiny.placed(placement)), zoo.batches(placement)
    refused = pytest.raises(
        SettingsError, match=r"can be neither skipped nor removed: later layers read the outputs of earlier"
    )
    with refused:
        prune(stack, {2})
    with refused:
        performance_drop(stack, batches, LOSS, blocks=[(1, 2)])
    with refused:
        performance_drop(stack, batches, LOSS, zeroed=False)
    with refused:
        best_sets(stack, batches, LOSS, units="layers", enough=count(1))
    with refused, stack.skipping([1]):
        pass
    with pytest.raises(SettingsError, match="jacobian-tokens must be 0 for this model"):
        jacobian(stack, batches[0])


@pytest.mark.parametrize("placement", ["hc", "resi-dual", *zoo.GROWING])
def test_a_diagnosis_measures_all_that_is_defined(placement):
    stack = find_stack(tiny.placed(placement))
    growing = placement in zoo.GROWING
    settings = MeasureSettings(
        remove=1, units="sublayers" if growing else "layers", jacobian_tokens=0 if growing else 2
    )
    found = diagnose(stack, zoo.batches(placement), LOSS, settings, name=placement)
    assert [omission.kind for omission in found.omitted] == ["no-skipping"] * growing
    assert found.drops is not None
    assert found.selection is not None
    assert found.gradients is not None
    assert len(found.drops.zeroed) == 3
    assert len(found.drops.skipped) == (0 if growing else 3)
    assert all(value > 0 for value in (*found.gradients.norm.attention, *found.gradients.norm.feed_forward))


@pytest.mark.parametrize("asked", [{"blocks": (2,)}, {"remove": 1}, {"jacobian_tokens": 2}, {"tasks": ("arc_easy",)}])
def test_what_is_not_defined_is_refused_before_anything_is_measured(asked):
    stack = find_stack(tiny.placed("attnres"))
    stack.model.forward = None  # nothing may run
    with pytest.raises(SettingsError, match=r"neither skipped nor removed|jacobian-tokens must be 0"):
        diagnose(stack, [], LOSS, MeasureSettings(**asked), name="attnres")


@torch.no_grad()
def test_the_share_beside_the_input_of_a_layer_with_the_embeddings_mixed_in():
    """B2T adds λ·x + μ·e to the last sum; it belongs to what the branch is added to."""
    model, ids, seen = tiny.placed("x0+b2t"), tiny.tokens(), {}
    found = residual_stream(find_stack(model), [{"input_ids": ids}])
    layer = model.model.layers[1]
    layer.attention_residual.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    layer.mlp.register_forward_hook(lambda module, inputs, output: seen.update(y=inputs[0], f=output))
    model(ids)
    skip, branch = (seen["x"] + seen["y"]).norm(dim=-1), seen["f"].norm(dim=-1)
    assert found.share.feed_forward[1] == pytest.approx((branch / (skip + branch)).mean().item(), rel=1e-5)
