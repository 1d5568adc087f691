"""Streams of unit vectors (nGPT): against the shipped Dory, on other families, and the matrices after every step."""

from __future__ import annotations

import math
import warnings
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Trainer, TrainingArguments

import mixln
from mixln.errors import PlacementError, PlacementWarning
from mixln.hosts import HOSTS
from mixln.nn.sphere import ScaledHead, to_unit
from mixln.placement import Norm, Rate, placement
from tests.hosts.families import config_of, inputs_of
from tests.reference.equations import on_sphere, on_sphere_logits
from tests.tiny import SIZES, logits, placed, randomise_gains, tiny_config, tokens

IDS = tokens()


def dory() -> Any:
    """A tiny Dory with random gains. Its loop runs once, and its output gate is ½ everywhere."""
    try:
        module = import_module("transformers.models.dory.modeling_dory")
    except ImportError:
        pytest.skip("transformers has no dory")
    sizes = {**SIZES, "head_dim": 8, "layer_types": ["full_attention"] * 3}
    loops = {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1, "n_recurrent_loops": 1}
    torch.manual_seed(0)
    model = module.DoryForCausalLM(module.DoryConfig(**sizes, **loops)).eval()
    randomise_gains(model)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, module.DoryL2Norm):
                part.eps = 1e-12
        for layer in model.model.layers:
            layer.self_attn.gate_proj.weight.zero_()
            # Both features that turn together: only so does a factor before the rotation equal one after it.
            pairs = layer.self_attn.sqk.view(4, 2, 4)
            pairs[:, 1] = pairs[:, 0]
            layer.self_attn.sqk.mul_(0.2)
            for name in ("lambda_1", "lambda_2"):
                getattr(layer, name).mul_(0.2)
        model.lm_head.logit_scale.mul_(0.2)
    return model


def test_the_whole_model_is_dory_with_its_gates_at_a_half():
    """Norms before an output projection change nothing, because the branch is normalized after it."""
    theirs = dory()
    model = mixln.from_config(tiny_config(rope_parameters=rope_of(theirs)), placement="ngpt").eval()
    # They store s times the initializer's range 0.2, we s/√D.
    ours = 0.2 * math.sqrt(32)
    renamed = {
        "self_attn.sqk": ("self_attn.query_scale.weight", 1 / ours),
        "mlp.suv_gate": ("mlp.gate_proj_scale.weight", 1.0),
        "mlp.suv_up": ("mlp.up_proj_scale.weight", 1.0),
        "lambda_1": ("attention_residual.balance.weight", theirs.config.ngpt_alpha_init / 0.05 / ours),
        "lambda_2": ("feed_forward_residual.balance.weight", theirs.config.ngpt_alpha_init / 0.05 / ours),
        "lm_head.logit_scale": ("lm_head.logit_scale", 1 / ours),
    }
    weights = {}
    for name, value in theirs.state_dict().items():
        end = next((end for end in renamed if name.endswith(end)), "")
        new, factor = renamed.get(end, ("", 1.0))
        if "self_attn.gate_proj" not in name and not name.endswith("s_gate"):
            weights[name.removesuffix(end) + new] = factor * value
    model.load_state_dict(weights)
    torch.testing.assert_close(logits(model, IDS), logits(theirs, IDS), rtol=1e-4, atol=1e-4)


def rope_of(model: Any) -> dict[str, Any]:
    parameters = model.config.rope_parameters
    return dict(parameters.get("full_attention", parameters))


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in model.named_parameters()}


def experts(w: dict[str, Tensor], l: int, x: Tensor) -> Tensor:  # noqa: E741
    """OLMoE: of the softmax over all experts, the largest two weigh the outputs of theirs; no s_u and s_v."""
    name = f"model.layers.{l}.mlp"
    shares = (x @ w[f"{name}.gate.weight"].T).softmax(-1)
    out = torch.zeros_like(x)
    for row in range(x.shape[0]):
        for position in range(x.shape[1]):
            for expert in shares[row, position].topk(2).indices:
                gate, up = (w[f"{name}.experts.gate_up_proj"][expert] @ x[row, position]).chunk(2)
                inner = gate * torch.sigmoid(gate) * up
                share = shares[row, position, expert]
                out[row, position] += share * (w[f"{name}.experts.down_proj"][expert] @ inner)
    return out


