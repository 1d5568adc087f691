"""Initialisation: placements share bit-identical weights, and every scheme has the spread that its rule says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mixln
from mixln.errors import SettingsError
from mixln.nn.schemes import INIT_MODIFIERS, SCHEMES
from mixln.placement import ZOO
from tests.tiny import EVERY, placed, tiny_config

D, L = 64, 4
WIDE = {"hidden_size": D, "intermediate_size": 160, "vocab_size": 512, "num_hidden_layers": L}
ROLES = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANGE = 0.03
SMALL = math.sqrt(2 / (5 * D))
BETA = (8 * L) ** -0.25
GAMMA = math.sqrt(math.log(2 * L))
# Standard deviation of a normal distribution that is cut at ±3 and had 1 before.
DENSITY_AT_3 = math.exp(-4.5) / math.sqrt(2 * math.pi)
CUT = math.sqrt(1 - 2 * 3 * DENSITY_AT_3 / math.erf(3 / math.sqrt(2)))


def xavier(outputs: int, inputs: int) -> float:
    return math.sqrt(2 / (outputs + inputs))


EXPECTED = {
    "normal": dict.fromkeys(ROLES, RANGE),
    "small": dict.fromkeys(ROLES, SMALL),
    "megatron": {
        **dict.fromkeys(ROLES, CUT * SMALL),
        "o_proj": CUT * SMALL / math.sqrt(2 * L),
        "down_proj": CUT * SMALL / math.sqrt(2 * L),
    },
    "scaled": {
        **dict.fromkeys(ROLES, RANGE),
        "o_proj": RANGE / math.sqrt(2 * L),
        "down_proj": RANGE / math.sqrt(2 * L),
    },
    "deepnorm": {
        "embed_tokens": RANGE,
        "lm_head": RANGE,
        "q_proj": xavier(64, 64),
        "k_proj": xavier(32, 64),
        "v_proj": BETA * xavier(32, 64),
        "o_proj": BETA * xavier(64, 64),
        "gate_proj": BETA * xavier(160, 64),
        "up_proj": BETA * xavier(160, 64),
        "down_proj": BETA * xavier(64, 160),
    },
    "sub-ln": {
        "embed_tokens": RANGE,
        "lm_head": RANGE,
        "q_proj": xavier(64, 64),
        "k_proj": xavier(32, 64),
        "v_proj": GAMMA * xavier(32, 64),
        "o_proj": GAMMA * xavier(64, 64),
        "gate_proj": GAMMA * xavier(160, 64),
        "up_proj": GAMMA * xavier(160, 64),
        "down_proj": GAMMA * xavier(64, 160),
    },
    "scaled-small": {
        **dict.fromkeys(ROLES, RANGE),
        "o_proj": SMALL / math.sqrt(2 * L),
        "down_proj": SMALL / math.sqrt(2 * L),
    },
    "scaled-embed+normal": {**dict.fromkeys(ROLES, RANGE), "embed_tokens": 8 * RANGE},
    "embedding(0.632)+scaled": {
        **dict.fromkeys(ROLES, RANGE),
        "embed_tokens": 0.632,
        "o_proj": RANGE / math.sqrt(2 * L),
        "down_proj": RANGE / math.sqrt(2 * L),
    },
}


def matrices(model: torch.nn.Module) -> dict[str, Tensor]:
    """Of the family: those of the maps between streams start as their authors say."""
    return {name: w.detach() for name, w in model.named_parameters() if w.ndim == 2 and ".maps." not in name}


def values(model: torch.nn.Module, role: str) -> Tensor:
    return torch.cat([w.flatten() for name, w in matrices(model).items() if f"{role}.weight" in name])


def test_every_scheme_is_tested():
    assert SCHEMES.keys() <= EXPECTED.keys()
    assert all(any(name in text for text in EXPECTED) for name in INIT_MODIFIERS)


@pytest.fixture(scope="module", params=EXPECTED)
def drawn(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module]:
    return request.param, placed("hybrid", init=request.param, gains=False, initializer_range=RANGE, **WIDE)


@pytest.mark.parametrize("role", ROLES)
def test_spread_of_each_role_is_the_schemes(drawn, role):
    """Within 4 standard errors, σ/√(2n); the mean within 4 of its own, σ/√n."""
    name, model = drawn
    sample, expected = values(model, role), EXPECTED[name][role]
    assert abs(sample.std().item() / expected - 1) < 4 / math.sqrt(2 * sample.numel())
    assert abs(sample.mean().item()) < 4 * expected / math.sqrt(sample.numel())


@pytest.mark.parametrize("role", ROLES)
def test_only_megatron_is_cut_at_three_standard_deviations(drawn, role):
    name, model = drawn
    sigma = EXPECTED[name][role] / (CUT if name == "megatron" else 1)
    largest = values(model, role).abs().max().item() / sigma
    assert 2.9 < largest < 3.000001 if name == "megatron" else largest > 3.1


def test_deepnorm_gain_follows_the_depth():
    shallow, deep = (
        placed("deepnorm", gains=False, num_hidden_layers=layers, hidden_size=D, intermediate_size=160)
        for layers in (2, 8)
    )
    for role, ratio in (("v_proj", 4**0.25), ("down_proj", 4**0.25), ("q_proj", 1.0)):
        assert values(shallow, role).std() / values(deep, role).std() == pytest.approx(ratio, rel=0.03)


@pytest.mark.long
@pytest.mark.parametrize("init", SCHEMES)
@pytest.mark.parametrize("placement", [name for name in EVERY if name != "pre"])
def test_placements_share_bit_identical_weights_under_one_seed_and_init(placement, init):
    here, pre = (matrices(placed(name, init=init, gains=False)) for name in (placement, "pre"))
    added = {name for name in here.keys() - pre.keys() if not name.endswith("output_gate.weight")}
    assert (added, pre.keys() - here.keys()) == (set(), set())
    assert len(pre) == 2 + 7 * 3
    assert [name for name in pre if not torch.equal(here[name], pre[name])] == []


@pytest.mark.parametrize("init", ["normal", "deepnorm"])
def test_the_gate_of_the_attention_has_the_spread_of_the_queries(init):
    weights = matrices(placed("gated+pre", init=init, gains=False, **WIDE))
    spreads = {
        kind: torch.cat([w.flatten() for name, w in weights.items() if kind in name]).std().item()
        for kind in ("output_gate", "q_proj")
    }
    assert spreads["output_gate"] == pytest.approx(spreads["q_proj"], rel=0.05)


def test_no_two_weights_of_one_model_are_alike():
    weights = [w for name, w in matrices(placed("pre", init="normal")).items() if w.shape == (32, 32)]
    assert len(weights) == 6
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_seed_decides_and_two_seeds_differ_everywhere():
    first, again, other = (matrices(placed("mix(0.5)", seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_two_models_made_in_a_row_differ():
    torch.manual_seed(0)
    first, second = (mixln.from_config(tiny_config(), placement="pre") for _ in range(2))
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


@pytest.mark.parametrize("placement", EVERY)
def test_every_placement_draws_the_same_amount_from_the_global_generator(placement):
    """What is drawn after the model (data order, dropout) is then the same for all placements."""
    states = []
    for name in (placement, "pre"):
        torch.manual_seed(0)
        mixln.from_config(tiny_config(), placement=name)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


STARTS: dict[str, dict[str, float]] = {
    "branch_gain": {"rezero": 0.0, "layerscale+pre": 0.1},
    "branch_out": {"dssn": 1 / math.sqrt(3)},
    "alpha": {"bhyt+post": 2.0},
}
"""Part of a gain's name → its start in the placements where that is not the one of :data:`USUAL`."""
USUAL = {"value_mix": 0.5, "gate.": 0.0, "balance": 0.0, "depth.query": 0.0, "alpha": 0.5, "shift": 0.0, "bias": 0.0}


