"""What `mixln plan` says of memory, against what a real training takes: transformers' Trainer on a CPU, one process a case, with FSDP two.

    python benchmarks/plan_memory.py               # every case, a few minutes on one core
    python benchmarks/plan_memory.py 20m/hybrid*   # some

The measured figure is the operating system's: the high-water mark of the process's resident memory over three optimizer
steps, less what was resident before the model was made. Nothing of the plan goes into it. glibc is told to hand freed
memory back at once, as it would otherwise keep what other tensors could use. Prints planned, measured and their ratio,
and exits with 1 if one is off by more than 15%. Linux only.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOLERANCE = 0.15
SHAPE: dict[str, Any] = {"sequence_length": 256, "batch_size": 8, "precision": "float32"}
FSDP: dict[str, Any] = {"devices": 2, "parallel": "fsdp"}
CASES: dict[str, dict[str, Any]] = {
    "tiny/pre": {"model": "tiny"},
    "tiny/pre, checkpointing": {"model": "tiny", "activation_checkpointing": True},
    "olmoe-tiny/pre": {"model": "olmoe-tiny"},
    "9m/pre": {"model": "9m"},
    "20m/pre": {"model": "20m"},
    "20m/mix(0.25)": {"model": "20m", "placement": "mix(0.25)"},
    "20m/hybrid*": {"model": "20m", "placement": "hybrid*"},
    "20m/pre, checkpointing": {"model": "20m", "activation_checkpointing": True},
    "20m/pre, bfloat16": {"model": "20m", "precision": "bfloat16"},
    "35m/pre": {"model": "35m"},
    "35m/pre, checkpointing": {"model": "35m", "activation_checkpointing": True},
    "35m/pre, micro batch 2": {"model": "35m", "micro_batch_size": 2},
    "71m/pre, batch 2, checkpointing": {"model": "71m", "batch_size": 2, "activation_checkpointing": True},
    "20m/pre, FSDP": {"model": "20m", **FSDP},
    "20m/pre, FSDP, micro batch 1": {"model": "20m", "micro_batch_size": 1, **FSDP},
    "20m/hybrid*, FSDP, bfloat16": {"model": "20m", "placement": "hybrid*", "precision": "bfloat16", **FSDP},
    "71m/pre, FSDP, batch 2, checkpointing": {
        "model": "71m",
        "batch_size": 2,
        "activation_checkpointing": True,
        **FSDP,
    },
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no case {unknown[0]!r}; there are: {', '.join(CASES)}", file=sys.stderr)
        return 2
    print(f"{'case':<34} {'planned MB':>10} {'measured MB':>11} {'ratio':>6}")
    worst = 0.0
    for name in names or CASES:
        settings = {**SHAPE, **CASES[name]}
        planned, measured = (_child(kind, settings) for kind in ("plan", "train"))
        worst = max(worst, abs(planned / measured - 1))
        print(f"{name:<34} {planned / 1e6:>10.0f} {measured / 1e6:>11.0f} {planned / measured:>6.3f}", flush=True)
    print(f"furthest from 1: {worst:.1%}")
    return int(worst > TOLERANCE)


def _child(kind: str, settings: dict[str, Any]) -> float:
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(settings.get("devices", 1))]
    several = torchrun if kind == "train" and "devices" in settings else []
    command = [sys.executable, *several, __file__, f"--{kind}", json.dumps(settings)]
    environment = {**os.environ, **allocator, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(found.stderr)
    return max(float(word) for word in found.stdout.split())


def plan(settings: dict[str, Any]) -> int:
    """Peak by the plan, bytes."""
    from mixln.planning.plan import make_plan
    from mixln.planning.settings import PlanSettings

    return make_plan(PlanSettings(**settings)).memory.total


def train(settings: dict[str, Any]) -> int:
    """Peak by the operating system, bytes."""
    devices = settings.get("devices", 1)
    train_model(
        {**settings, "model": "tiny", "batch_size": devices, "micro_batch_size": None, "sequence_length": 8}
    )  # loads the libraries
    return peak(lambda: train_model(settings))


def peak(work: Callable[[], object]) -> int:
    """Bytes of resident memory that some work takes at most, above what was there before it; Linux only."""
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    work()
    return _resident("VmHWM") - before


def train_model(settings: dict[str, Any]) -> None:
    """Three optimizer steps of the trainer that `mixln compare` uses, on random tokens."""
    import torch
    from transformers import TrainingArguments

    from mixln.hosts import build
    from mixln.presets import model_config
    from mixln.training import ranks
    from mixln.training.language_modelling import PlacementTrainer, collate
    from mixln.training.settings import TrainSettings
    from mixln.training.sharding import shard
    from mixln.training.trainers import arguments

    torch.set_num_threads(1)
    ranks.meet()
    length, batch = settings["sequence_length"], settings["batch_size"]
    training = TrainSettings(
        batch_size=batch, micro_batch_size=settings.get("micro_batch_size"), precision=settings["precision"], steps=3
    )
    config = model_config(settings["model"], sequence_length=length)
    with torch.device("meta" if ranks.size() > 1 else "cpu"):
        model = build(config, placement=settings.get("placement", "pre"), init=None, dtype=torch.float32)
    if ranks.size() > 1:
        shard(model, torch.device("cpu"), bfloat16=settings["precision"] == "bfloat16")
    rows = [{"input_ids": torch.randint(config.vocab_size, (length,))} for _ in range(4 * batch)]
    with tempfile.TemporaryDirectory() as folder:
        chosen = arguments(training, steps=3, learning_rate=1e-3, seed=0, folder=Path(folder))
        PlacementTrainer(
            settings=training,
            warmup_steps=1,
            model=model,
            args=TrainingArguments(
                **chosen,
                remove_unused_columns=False,
                activation_checkpointing=settings.get("activation_checkpointing", False),
            ),
            train_dataset=rows,
            data_collator=collate,
        ).train()


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


if __name__ == "__main__":
    children = {"--plan": plan, "--train": train}
    if sys.argv[1:2] and sys.argv[1] in children:
        sys.stdout.write(
            f"{children[sys.argv[1]](json.loads(sys.argv[2]))}\n"
        )  # in one piece: other processes write there too
    else:
        sys.exit(main(sys.argv[1:]))
