"""Peak memory of a training step on one device, measured by running the step on fake tensors, which hold no data."""

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
"""Name of the attention implementation for fake tensors: SDPA, with the mask that real tokens would get."""


def _mask(*, kv_length: int, local_size: int | None = None, **arguments: Any) -> Tensor | None:
    """No mask, as for sequences without padding, unless a sliding window is shorter than the sequence.

    transformers detects packed documents from the values of the positions. Fake tensors have no values, so it would assume packing
    and build a mask for every layer, which real training does not.
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

    :param weights: float32 weights.
    :param moments: AdamW's two moments.
    :param buckets: DDP's communication buckets, a second copy of the gradients.
    :param gradients: gradients of all weights, before the update.
    :param step: kind → bytes at the peak of the forward and backward pass, including the gradients computed so far.
    :param highest: kind → largest number of bytes at any moment of the forward and backward pass.
    """

    weights: int
    moments: int
    buckets: int
    gradients: int
    step: dict[str, int]
    highest: dict[str, int]

    @property
    def resident(self) -> int:
        """Memory in use at all times."""
        return self.weights + self.moments + self.buckets

    @property
    def passing(self) -> int:
        """Peak of the forward and backward pass."""
        return self.resident + sum(self.step.values())

    @property
    def updating(self) -> int:
        """Memory during the optimizer update."""
        return self.resident + self.gradients

    @property
    def total(self) -> int:
        """Peak of the whole step."""
        return max(self.passing, self.updating)

    def parts(self) -> dict[str, tuple[int, int]]:
        """Name → (bytes at the peak, largest number of bytes at any moment). The bytes at the peak add up to :attr:`total`."""
        passes = self.passing > self.updating
        parts = {"weights": self.weights, "AdamW moments": self.moments, "DDP buckets": self.buckets}
        both = {name: (size, size) for name, size in parts.items()}
        gradients = self.step.get(GRADIENTS, 0) if passes else self.gradients
        both[GRADIENTS] = (gradients, max(self.gradients, self.highest.get(GRADIENTS, 0)))
        for kind in (ACTIVATIONS, LOGITS, WEIGHT_COPIES, IN_FLIGHT):
            both[kind] = (self.step.get(kind, 0) if passes else 0, self.highest.get(kind, 0))
        return {name: sizes for name, sizes in both.items() if sizes[1]}


def fake_model(config: PreTrainedConfig, settings: PlanSettings) -> PreTrainedModel:
    """The placed model on fake tensors. Call it, and use its outputs, inside a `FakeTensorMode`."""
    with no_init_weights():
        model = build(
            config, placement=settings.placement, init=None, dtype=torch.float32, attn_implementation=ATTENTION
        )
    model.tie_weights()  # no_init_weights skips it, and untied weights would be counted twice
    model.config.use_cache = False  # as the Trainer sets it
    return model.train()


MEASURED: dict[tuple[Any, ...], Memory] = {}
"""Results of :func:`measure` in this process. The key holds everything that they depend on. A search for a remedy and the plan of that
remedy ask for the same steps, and so do most runs of a recipe."""


def measure(config: PreTrainedConfig, settings: PlanSettings) -> Memory:
    """The memory of one device in the second or any later step. The first step has no moments yet.

    :param config: stock config of the model.
    """
    key = (
        config.to_json_string(use_diff=False),
        settings.placement,
        settings.micro_batch,
        settings.sequence_length,
        settings.accumulation > 1,
        settings.devices,
        settings.parallel,
        settings.activation_checkpointing,
        settings.precision,
    )
    if key not in MEASURED:
        MEASURED[key] = _measure(config, settings)
    return MEASURED[key]


def _measure(config: PreTrainedConfig, settings: PlanSettings) -> Memory:
    shards = settings.devices if settings.sharded else 1
    with quiet(), _devices(settings) as mesh, FakeTensorMode():
        model = fake_model(config, settings)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if mesh is not None:
            shard(model, torch.device("cpu"), bfloat16=settings.precision == "bfloat16", mesh=mesh)
        step, highest = run_step(model, settings, accumulated=settings.accumulation > 1)
    share = -(-parameters * FLOAT32 // shards)  # rounded up
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
    """The mesh of devices that shard the model, with this process as rank 0 and no others running; `None` without sharding."""
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
    """Runs one forward and backward pass as transformers' Trainer does, and tracks its memory.

    :param accumulated: whether gradients of earlier micro-batches exist.
    :returns: kind → bytes at the peak, and kind → largest number of bytes at any moment.
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
    step, highest = ({kind: size for kind, size in sizes.items() if size} for sizes in (live.peak, live.highest))
    return step, highest


def _loss(model: PreTrainedModel, settings: PlanSettings) -> Tensor:
    """The loss as in `Trainer.compute_loss`: normalized by the tokens of the whole update, with outputs converted to float32."""
    tokens = torch.zeros(settings.micro_batch, settings.sequence_length, dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": tokens, "labels": tokens, "num_items_in_batch": torch.tensor(tokens.numel())}
    if model.config.to_dict().get("router_aux_loss_coef"):
        inputs["output_router_logits"] = True
    forward: Any = model.__call__  # not model.forward, which skips the hooks of FSDP2
    if settings.precision == "bfloat16":
        forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(forward))
    with without_logits(model):
        return forward(**inputs).loss


def _name_head(model: PreTrainedModel, live: LiveMemory) -> None:
    """Counts tensors allocated from the head on, and in the backward pass until it leaves the head, as logits and loss."""

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        live.kind = LOGITS
        inputs[0].register_hook(leave)

    def leave(gradient: Tensor) -> None:
        live.kind = ACTIVATIONS

    head_of(model).register_forward_pre_hook(enter)
