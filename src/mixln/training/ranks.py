"""The processes that train one model together, started by torchrun or accelerate; usually there is only one.

Ranks count from 0. Only rank 0 writes files and logs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from mixln.errors import SettingsError
from mixln.launch import launched

PATIENCE = timedelta(hours=2)
"""Timeout of collectives; must cover the time that rank 0 takes to prepare the text while the others wait."""


def meet() -> None:
    """Connects the processes that were started together; does nothing in a single process."""
    if launched()[1] > 1 and not distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=on_processors(), timeout=PATIENCE)


def part() -> None:
    """Disconnects from the other processes."""
    if met():
        distributed.destroy_process_group()


def met() -> bool:
    """Whether this process is connected to others."""
    return distributed.is_available() and distributed.is_initialized()


def on_processors() -> bool:
    """Whether this machine has only CPUs to train on."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def check_one_gpu(*, shareable: bool = False) -> None:
    """Refuses several GPUs in one process, where transformers' Trainer would multiply the batch by their number.

    :param shareable: whether several processes can run this task together.
    :raises SettingsError: if this is a single process and several GPUs are visible.
    """
    count = torch.cuda.device_count()
    if launched()[1] == 1 and count > 1:
        remedy = f"start it with torchrun --nproc-per-node {count}, or " if shareable else ""
        raise SettingsError(
            f"one process trains on one GPU, and {count} are visible; {remedy}choose one with CUDA_VISIBLE_DEVICES=0"
        )


def rank() -> int:
    return distributed.get_rank() if met() else 0


def size() -> int:
    return distributed.get_world_size() if met() else 1


def first() -> bool:
    """Whether this is rank 0, which writes files and logs."""
    return rank() == 0


def agreed(value: Any) -> Any:
    """The value of rank 0. A collective: every process must call it."""
    if size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def total(values: Tensor) -> Tensor:
    """The sum over all processes, computed in place."""
    if size() > 1:
        distributed.all_reduce(values)
    return values


def gathered(value: Tensor) -> list[Tensor]:
    """The values of all processes on the CPU, ordered by rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return values


def wait() -> None:
    """Waits until all processes have called it."""
    if size() > 1:
        distributed.barrier()
