"""Each family with its `stock` placement is the family's own class, and what a family cannot carry is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments

import mixln
from mixln.errors import CheckpointError, PlacementError, PlacementWarning, SettingsError
from mixln.hosts import HOSTS, build
from mixln.hosts.family import copy_weights
from mixln.nn.residual import placed_layers
from mixln.nn.schemes import SCHEMES
from mixln.placement import Placement
from tests import tiny
from tests.hosts.families import CONFIGS, config_of, inputs_of, labelled
from tests.tiny import EVERY, randomise_gains

HEADS = [(name, head) for name, host in HOSTS.items() for head in host.heads]
PRE_HOSTS = sorted(set(HOSTS) - {"olmo2", "gemma3_text"})
LANGUAGE = sorted(set(HOSTS) - {"vit"})


def pair(name: str, head: str | None = None, placement: str = "stock", **changes: Any) -> tuple[Any, Any]:
    """Stock and placed, in evaluation mode, with the stock model's weights and its gains off their start."""
    host = HOSTS[name]
    torch.manual_seed(0)
    stock = host.heads[head or next(iter(host.heads))][0]._from_config(config_of(name, **changes)).eval()
    randomise_gains(stock)
    model = mixln.from_config(stock.config, placement=placement, head=head).eval()
    copy_weights(stock, model, host.canonical)
    return stock, model


def inputs(name: str, head: str) -> dict[str, Any]:
    return labelled(inputs_of(name), head)


def gradients_of(model: PreTrainedModel, name: str, given: dict[str, Any]) -> dict[str, torch.Tensor]:
    model(**given).loss.backward()
    return {HOSTS[name].canonical(key): p.grad for key, p in model.named_parameters()}


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_logits_loss_and_gradients_equal_the_stock_models(name, head):
    stock, model = pair(name, head)
    given = inputs(name, head)
    assert type(model).__name__ == f"Placed{type(stock).__name__}"
    with torch.no_grad():
        expected, actual = stock(**given), model(**given)
    assert torch.equal(actual.logits, expected.logits)
    assert torch.equal(actual.loss, expected.loss)
    of_stock, of_placed = gradients_of(stock, name, given), gradients_of(model, name, given)
    assert of_stock.keys() == of_placed.keys()
    for key, grad in of_stock.items():
        torch.testing.assert_close(of_placed[key], grad, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "num_experts_per_tok" in CONFIGS[name][1]])
def test_experts_keep_their_load_balancing_loss_and_router_outputs(name):
    stock, model = pair(name, router_aux_loss_coef=0.5)
    given = inputs_of(name)
    expected, actual = stock(**given), model(**given)
    assert len(actual.router_logits) == len(expected.router_logits) > 0
    assert all(map(torch.equal, actual.router_logits, expected.router_logits))
    assert torch.equal(actual.aux_loss, expected.aux_loss)
    without = model(**{**given, "output_router_logits": False})
    assert without.aux_loss is None
    torch.testing.assert_close(actual.loss, without.loss + 0.5 * actual.aux_loss)


@pytest.mark.parametrize("name", HOSTS)
def test_hidden_states_and_attention_maps_equal_the_stock_models(name):
    stock, model = pair(name)
    given = {key: value for key, value in inputs_of(name).items() if key != "labels"}
    for either in (stock, model):
        either.set_attn_implementation("eager")
    with torch.no_grad():
        expected, actual = (m(**given, output_hidden_states=True, output_attentions=True) for m in (stock, model))
    assert len(actual.hidden_states) == 4
    assert len(actual.attentions) == 3
    assert all(map(torch.equal, actual.hidden_states, expected.hidden_states))
    assert all(map(torch.equal, actual.attentions, expected.attentions))


@pytest.mark.parametrize("name", PRE_HOSTS)
def test_pre_is_stock_where_the_family_is_pre(name):
    stock, model = pair(name, placement="pre")
    assert torch.equal(model(**inputs_of(name)).logits, stock(**inputs_of(name)).logits)


