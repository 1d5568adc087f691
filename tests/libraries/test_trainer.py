"""transformers' own Trainer treats a placed model as the stock class: it shifts labels, and decays the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, Trainer, TrainingArguments

import mixln
from mixln.errors import PlacementError
from mixln.hosts import HOSTS
from mixln.hosts.family import copy_weights
from mixln.training.trainers import FairTrainer
from tests.hosts.families import config_of, inputs_of, labelled
from tests.tiny import EVERY, placed, tokens

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's


def trainer(model: nn.Module, folder: Path, **arguments: Any) -> Trainer:
    return Trainer(
        model, TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", seed=0, **arguments)
    )


def stock_of(name: str, head: str | None = None) -> PreTrainedModel:
    heads = HOSTS[name].heads
    return heads[head or next(iter(heads))][0](config_of(name))


def smoothed(model: PreTrainedModel, inputs: dict[str, Any], folder: Path) -> torch.Tensor:
    found = trainer(model, folder, label_smoothing_factor=0.1).compute_loss(model, dict(inputs))
    assert isinstance(found, torch.Tensor)
    return found


def test_label_smoothing_shifts_the_labels(tmp_path):
    model, ids = placed("mix(0.5)"), tokens()
    logits = model(input_ids=ids).logits[:, :-1]
    wanted = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(smoothed(model, {"input_ids": ids, "labels": ids}, tmp_path), wanted)


def test_label_smoothing_shifts_the_labels_under_adapters(tmp_path):
    from peft import LoraConfig, get_peft_model

    model, ids = placed("mix(0.5)"), tokens()
    logits = model(input_ids=ids).logits[:, :-1]
    wanted = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.1)
    adapted: Any = get_peft_model(model, LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM"))
    torch.testing.assert_close(smoothed(adapted, {"input_ids": ids, "labels": ids}, tmp_path), wanted)


@pytest.mark.parametrize(("name", "head"), [(name, head) for name, host in HOSTS.items() for head in host.heads])
def test_label_smoothing_gives_the_loss_of_the_stock_class(name, head, tmp_path):
    stock = stock_of(name, head).eval()
    ours = mixln.from_config(config_of(name), placement="stock", head=head).eval()
    copy_weights(stock, ours, HOSTS[name].canonical)
    inputs = labelled(inputs_of(name), head)
    if head.endswith("-classification") and "input_ids" in inputs:
        inputs = {entry: inputs[entry] for entry in ("input_ids", "labels")}
    torch.testing.assert_close(smoothed(ours, inputs, tmp_path), smoothed(stock, inputs, tmp_path))


def few_dimensions(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.ndim < 2}


@pytest.mark.parametrize("name", HOSTS)
def test_weight_decay_spares_the_same_weights_as_for_the_stock_class(name, tmp_path):
    stock, ours = stock_of(name), mixln.from_config(config_of(name), placement="stock")
    groups = []
    for model in (stock, ours):
        decayed = trainer(model, tmp_path).get_decay_parameter_names(model)
        assert not few_dimensions(model) & set(decayed)
        groups.append(sorted(map(HOSTS[name].canonical, decayed)))
    assert groups[0] == groups[1]


@pytest.mark.parametrize("placement", EVERY)
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3_moe", "vit"])
def test_weight_decay_spares_norms_gates_and_stream_weights_of_every_placement(name, placement, tmp_path):
    try:
        model = mixln.from_config(config_of(name), placement=placement)
    except PlacementError as refusal:
        pytest.skip(str(refusal))
    named = dict(model.named_parameters())  # a tied head is none of these
    decayed = named.keys() & set(trainer(model, tmp_path).get_decay_parameter_names(model))
    assert not few_dimensions(model) & decayed
    assert decayed == set(FairTrainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]


def test_weight_decay_reaches_adapters_as_it_does_on_the_stock_class(tmp_path):
    from peft import LoraConfig, get_peft_model

    groups = []
    for model in (stock_of("llama"), mixln.from_config(config_of("llama"), placement="stock")):
        adapted = get_peft_model(model, LoraConfig(target_modules=["o_proj"], use_dora=True))
        decayed = trainer(adapted, tmp_path).get_decay_parameter_names(adapted)
        groups.append(sorted(name for name in decayed if "lora" in name))
    assert groups[0] == groups[1]
    assert any("magnitude" in name for name in groups[0])


def test_weight_decay_of_other_models_is_transformers_own(tmp_path):
    model = nn.ModuleDict({"attention_residual": nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "gain": nn.PReLU()})
    decayed = trainer(model, tmp_path).get_decay_parameter_names(model)
    assert sorted(decayed) == ["attention_residual.0.weight", "gain.weight"]


def test_lora_plus_does_not_decay_our_gains():
    from transformers.pytorch_utils import ALL_LAYERNORM_LAYERS
    from transformers.trainer_pt_utils import get_parameter_names

    model = placed("dyt+pre")
    decayed = get_parameter_names(model, ALL_LAYERNORM_LAYERS)
    assert not any("branch_in" in name for name in decayed)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_trainer_resumes_from_its_checkpoint_of_a_placed_model(name, tmp_path):
    model = mixln.from_config(config_of(name), placement="mix(0.5)")
    model.save_pretrained(tmp_path)
    other: Any = mixln.from_config(config_of(name), placement="mix(0.5)")
    trainer(other, tmp_path)._load_from_checkpoint(str(tmp_path), other)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
