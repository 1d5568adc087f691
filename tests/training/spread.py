"""What the processes that torchrun starts look at in the tests while they hold a share of a model each."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, set_seed

from mixln.hosts import build
from mixln.quiet import quiet
from mixln.training import ranks
from mixln.training.sharding import shard
from tests.hosts.families import config_of
from tests.tiny import randomise_gains, tokens


def rounding(family: str, placement: str) -> None:
    """In bfloat16 a model that is shared out has the hidden states, logits and gradients of one that is not."""
    plain, spread = (_model(family, placement) for _ in range(2))
    shard(spread, torch.device("cpu"), bfloat16=True)
    assert all(isinstance(parameter, DTensor) for parameter in spread.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = [model(input_ids=tokens(), output_hidden_states=True).hidden_states for model in (plain, spread)]
    torch.testing.assert_close(states[1], states[0])
    logits, gradients = _pass(plain)
    spread_logits, spread_gradients = _pass(spread)
    torch.testing.assert_close(spread_logits, logits, rtol=0, atol=0)
    for name, gradient in gradients.items():
        error = (spread_gradients[name] - gradient).norm() / gradient.norm()
        assert error < 1e-6, (
            f"{family}, {placement}: gradient of {name} is off by {error:.1e}"
        )  # bfloat16 would be by 1e-3


def _model(family: str, placement: str) -> PreTrainedModel:
    set_seed(0)
    model = build(config_of(family), placement=placement, init="normal", dtype=torch.float32)
    randomise_gains(model)
    return model.eval()


def _pass(model: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor]]:
    ids = tokens()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=ids, labels=ids)
    found.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return found.logits.detach(), {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in gradients.items()
        if value is not None
    }


if __name__ == "__main__":
    ranks.meet()
    with quiet():
        for case in sys.argv[1:]:
            rounding(*case.split(":"))
    ranks.part()