@pytest.mark.parametrize(("name", "placement"), [("olmo2", "res-post"), ("gemma3_text", "sandwich")])
def test_families_that_are_not_pre_are_a_placement_of_the_zoo(name, placement):
    stock, model = pair(name, placement=placement)
    assert torch.equal(model(**inputs_of(name)).logits, stock(**inputs_of(name)).logits)
    with pytest.raises(PlacementError, match="has no counterpart"):
        pair(name, placement="pre")


@pytest.mark.parametrize("name", ["qwen3", "olmoe", "olmo2"])
def test_bare_is_without_the_norms_of_the_family(name):
    model = mixln.from_config(config_of(name), placement="bare+pre")
    assert not any("_norm" in key or "_proj.norm" in key for key in model.state_dict())
    assert mixln.from_config(config_of(name), placement="pre").num_parameters() > model.num_parameters()


def test_own_norm_gives_way_to_the_placements():
    """OLMoE's norms on q and k are over the full width, HybridNorm's per head."""
    layer = mixln.from_config(config_of("olmoe"), placement="hybrid").model.layers[0]
    gains = {key: tuple(value.shape) for key, value in layer.state_dict().items() if "norm" in key}
    assert gains == {f"self_attn.{p}_norm.weight": (8,) for p in ("query", "key", "value")}
    layer = mixln.from_config(config_of("olmoe"), placement="mix(1)").model.layers[0]
    assert layer.state_dict()["self_attn.q_norm.weight"].shape == (32,)


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_every_head_saves_and_loads(name, head, tmp_path):
    torch.manual_seed(0)
    model = mixln.from_config(config_of(name), placement="hybrid*", head=head).eval()
    randomise_gains(model)
    model.save_pretrained(tmp_path)
    again = mixln.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(again(**inputs(name, head)).logits, model(**inputs(name, head)).logits)
    body = AutoModel.from_pretrained(tmp_path)
    weights = again.base_model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in body.state_dict().items() if "pooler" not in key)


@pytest.mark.parametrize("name", LANGUAGE)
def test_reward_model_takes_the_body_of_a_language_model(name, tmp_path):
    language = mixln.from_config(config_of(name), placement="mix(0.5)")
    language.save_pretrained(tmp_path)
    reward = mixln.from_pretrained(tmp_path, head="sequence-classification")
    body = language.base_model.state_dict()
    assert all(torch.equal(value, body[key]) for key, value in reward.base_model.state_dict().items())


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("placement", ["hybrid", "res-post", "dlcl"])
def test_placements_share_bit_identical_weights_on_every_family(name, placement):
    host, drawn = HOSTS[name], []
    for text in ("pre", placement):
        torch.manual_seed(0)
        model = mixln.from_config(config_of(name), placement=text, init="megatron")
        drawn.append({host.canonical(key): p for key, p in model.named_parameters() if p.ndim >= 2})
    assert drawn[0].keys() == drawn[1].keys()
    assert all(torch.equal(value, drawn[1][key]) for key, value in drawn[0].items())


@pytest.mark.parametrize("init", SCHEMES)
@pytest.mark.parametrize("name", HOSTS)
def test_every_scheme_finds_the_weights_of_every_family(name, init):
    """Spread of the weights by role, against the scheme's rule for the shape of one projection of one expert."""
    wide = {"hidden_size": 64, "intermediate_size": 160, "vocab_size": 512, "num_hidden_layers": 2, "head_dim": 16}
    wide |= {"moe_intermediate_size": 160} if name == "qwen3_moe" else {}
    wide |= {"n_inner": 160} if name == "gpt2" else {}
    wide = {key: value for key, value in wide.items() if not (key == "head_dim" and name in ("gpt2", "vit"))}
    torch.manual_seed(0)
    model = mixln.from_config(config_of(name, **wide), placement="pre", init=init)
    d, layers, cut = 64, 2, 0.98658
    small, deep = math.sqrt(2 / (5 * d)), math.sqrt(2 * layers)

    def gained(gain: float) -> tuple[float, float, float]:
        return math.sqrt(2 / 128), gain * math.sqrt(2 / 128), gain * math.sqrt(2 / 224)

    spread = {
        "normal": (0.2, 0.2, 0.2),
        "small": (small, small, small),
        "megatron": (cut * small, cut * small / deep, cut * small / deep),
        "scaled": (0.2, 0.2 / deep, 0.2 / deep),
        "scaled-small": (0.2, small / deep, small / deep),
        "deepnorm": gained(16**-0.25),
        "sub-ln": gained(math.sqrt(math.log(4))),
    }[init]
    expected = dict(zip(("query", "attention_out", "feed_forward_out"), spread, strict=True))
    found: dict[str, list[torch.Tensor]] = {}
    for key, weight in model.named_parameters():
        if weight.ndim < 2 or ("layers." not in key and ".h." not in key):
            continue
        roles = HOSTS[name].role(key)
        roles = (roles,) if isinstance(roles, str) else roles
        axis = -1 if name == "gpt2" else -2
        for role, part in zip(roles, weight.chunk(len(roles), dim=axis), strict=True):
            found.setdefault(role, []).append(part)
    for role, std in expected.items():
        weights = torch.cat([weight.flatten() for weight in found[role]])
        assert weights.std().item() == pytest.approx(std, rel=0.05), role


