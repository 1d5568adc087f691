"""The peak of memory of one training step on one device, found by running the step on tensors without data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask, sliding_window_causal_mask_function

from mixln.compat import checkpoint_activations
from mixln.hosts import build
from mixln.nn.loss import without_logits
from mixln.planning.flops import head_of
from mixln.planning.live import ACTIVATIONS, GRADIENTS, IN_FLIGHT, LOGITS, WEIGHT_COPIES, LiveMemory
from mixln.planning.settings import PlanSettings
from mixln.quiet import quiet
from mixln.training.sharding import shard

FLOAT32 = 4
"""Bytes of one weight, and of each of AdamW's two moments."""

ATTENTION = "mixln_plan"
"""Name of the attention of a model without data: the usual one of torch, and the mask that real tokens would get."""


def _mask(*, kv_length: int, local_size: int | None = None, **arguments: Any) -> Tensor | None:
    """None, as for whole sequences, but where a sliding window is narrower than they are.

    transformers looks for several documents in one sequence in the values of the positions, and takes tensors without values
    for such: it would then make a mask for each layer, and real training makes none.
    """
    if local_size is None or kv_length < local_size:
        return None
    window = sliding_window_causal_mask_function(local_size)
    return sdpa_mask(kv_length=kv_length, local_size=local_size, **{**arguments, "mask_function": window})


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, _mask)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device.

    :param weights: its float32 weights.
    :param moments: AdamW's two moments of them.
    :param buckets: DDP's second copy of the gradients, in which they travel.
    :param gradients: of all weights, before the update.
    :param step: kind → bytes at the moment of the forward and backward pass when they need most, with the gradients so far.
    :param highest: kind → most bytes at any moment of the forward and backward pass.
    """

    weights: int
    moments: int
    buckets: int
    gradients: int
    step: dict[str, int]
    highest: dict[str, int]

    @property
    def resident(self) -> int:
        """What is there at every moment."""
        return self.weights + self.moments + self.buckets

    @property
    def passing(self) -> int:
        """Most that the forward and backward pass need."""
        return self.resident + sum(self.step.values())

    @property
    def updating(self) -> int:
        """What the update needs."""
        return self.resident + self.gradients

    @property
    def total(self) -> int:
        """The peak."""
        return max(self.passing, self.updating)

    def parts(self) -> dict[str, tuple[int, int]]:
        """Name → (bytes at the peak, most bytes at any moment); the first ones add up to the total."""
        passes = self.passing > self.updating
        parts = {"weights": self.weights, "AdamW moments": self.moments, "DDP buckets": self.buckets}
        both = {name: (size, size) for name, size in parts.items()}
        gradients = self.step.get(GRADIENTS, 0) if passes else self.gradients
        both[GRADIENTS] = (gradients, max(self.gradients, self.highest.get(GRADIENTS, 0)))
        for kind in (ACTIVATIONS, LOGITS, WEIGHT_COPIES, IN_FLIGHT):
            both[kind] = (self.step.get(kind, 0) if passes else 0, self.highest.get(kind, 0))
        return {name: sizes for name, sizes in both.items() if sizes[1]}


def fake_model(config: PreTrainedConfig, settings: PlanSettings) -> PreTrainedModel:
    """The placed model without data in its weights; call it, and use what it gives, inside a `FakeTensorMode`."""
    with no_init_weights():
        model = build(
            config, placement=settings.placement, init=None, dtype=torch.float32, attn_implementation=ATTENTION
        )
    model.tie_weights()  # a part of the initialisation that matters here
    model.config.use_cache = False  # as the Trainer does
    return model.train()


def measure(config: PreTrainedConfig, settings: PlanSettings) -> Memory:
    """The memory of one device, in the second step or a later one: the first has no moments yet.

    :param config: stock config of the model.
    """
    shards = settings.devices if settings.sharded else 1
    with quiet(), _devices(settings) as mesh, FakeTensorMode():
        model = fake_model(config, settings)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if mesh is not None:
            shard(model, torch.device("cpu"), bfloat16=settings.precision == "bfloat16", mesh=mesh)
        step, highest = run_step(model, settings, accumulated=settings.accumulation > 1)
    share = -(-parameters * FLOAT32 // shards)
    return Memory(
        weights=share,
        moments=2 * share,
        buckets=share if settings.devices > 1 and not settings.sharded else 0,
        gradients=share,
        step=step,
        highest=highest,
    )


@contextmanager
def _devices(settings: PlanSettings) -> Iterator[DeviceMesh | None]:
    """The devices that share out a model, of which this process is the first and the others are not there; else `None`."""
    if not settings.sharded:
        yield None
        return
    distributed.init_process_group("fake", rank=0, world_size=settings.devices, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (settings.devices,))
    finally:
        distributed.destroy_process_group()


def run_step(
    model: PreTrainedModel, settings: PlanSettings, *, accumulated: bool = False
) -> tuple[dict[str, int], dict[str, int]]:
    """Runs one forward and backward pass as transformers' Trainer does, and counts: kind → bytes when the sum is largest,
    and kind → most bytes at any moment.

    :param accumulated: gradients of earlier micro batches are there.
    """
    if settings.activation_checkpointing:
        checkpoint_activations(model)
    live = LiveMemory(model)
    with live:
        if accumulated:
            live.kind = GRADIENTS
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
                live.complete(parameter)
            live.kind = ACTIVATIONS
        _name_head(model, live)
        loss = _loss(model, settings)
        loss.backward()
    step, highest = ({kind: size for kind, size in found.items() if size} for found in (live.peak, live.highest))
    return step, highest


def _loss(model: PreTrainedModel, settings: PlanSettings) -> Tensor:
    """What `Trainer.compute_loss` gives: its sums are over the tokens of the whole update, and outputs become float32."""
    tokens = torch.zeros(settings.micro_batch, settings.sequence_length, dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": tokens, "labels": tokens, "num_items_in_batch": torch.tensor(tokens.numel())}
    if model.config.to_dict().get("router_aux_loss_coef"):
        inputs["output_router_logits"] = True
    forward: Any = model.__call__  # with the hooks of FSDP2
    if settings.precision == "bfloat16":
        forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(forward))
    with without_logits(model):
        return forward(**inputs).loss


def _name_head(model: PreTrainedModel, live: LiveMemory) -> None:
    """What is made from the head on, and in the backward pass until it is through the head, is for logits and loss."""

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        live.kind = LOGITS
        inputs[0].register_hook(leave)

    def leave(gradient: Tensor) -> None:
        live.kind = ACTIVATIONS

    head_of(model).register_forward_pre_hook(enter)
