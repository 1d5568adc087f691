"""The processes that train one model together, as torchrun and accelerate start them; most often there is one.

A process's rank counts from 0; the one of rank 0 alone writes and speaks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from mixln.errors import SettingsError
from mixln.launch import launched

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: as long as rank 0 may take to prepare the text."""


def meet() -> None:
    """Connects the processes that were started together; alone, does nothing."""
    if launched()[1] > 1 and not distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=on_processors(), timeout=PATIENCE)


def part() -> None:
    """Ends the connection."""
    if met():
        distributed.destroy_process_group()


def met() -> bool:
    """Whether this process is connected to others."""
    return distributed.is_available() and distributed.is_initialized()


def on_processors() -> bool:
    """Whether there is nothing but processors to train on."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def check_one_gpu(*, shareable: bool = False) -> None:
    """Several GPUs are for several processes: to one, transformers' Trainer would give a batch as many times larger.

    :param shareable: several processes can do this together.
    :raises SettingsError: if this process was started alone and sees several.
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
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def agreed(value: Any) -> Any:
    """What rank 0 has for this value; every process must ask."""
    if size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def total(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if size() > 1:
        distributed.all_reduce(values)
    return values


def gathered(value: Tensor) -> list[Tensor]:
    """What each process has for this value, on the processor, in the order of their ranks."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, value)
    return found


def wait() -> None:
    """Returns when all processes are here."""
    if size() > 1:
        distributed.barrier()
