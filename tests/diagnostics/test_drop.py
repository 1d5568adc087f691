"""Performance drop: known answers, and equal to the obvious way of reloading a model without the layer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mixln.diagnostics.drop import paired, performance_drop
from mixln.diagnostics.measures import EmbeddingChange, ImageLoss, TokenLoss
from mixln.diagnostics.stack import find_stack
from mixln.errors import CheckpointError, DataError, SettingsError
from tests import tiny
from tests.diagnostics import zoo

FAMILIES = (
    *zoo.PLACED,
    *zoo.KEEPING,
    "llama",
    "olmoe",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "olmo2",
    "bert",
    "electra",
    "distilbert",
    "vit",
)


def measure(family):
    if family == "vit":
        return ImageLoss()
    return TokenLoss(shift=0 if "MaskedLM" in zoo.MODELS.get(family, ("", {}))[0] else 1)


def shorter(model, first: int, last: int):
    """A copy of the model without some layers, counted from 1, by deleting them from its list."""
    made = copy.deepcopy(model)
    layers = find_stack(made).layers
    norm, copies = getattr(layers[0], "stream_in", None), getattr(layers[0], "copies", 1)
    del layers[first - 1 : last]
    if first == 1:
        layers[0].stream_in, layers[0].copies = norm, copies
    made.config.num_hidden_layers = len(layers)
    if getattr(made.config, "layer_types", None):
        kept = made.config.layer_types
        made.config.layer_types = kept[: first - 1] + kept[last:]
    return made


@torch.no_grad()
def loss(model, family, batches) -> float:
    """The mean loss over all predicted tokens, or images, written out."""
    total, count = 0.0, 0
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        cache = {} if family in ("vit", "electra", "distilbert", "bert") else {"use_cache": False}
        logits = model(**inputs, **cache).logits
        if family == "vit":
            total += F.cross_entropy(logits, batch["labels"], reduction="sum").item()
            count += len(logits)
            continue
        shift = measure(family).shift
        for row, labels in zip(logits, batch["labels"], strict=True):
            for position, target in enumerate(labels[shift:]):
                if target != -100:
                    total -= row[position].log_softmax(dim=-1)[target].item()
                    count += 1
    return total / count


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_reloads_without_the_layers(family):
    model, batches = zoo.model(family), zoo.batches(family)
    stack = find_stack(model)
    depth = len(stack)
    blocks = [(1, 2), (2, 3)]
    found = performance_drop(stack, batches, measure(family), blocks=blocks)
    assert found.original == pytest.approx(loss(model, family, batches), abs=1e-6)
    spans = [(layer, layer) for layer in range(1, depth + 1)] + blocks
    for drop, (first, last) in zip((*found.skipped, *found.blocks), spans, strict=True):
        assert (drop.first, drop.last) == (first, last)
        assert drop.value == pytest.approx(loss(shorter(model, first, last), family, batches), abs=1e-6)
        assert drop.change == pytest.approx(drop.value - found.original, abs=1e-9)


OUTPUTS = {
    "pre": ("self_attn.o_proj", "mlp.down_proj"),
    "post": ("self_attn.o_proj", "mlp.down_proj"),
    "mix(0.5)": ("self_attn.o_proj", "mlp.down_proj"),
    "hybrid*": ("self_attn.o_proj", "mlp.down_proj"),
    "deepnorm": ("self_attn.o_proj", "mlp.down_proj"),
    "peri": ("self_attn.o_proj", "mlp.down_proj"),
    **dict.fromkeys(
        ("admin", "b2t", "keel", "gpas+mix(0.5)", "layerscale(0.5)+pre", "hybrid(post-pre)"),
        ("self_attn.o_proj", "mlp.down_proj"),
    ),
    "olmo2": ("self_attn.o_proj", "mlp.down_proj"),
    "gemma2": ("self_attn.o_proj", "mlp.down_proj"),
    "bert": ("attention.output.dense", "output.dense"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "vit": ("attention.o_proj", "mlp.fc2"),
    **dict.fromkeys(zoo.KEEPING, ("self_attn.o_proj", "mlp.down_proj")),
}
"""The last matrix of each branch: with its weight and bias at zero, the branch is zero, and the norms stay."""


@pytest.mark.parametrize("family", OUTPUTS)
def test_zeroed_branches_are_those_of_a_model_with_zeroed_matrices(family):
    model, batches = zoo.model(family), zoo.batches(family)
    found = performance_drop(find_stack(model), batches, measure(family))
    differs = False
    for index, drop in enumerate(found.zeroed):
        changed = copy.deepcopy(model)
        for name in OUTPUTS[family]:
            for parameter in find_stack(changed).layers[index].get_submodule(name).parameters():
                nn.init.zeros_(parameter)
        assert drop.value == pytest.approx(loss(changed, family, batches), abs=1e-6)
        differs |= abs(drop.change - found.skipped[index].change) > 1e-4
    same = ("pre", "peri", "layerscale(0.5)+pre", "olmo2", "gemma2", "gpt2", "vit", "ihc", "gated-streams")
    assert differs == (family not in same)


@pytest.mark.parametrize("family", [*OUTPUTS, "qwen3_moe", "distilbert"])
def test_one_zeroed_branch_is_that_of_a_model_with_its_zeroed_matrix(family):
    outputs = {"qwen3_moe": ("self_attn.o_proj", "mlp"), "distilbert": ("attention.out_lin", "ffn.lin2"), **OUTPUTS}
    model, batches = zoo.model(family), zoo.batches(family)
    found = performance_drop(find_stack(model), batches, measure(family), sublayers=True)
    for side, drops in enumerate((found.attention, found.feed_forward)):
        for index, drop in enumerate(drops):
            changed = copy.deepcopy(model)
            for parameter in find_stack(changed).layers[index].get_submodule(outputs[family][side]).parameters():
                nn.init.zeros_(parameter)
            assert (drop.first, drop.last) == (index + 1, index + 1)
            assert drop.value == pytest.approx(loss(changed, family, batches), abs=1e-6)
    assert len(found.attention) == len(found.feed_forward) == len(found.skipped)


@torch.no_grad()
def test_one_branch_that_adds_nothing_has_drop_zero():
    model = tiny.placed("pre")
    model.model.layers[1].self_attn.o_proj.weight.zero_()
    model.model.layers[2].mlp.down_proj.weight.zero_()
    found = performance_drop(find_stack(model), zoo.batches("pre"), TokenLoss(shift=1), sublayers=True)
    assert [drop.change == 0 for drop in found.attention] == [False, True, False]
    assert [drop.change == 0 for drop in found.feed_forward] == [False, False, True]
    # What is left of a layer without one branch is the other.
    assert found.feed_forward[1].change == found.skipped[1].change
    assert found.attention[2].change == found.skipped[2].change


def test_branches_are_measured_only_if_known_and_wanted():
    model = zoo.toy(zoo.Rotation(0.4), zoo.Rotation(1.1))
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    unknown = performance_drop(find_stack(model), [{"inputs_embeds": x}], EmbeddingChange(), sublayers=True)
    unwanted = performance_drop(find_stack(zoo.model("llama")), zoo.batches("llama"), TokenLoss(shift=1))
    assert unknown.attention == unwanted.attention == unwanted.feed_forward == ()


@pytest.mark.parametrize("family", ["mix(0.5)", "peri", "gpt2", "bert"])
@pytest.mark.parametrize("memory", [1, 3000, 7000])
def test_chunked_equals_whole(family, memory):
    """One state is 3 · 9 · 32 floats, 3,456 bytes: one of three layers keeps its input, one of two, and all."""
    stack, batches = find_stack(zoo.model(family)), zoo.batches(family)
    whole = performance_drop(stack, batches, measure(family), blocks=[(1, 2), (2, 3)])
    assert performance_drop(stack, batches, measure(family), blocks=[(1, 2), (2, 3)], memory=memory) == whole


def test_the_batches_do_not_matter():
    stack, (batch, _) = find_stack(zoo.model("mix(0.5)")), zoo.batches("mix(0.5)")
    whole = performance_drop(stack, [batch], TokenLoss(shift=1))
    rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(3)]
    parts = performance_drop(stack, rows, TokenLoss(shift=1))
    for one, other in zip(whole.skipped, parts.skipped, strict=True):
        assert other.change == pytest.approx(one.change, abs=1e-6)
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=1e-5)


@torch.no_grad()
def test_a_layer_that_adds_nothing_has_drop_zero():
    model = tiny.placed("pre")
    model.model.layers[1].self_attn.o_proj.weight.zero_()
    model.model.layers[1].mlp.down_proj.weight.zero_()
    found = performance_drop(find_stack(model), zoo.batches("pre"), TokenLoss(shift=1))
    assert (found.skipped[1].change, found.skipped[1].low, found.skipped[1].high) == (0, 0, 0)
    assert found.skipped[1] == found.zeroed[1]
    assert abs(found.skipped[0].change) > 0.01


def test_the_change_of_an_embedding_is_one_minus_the_cosine():
    """Without a layer that turns by θ, every token and so their mean is turned back by θ."""
    model = zoo.toy(zoo.Rotation(0.4), zoo.Rotation(1.1))
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    x[..., 2:] = 0
    found = performance_drop(find_stack(model), [{"inputs_embeds": x}], EmbeddingChange())
    assert found.original == 0
    expected = [1 - torch.tensor(angle).cos().item() for angle in (0.4, 1.1)]
    assert [drop.change for drop in found.skipped] == pytest.approx(expected, rel=1e-5)


def test_the_change_of_an_embedding_leaves_padding_out():
    model, (batch, _) = zoo.model("bert"), zoo.batches("bert")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    other = dict(inputs, input_ids=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 11))
    stack = find_stack(model.bert)
    results = [performance_drop(stack, [each], EmbeddingChange()).skipped for each in (inputs, other)]
    assert [drop.change for drop in results[0]] == pytest.approx([drop.change for drop in results[1]], abs=1e-9)
    assert results[0][0].change > 1e-4


def test_an_interval_over_sequences_holds_the_truth_as_often_as_it_says():
    """500 samples of 12 sequences of different length, whose tokens differ by 0.3 in the mean."""
    generator = torch.Generator().manual_seed(3)
    held = 0
    for _ in range(500):
        weight = torch.randint(5, 50, (12,), generator=generator).double()
        effect = 0.3 + 0.2 * torch.randn(12, generator=generator).double()
        mean, half = paired(effect * weight, weight)
        held += abs(mean - 0.3) <= half
    assert 450 <= held <= 490


def test_one_sequence_gives_no_interval():
    batch = {name: value[:1] for name, value in zoo.batches("pre")[0].items()}
    drop = performance_drop(find_stack(zoo.model("pre")), [batch], TokenLoss(shift=1)).skipped[0]
    assert drop.low is None
    assert drop.high is None


@pytest.mark.parametrize("block", [(0, 1), (2, 1), (3, 4)])
def test_a_block_outside_of_the_model_is_refused(block):
    with pytest.raises(SettingsError, match="blocks must lie within the layers 1 to 3"):
        performance_drop(find_stack(zoo.model("pre")), zoo.batches("pre"), TokenLoss(shift=1), blocks=[block])


def test_nothing_to_predict_is_refused():
    batch = zoo.batches("pre")[0]
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with pytest.raises(DataError, match="at least one predicted token"):
        performance_drop(find_stack(zoo.model("pre")), [batch], TokenLoss(shift=1))


def test_activations_that_are_not_finite_name_the_layer():
    model = tiny.placed("pre")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="after layer 2 are not finite"):
        performance_drop(find_stack(model), zoo.batches("pre"), TokenLoss(shift=1))


def test_nothing_of_the_model_is_left_changed():
    model = tiny.placed("post").train()
    before = copy.deepcopy(model.state_dict())
    performance_drop(find_stack(model), zoo.batches("post"), TokenLoss(shift=1))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(
        not m._forward_hooks and not m._forward_pre_hooks and "forward" not in m.__dict__ for m in model.modules()
    )
