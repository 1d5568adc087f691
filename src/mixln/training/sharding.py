"""Sharding of parameters, gradients and optimizer states by FSDP2, and checkpoints that any number of processes can read.

Files of a checkpoint:
    *.safetensors             the weights, complete or one shard per process
    optimizer/*.safetensors   AdamW's moments, under the names of their parameters

torch's distributed checkpointing reshards them on loading, so that the number of processes and FSDP2 or DDP may change.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from mixln.hosts.factory import former_names
from mixln.nn.residual import placed_layers
from mixln.training import ranks

OPTIMIZER = "optimizer"
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
STATE = "state."
"""Prefix of the names of the optimizer's tensors; other entries are its settings."""


def shard(model: PreTrainedModel, device: torch.device, *, bfloat16: bool, mesh: DeviceMesh | None = None) -> None:
    """Shards a model over all processes (FSDP, arXiv:2304.11277). Each layer is a unit, as are its attention and feed-forward matrices.

    For a model on the meta device, each process allocates its shard here and initializes it with the same values as without sharding.
    All processes must have the same state of torch's random generator.

    :param bfloat16: gather the weights that autocast casts in bfloat16, because autocast would cache a cast copy of all of them.
        Norms (also within sublayers), experts, embeddings and the residual stream stay float32, as without sharding.
    :param mesh: the devices; by default all processes.
    """
    mixed = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in placed_layers(model):
        functions = [function for branch in layer.functions for function in branch]
        matrices = {parameter for function in functions for parameter in _cast(function)}
        for module in layer.called_outside():
            fully_shard(module, mesh=mesh)
        fully_shard(layer, mesh=mesh, ignored_params=matrices)
        for function in functions:
            fully_shard(function, mesh=mesh, mp_policy=mixed, ignored_params=set(function.parameters()) - matrices)
    embedding: Any = model.get_input_embeddings()
    if not model.all_tied_weights_keys:
        fully_shard(embedding, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # The flags of a model that transformers sharded, so that its Trainer neither wraps nor shards it again.
    model._is_distributed_loading_by_transformers = model._is_fsdp_managed_module = True  # type: ignore[assignment]
    if model.device.type == "meta":
        model.to_empty(device=device)
        model.tie_weights()
        model.initialize_weights()


def _cast(function: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that autocast casts: matrices and their biases, but neither norm gains (1-D) nor stacked experts (3-D)."""
    for module in function.modules():
        parameters = list(module.parameters(recurse=False))
        if any(parameter.ndim == 2 for parameter in parameters):
            yield from parameters


def sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, tied ones once; for a sharded model, the shard of this process."""
    return _once(model, get_model_state_dict(model))


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All parameters of a sharded model, tied ones once, in the CPU memory of rank 0; empty on other ranks. A collective."""
    return _once(model, get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)))


def _once(model: nn.Module, state: dict[str, Any]) -> dict[str, Tensor]:
    names = {name for name, _ in model.named_parameters()}  # lists a tied parameter once
    return {name: value for name, value in state.items() if name in names}


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Writes the config and the shard of every process. A collective."""
    if ranks.first():
        folder.mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(folder)
    ranks.wait()
    _save(weights(model), folder)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Reads weights, stored complete or in shards, into the parameters of a model, sharded or not."""
    _load(weights(model), folder, former_names(model))


def save_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Writes the optimizer's tensors, each process its shard. A collective."""
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=FLAT)
    _save({name: value for name, value in state.items() if name.startswith(STATE)}, folder / OPTIMIZER)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Reads the tensors that :func:`save_optimizer` wrote; settings such as the learning rate keep their values."""
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=FLAT)
    tensors = {name: value for name, value in state.items() if name.startswith(STATE)}
    former = {
        name: name.replace(f"{STATE}{new}.", f"{STATE}{old}.")
        for new, old in former_names(model).items()
        for name in tensors
        if name.startswith(f"{STATE}{new}.")
    }
    _load(tensors, folder / OPTIMIZER, former)
    set_optimizer_state_dict(model, optimizer, {**state, **tensors}, options=FLAT)


def _save(tensors: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _single_process() as no_dist:
        save(tensors, storage_writer=writer, no_dist=no_dist)


def _load(tensors: dict[str, Tensor], folder: Path, former: dict[str, str]) -> None:
    """Reads in place.

    :param former: name of a tensor → its name in files of an earlier version of mixln.
    """
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    named = {name if name in stored else former.get(name, name): tensor for name, tensor in tensors.items()}
    with _single_process() as no_dist:
        load(named, storage_reader=reader, no_dist=no_dist)


@contextmanager
def _single_process() -> Iterator[bool]:
    """Yields whether there is only one process, and suppresses torch's warning about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield ranks.size() == 1
