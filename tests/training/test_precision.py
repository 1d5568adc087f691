"""`auto` becomes bfloat16 where that is faster; what the user names stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixln.training.precision import bfloat16_is_faster, resolve


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_named_precision_stays(precision):
    assert resolve(precision) == precision


def test_auto_is_what_is_faster_here():
    assert resolve("auto") == ("bfloat16" if bfloat16_is_faster() else "float32")


CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.exists(), reason="Linux tells the processor's features in /proc/cpuinfo")
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks about the processor")
def test_a_processor_needs_amx_for_bfloat16():
    assert bfloat16_is_faster() == ("amx_bf16" in CPUINFO.read_text())
