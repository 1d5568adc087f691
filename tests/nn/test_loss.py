"""The loss without logits is the loss with them: in every family, with its gradients, and no tensor is as large as all logits."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

import mixln
from mixln.hosts import HOSTS
from mixln.nn import loss as loss_module
from mixln.nn.loss import causal_loss, without_logits
from tests import small
from tests.hosts.families import config_of

FAMILIES = [name for name, host in HOSTS.items() if "causal-lm" in host.heads]
IGNORED = -100


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(loss_module, "ROWS", 7)


def batch(vocabulary: int) -> dict[str, torch.Tensor]:
    """5 × 11 tokens, of which some are not predicted, and of one row none."""
    tokens = torch.randint(0, vocabulary, (5, 11), generator=torch.Generator().manual_seed(1))
    labels = tokens.clone()
    labels[0, :4] = labels[2, 6:] = labels[3] = IGNORED
    return {"input_ids": tokens, "labels": labels}


def found(model, inputs, *, without: bool, autocast: bool = False, **more):
    """The loss, the gradients and whether logits came out."""
    model.zero_grad()
    with (
        without_logits(model) if without else contextlib.nullcontext(),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        outputs = model(**inputs, **more)
    outputs.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return outputs.loss.detach(), gradients, outputs.logits.shape[-1] == model.config.vocab_size


def distance(gradients, others) -> float:
    """Of two sets of gradients, relative to the second."""
    assert gradients.keys() == others.keys()
    apart = sum((gradients[name] - others[name]).double().pow(2).sum() for name in others)
    return (apart / sum(gradient.double().pow(2).sum() for gradient in others.values())).sqrt().item()


@pytest.mark.parametrize("more", [{}, {"num_items_in_batch": 13}], ids=["mean", "of an update"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_family(family, more):
    torch.manual_seed(0)
    for model in (
        mixln.from_config(config_of(family), placement="mix(0.5)"),
        AutoModelForCausalLM.from_config(config_of(family)),
    ):
        model.eval()  # without dropout
        inputs = batch(model.config.vocab_size)
        usual, gradients, logits = found(model, inputs, without=False, **more)
        chunked, others, still = found(model, inputs, without=True, **more)
        assert (logits, still) == (True, False)
        assert chunked.item() == pytest.approx(usual.item(), rel=2e-6)
        assert distance(others, gradients) < 2e-6


def test_a_mixtures_balance_is_still_added():
    torch.manual_seed(0)
    model = mixln.from_config(config_of("olmoe"), placement="pre").eval()
    inputs = {**batch(model.config.vocab_size), "output_router_logits": True}
    losses = [found(model, inputs, without=without)[0].item() for without in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-6)
    assert losses[1] > found(model, batch(model.config.vocab_size), without=True)[0].item()


def test_under_autocast_it_is_as_near_to_float32_as_the_usual_loss():
    torch.manual_seed(0)
    model = mixln.from_config(small.config(initializer_range=0.3), placement="pre")
    inputs = batch(model.config.vocab_size)
    exact, gradients, _ = found(model, inputs, without=False)
    usual, usual_gradients, _ = found(model, inputs, without=False, autocast=True)
    chunked, chunked_gradients, _ = found(model, inputs, without=True, autocast=True)
    assert chunked.dtype == torch.float32
    assert chunked.item() == pytest.approx(usual.item(), rel=1e-6)
    assert chunked.item() != exact.item()  # it does multiply in bfloat16
    assert distance(chunked_gradients, gradients) < 1.1 * distance(usual_gradients, gradients)


def test_soft_capped_logits_are_left_to_the_family():
    config = config_of("gemma3_text")
    config.final_logit_softcapping = 5.0
    model = mixln.from_config(config, placement="pre").eval()
    inputs = batch(model.config.vocab_size)
    results = [found(model, inputs, without=without) for without in (False, True)]
    assert results[0][0] == results[1][0]
    assert results[1][2]


def test_afterwards_the_model_is_as_before():
    model = mixln.from_config(small.config(), placement="pre").eval()
    inputs = batch(model.config.vocab_size)
    before = model(**inputs)
    with pytest.raises(RuntimeError, match="on purpose"), without_logits(model):
        raise RuntimeError("on purpose")
    after = model(**inputs)
    assert torch.equal(before.logits, after.logits)
    assert before.loss == after.loss


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation makes, and the number of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.products += func.name() == "aten::mm"
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("without", [False, True])
def test_no_tensor_is_as_large_as_all_logits(without):
    model = mixln.from_config(small.config(vocab_size=3000), placement="pre")
    inputs = batch(3000)
    with Largest() as largest:
        found(model, inputs, without=without)
    weights = max(weight.numel() for weight in model.parameters())
    assert (largest.elements <= weights) is without


def test_an_evaluation_makes_no_gradients():
    head = nn.Linear(8, 40, bias=False)
    states = torch.randn(1, 14, 8, requires_grad=True)
    labels = torch.randint(0, 40, (1, 14))  # of 7 rows at a time, two parts
    with Largest() as learning:
        learnt = causal_loss(states, head, labels)
    with Largest() as evaluating, torch.no_grad():
        assert causal_loss(states, head, labels) == learnt
    with Largest() as frozen:
        causal_loss(states, head.requires_grad_(False), labels).backward()
    assert (learning.products, evaluating.products, frozen.products) == (6, 2, 4)
    assert head.weight.grad is None
    assert states.grad.abs().sum() > 0


def test_a_position_that_is_not_predicted_may_hold_anything():
    head = nn.Linear(8, 40, bias=False)
    states, labels = torch.randn(1, 14, 8), torch.randint(0, 40, (1, 14))
    labels[0, 6] = IGNORED
    expected = causal_loss(states, head, labels)
    expected.backward()
    gradient, head.weight.grad = head.weight.grad, None
    states[0, 5] = torch.nan  # what predicts it
    found = causal_loss(states, head, labels)
    found.backward()
    assert found == expected
    assert torch.equal(head.weight.grad, gradient)


def test_it_may_be_used_within_itself_and_gives_back_a_loss_of_the_models_own():
    model = mixln.from_config(small.config(), placement="pre")
    model.loss_function = own = lambda *_, **__: torch.zeros(())
    with without_logits(model):
        with without_logits(model):
            pass
        assert model(**batch(300)).loss > 0
    assert model.loss_function is own
    assert model(**batch(300)).loss == 0
