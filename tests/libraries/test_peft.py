"""PEFT adapts the same weights of a placed model as of the stock class, when it is told which and when it is not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import PreTrainedModel

import mixln
from mixln.errors import PlacementError, SettingsError
from mixln.hosts import HOSTS
from mixln.hosts.family import copy_weights
from mixln.nn.projections import NormedProjections
from tests.hosts.families import config_of, inputs_of
from tests.tiny import EVERY, placed

pytestmark = pytest.mark.filterwarnings("default")  # PEFT's own

DEFAULTS = {
    "LoraConfig": {},
    "AdaLoraConfig": {"total_step": 10},
    "IA3Config": {},
    "LoHaConfig": {},
    "LoKrConfig": {},
    "OFTConfig": {},
    "HRAConfig": {},
    "VeraConfig": {},
    "FourierFTConfig": {},
    "VBLoRAConfig": {"vector_length": 8, "num_vectors": 16},
    "WaveFTConfig": {"n_frequency": 16},
    "BeftConfig": {},
    "LNTuningConfig": {},
    "OSFConfig": {},
}
"""Methods of PEFT that know what to adapt, one for every table of them → what they need for models this small."""

EXPERTS = {
    "olmoe": ["gate_proj", "up_proj", "down_proj"],
    "qwen3_moe": ["gate_proj", "up_proj", "down_proj"],
    "mixtral": ["w1", "w2", "w3"],
}


def pair(name: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The stock class and a placed one with the same weights."""
    torch.manual_seed(0)
    stock = next(iter(HOSTS[name].heads.values()))[0](config_of(name)).eval()
    ours = mixln.from_config(config_of(name), placement="stock").eval()
    copy_weights(stock, ours, HOSTS[name].canonical)
    return stock, ours


def adapted(model: PreTrainedModel, config: Any) -> str | int:
    """Trainable parameters, or PEFT's complaint."""
    try:
        return sum(
            parameter.numel() for parameter in get_peft_model(model, config).parameters() if parameter.requires_grad
        )
    except (TypeError, ValueError) as error:
        return str(error).replace("placed_", "")


@pytest.mark.parametrize("method", DEFAULTS)
@pytest.mark.parametrize("name", sorted(HOSTS))
def test_adapters_without_targets_are_those_of_the_stock_class(name, method):
    stock, ours = (adapted(model, getattr(peft, method)(**DEFAULTS[method])) for model in pair(name))
    assert ours == stock


def test_lora_and_ia3_find_their_targets_by_themselves():
    names = {"LoraConfig": {"q_proj", "v_proj"}, "IA3Config": {"k_proj", "v_proj", "down_proj"}}
    for method, wanted in names.items():
        model = get_peft_model(placed("mix(0.5)"), getattr(peft, method)(task_type="CAUSAL_LM"))
        assert model.peft_config["default"].target_modules == wanted


