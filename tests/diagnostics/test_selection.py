"""Sets of parts to remove: known answers, and losses equal to those of models that really lack them."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch import nn

from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import EmbeddingChange, TokenLoss
from mixln.diagnostics.prune import prune
from mixln.diagnostics.selection import best_sets, count, parts_of, saved
from mixln.diagnostics.stack import Part, find_stack
from mixln.errors import DataError, SettingsError
from tests import tiny
from tests.diagnostics import zoo
from tests.diagnostics.test_drop import OUTPUTS, loss

BOTH = ("self_attn.o_proj", "mlp.down_proj")


def deep(family: str, layers: int = 5):
    """A tiny model of more layers than usual."""
    if family in zoo.PLACED:
        return tiny.placed(family, num_hidden_layers=layers)
    torch.manual_seed(0)
    sizes = {**zoo.MODELS[family][1], ("n_layer" if family == "gpt2" else "num_hidden_layers"): layers}
    kind = getattr(__import__("transformers"), zoo.MODELS[family][0])
    made = kind(kind.config_class(**sizes)).eval()
    tiny.randomise_gains(made)
    return made


@torch.no_grad()
def idle(model, *parts: tuple[int, int]):
    """The model with branches (layer from 0, side) whose last matrix is zero."""
    for layer, side in parts:
        for parameter in find_stack(model).layers[layer].get_submodule(BOTH[side]).parameters():
            parameter.zero_()
    return model


def chosen(found, method: str) -> set[tuple[int, str | None]]:
    (each,) = (each for each in found.sets if each.method == method)
    return {(part.layer, part.side) for part in each.parts}


def test_two_idle_layers_are_found():
    """They are not adjacent, so no block is as good. Every other layer turns the embedding, so its change is above zero."""
    model = idle(deep("llama"), (1, 0), (1, 1), (3, 0), (3, 1))
    found = best_sets(find_stack(model), zoo.batches("llama"), EmbeddingChange(), units="layers", enough=count(2))
    assert chosen(found, "greedy") == chosen(found, "one-shot") == {(2, None), (4, None)}
    greedy, one_shot, block = found.sets
    assert (greedy.change, greedy.low, greedy.high, greedy.path) == (0, 0, 0, (0, 0))
    assert one_shot.change == 0
    assert block.change > 0.001


def test_one_idle_attention_and_one_idle_feed_forward_are_found():
    model = idle(deep("llama"), (0, 1), (3, 0))
    stack = find_stack(model)
    found = best_sets(stack, zoo.batches("llama"), EmbeddingChange(), units="sublayers", enough=count(2))
    assert chosen(found, "greedy") == {(1, "feed-forward"), (4, "attention")}
    assert found.sets[0].change == 0
    assert found.candidates == 10
    attention = sum(p.numel() for n, p in stack.layers[3].named_parameters() if "attn" in n or "input_layernorm" in n)
    other = sum(p.numel() for n, p in stack.layers[0].named_parameters() if "mlp" in n or "post_attention" in n)
    assert found.sets[0].parameters == attention + other


@pytest.mark.long
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "olmoe", "mix(0.5)", "post", "keel"])
def test_losses_are_those_of_the_pruned_models(family):
    """All pairs of five layers: the greedy pair is the best one with the layer that is least needed alone."""
    model, batches = deep(family), zoo.batches(family)
    stack = find_stack(model)
    found = best_sets(stack, batches, TokenLoss(shift=1), units="layers", enough=count(2))
    without = {pair: loss(prune(stack, pair), family, batches) for pair in combinations(range(1, 6), 2)}
    alone = {layer: loss(prune(stack, [layer]), family, batches) for layer in range(1, 6)}
    ranked = sorted(alone, key=alone.__getitem__)
    expected = {
        "greedy": min((pair for pair in without if ranked[0] in pair), key=without.__getitem__),
        "one-shot": tuple(sorted(ranked[:2])),
        "contiguous": min(((first, first + 1) for first in range(1, 5)), key=without.__getitem__),
    }
    for each in found.sets:
        pair = tuple(sorted(part.layer for part in each.parts))
        assert pair == expected[each.method]
        assert each.value == pytest.approx(without[pair], abs=1e-5)
        assert each.change == pytest.approx(each.value - found.original, abs=1e-9)
        assert each.low < each.change < each.high
        whole, smaller = (sum(p.numel() for p in m.parameters()) for m in (model, prune(stack, pair)))
        assert each.parameters == whole - smaller
    assert found.sets[0].path == pytest.approx((alone[ranked[0]] - found.original, found.sets[0].change), abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "olmo2", "gemma2", "mix(0.5)", "post"])
@pytest.mark.parametrize("units", ["attention", "feed-forward", "sublayers"])
def test_losses_without_branches_are_those_of_models_with_zeroed_matrices(family, units):
    model, batches = zoo.model(family), zoo.batches(family)
    found = best_sets(find_stack(model), batches, TokenLoss(shift=1), units=units, enough=count(2))
    for each in found.sets:
        changed = copy.deepcopy(model)
        for part in each.parts:
            name = OUTPUTS.get(family, BOTH)[("attention", "feed-forward").index(part.side)]
            nn.init.zeros_(find_stack(changed).layers[part.layer - 1].get_submodule(name).weight)
        assert each.value == pytest.approx(loss(changed, family, batches), abs=1e-6)


@pytest.mark.parametrize("memory", [1, 7000])
def test_memory_does_not_change_the_sets(memory):
    stack, batches = find_stack(deep("mix(0.5)")), zoo.batches("mix(0.5)")
    whole = best_sets(stack, batches, TokenLoss(shift=1), units="layers", enough=count(3))
    assert best_sets(stack, batches, TokenLoss(shift=1), units="layers", enough=count(3), memory=memory) == whole


def test_sets_of_one_are_the_layer_with_the_least_drop():
    stack, batches = find_stack(zoo.model("llama")), zoo.batches("llama")
    drops = performance_drop(stack, batches, TokenLoss(shift=1))
    least = min(drops.skipped, key=lambda drop: drop.change)
    for each in best_sets(stack, batches, TokenLoss(shift=1), units="layers", enough=count(1)).sets:
        assert [part.layer for part in each.parts] == [least.first]
        assert (each.value, each.low, each.high) == pytest.approx((least.value, least.low, least.high), abs=1e-6)


def test_a_change_of_embeddings_is_measured_against_the_whole_model():
    model = zoo.toy(zoo.Rotation(0.4), zoo.Rotation(1.1), zoo.Rotation(0.2))
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    x[..., 2:] = 0
    found = best_sets(find_stack(model), [{"inputs_embeds": x}], EmbeddingChange(), units="layers", enough=count(2))
    assert [each.change for each in found.sets] == pytest.approx(
        [1 - torch.tensor(angle).cos().item() for angle in (0.6, 0.6, 1.3)], rel=1e-4
    )


def test_a_tied_parameter_is_not_saved():
    model = zoo.model("llama")
    stack = find_stack(model)
    layers = stack.layers
    layers[2].mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    own = sum(p.numel() for p in layers[0].parameters()) - layers[0].mlp.down_proj.weight.numel()
    assert sum(p.numel() for p in saved(stack, [Part(layer=0)])) == own
    assert sum(p.numel() for p in saved(stack, [Part(layer=0), Part(layer=2)])) == 2 * own + 32 * 48


def test_the_embedding_norm_is_not_saved():
    stack = find_stack(tiny.placed("hybrid*"))
    norms = {name for name, _ in stack.layers[0].named_parameters() if name.startswith("stream_in")}
    ids = {id(p): n for n, p in stack.layers[0].named_parameters()}
    assert {ids[id(p)] for p in saved(stack, [Part(layer=0)])} == set(ids.values()) - norms


def test_unknown_branches_are_refused():
    stack = find_stack(zoo.toy(zoo.Rotation(0.4), zoo.Rotation(1.1)))
    with pytest.raises(SettingsError, match="units attention needs the branches of the layers"):
        parts_of(stack, "attention")


def test_more_than_all_and_nothing_to_predict_are_refused():
    stack, batches = find_stack(zoo.model("llama")), zoo.batches("llama")
    with pytest.raises(SettingsError, match="the 3 attentions of this model are not enough"):
        best_sets(stack, batches, TokenLoss(shift=1), units="attention", enough=count(4))
    batches[0]["labels"] = torch.full_like(batches[0]["labels"], -100)
    with pytest.raises(DataError, match="at least one predicted token"):
        best_sets(stack, batches[:1], TokenLoss(shift=1), units="layers", enough=count(1))


def test_nothing_of_the_model_is_left_changed():
    model = tiny.placed("post").train()
    before = copy.deepcopy(model.state_dict())
    best_sets(find_stack(model), zoo.batches("post"), TokenLoss(shift=1), units="sublayers", enough=count(3))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(
        not m._forward_hooks and not m._forward_pre_hooks and "forward" not in m.__dict__ for m in model.modules()
    )