def test_fused_projection_starts_part_by_part():
    """DeepNorm shrinks v, not q and k, and all three lie in one weight of GPT-2."""
    model = mixln.from_config(config_of("gpt2", hidden_size=64), placement="deepnorm")
    q, k, v = model.transformer.h[0].attn.c_attn.weight.chunk(3, dim=-1)
    assert (v.std() / q.std()).item() == pytest.approx(24**-0.25, rel=0.05)
    assert (k.std() / q.std()).item() == pytest.approx(1, rel=0.05)


def test_dropout_of_the_stock_layer_falls_on_the_branches():
    stock, model = pair("vit", hidden_dropout_prob=0.5)
    for either in (stock, model):
        either.train()
    results = []
    for either in (stock, model):
        torch.manual_seed(3)
        results.append(either(**inputs_of("vit")).logits)
    assert torch.equal(*results)


@pytest.mark.long
@pytest.mark.parametrize("placement", EVERY)
def test_every_placement_takes_stochastic_depth(placement, tmp_path):
    model, inputs = tiny.placed(placement), tiny.tokens()
    deep = tiny.placed(placement, stochastic_depth=0.5)
    assert torch.equal(tiny.logits(deep, inputs), tiny.logits(model, inputs))
    depths = [
        0.0 if sub.stochastic_depth is None else sub.stochastic_depth.probability
        for layer in placed_layers(deep)
        for _, sub in layer.sublayers
    ]
    assert depths == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5]
    deep.train()
    torch.manual_seed(1)
    assert not torch.equal(tiny.logits(deep, inputs), tiny.logits(deep, inputs))
    deep.save_pretrained(tmp_path)
    assert mixln.from_pretrained(tmp_path).config.stochastic_depth == 0.5


@pytest.mark.parametrize("depth", [-0.1, 1.0, float("nan")])
def test_stochastic_depth_must_be_a_probability_below_one(depth):
    with pytest.raises(SettingsError, match=r"stochastic-depth must lie in \[0, 1\), got"):
        mixln.from_config(config_of("vit"), placement="pre", stochastic_depth=depth)


EXPERTS_FIRST = """
import mixln
from transformers import MixtralForCausalLM
from tests.hosts.families import config_of

placed = mixln.from_config(config_of("mixtral"), placement="stock")  # before any stock class
print(placed.config._experts_implementation, MixtralForCausalLM(config_of("mixtral")).config._experts_implementation)
chosen = mixln.from_config(config_of("mixtral"), placement="pre", experts_implementation="eager")
print(chosen.config._experts_implementation)
"""


@pytest.mark.long
def test_experts_run_as_the_familys_do_whatever_was_built_before():
    done = subprocess.run([sys.executable, "-c", EXPERTS_FIRST], capture_output=True, text=True, check=True)
    (placed, stock), (chosen,) = (line.split() for line in done.stdout.splitlines())
    assert placed == stock
    assert chosen == "eager"


