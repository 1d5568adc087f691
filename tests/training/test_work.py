"""What a training step does, counted and not timed: no waiting for the device, and no tensor as large as all logits."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mixln.training import trainers
from tests import small

OPTIMIZER, GROUPS = "_fused_adamw_", 2  # of the weights that decay, and of those that do not
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")
"""Operations whose result the program, and not only the device, needs before it can go on."""
COPIES = ("tolist", "cpu", "numpy")
"""Methods that wait for a device, of which nothing is seen where the tensor is on the processor."""
STEPS, LOGGED = 30, (1, 10, 20, 30)
BATCH, VOCABULARY = 4, 300


class Work(TorchDispatchMode):
    """Keeps count, step by step: a step is over with the optimizer's last operation."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0
        self.reads: defaultdict[int, int] = defaultdict(int)
        self.largest: defaultdict[int, int] = defaultdict(int)

    @property
    def step(self) -> int:
        return math.ceil(self.updates / GROUPS)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        found = func(*args, **(kwargs or {}))
        step = self.step
        self.updates += name == OPTIMIZER
        self.reads[step] += name in READS
        tensors = found if isinstance(found, tuple | list) else (found,)
        sizes = [tensor.numel() for tensor in tensors if isinstance(tensor, torch.Tensor)]
        self.largest[step] = max(self.largest[step], *sizes, 0)
        return found


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return small.prepared(tmp_path_factory.mktemp("text"))


@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*"])
def test_a_step_reads_nothing_from_the_device_and_makes_no_logits(text, tmp_path, placement, monkeypatch):
    monkeypatch.setattr(trainers, "RECORDS", 1)  # so that not every step is logged
    monkeypatch.setattr("mixln.nn.loss.ROWS", 16)
    work = Work()

    def noting(method: Any) -> Any:
        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            work.reads[work.step] += 1
            return method(self, *args, **kwargs)

        return call

    for name in COPIES:
        monkeypatch.setattr(torch.Tensor, name, noting(getattr(torch.Tensor, name)))
    with work:
        small.train(text, tmp_path, placement, steps=STEPS, batch_size=BATCH, evaluations=1)
    assert work.updates == GROUPS * STEPS
    between = [step for step in range(2, STEPS) if step not in LOGGED]  # from the end of one update to that of the next
    assert {step: work.reads[step] for step in between} == dict.fromkeys(between, 0)
    assert all(work.reads[step] for step in LOGGED)  # there the loss is read, so that reading is noticed at all
    assert max(work.largest.values()) < BATCH * small.LENGTH * VOCABULARY
