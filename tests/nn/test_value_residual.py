"""The values of the first layer in every later one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CONFIG_MAPPING

import mixln
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.jacobian import jacobian
from mixln.diagnostics.measures import TokenLoss
from mixln.diagnostics.prune import prune
from mixln.diagnostics.residual import residual_stream
from mixln.diagnostics.stack import find_stack, recording
from mixln.errors import PlacementError, SettingsError
from mixln.hosts import HOSTS
from mixln.hosts.shrunken import shrunken
from tests.hosts.families import config_of, inputs_of
from tests.reference.equations import A_IN, F_IN, A_of_values, F, FirstValues, norm, rms
from tests.tiny import gradients, logits, placed, tiny_config, tokens

SEPARATE = [name for name in HOSTS if name != "gpt2"]
"""Families whose value projection is a module of its own."""


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in model.named_parameters()}


def by_hand(model: Any, ids: Tensor, layers: tuple[int, ...]) -> Tensor:
    """The logits of Pre-LN with a value residual that has only some of its layers; v₁ are the values of the first of them."""
    w, first = weights(model), FirstValues()
    x = w["model.embed_tokens.weight"][ids]
    for l in layers:  # noqa: E741
        x = x + A_of_values(w, l, norm(w, l, A_IN, x), first)
        x = x + F(w, l, norm(w, l, F_IN, x))
    return (w["model.norm.weight"] * rms(x)) @ w["lm_head.weight"].T


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_that_run_again_for_the_backward_pass_read_the_values_of_their_own_forward_pass(reentrant):
    """Two forward passes before one backward pass: an attribute would hold the values of the second."""
    model = placed("vres+pre").train()
    texts = tokens(seed=1), tokens(seed=2)

    def of_both() -> dict[str, Tensor]:
        model.zero_grad()
        sum(model(ids, labels=ids, use_cache=False).loss for ids in texts).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = of_both()
    # Named after gradients in transformers 5.17 and before.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    actual = of_both()
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def test_two_threads_may_run_one_model_at_once():
    """Both wait for each other between the first layer and the second."""
    model, both = placed("vres+pre"), threading.Barrier(2)
    texts = tokens(seed=1), tokens(seed=2)
    expected = [logits(model, ids) for ids in texts]

    def wait(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        both.wait(timeout=60)

    model.model.layers[0].register_forward_hook(wait)
    actual: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda i=i: actual.update({i: logits(model, texts[i])})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(actual[index], expected[index]) for index in (0, 1))


@pytest.mark.parametrize("name", SEPARATE)
def test_without_the_first_values_it_is_the_placement(name):
    models = [mixln.from_config(config_of(name), placement=text).eval() for text in ("pre", "vres(1,0)+pre")]
    given = {key: value for key, value in inputs_of(name).items() if key != "labels"}
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    with torch.no_grad():
        plain, mixed = (model(**given).logits for model in models)
    assert torch.equal(plain, mixed)


def test_scalars_start_at_a_half_or_as_told_in_all_layers_but_the_first():
    def starts(text: str) -> list[tuple[float, float] | None]:
        layers = mixln.from_config(tiny_config(), placement=text).model.layers
        return [layer.value_mix and (layer.value_mix.keep.item(), layer.value_mix.add.item()) for layer in layers]

    assert starts("vres+pre") == [None, (0.5, 0.5), (0.5, 0.5)]
    assert starts("vres(0.25,2)+pre") == [None, (0.25, 2.0), (0.25, 2.0)]


def test_the_cache_holds_the_mixed_values():
    model, ids = placed("vres+pre"), tokens(length=5)
    projected: list[Tensor] = []
    for layer in model.model.layers:
        layer.self_attn.v_proj.register_forward_hook(lambda module, inputs, output: projected.append(output))
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
    mix = model.model.layers[2].value_mix
    mixed = mix.keep * projected[2] + mix.add * projected[0]
    assert len(projected) == 3, "every value projection runs once"
    torch.testing.assert_close(cache.layers[2].values.transpose(1, 2).flatten(2), mixed)


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_layer_less_is_a_model_without_it(removed):
    model, ids = placed("vres+pre"), tokens()
    kept = tuple(index for index in range(3) if index != removed)
    expected = by_hand(model, ids, kept)
    torch.testing.assert_close(logits(model, ids).double(), by_hand(model, ids, (0, 1, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        logits(prune(find_stack(model), {removed + 1}), ids).double(), expected, rtol=1e-4, atol=1e-4
    )
    found = performance_drop(find_stack(model), [{"input_ids": ids, "labels": ids}], TokenLoss(shift=1))
    loss = functional.cross_entropy(expected[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()
    assert found.skipped[removed].value == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("placement", ["vres+mhc", "vres+attnres", "vres+x0+b2t"])
def test_the_stream_is_measured_without_the_values_beside_it(placement):
    model, ids = placed(placement), tokens()
    found = residual_stream(find_stack(model), [{"input_ids": ids}])
    ends: list[Tensor] = []
    model.model.norm.register_forward_pre_hook(lambda module, inputs: ends.append(inputs[0]))
    with torch.no_grad():
        states = model.model(ids, output_hidden_states=True).hidden_states
    norms = [state.norm(dim=-1).mean().item() for state in (*states[1:-1], *ends)]
    assert found.norm.feed_forward == pytest.approx(norms, rel=1e-5)


def test_the_jacobian_is_that_of_the_stream_with_the_values_fixed():
    stack, ids = find_stack(placed("vres+pre")), tokens()
    found = jacobian(stack, {"input_ids": ids}, iterations=400, tolerance=1e-5)
    with torch.no_grad(), recording(stack, {"input_ids": ids}) as record:
        stack.run({"input_ids": ids})
    for index in range(3):
        state, sizes = record.states[index], []
        for row in range(2):

            def stream(token: Tensor, row: int = row, state: Tensor = state, index: int = index) -> Tensor:
                changed = state.clone()
                changed[row, -1, -32:] = token
                return record.advance(index, changed)[row, -1, -32:]

            whole = torch.autograd.functional.jacobian(stream, state[row, -1, -32:]).double()
            sizes.append(torch.linalg.svdvals(whole)[0].item())
        assert found.largest[index] == pytest.approx(sum(sizes) / 2, rel=5e-3)


def test_under_autocast_the_values_have_the_type_of_the_keys():
    model = placed("vres+pre")
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
    assert {layer.values.dtype for layer in cache.layers} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", r"^a value residual cannot be placed in gpt2: not every layer has a value projection of its own"),
        ("deepseek_v3", r"^a value residual cannot be placed in deepseek_v3: not every layer has a value projection"),
    ],
)
def test_families_without_a_value_projection_are_refused(family, reason):
    with pytest.raises(PlacementError, match=reason):
        mixln.from_config(shrunken(CONFIG_MAPPING[family]), placement="vres+pre")


def test_values_that_are_not_as_wide_as_the_heads_are_refused():
    config = tiny_config(head_dim=8)
    model = mixln.from_config(config, placement="vres+pre")
    with pytest.raises(SettingsError, match=r"^v_proj of llama has 16 features for value, but 2 heads of head_dim 16"):
        model.host._values(model.model.layers[0].self_attn, tiny_config(head_dim=16))
    assert gradients(model, tokens())