@pytest.mark.parametrize("name", HOSTS)
def test_saved_config_can_be_read_as_one_of_no_family(name, tmp_path):
    """transformers' Trainer does so when it goes on from a checkpoint."""
    config = mixln.placed_config(config_of(name), "mix(0.5)")
    config.save_pretrained(tmp_path)
    PreTrainedConfig.from_json_file(tmp_path / "config.json")
    again = AutoConfig.from_pretrained(tmp_path)
    assert getattr(again, "layer_types", None) == getattr(config, "layer_types", None)
    assert again.num_hidden_layers == 3


def test_trainer_goes_on_from_a_checkpoint_of_a_family_with_kinds_of_layers(tmp_path):
    data = [{"input_ids": row, "labels": row} for row in inputs_of("qwen3")["input_ids"]]

    def trainer(steps: int) -> Trainer:
        arguments = TrainingArguments(
            str(tmp_path), max_steps=steps, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True
        )
        return Trainer(mixln.from_config(config_of("qwen3"), placement="post"), arguments, train_dataset=data)

    trainer(1).train()
    trainer(2).train(resume_from_checkpoint=True)


def test_plain_transformers_refuses_every_placed_family(tmp_path):
    for name, host in HOSTS.items():
        folder = tmp_path / name
        model = mixln.from_config(config_of(name), placement="post")
        model.save_pretrained(folder)
        for stock in (next(iter(host.heads.values()))[0], host.base):
            with pytest.raises(Exception, match=r"num_hidden_layers|n_layer|placement\.layers"):
                stock.from_pretrained(folder)


def test_another_number_of_labels_is_let_through_when_asked_for(tmp_path):
    mixln.from_config(config_of("vit"), placement="post").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.\w+ is misshapen"):
        mixln.from_pretrained(tmp_path, num_labels=5)
    assert mixln.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True).classifier.out_features == 5


def test_what_is_known_against_a_placement_is_warned_of():
    with pytest.warns(PlacementWarning, match=r"mix\(0\.25\) rounds to no Post-LN layer in a model of 3"):
        mixln.from_config(config_of("llama"), placement="mix(0.25)")
    with pytest.warns(PlacementWarning, match="HybridNorm is published with 'megatron'"):
        mixln.from_config(config_of("vit"), placement="hybrid*", init="normal")
    with pytest.warns(PlacementWarning, match=r"the gains of admin are 1 until mixln\.profile"):
        mixln.from_config(config_of("gpt2"), placement="admin")


# --- what a family cannot carry


def refused(name: str, placement: str = "pre", **changes: Any) -> Any:
    return mixln.from_config(config_of(name, **changes), placement=placement)


def test_unknown_family_is_answered_with_a_guess_and_where_all_are_listed():
    config = config_of("llama")
    config.model_type = "lamma"
    with pytest.raises(
        PlacementError,
        match=r"model family 'lamma' is not known to transformers; did you mean llama\?; mixln families lists all",
    ):
        mixln.from_config(config, placement="pre")


def test_unknown_head_is_answered_with_those_of_the_family():
    with pytest.raises(SettingsError, match="head of vit 'causal-lm' is not known; known: image-classification"):
        mixln.from_config(config_of("vit"), placement="pre", head="causal-lm")


def test_cross_attention_is_refused():
    with pytest.raises(
        PlacementError, match=r"this gpt2 cannot be placed: add_cross_attention is true.*set it to false"
    ):
        refused("gpt2", add_cross_attention=True)


def test_jitter_that_would_reach_the_stream_is_refused_where_it_would():
    refused("mixtral", "pre", router_jitter_noise=0.1)
    with pytest.raises(PlacementError, match=r"router_jitter_noise is 0.1.*as in hybrid; set it to 0"):
        refused("mixtral", "hybrid", router_jitter_noise=0.1)


def test_head_dim_that_does_not_fit_the_projection_is_refused_with_both_numbers():
    config = config_of("vit")
    config.head_dim = 16
    model = mixln.from_config(config, placement="post")
    assert model.vit.layers[0].attention.q_proj.out_features == 64
    config = config_of("gpt2")
    config.head_dim = 16
    with pytest.raises(
        SettingsError,
        match=r"c_attn of gpt2 has 32 features for query, but 4 heads of head_dim 16 make 64; correct head_dim",
    ):
        mixln.from_config(config, placement="hybrid")


