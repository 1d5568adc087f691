"""Families that are derived from transformers' code: one of each form of layer, and the refusals."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import mixln
from mixln.errors import PlacementError, PlacementWarning
from mixln.hosts import HOSTS, Host
from mixln.hosts.families import host_of
from mixln.hosts.reading import read_layer
from mixln.hosts.shrunken import shrunken
from mixln.hosts.syntax import Unreadable
from mixln.hosts.verify import Verification, _compared, _sources, verify
from mixln.placement import Layer, Norm, Sublayer
from tests.hosts.derived import check_family

FORMS = {
    "qwen2": "Pre-LN",
    "phi3": "fused projections, dropout on the branches",
    "gemma2": "sandwich, norms that multiply by 1 + weight",
    "glm4": "sandwich under other names",
    "olmo3": "res-post",
    "granite": "a factor on the branches",
    "deepseek_v3": "latent attention, dense and expert layers",
    "glm_moe_dsa": "attention that passes on to later layers which tokens it chose",
    "qwen3_next": "linear and full attention",
    "starcoder2": "LayerNorm",
    "nemotron": "LayerNorm1P",
    "nanochat": "norms without weights",
    "falcon_h1": "two mixers in one branch",
    "gpt_neox": "parallel, two norms",
    "falcon": "parallel, one norm, a tuple returned",
    "cohere": "parallel, added in another order",
    "bloom": "the stream is added inside the modules",
    "olmo_hybrid": "layers of two kinds with norms in different places",
    "bert": "Post-LN inside modules of the layer",
    "mpnet": "Post-LN, layers that return tuples",
    "roberta-prelayernorm": "Pre-LN with a norm inside the feed-forward's module",
    "modernbert": "no norm before the first attention",
    "dinov2": "factors on the branches of an image classifier",
    "clip_vision_model": "an image encoder without a head",
    "bart": "Post-LN encoder and decoder with cross-attention",
    "whisper": "Pre-LN encoder of sound and decoder of text",
    "t5": "sublayers in a list, and a position bias that layers hand on",
    "umt5": "sublayers in a list that return tuples of unknown length",
    "marian": "constants that are not in the checkpoint",
}


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_form(name: str, tmp_path):
    check_family(host_of(name), tmp_path)


def written(name: str) -> Host:
    """The record of a family as it was written by hand."""
    return import_module(f"tests.hosts.written.{name}").HOST


FIELDS = (
    "base", "layers", "final_norm", "attention", "feed_forward", "projections", "down", "own_norms", "pooler",
    "stock", "stock_names", "stock_init", "body",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_derived_record_is_the_written_one(name: str):
    expected, derived = written(name), HOSTS[name]
    for field in FIELDS:
        assert getattr(derived, field) == getattr(expected, field), field
    assert [*expected.heads] == [head for head in derived.heads if head in expected.heads]
    config = shrunken(expected.config)
    assert derived.eps(config) == expected.eps(config)
    assert repr(derived.norm(config, 24)) == repr(expected.norm(config, 24))


@pytest.mark.parametrize("name", HOSTS)
def test_derived_roles_are_the_written_ones(name: str):
    expected = written(name)
    for stock, _ in expected.heads.values():
        model = stock(shrunken(expected.config))
        matrices = [key for key, parameter in model.named_parameters() if parameter.ndim >= 2]
        assert {key: HOSTS[name].role(key) for key in matrices} == {key: expected.role(key) for key in matrices}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mamba", r"modeling_mamba.py:\d+: hidden_states = residual \+ hidden_states"),
        ("doge", r"does not add a branch to the residual stream: modeling_doge.py:\d+"),
    ],
)
def test_family_that_cannot_be_read_is_refused_with_the_line(name: str, line: str):
    with pytest.raises(Unreadable, match=line):
        mixln.placed_config(CONFIG_MAPPING[name](), "pre")


def test_unknown_family_is_refused_with_a_guess():
    with pytest.raises(PlacementError, match="'qwen22' is not known to transformers; did you mean qwen2"):
        host_of("qwen22")


class Odd(nn.Module):
    """A layer with a sublayer that no record can express."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2, self.attn, self.mlp = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)


class Gated(Odd):
    def forward(self, hidden_states, attention_mask=None):
        hidden_states = hidden_states + self.attn(self.norm(hidden_states), attention_mask)
        return hidden_states * 0.5 * self.mlp(self.norm2(hidden_states))


class Hidden(Odd):
    def forward(self, hidden_states, attention_mask=None):
        hidden_states = hidden_states + self.attn(self.norm(hidden_states), attention_mask)
        return hidden_states + self.mlp(torch.tanh(self.norm2(hidden_states)))