def other(family: str) -> Any:
    """A tiny model of another family under nGPT, with random gains."""
    changes: dict[str, Any] = {"use_sliding_window": False} if family == "qwen3" else {"norm_topk_prob": False}
    torch.manual_seed(0)
    model = mixln.from_config(config_of(family, **changes), placement="ngpt").eval()
    randomise_gains(model)
    mixln.set_step(model, 0)
    return model


@pytest.mark.parametrize("family", ["qwen3", "olmoe"])
def test_logits_and_gradients_of_other_families_follow_the_equation(family):
    model = other(family)
    w = {name: value.requires_grad_() for name, value in weights_of(model).items()}
    forms = {"feed_forward": experts} if family == "olmoe" else {}
    expected = on_sphere_logits(w, on_sphere(w, w["model.embed_tokens.weight"][IDS], 3, **forms))
    actual = model(IDS).logits
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)
    for scores in (actual, expected):
        functional.cross_entropy(scores[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        far = (parameter.grad - w[name].grad).abs().max() / w[name].grad.abs().max()
        assert far < 1e-3, name


@pytest.mark.parametrize("family", HOSTS)
def test_matrices_are_unit_vectors_along_the_hidden_size(family):
    model = mixln.from_config(config_of(family), placement="ngpt")
    mixln.set_step(model, 0)
    reads = ("embed", "wte", "q_proj", "k_proj", "v_proj", "c_attn", "query", "gate_up", "up_proj", "c_fc", "fc1")
    feeds = ("o_proj", "down_proj", "attn.c_proj", "mlp.c_proj", "fc2", "attention.o_proj")
    seen = 0
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        stored = name.replace("down_proj.weight", "down_proj")
        axis = -1 if any(part in name for part in reads) else -2 if any(part in stored for part in feeds) else None
        if family == "gpt2" and axis is not None and "wte" not in name:
            axis = -3 - axis
        if axis is None or any(part in name for part in ("patch", "position", "cls_token")):
            continue
        seen += 1
        norms = weight.norm(dim=axis)
        zero = norms == 0  # the padding token's row
        torch.testing.assert_close(norms[~zero], torch.ones_like(norms[~zero]), msg=name)
    assert seen >= 3 * 4


def test_a_router_and_a_gate_of_the_attention_stay_as_they_are():
    model = mixln.from_config(config_of("olmoe"), placement="gated+ngpt")
    kept = {
        name: p.clone() for name, p in model.named_parameters() if ".mlp.gate.weight" in name or "output_gate" in name
    }
    mixln.set_step(model, 0)
    after = dict(model.named_parameters())
    assert len(kept) == 6
    assert all(torch.equal(after[name], value) for name, value in kept.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unit_vectors_stay_as_they_are_to_the_bit(dtype):
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[3] = 0
    to_unit(weight, -1)
    once = weight.clone()
    to_unit(weight, -1)
    assert torch.equal(weight, once)
    rows = weight.float().norm(dim=-1)
    assert rows[3] == 0
    assert (rows[torch.arange(64) != 3] - 1).abs().max() < (1e-6 if dtype == torch.float32 else 1e-2)


def training(folder: Any, callbacks: list[Any]) -> Any:
    model = mixln.from_config(tiny_config(), placement="ngpt")
    arguments = TrainingArguments(
        str(folder), max_steps=3, learning_rate=0.01, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    rows = [{"input_ids": row, "labels": row} for row in tokens(batch=16)]
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=callbacks).train()
    return model


def test_the_callback_makes_unit_vectors_before_the_first_step_and_after_each(tmp_path):
    started: list[float] = []

    class Seen(mixln.StepCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
            started.append(model.model.layers[1].mlp.down_proj.weight.norm(dim=0).sub(1).abs().max().item())

    model = training(tmp_path, [Seen()])
    assert len(started) == 3
    assert max(started) < 1e-5
    moved = model.model.layers[1].attention_residual.balance.weight
    assert not torch.equal(moved, torch.full_like(moved, 32**-0.5))


def test_training_without_unit_matrices_warns_once_a_sublayer(tmp_path):
    with pytest.warns(PlacementWarning, match=r"training ngpt without unit matrices.*mixln\.StepCallback\(\)") as seen:
        training(tmp_path, [])
    assert len([one for one in seen if one.category is PlacementWarning]) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = mixln.from_config(tiny_config(), placement="ngpt").train()
        mixln.set_step(model, 0)
        model(IDS)


def test_rates_and_factors_start_at_one_and_the_logits_are_cosines():
    model = mixln.from_config(tiny_config(), placement="ngpt(0.1)").eval()
    mixln.set_step(model, 0)
    keep, rate = model.model.layers[0].attention_residual.balance()
    torch.testing.assert_close(rate, torch.full((32,), 0.1))
    torch.testing.assert_close(keep, torch.full((32,), 0.9))
    with torch.no_grad():
        states = model.model(IDS).last_hidden_state
    torch.testing.assert_close(states.norm(dim=-1), torch.ones(2, 7))
    torch.testing.assert_close(logits(model, IDS), states @ model.lm_head.weight.T)
    assert logits(model, IDS).abs().max() <= 1


@pytest.mark.parametrize("tied", [False, True])
def test_the_scale_of_the_logits_follows_the_vocabulary(tied):
    model = placed("ngpt", tie_word_embeddings=tied)
    before, expected = model.lm_head.logit_scale.detach().clone(), logits(model, IDS)
    model.resize_token_embeddings(70, mean_resizing=False)
    assert isinstance(model.lm_head, ScaledHead)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert torch.equal(model.lm_head.logit_scale[:64], before)
    torch.testing.assert_close(model.lm_head.logit_scale[64:], torch.full((6,), 32**-0.5))
    torch.testing.assert_close(logits(model, IDS)[..., :64], expected)
    model.resize_token_embeddings(64)
    torch.testing.assert_close(logits(model, IDS), expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_whole_modules_that_peft_trains_stay_unit():
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    model = peft.get_peft_model(placed("ngpt"), settings)
    trained = {name: value for name, value in model.named_parameters() if "modules_to_save" in name and value.ndim == 2}
    assert len(trained) == 2
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(2)
    before = {name: value.clone() for name, value in model.named_parameters()}
    mixln.set_step(model, 1)
    assert {name for name, value in model.named_parameters() if not torch.equal(value, before[name])} == trained.keys()
    for value in trained.values():
        torch.testing.assert_close(value.norm(dim=-1), torch.ones(64))


def test_a_classifier_has_no_scale_of_tokens():
    model = mixln.from_config(config_of("llama"), placement="ngpt", head="sequence-classification")
    mixln.set_step(model, 0)
    assert not any("logit_scale" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(model.score.weight.norm(dim=-1), torch.ones(3))
    assert inputs_of("llama")


def test_only_the_layers_of_a_mixture_that_have_rates_are_unit():
    model = mixln.from_config(tiny_config(), placement="ngpt*2,pre")
    before = {name: value.clone() for name, value in model.named_parameters()}
    mixln.set_step(model, 0)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[2] for name in changed if ".layers." in name} == {"0", "1"}
    assert {name for name in changed if ".layers." not in name} == {"model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: placement("ngpt(0)", 2), r"^ngpt\(0\): η₀ must be a number above 0, got '0'"),
        (lambda: placement("ngpt(2)", 2), r"^ngpt\(2\): η₀ must be at most 1, got '2'"),
        (lambda: placement("layerscale+ngpt", 2), r"^layerscale: the placement has a gate that scales its branches"),
        (lambda: Rate(initial=0.0), r"^initial of a rate must be above 0 and at most 1, got 0"),
        (lambda: Norm(kind="unit", gain=2.0), r"^gain must be absent for norm kind 'unit', got 2"),
    ],
)
def test_impossible_records_are_refused(make, message):
    with pytest.raises(PlacementError, match=message):
        make()
