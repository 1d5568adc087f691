"""torch.compile of the layers, where it pays: one graph for all layers of a kind, which all trials of a process share."""

from __future__ import annotations

import math
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
LEAST_STEPS = {"cpu": 800, "cuda": 2000}
"""Type of device → optimizer steps of one process from which on compiled layers save more time than compiling them takes. On processors
that was measured (docs/performance.md), on GPUs it is a guess; on others nothing is compiled unless asked for."""
KINDS = 64
"""Kinds of layers that one process may compile; torch's own limit of 8 is soon reached by the trials of a comparison."""


def compile_layers(model: PreTrainedModel, wish: Compile, *, device: str, steps: int, sharded: bool) -> bool:
    """Has the layers compiled when they are first trained. In float32 no number changes beyond rounding; in bfloat16 they change within
    its rounding, for what compiled code keeps between two operations is not rounded to it. Dropout draws what it draws uncompiled.

    :param device: type of the one that it will be trained on.
    :param steps: of this training and of the others that its process will do: they share graphs.
    :param sharded: by FSDP2: they are not compiled then.
    :returns: whether they will be.
    :raises SettingsError: if that is wished for and torch's compiler does not work.
    """
    layers = list(placed_layers(model))
    one_kind_each = any(layer.states == "many" for layer in layers)  # a graph for each layer takes minutes
    if wish == "off" or sharded or (wish == "auto" and (steps < LEAST_STEPS.get(device, math.inf) or one_kind_each)):
        return False
    if reason := obstacle(device):
        if wish == "on":
            raise no_compiler(reason)
        return False
    import torch._dynamo

    torch._dynamo.config.recompile_limit = KINDS  # type: ignore[assignment]
    for layer in layers:
        layer.compile(options={"fallback_random": True})  # its own would draw other dropout masks
    return True


def no_compiler(reason: str) -> SettingsError:
    """The error where compiling is wished for and does not work."""
    return SettingsError(f"compile on: torch.compile does not work here ({reason}); use --compile auto")


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
