"""Golden numbers on the disk, and how numbers are held against them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-3
"""Relative and absolute, on another machine than the one that wrote the numbers: its matrix products round differently, and training
amplifies that. On the same kind of machine numbers are compared to the bit."""
COUNTS = ("step", "tokens", "seeds", "finished", "examples", "held_out", "pairs", "first", "last", "sequences")
"""Entries that are equal on every machine."""


def machine() -> dict[str, Any]:
    """Everything beside the code that decides how numbers round."""
    import torch

    libraries = {name: version(name) for name in ("torch", "transformers", "trl", "peft", "tokenizers")}
    return {**libraries, "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}


def write(name: str, numbers: dict[str, Any]) -> Path:
    """Writes a golden file."""
    path = DATA / f"{name}.json"
    path.write_text(
        json.dumps({"machine": machine(), "numbers": numbers}, separators=(",", ":"), ensure_ascii=False) + "\n"
    )
    return path


def differences(name: str, numbers: dict[str, Any]) -> list[str]:
    """Every entry of `numbers` that is not as in the golden file, one line each."""
    golden = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    tolerance = 0.0 if golden["machine"] == machine() else TOLERANCE
    return list(_unlike(golden["numbers"], json.loads(json.dumps(numbers)), tolerance, ""))


def _unlike(golden: Any, value: Any, tolerance: float, path: str) -> Iterator[str]:
    if isinstance(golden, dict) and isinstance(value, dict):
        for name in dict.fromkeys([*golden, *value]):
            missing = [side for side, entries in (("golden", golden), ("now", value)) if name not in entries]
            if missing:
                yield f"{path}/{name} is missing in {missing[0]}"
            else:
                exact = name.rsplit(".", 1)[-1] in COUNTS
                yield from _unlike(golden[name], value[name], 0.0 if exact else tolerance, f"{path}/{name}")
    elif isinstance(golden, list) and isinstance(value, list) and len(golden) == len(value):
        for index, (a, b) in enumerate(zip(golden, value, strict=True)):
            yield from _unlike(a, b, tolerance, f"{path}[{index}]")
    elif isinstance(golden, float) and isinstance(value, int | float):
        if not (golden == value or math.isclose(golden, value, rel_tol=tolerance, abs_tol=tolerance)):
            yield f"{path}: {value!r}, golden {golden!r}"
    elif golden != value:
        yield f"{path}: {value!r}, golden {golden!r}"
