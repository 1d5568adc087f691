"""Which number format the forward and backward pass run in."""

from __future__ import annotations

from typing import Literal

import torch

from mixln.errors import SettingsError


def bfloat16_is_faster() -> bool:
    """Whether bfloat16 pays here: on a CUDA GPU that has it, and on a processor with AMX tiles for it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def resolve(precision: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """`auto` becomes what is faster here.

    :raises SettingsError: for bfloat16 on a GPU without it.
    """
    if (
        precision == "bfloat16"
        and torch.cuda.is_available()
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise SettingsError("precision bfloat16 needs a GPU that has it, and this one has not; use --precision float32")
    if precision == "auto":
        return "bfloat16" if bfloat16_is_faster() else "float32"
    return precision
