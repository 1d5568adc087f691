"""Trials of one placement as one model: their weights are stacked, and every product of N trials is one batched product.

    python benchmarks/stacked.py                 # the default comparison's model on a processor
    python benchmarks/gpu.py                     # among others, this on a GPU

Compares steps of N stacked trials, each with its seed and learning rate, with steps of the same trials one after the other. The numbers
are those of separate trials up to rounding (`tests/test_benchmarks.py`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, PreTrainedModel

import mixln
from mixln.presets import model_config
from mixln.training.private_methods import each_row_one_sequence

BETA1, BETA2, EPSILON, DECAY, CLIP = 0.9, 0.95, 1e-8, 0.1, 1.0


class StackedTrials:
    """N models of one shape that train together. Adam's moments, the learning rates and the clipped norms are of each trial.

    :param models: on one device; their weights are copied.
    :param rates: learning rate of each.
    """

    def __init__(self, models: Sequence[PreTrainedModel], rates: Sequence[float]) -> None:
        self.weights, self.buffers = stack_module_state(list(models))  # type: ignore[arg-type]
        self.base = models[0]
        some = next(iter(self.weights.values()))
        self.rates = torch.tensor(rates, device=some.device)
        self.first = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.second = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.steps = 0

    def losses(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the next token of every trial, (N,), of their own tokens (N, B, T)."""

        def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], tokens: Tensor) -> Tensor:
            inputs = {"input_ids": tokens, "labels": tokens, "use_cache": False}
            return functional_call(self.base, (weights, buffers), (), inputs).loss

        # Inside vmap, fused attention runs trial by trial on a processor, and on a GPU it does not keep what its backward pass needs.
        with each_row_one_sequence(), sdpa_kernel(SDPBackend.MATH):
            return vmap(loss, randomness="different")(self.weights, self.buffers, tokens)

    def step(self, tokens: Tensor) -> Tensor:
        """One optimizer step of every trial; returns the losses before it, (N,)."""
        losses = self.losses(tokens)
        losses.sum().backward()  # no trial's loss depends on another's weights
        self.update()
        return losses.detach()

    @torch.no_grad()
    def update(self) -> None:
        """AdamW with decoupled weight decay on matrices, after each trial's gradient is clipped to norm :data:`CLIP`."""
        self.steps += 1
        gradients = {name: weight.grad for name, weight in self.weights.items() if weight.grad is not None}
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        shares = (CLIP / (norms + 1e-6)).clamp(max=1.0)
        for name, gradient in gradients.items():
            weight, shape = self.weights[name], (-1,) + (1,) * (gradient.ndim - 1)
            gradient = gradient * shares.view(shape)
            self.first[name].lerp_(gradient, 1 - BETA1)
            self.second[name].mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            rates = self.rates.view(shape)
            if weight.ndim > 2:
                weight.mul_(1 - rates * DECAY)
            size = (self.second[name] / (1 - BETA2**self.steps)).sqrt_().add_(EPSILON)
            weight.sub_(rates / (1 - BETA1**self.steps) * self.first[name] / size)
            self.weights[name].grad = None


class SeparateTrials:
    """The same trials, trained one after the other with torch's fused AdamW."""

    def __init__(self, models: Sequence[PreTrainedModel], rates: Sequence[float]) -> None:
        self.models = models
        self.optimizers = [
            torch.optim.AdamW(
                [
                    {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
                    {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
                ],
                lr=rate,
                betas=(BETA1, BETA2),
                eps=EPSILON,
                fused=True,
            )
            for model, rate in zip(models, rates, strict=True)
        ]

    def step(self, tokens: Tensor) -> Tensor:
        losses = []
        with each_row_one_sequence():
            for model, optimizer, own in zip(self.models, self.optimizers, tokens, strict=True):
                loss = model(input_ids=own, labels=own, use_cache=False).loss
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
        return torch.stack(losses)


def trials(config: LlamaConfig, placement: str, count: int, device: str) -> list[PreTrainedModel]:
    """Placed models from seeds 0, 1, …"""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(mixln.from_config(config, placement=placement).to(device).train())
    return made


def seconds(step: Callable[[Tensor], Tensor], tokens: Tensor) -> float:
    """Wall time of one step, in seconds, until its losses are on the processor."""
    began = time.perf_counter()
    step(tokens).sum().item()
    return time.perf_counter() - began


def compared(
    config: LlamaConfig, placement: str, count: int, *, batch: int, length: int, device: str, repeats: int
) -> float:
    """Speedup of stacked over separate trials: the median ratio of their step times. The steps alternate."""
    rates = [1e-3 * (1 + index) for index in range(count)]
    tokens = torch.randint(config.vocab_size, (count, batch, length), generator=torch.Generator().manual_seed(0)).to(
        device
    )
    stacked = StackedTrials(trials(config, placement, count, device), rates)
    separate = SeparateTrials(trials(config, placement, count, device), rates)
    ratios = []
    for repeat in range(repeats + 2):
        apart, together = seconds(separate.step, tokens), seconds(stacked.step, tokens)
        if repeat >= 2:
            ratios.append(apart / together)
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--trials", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--placements", nargs="+", default=["pre", "mix(0.25)"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    config = model_config(chosen.model, sequence_length=chosen.length)
    sizes = {"batch": chosen.batch, "length": chosen.length, "device": chosen.device, "repeats": chosen.repeats}
    for placement in chosen.placements:
        for count in chosen.trials:
            ratio = compared(config, placement, count, **sizes)
            print(f"{placement}, {count} trials: stacked steps are {ratio:.2f} times as fast as separate ones")


if __name__ == "__main__":
    main()
