"""dtype of the forward and backward pass."""

from __future__ import annotations

from typing import Literal

import torch

from mixln.errors import SettingsError


def bfloat16_is_faster() -> bool:
    """Whether bfloat16 is faster on this machine: on CUDA GPUs that support it, and on CPUs with AMX tiles for it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def resolve(precision: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """Replaces `auto` by the faster dtype on this machine.

    :raises SettingsError: for bfloat16 on a GPU that does not support it.
    """
    if (
        precision == "bfloat16"
        and torch.cuda.is_available()
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise SettingsError("precision bfloat16 is not supported by this GPU; use --precision float32")
    if precision == "auto":
        return "bfloat16" if bfloat16_is_faster() else "float32"
    return precision
