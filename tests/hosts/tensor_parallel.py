"""Run by two processes of torchrun in a test: loads checkpoints with `tp_plan="auto"` and compares them with the whole model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

import mixln
from tests.tiny import gradients, logits, tokens

assert mixln


def compare(folder: str) -> dict[str, Any]:
    """Largest differences of logits and gradients, as shares of the largest entry; whether the weights are spread at all."""
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    spread = AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto").eval()
    ids = tokens()
    expected, actual = gradients(whole, ids), gradients(spread, ids)
    return {
        "logits": _distance(logits(spread, ids), logits(whole, ids)),
        "gradients": max(_distance(actual[name], expected[name]) for name in expected),
        "spread": isinstance(spread.model.layers[0].self_attn.q_proj.weight, DTensor),
    }


def _distance(actual: Tensor, expected: Tensor) -> float:
    actual = actual.full_tensor() if isinstance(actual, DTensor) else actual
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-6)).item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folders, out = sys.argv[1:-1], Path(sys.argv[-1])
    found = {folder: compare(folder) for folder in folders}
    if dist.get_rank() == 0:
        out.write_text(json.dumps(found))
    dist.destroy_process_group()