class Dynamic(Odd):
    def forward(self, hidden_states, attention_mask=None):
        if attention_mask is None:
            return hidden_states
        hidden_states = hidden_states + self.attn(self.norm(hidden_states), attention_mask)
        return hidden_states + self.mlp(self.norm2(hidden_states))


class Swapped(Odd):
    def forward(self, hidden_states, attention_mask=None):
        hidden_states = hidden_states + self.mlp(self.norm2(hidden_states))
        return hidden_states + self.attn(self.norm(hidden_states), attention_mask)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Gated, "does not end in a sum"),
        (Dynamic, "returns under a condition that is known only at run time"),
        (Swapped, "does not call attention first"),
    ],
)
def test_layer_outside_the_algebra_is_refused(layer: type[nn.Module], why: str):
    with pytest.raises(Unreadable, match=rf"{layer.__name__} {why}.*test_derived.py:\d+"):
        read_layer(layer())


def test_code_between_norm_and_module_stays_with_the_branch():
    reading = read_layer(Hidden())
    pre = Sublayer(branch_in=Norm())
    assert reading.record == Layer(attention=pre, feed_forward=pre)
    x = torch.randn(2, 3, 4)
    layer = Hidden()
    assert torch.equal(reading.sublayers[1].branch.function(layer, x), layer.mlp(torch.tanh(x)))
    assert reading.sublayers[1].plain


def test_comparison_finds_a_wrong_record():
    """Gradients and logits of a model whose layers are not the stock's differ."""
    host = host_of("qwen2")
    torch.manual_seed(0)
    config = shrunken(host.config)
    stock = host.heads["causal-lm"][0](config).float().eval()
    wrong = mixln.from_config(config, placement="post").float().eval()
    result: Verification = _compared(host, stock, wrong)
    assert result.failure.startswith("the logits of the placed model differ by")


def test_layers_that_differ_from_the_familys_are_refused():
    config = shrunken(CONFIG_MAPPING["gpt_neox"], use_parallel_residual=False)
    with pytest.raises(PlacementError, match=r"this gpt_neox cannot be placed: layer 1 is x ← x \+ A\(N\(x\)\);  x ←"):
        mixln.from_config(config, placement="stock")


def test_sequential_placement_of_a_parallel_family_says_that_it_is_another_architecture():
    config = shrunken(CONFIG_MAPPING["gpt_neox"])
    with pytest.warns(PlacementWarning, match="pre runs attention and feed-forward one after the other, but"):
        mixln.from_config(config, placement="pre")


def test_derived_models_can_be_pickled_and_copied():
    model = mixln.from_config(shrunken(CONFIG_MAPPING["qwen2"]), placement="mix(0.5)").eval()
    ids = torch.arange(2, 10)[None]
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.long
def test_another_process_opens_a_derived_checkpoint_with_the_auto_classes(tmp_path):
    model = mixln.from_config(shrunken(CONFIG_MAPPING["smollm3"]), placement="mix(0.5)").eval()
    model.save_pretrained(tmp_path)
    code = (
        "import sys, mixln; from transformers import AutoModelForCausalLM; "
        f"print(type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    opened = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert opened.stdout.strip() == type(model).__name__ == "PlacedSmolLM3ForCausalLM"


def test_placing_and_unplacing_keep_the_weights():
    stock = AutoModelForCausalLM.from_config(shrunken(CONFIG_MAPPING["granite"])).eval()
    again = mixln.unplace(mixln.place(stock))
    assert type(again) is type(stock)
    for name, value in stock.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.long
def test_importing_mixln_derives_nothing():
    code = "import sys, mixln, transformers, mixln.hosts; print('transformers.models.qwen2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_result_of_a_comparison_is_zero_where_all_is_equal():
    assert verify(host_of("qwen2")) == Verification(difference=0.0, failure="")


def test_stored_result_of_a_comparison_depends_on_the_code_of_every_room_below():
    package = Path(mixln.__file__).parent
    assert {path.relative_to(package).as_posix() for path in _sources()} >= {
        "hosts/families/__init__.py", "hosts/derive.py", "nn/residual.py", "placement/zoo.py",
    }  # fmt: skip


def test_a_comparison_depends_on_no_setting_of_the_caller():
    state = torch.random.get_rng_state()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"), torch.no_grad(), torch.autocast("cpu"):
            found = verify(host_of("qwen2"))
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == Verification(difference=0.0, failure="")
    assert torch.equal(torch.random.get_rng_state(), state)