@pytest.mark.parametrize("placement", EVERY)
def test_norms_and_gains_draw_nothing_and_start_where_their_papers_say(placement):
    named = placed(placement, gains=False).named_parameters()
    gains = {name: p for name, p in named if p.ndim == 1 and ".maps." not in name}
    assert gains
    for name, gain in gains.items():
        value = next((value for part, value in USUAL.items() if part in name), 1.0)
        value = next((starts.get(placement, value) for part, starts in STARTS.items() if part in name), value)
        if ".anchor." in name:
            first, last = {"keep": (1.15, 1.05), "add": (0.2, 0.05)}[name.rpartition(".")[2]]
            value = first + (last - first) * int(name.split(".")[2]) / 2
        if "ngpt" in placement and ("balance" in name or "query_scale" in name or "logit_scale" in name):
            value = 32**-0.5
        value = 1 / gain.numel() if "combination" in name else value
        expected = torch.full_like(gain, value)
        if "combination" in name and placement == "denseformer":
            expected = torch.tensor([*[0.0] * (gain.numel() - 1), 1.0])
        assert torch.equal(gain, expected), name


@pytest.mark.parametrize("placement", ZOO)
def test_recommended_init_is_used_and_another_can_be_chosen(placement):
    assert placed(placement).config.init == ZOO[placement].init
    assert placed(placement, init="small").config.init == "small"


def test_init_survives_saving_and_loading(tmp_path):
    placed("hybrid", init="scaled").save_pretrained(tmp_path)
    assert mixln.from_pretrained(tmp_path).config.init == "scaled"


def test_unknown_init_lists_the_known_ones():
    with pytest.raises(SettingsError, match=rf"init 'orthogonal' is not known; known: {', '.join(SCHEMES)}$"):
        mixln.from_config(tiny_config(), placement="pre", init="orthogonal")


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("wide+normal", "init modifier 'wide' is not known; known: embedding, scaled-embed"),
        (
            "embedding+normal",
            r"embedding\(\): σ must be a number above 0, got ''; write for example embedding\(0\.632\)\+normal",
        ),
        ("embedding(-1)+normal", r"embedding\(-1\): σ must be a number above 0, got '-1'"),
        ("scaled-embed(2)+normal", r"scaled-embed\(2\): takes no argument, got '2'"),
    ],
)
def test_init_that_cannot_be_is_refused(init, message):
    with pytest.raises(SettingsError, match=message):
        mixln.from_config(tiny_config(), placement="pre", init=init)


def test_weights_do_not_depend_on_the_dtype_of_the_model():
    model = placed("pre", gains=False)
    torch.manual_seed(0)
    half = mixln.from_config(tiny_config(), placement="pre", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(model.lm_head.weight.bfloat16(), half.lm_head.weight)


def test_tied_head_is_the_embedding():
    model = placed("mix(0.5)", tie_word_embeddings=True, gains=False)
    untied = placed("mix(0.5)", gains=False)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, untied.model.embed_tokens.weight)


@pytest.mark.parametrize("bias", ["attention_bias", "mlp_bias"])
def test_biases_start_at_zero(bias):
    model = placed("hybrid", gains=False, **{bias: True})
    biases = [p for name, p in model.named_parameters() if name.endswith(".bias")]
    assert biases
    assert not any(p.any() for p in biases)


def test_rows_added_to_the_embedding_have_the_spread_of_the_others():
    model = placed("pre", gains=False)
    model.resize_token_embeddings(256, mean_resizing=False, pad_to_multiple_of=64)
    added = model.model.embed_tokens.weight[64:].std().item()
    assert added == pytest.approx(model.config.initializer_range, rel=0.05)