def test_own_head_dim_need_not_fill_the_hidden_size():
    config = config_of("qwen3", num_attention_heads=5, num_key_value_heads=5, head_dim=8)
    assert mixln.from_config(config, placement="hybrid").model.layers[0].self_attn.q_proj.out_features == 40


@pytest.mark.parametrize(
    ("name", "field"), [("mixtral", "num_local_experts"), ("olmoe", "num_experts"), ("qwen3_moe", "num_experts")]
)
def test_more_experts_for_a_token_than_there_are_is_refused(name, field):
    with pytest.raises(SettingsError, match="num_experts_per_tok must be at most the number of experts, got 8 of 4"):
        refused(name, num_experts_per_tok=8, **{field: 4})


def test_what_is_no_config_is_refused():
    with pytest.raises(SettingsError, match="config must be a transformers config, got 'folder'"):
        mixln.from_config("folder", placement="pre")


def test_embeddings_that_a_family_lacks_cannot_start_differently():
    with pytest.raises(SettingsError, match=r"init scaled-embed\+normal: a vit has no token embeddings"):
        mixln.from_config(config_of("vit"), placement="pre", init="scaled-embed+normal")


def test_norm_in_fused_experts_is_refused_with_the_reason():
    with pytest.raises(
        PlacementError, match=r"cannot be placed in mixtral: its MixtralSparseMoeBlock has no output projection"
    ):
        refused("mixtral", "sub-ln")


def test_stock_placement_survives_in_the_config_as_records():
    model = mixln.from_config(config_of("gemma3_text"), placement="stock")
    stored = Placement.from_json(model.config.placement)
    assert stored.name == "stock"
    assert stored.layers[0].attention.branch_out is not None


def test_reward_model_is_loaded_whole_with_its_head(tmp_path):
    from mixln.hosts.sources import find_model, load

    model = mixln.from_config(config_of("olmoe"), placement="mix(0.5)", head="sequence-classification")
    model.save_pretrained(tmp_path / "reward")
    again = load(find_model(str(tmp_path / "reward"), cache=tmp_path), whole=True)
    assert type(again) is type(model)
    assert torch.equal(again.score.weight, model.score.weight)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if "causal-lm" in HOSTS[name].heads])
def test_without_a_causal_mask_a_token_sees_what_comes_after_it(name, attention, tmp_path):
    config = config_of(name)
    config.is_causal = False
    torch.manual_seed(0)
    made = build(config, placement="pre", init="normal", head="causal-lm", attn_implementation=attention)
    made.save_pretrained(tmp_path)
    ids = torch.arange(1, 7)[None]
    other = ids.clone()
    other[0, 2] = 40
    for model in (made.eval(), mixln.from_pretrained(tmp_path, attn_implementation=attention).eval()):
        with torch.no_grad():
            before, after = (model(input_ids=each, use_cache=False).logits[0] for each in (ids, other))
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("host", ["gemma3_text", "gpt2", "llama"])
def test_factor_of_the_outer_norms_starts_where_the_depth_scaled_sandwich_says(host, tmp_path):
    """Gemma's factor is one plus the weight, GPT-2's norm has a bias; neither transformers' initialisation nor loading resets it."""
    config = config_of(host)
    model = mixln.from_config(config, placement="dssn(0.8)").eval()
    start = 0.8 / config.num_hidden_layers**0.5
    x = torch.randn(3, config.hidden_size)
    for layer in placed_layers(model):
        inner, outer = layer.feed_forward_residual.branch_in, layer.attention_residual.branch_out
        torch.testing.assert_close(outer(x), start * inner(x))
    with torch.no_grad():
        for layer in placed_layers(model):
            layer.attention_residual.branch_out.weight.add_(0.25)
    model.save_pretrained(tmp_path)
    for one, other in zip(model.parameters(), mixln.from_pretrained(tmp_path).parameters(), strict=True):
        assert torch.equal(one, other)
