"""The language model within a model that also takes images: found, measured and pruned on text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForImageTextToText, PreTrainedModel

from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import TokenLoss
from mixln.diagnostics.prune import prune
from mixln.diagnostics.stack import find_stack
from mixln.errors import SettingsError
from mixln.hosts.sources import find_model, load
from mixln.training.post_training import check_decoder
from tests.tiny import randomise_gains, tokens

DEPTH = 3
"""Of the language model and of the vision tower: the number of layers alone does not tell one from the other."""
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "vocab_size": 64,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
TOWER = {"hidden_size": 32, "intermediate_size": 48, "patch_size": 4}
ENCODER = {**TOWER, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "image_size": 16}
VISION = {**TOWER, "depth": DEPTH, "num_heads": 2, "out_hidden_size": 32}
FAMILIES = {
    "Qwen2_5_VL": ({**TEXT, **SECTIONS}, {**VISION, "fullatt_block_indexes": [0]}),
    "Qwen3VL": ({**TEXT, **SECTIONS}, {**VISION, "deepstack_visual_indexes": [0]}),
    "Gemma3": (TEXT, ENCODER),
    "Llava": ({**TEXT, "model_type": "llama"}, {**ENCODER, "model_type": "clip_vision_model"}),
}
"""Name of the family's classes → entries of the configs of text and vision."""


def written(family: str, folder: Path) -> PreTrainedModel:
    text, vision = FAMILIES[family]
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision)
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(config).eval()
    randomise_gains(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_the_language_model_are_measured_and_pruned(family, tmp_path):
    whole = written(family, tmp_path / "whole")
    source = find_model(str(tmp_path / "whole"), cache=tmp_path)
    assert source.task == "causal-lm"
    stack = find_stack(load(source))
    assert stack.branches is not None
    assert [type(layer) for layer in stack.layers] == [type(layer) for layer in whole.get_decoder().layers]
    ids = tokens(2, 9)
    batches = [{"input_ids": ids, "labels": ids}]
    with torch.no_grad():
        assert torch.equal(stack.logits(batches[0]), whole(ids).logits)
    drops = performance_drop(stack, batches, TokenLoss(shift=1))
    prune(stack, [2]).save_pretrained(tmp_path / "pruned")
    smaller = find_stack(load(find_model(str(tmp_path / "pruned"), cache=tmp_path)))
    assert len(smaller) == DEPTH - 1
    loss = performance_drop(smaller, batches, TokenLoss(shift=1)).original
    assert loss == pytest.approx(drops.skipped[1].value, abs=1e-6)


def test_training_of_the_language_model_alone_is_refused(tmp_path):
    written("Llava", tmp_path)
    with pytest.raises(
        SettingsError, match=r"also takes images, and cannot be trained here; name one that takes text only"
    ):
        check_decoder(find_model(str(tmp_path), cache=tmp_path))
