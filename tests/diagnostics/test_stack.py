"""Finding the layers of a model, and what is refused."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.diagnose import diagnose, every_block, first_rows, likely_blocks, spread_rows
from mixln.diagnostics.measures import TokenLoss
from mixln.diagnostics.results import Angular, Omission
from mixln.diagnostics.settings import MeasureSettings
from mixln.diagnostics.stack import find_stack, recording
from mixln.errors import SettingsError
from tests import tiny
from tests.diagnostics import zoo


def opt() -> OPTForCausalLM:
    torch.manual_seed(0)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    ).eval()


def test_a_family_that_cannot_be_read_is_measured_without_its_branches():
    stack = find_stack(opt())
    assert stack.branches is None
    ids = tiny.tokens()
    settings = MeasureSettings(tokens=14, batch_size=2, sequence_length=8)
    found = diagnose(stack, [{"input_ids": ids, "labels": ids}], TokenLoss(shift=1), settings, name="opt")
    assert found.gradients is None
    assert found.drops.zeroed == ()
    assert len(found.drops.skipped) == 3
    assert found.stream.variance.attention == ()
    assert found.omitted == (Omission(kind="unknown-branches", model_type="opt"),)


def test_experts_in_a_list_are_not_taken_for_layers():
    layers = [nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])}) for _ in range(2)]
    model = zoo.toy(*layers)
    assert find_stack(model).layers is model.blocks


def test_two_lists_are_told_apart_by_name():
    model = zoo.toy(nn.Identity(), nn.Identity())
    model.others = nn.ModuleList([zoo.Rotation(0.1), zoo.Rotation(0.2)])
    with pytest.raises(
        SettingsError, match=r"2 lists of 2 modules; choose one with --layer-list, of: blocks \(2\), others \(2\)$"
    ):
        find_stack(model)
    assert find_stack(model, "others").layers is model.others
    with pytest.raises(
        SettingsError, match="layer-list 'layers' is not a list of modules in this model; it has: blocks, others"
    ):
        find_stack(model, "layers")
    x = torch.randn(1, 3, 8)
    with pytest.raises(SettingsError, match="0 of 2 layers ran in a forward pass"):
        angular_distance(find_stack(model, "others"), [{"inputs_embeds": x}])


def test_layers_that_are_no_chain_are_refused():
    class Branching(zoo.Toy):
        def forward(self, inputs_embeds):
            return (self.blocks[0](inputs_embeds) + self.blocks[1](inputs_embeds),)

    model = Branching(zoo.ToyConfig(num_hidden_layers=2, hidden_size=8), [zoo.Rotation(0.1), zoo.Rotation(0.2)])
    with pytest.raises(SettingsError, match="the input of layer 2 is not the output of layer 1"):
        angular_distance(find_stack(model), [{"inputs_embeds": torch.randn(1, 3, 8)}])


@pytest.mark.parametrize("family", ["gemma2", "electra", "bert"])
def test_a_head_that_does_more_than_a_product_is_not_taken_apart(family):
    """Gemma 2 caps its logits, ELECTRA and BERT transform the state before their last matrix."""
    assert find_stack(zoo.model(family)).head is None


@pytest.mark.parametrize("family", ["pre", "llama", "olmoe", "gpt2"])
def test_a_head_that_is_one_product_is(family):
    model = zoo.model(family)
    assert find_stack(model).head is model.lm_head


def test_likely_blocks_are_those_whose_ends_point_most_alike():
    distance = ((0.5, 0.2, 0.7, 0.9), (0.4, 0.3, 0.6), (0.3, 0.1), (0.2,))
    found = likely_blocks(Angular(distance=distance, influence=(0.1,) * 4, tokens=1, convention="all"))
    assert found == [(3, 4)]


def test_every_block_of_a_size():
    assert every_block(4, (2, 3)) == [(1, 2), (2, 3), (3, 4), (1, 3), (2, 4)]
    with pytest.raises(SettingsError, match="blocks must be smaller than the model's 4 layers, got 4"):
        every_block(4, (4,))


def test_rows_for_gradients_and_for_the_jacobian():
    batches = [{"input_ids": torch.arange(12).view(4, 3) + 12 * index} for index in range(3)]
    assert [len(batch["input_ids"]) for batch in first_rows(batches, 16)] == [4, 2]
    assert [len(batch["input_ids"]) for batch in first_rows(batches, 1)] == [1]
    assert [len(batch["input_ids"]) for batch in first_rows(batches, 10**6)] == [4, 4, 4]
    assert spread_rows(batches, 3)["input_ids"][:, 0].tolist() == [0, 18, 33]
    assert len(spread_rows(batches, 100)["input_ids"]) == 12


def test_layers_with_two_streams_are_refused():
    """Reformer's reversible layers return named tuples."""
    torch.manual_seed(0)
    config = transformers.ReformerConfig(vocab_size=60, axial_pos_shape=[4, 8], axial_pos_embds_dim=[64, 192])
    stack = find_stack(transformers.ReformerModel(config).eval())
    with pytest.raises(SettingsError, match="return hidden_states, attn_output"), recording(stack, stack.probe):
        stack.run(stack.probe)


def test_a_model_without_a_head_is_its_own_body():
    """DINOv3 calls a part of it `model`, as others call the whole without its head."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes, image_size=8, patch_size=4)).eval()
    stack = find_stack(model)
    with torch.no_grad():
        assert torch.equal(stack.run(stack.probe), model(**stack.probe).last_hidden_state)
