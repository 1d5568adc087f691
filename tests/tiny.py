"""Tiny models, shared by the tests. Three layers, because of the mixture that names three."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

import mixln
from mixln.placement import ZOO

EVERY = (
    *ZOO, "mix(0.5)", "qknorm+pre", "qkvnorm+post", "group(4)+mix(0.5)", "post*1,pre*2", "norm(qkvc,full)+post", "dyt+pre",
    "gpas+mix(0.5)", "layerscale+pre", "hybrid(pre-kv-post)", "hybrid(post-pre)", "multiplier+pre",
    "gated+sub-ln", "gated(head)+pre", "prores+mix(0.5)", "x0+mix(0.5)", "derf+pre", "bhyt+post", "hc(2,static)", "attnres(3,normed)",
    "vres+mix(0.5)", "vres+x0+qkvnorm+pre", "vres+dlcl",
)  # fmt: skip
"""Every placement of the zoo, and some that are put together."""


SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "eos_token_id": None,
}


def tiny_config(**changes: Any) -> LlamaConfig:
    """Grouped-query attention, weights large enough that every branch shows, no token that ends a generation."""
    return LlamaConfig(**{**SIZES, **changes})


def placed(
    placement: Any,
    *,
    seed: int = 0,
    gains: bool = True,
    init: str | None = None,
    stochastic_depth: float = 0.0,
    **changes: Any,
) -> Any:
    """A placed model in evaluation mode.

    :param gains: draw the norms' gains from [0.5, 1.5], so that a misplaced norm shows; else they are 1.
    """
    torch.manual_seed(seed)
    model = mixln.from_config(
        tiny_config(**changes), placement=placement, init=init, stochastic_depth=stochastic_depth
    ).eval()
    if gains:
        randomise_gains(model)
        mixln.set_step(model, 1500)  # with `prores`, the first of three layers is whole, the last at half
    return model


@torch.no_grad()
def randomise_gains(model: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if name.endswith(".maps.bias"):  # of both signs, or the streams would grow alike
            parameter.uniform_(-1.0, 1.0, generator=generator)
        elif parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5, generator=generator)
            if (
                "query_scale" in name
            ):  # squared in the softmax: around its start, 1/√D, or rounding would show in the logits
                parameter /= model.config.hidden_size**0.5
        elif ".maps." in name:  # of the maps between streams, which start near zero or at it
            parameter.normal_(std=0.1, generator=generator)


def tokens(batch: int = 2, length: int = 7, *, seed: int = 1) -> Tensor:
    return torch.randint(3, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    return model(input_ids=ids, **inputs).logits


def gradients(model: Any, ids: Tensor, **inputs: Any) -> dict[str, Tensor]:
    """Of the language-model loss, by parameter name."""
    model.zero_grad()
    model(input_ids=ids, labels=ids, **inputs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
