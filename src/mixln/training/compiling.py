"""torch.compile of the layers where it saves time: one graph per kind of layer, shared by all trials of a process."""

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
"""Device type → least optimizer steps of a process for which compilation saves more time than it takes. The number for CPUs was
measured (docs/performance.md), that for GPUs is an estimate; on other devices `auto` compiles nothing."""
KINDS = 64
"""Limit on the kinds of layers that one process compiles. The trials of a comparison soon reach torch's default of 8."""


def compile_layers(model: PreTrainedModel, mode: Compile, *, device: str, steps: int, sharded: bool) -> bool:
    """Marks the layers for compilation at their first forward pass.

    Results agree with uncompiled layers up to rounding: that of float32, or of bfloat16, where compiled code keeps intermediate values
    in higher precision. Dropout masks are the same.

    :param device: type of the device to train on.
    :param steps: optimizer steps of all trainings of this process, which share the graphs.
    :param sharded: whether the model is sharded by FSDP2; its layers are then not compiled.
    :returns: whether the layers will be compiled; those of stock models never are.
    :raises SettingsError: if `mode` is `on` and torch's compiler does not work.
    """
    layers = list(placed_layers(model))
    one_kind_each = any(layer.grows for layer in layers)  # compiling a graph per layer takes minutes
    if (
        not layers
        or mode == "off"
        or sharded
        or (mode == "auto" and (steps < LEAST_STEPS.get(device, math.inf) or one_kind_each))
    ):
        return False
    if reason := obstacle(device):
        if mode == "on":
            raise no_compiler(reason)
        return False
    import torch._dynamo

    torch._dynamo.config.recompile_limit = KINDS  # type: ignore[assignment]
    for layer in layers:
        layer.compile(options={"fallback_random": True})  # inductor's own generator would draw other dropout masks
    return True


def no_compiler(reason: str) -> SettingsError:
    """The error for `compile on` where torch's compiler does not work."""
    return SettingsError(f"compile on: torch.compile does not work here ({reason}); use --compile auto")


@cache
def obstacle(device: str) -> str:
    """The error of torch.compile on this machine; empty if it works. It needs a C++ compiler, on GPUs triton."""

    def probe(x: Tensor) -> Tensor:
        return x.sin() + 1

    try:
        with warnings.catch_warnings(action="ignore"):  # it imports modules that torch has deprecated
            torch.compile(probe)(torch.ones(8, device=device))
    except Exception as error:  # raised by torch's compiler, the C++ compiler or the operating system
        return type(error.__cause__ or error).__name__
    return ""


def eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Context in which compiled layers run in eager mode: occasional measurements are not worth another graph."""
    if any(layer._compiled_call_impl is not None for layer in placed_layers(model)):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()