def test_every_table_of_peft_has_the_placed_types():
    for name, table in vars(peft.utils.constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_"):
            assert {f"placed_{host}" for host in HOSTS.keys() & table.keys()} <= table.keys(), name


@pytest.mark.parametrize("placement", EVERY)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_norm_tuning_trains_the_norms_of_a_placement_and_nothing_else(name, placement):
    try:
        model = mixln.from_config(config_of(name), placement=placement)
    except PlacementError as error:
        pytest.skip(str(error))
    if placement == "ngpt":
        pytest.skip("the norms of nGPT have no gain to train")
    tuned = get_peft_model(model, peft.LNTuningConfig())
    trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert all(re.search(r"(_in|_out|norm|ln_f)\.ln_tuning_layers\.", name) for name in trained)
    slots = [
        name for name, _ in tuned.base_model.model.named_modules() if re.search(r"(_in|_out|[_.]norm|ln_f)$", name)
    ]
    slots = [name for name in slots if not re.search(r"(attn|mlp)\.", name)]  # norms on projections are no layer's
    assert len({name.partition(".ln_tuning_layers")[0] for name in trained}) == len(slots)


@pytest.mark.parametrize("placement", ["resi-dual", "dlcl"])
@pytest.mark.parametrize(
    "method",
    [
        peft.LNTuningConfig(),
        LoraConfig(target_modules=["o_proj"], modules_to_save=["norm"]),
        LoraConfig(target_modules=["o_proj"], modules_to_save=["stream_fold"]),
    ],
    ids=["norms", "final norm", "streams"],
)
def test_modules_that_are_trained_in_a_copy_are_used_where_several_streams_end(method, placement, tmp_path):
    """PEFT trains a copy of a module, and puts it in the module's place."""
    tuned: Any = get_peft_model(placed(placement), copy.deepcopy(method))
    given = inputs_of("llama")
    tuned(**given).loss.backward()
    trained = {name: parameter for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        expected = tuned.eval()(**given).logits
        merged = tuned.merge_and_unload()
        torch.testing.assert_close(merged(**given).logits, expected, rtol=1e-4, atol=1e-4)
        merged.save_pretrained(tmp_path)
        torch.testing.assert_close(
            mixln.from_pretrained(tmp_path).eval()(**given).logits, expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("modules", [["combination"], ["combination", "stream_fold"], ["stream_fold"]])
def test_hidden_states_are_folded_with_the_trained_weights_of_streams(modules, tmp_path):
    tuned: Any = get_peft_model(placed("dlcl"), LoraConfig(target_modules=["o_proj"], modules_to_save=modules))
    layers = {id(module) for module in tuned.base_model.model.model.layers}
    assert {id(module) for module in tuned.modules() if type(module).__name__ == "DlclLayer"} == layers
    given = inputs_of("llama")
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(1.5)
        states = [tuned.eval()(**given, output_hidden_states=True).hidden_states]
        merged = tuned.merge_and_unload()
        states.append(merged(**given, output_hidden_states=True).hidden_states)
        merged.save_pretrained(tmp_path)
        loaded = mixln.from_pretrained(tmp_path).eval()(**given, output_hidden_states=True).hidden_states
    for found in states:
        torch.testing.assert_close(found, loaded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", ["suffixes", "all-linear", "regex"])
@pytest.mark.parametrize("name", EXPERTS)
def test_adapters_on_experts_are_those_of_the_stock_class(name, targets):
    alternatives = "|".join(EXPERTS[name])
    target: Any = {
        "suffixes": ["o_proj", *EXPERTS[name]],
        "all-linear": "all-linear",
        "regex": rf".*\.(o_proj|{alternatives})",
    }[targets]
    stock, ours = (adapted(model, LoraConfig(target_modules=target)) for model in pair(name))
    assert ours == stock
    only_attention = adapted(pair(name)[1], LoraConfig(target_modules=["o_proj"]))
    assert isinstance(ours, int)
    assert isinstance(only_attention, int)
    assert ours > 5 * only_attention


@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*", "gpas+mix(0.5)"])
@pytest.mark.parametrize("name", EXPERTS)
def test_adapters_on_experts_are_trained_under_every_placement(name, placement):
    model = mixln.from_config(config_of(name), placement=placement)
    tuned = get_peft_model(model, LoraConfig(target_modules=EXPERTS[name]))
    tuned(**inputs_of(name)).loss.backward()
    trained = {name: parameter for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("mlp.experts" in name and parameter.grad is not None for name, parameter in trained.items())


@pytest.mark.parametrize("targets", ["o_proj", r".*\.layers\.[01]\.mlp\.(up|down)_proj", "all-linear"])
@pytest.mark.parametrize("name", ["llama", "mistral", "olmo2", "gemma3_text", "qwen3"])
def test_targets_of_dense_models_are_those_of_the_stock_class(name, targets):
    chosen = [targets] if targets == "o_proj" else targets
    stock, ours = (adapted(model, LoraConfig(target_modules=chosen)) for model in pair(name))
    assert isinstance(ours, int)
    assert ours == stock


@pytest.mark.parametrize("name", EXPERTS)
def test_adapters_on_experts_of_the_stock_class_load_into_a_placed_model(name, tmp_path):
    stock, ours = pair(name)
    config = LoraConfig(target_modules=["o_proj", *EXPERTS[name]], task_type="CAUSAL_LM", init_lora_weights=False)
    tuned: Any = get_peft_model(stock, config).eval()
    tuned.save_pretrained(tmp_path)
    inputs = inputs_of(name)
    plain = ours(**inputs).logits
    loaded = PeftModel.from_pretrained(ours, tmp_path).eval()(**inputs).logits
    assert loaded.equal(tuned(**inputs).logits)
    assert not loaded.allclose(plain)


@pytest.mark.parametrize("name", EXPERTS)
def test_adapters_that_were_trained_on_single_experts_load_as_on_the_stock_class(name, tmp_path):
    """The layout of transformers 4: each expert has its own matrices."""
    single_experts(name, tmp_path)
    inputs = inputs_of(name)
    stock, ours = pair(name)
    plain = ours(**inputs).logits
    tuned, loaded = (PeftModel.from_pretrained(model, tmp_path).eval()(**inputs).logits for model in (stock, ours))
    assert loaded.equal(tuned)
    assert not loaded.allclose(plain)


def single_experts(name: str, folder: Path) -> None:
    config: Any = config_of(name)
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    block = "block_sparse_moe" if name == "mixtral" else "mlp"
    weights = {}
    for layer in set(range(config.num_hidden_layers)) - set(getattr(config, "mlp_only_layers", None) or ()):
        for expert in range(4):
            for target in EXPERTS[name]:
                into, out = (
                    (width, config.hidden_size) if target in ("w2", "down_proj") else (config.hidden_size, width)
                )
                key = f"base_model.model.model.layers.{layer}.{block}.experts.{expert}.{target}"
                weights[f"{key}.lora_A.weight"] = torch.randn(4, into)
                weights[f"{key}.lora_B.weight"] = torch.randn(out, 4)
    LoraConfig(r=4, target_modules=EXPERTS[name], task_type="CAUSAL_LM").save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_adaption_prompts_go_where_they_go_in_the_stock_class(name):
    config = peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM")
    stock, ours = pair(name)
    found = []
    for model in (stock, ours):
        torch.manual_seed(1)
        tuned: Any = get_peft_model(model, copy.deepcopy(config))
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:  # the gates start at 0
                    parameter.normal_()
        logits = tuned.eval()(**inputs_of(name)).logits
        logits.square().mean().backward()
        found.append((logits, [parameter.grad for parameter in tuned.parameters() if parameter.requires_grad]))
    torch.testing.assert_close(found[1], found[0])
    assert all(gradient.abs().max() > 0 for gradient in found[1][1])


@pytest.mark.parametrize("placement", EVERY)
def test_adaption_prompts_are_trained_or_refused_under_every_placement(placement):
    config = peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM")
    tuned: Any = get_peft_model(placed(placement), config)
    attentions = [module.model for module in tuned.modules() if type(module).__name__ == "AdaptedAttention"]
    assert len(attentions) == 2
    if any(isinstance(attention, NormedProjections) for attention in attentions):
        refused = r"adaption prompts (would attend without the norms .* on .*_proj|wrap the attention)"
        with pytest.raises(SettingsError, match=refused):
            tuned(**inputs_of("llama"))
    else:
        tuned(**inputs_of("llama")).loss.backward()
        assert all(p.grad is not None for p in tuned.parameters() if p.requires_grad)


def test_adaption_prompts_are_refused_for_gpt2_by_name():
    """PEFT would take it for a Llama."""
    config = peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="Unsupported model type for adaption prompt: 'placed_gpt2'"):
        get_peft_model(mixln.from_config(config_of("gpt2"), placement="pre"), config)
