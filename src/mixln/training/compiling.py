"""torch.compile of the layers, where it pays: one graph for all layers of a kind, which all trials of a process share."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mixln.errors import SettingsError
from mixln.nn.residual import placed_layers

Compile = Literal["auto", "on", "off"]
LEAST_STEPS, LEAST_STEPS_ELSEWHERE = 600, 2000
"""Optimizer steps from which on the time that compiled layers save is more than what compiling them takes (docs/performance.md):
on processors, and, not measured, on GPUs, whose compiler takes longer."""
KINDS = 64
"""Kinds of layers that one process may compile; torch's own limit of 8 is soon reached by the trials of a comparison."""


def compile_layers(model: PreTrainedModel, wish: Compile, *, device: str, steps: int, sharded: bool) -> bool:
    """Has the layers compiled when they are first trained. Depends on nothing that differs from run to run, so that one that is
    cut off goes on as it began.

    :param device: type of the one that it will be trained on.
    :param steps: of the whole training, and of those that may take over its graphs.
    :param sharded: by FSDP2: they are not compiled then.
    :returns: whether they will be.
    :raises SettingsError: if that is wished for and torch's compiler does not work.
    """
    least = LEAST_STEPS if device == "cpu" else LEAST_STEPS_ELSEWHERE
    if wish == "off" or sharded or (wish == "auto" and steps < least):
        return False
    if reason := obstacle(device):
        if wish == "on":
            raise SettingsError(f"compile on: torch.compile does not work here ({reason}); use --compile auto")
        return False
    import torch._dynamo

    torch._dynamo.config.recompile_limit = KINDS  # type: ignore[assignment]
    for layer in placed_layers(model):
        layer.compile()
    return True


@cache
def obstacle(device: str) -> str:
    """Why torch.compile does not work on this machine; empty if it does. It needs a C++ compiler, or triton."""

    def probe(x: Tensor) -> Tensor:
        return x.sin() + 1

    try:
        with warnings.catch_warnings(action="ignore"):  # it imports what torch itself has deprecated
            torch.compile(probe)(torch.ones(8, device=device))
    except Exception as error:  # of torch's compiler, of the machine's, of the operating system
        return type(error.__cause__ or error).__name__
    return ""


def eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Within it compiled layers run as they are written: what is measured now and then is not worth another graph."""
    if any(layer._compiled_call_impl is not None for layer in placed_layers(model)):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()
