"""Compiled layers train to the same numbers, in one graph a kind of layer, and only where that pays."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import GPT2Config

import mixln
from mixln.errors import SettingsError
from mixln.nn.residual import placed_layers
from mixln.training.compiling import LEAST_STEPS, compile_layers, obstacle
from tests import small

pytestmark = [
    pytest.mark.long,
    # torch's compiler imports what torch itself has deprecated, and looks at the gradients of all inputs of a graph.
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    if reason := obstacle("cpu"):
        pytest.skip(f"torch.compile does not work here: {reason}")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return small.prepared(tmp_path_factory.mktemp("text"))


@pytest.fixture
def graphs():
    """What torch's compiler counts."""
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()


def same(compiled, eager) -> None:
    for found, expected in (
        (compiled.train_curve, eager.train_curve),
        (compiled.eval_curve, eager.eval_curve),
    ):
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=2e-5)
    for found, expected in zip(compiled.residual_variance, eager.residual_variance, strict=True):
        assert found.attention == pytest.approx(expected.attention, rel=2e-4)
        assert found.feed_forward == pytest.approx(expected.feed_forward, rel=2e-4)
    for found, expected in zip(compiled.gradient_norms, eager.gradient_norms, strict=True):
        assert found.attention == pytest.approx(expected.attention, rel=2e-4)
        assert found.feed_forward == pytest.approx(expected.feed_forward, rel=2e-4)


@pytest.mark.parametrize(
    ("placement", "kinds"),
    [
        ("mix(0.5)", 2),
        pytest.param("hybrid*", 2, marks=pytest.mark.slow),
        pytest.param("lns", 2, marks=pytest.mark.slow),
    ],
)
def test_the_numbers_are_those_of_uncompiled_layers(text, tmp_path, graphs, placement, kinds):
    model = small.config(num_hidden_layers=4)
    steps = {"steps": 30, "evaluations": 3, "model": model}
    eager = small.train(text, tmp_path / "eager", placement, **steps)
    assert graphs["stats"]["unique_graphs"] == 0
    compiled = small.train(text, tmp_path / "compiled", placement, compile="on", **steps)
    same(compiled, eager)
    assert (compiled.compiled, eager.compiled) == (True, False)
    assert graphs["stats"]["unique_graphs"] == kinds  # evaluations and records have none of their own
    assert not graphs["graph_break"]


def test_a_second_training_of_the_process_compiles_nothing(text, tmp_path, graphs):
    small.train(text, tmp_path / "a", compile="on")
    compiled = graphs["stats"]["unique_graphs"]
    assert compiled == 1
    small.train(text, tmp_path / "b", compile="on", seed=1)
    assert graphs["stats"]["unique_graphs"] == compiled


def compiled_layers(wish: str, *, device: str = "cpu", placement: str = "pre", **how) -> bool:
    model = mixln.from_config(small.config(), placement=placement)
    done = compile_layers(model, wish, device=device, **how)  # type: ignore[arg-type]
    assert {layer._compiled_call_impl is not None for layer in placed_layers(model)} == {done}
    return done


def test_short_trainings_are_not_compiled_unless_asked():
    assert not compiled_layers("auto", steps=LEAST_STEPS["cpu"] - 1, sharded=False)
    assert compiled_layers("auto", steps=LEAST_STEPS["cpu"], sharded=False)
    assert compiled_layers("on", steps=1, sharded=False)
    assert not compiled_layers("off", steps=10**6, sharded=False)
    assert not compiled_layers("auto", steps=10**6, sharded=True)


def test_other_devices_have_other_thresholds_or_are_not_compiled(monkeypatch):
    monkeypatch.setattr("mixln.training.compiling.obstacle", lambda device: "")
    assert not compiled_layers("auto", device="cuda", steps=LEAST_STEPS["cuda"] - 1, sharded=False)
    assert compiled_layers("auto", device="cuda", steps=LEAST_STEPS["cuda"], sharded=False)
    assert not compiled_layers("auto", device="mps", steps=10**6, sharded=False)
    assert compiled_layers("on", device="mps", steps=1, sharded=False)


def test_a_graph_for_each_layer_is_not_worth_it():
    assert not compiled_layers("auto", placement="dlcl", steps=10**6, sharded=False)
    assert compiled_layers("on", placement="dlcl", steps=1, sharded=False)


def test_dropout_draws_what_it_draws_uncompiled(text, tmp_path, graphs):
    model = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=32, n_layer=4, n_head=4
    )  # dropout 0.1, the family's default
    eager = small.train(text, tmp_path / "eager", model=model, steps=10)
    compiled = small.train(text, tmp_path / "compiled", model=model, steps=10, compile="on")
    same(compiled, eager)
    assert graphs["stats"]["unique_graphs"] == 1


def test_without_a_compiler_auto_does_without(monkeypatch):
    monkeypatch.setattr("mixln.training.compiling.obstacle", lambda device: "InvalidCxxCompiler")
    assert not compiled_layers("auto", steps=LEAST_STEPS["cpu"], sharded=False)
    with pytest.raises(SettingsError, match=r"torch\.compile does not work here \(InvalidCxxCompiler\)"):
        compiled_layers("on", steps=1, sharded=False)
