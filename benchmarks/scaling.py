"""How speed and memory change with the model, the sequence, the batch, the processes and the placement.

    python benchmarks/scaling.py OUT.json            # everything: about 25 minutes on two cores
    python benchmarks/scaling.py OUT.json --only batch processes

Each point of the first four is a run of `training_step.py`, which says what is measured; one thread but where it says more.
For the processes, the same step with one thread, with two, in two processes that share a batch (DDP, gloo), and two trials side by
side, each for itself: medians of rounds in turn, tokens/s of both together.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEP = Path(__file__).with_name("training_step.py")
CURVES = ["Trainer", "plain, compiled", "pre", "pre, compiled"]
POINTS: dict[str, list[dict[str, Any]]] = {
    "model": [{"model": name, "batch": 4, "length": 128, "repeats": 5} for name in ("tiny", "9m", "20m", "35m", "71m")],
    "length": [
        {"model": "tiny", "batch": 2048 // length, "length": length, "repeats": 8}
        for length in (64, 128, 256, 512, 1024)
    ],
    "batch": [{"model": "tiny", "batch": batch, "length": 128, "repeats": 40 // batch + 5} for batch in (1, 4, 16, 64)],
    "placement": [{"model": "tiny", "batch": 8, "length": 128, "repeats": 20}],
}
WAYS = {"one thread": (1, 1, 1), "two threads": (1, 1, 2), "two processes": (1, 2, 1), "two trials": (2, 1, 1)}
"""Trainings at the same time, processes of each, threads of each process."""
SHARED = [
    {"model": "tiny", "batch": 8, "length": 128, "steps": 60},
    {"model": "35m", "batch": 8, "length": 128, "steps": 8},
]
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=[*POINTS, "processes"], choices=[*POINTS, "processes"])
    parser.add_argument("--train", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.train:
        return train(**json.loads(chosen.train))
    found: dict[str, Any] = json.loads(chosen.out.read_text("utf-8")) if chosen.out.exists() else {}
    for axis in chosen.only:
        found[axis] = ways() if axis == "processes" else [point(axis, settings) for settings in POINTS[axis]]
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


def point(axis: str, settings: dict[str, Any]) -> dict[str, Any]:
    from mixln.placement import ZOO

    contestants = list(ZOO) if axis == "placement" else CURVES
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        subprocess.run([sys.executable, STEP, *options, "--only", *contestants, "--json", out], check=True)
        return json.loads(out.read_text("utf-8"))


def ways() -> list[dict[str, Any]]:
    found = []
    for settings in SHARED:
        speeds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way, (trainings, processes, threads) in WAYS.items():
                started = [start(settings, processes, threads) for _ in range(trainings)]
                speeds[way].append(sum(finished(process) for process in started))
        medians = {way: statistics.median(values) for way, values in speeds.items()}
        found.append({"settings": settings, "found": medians})
        print(
            settings["model"],
            *(f"{way} {speed:,.0f} tokens/s ({speed / medians['one thread']:.2f})" for way, speed in medians.items()),
            sep="  ",
        )
    return found


def start(settings: dict[str, Any], processes: int, threads: int) -> subprocess.Popen[str]:
    several = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    command = [sys.executable, *several, __file__, os.devnull, "--train", json.dumps(settings | {"threads": threads})]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> float:
    """Its tokens/s; those of several processes of one training are of all together."""
    words = process.communicate()[0].split()
    if process.returncode:
        sys.exit(process.returncode)
    return statistics.mean(map(float, words))


def train(*, model: str, batch: int, length: int, steps: int, threads: int) -> None:
    """Some steps of `pre`, uncompiled; prints tokens/s."""
    import torch
    from training_step import WARM, contestant

    from mixln.memory import keep_freed_memory
    from mixln.presets import model_config
    from mixln.training import ranks

    keep_freed_memory()
    torch.set_num_threads(threads)
    ranks.meet()
    chosen = argparse.Namespace(model=model, batch=batch, length=length, precision="float32")
    marks: list[float] = []

    def turn() -> bool:
        marks.append(time.perf_counter())
        return len(marks) <= WARM + steps

    with tempfile.TemporaryDirectory() as folder:
        contestant("pre")(model_config(model, sequence_length=length), chosen, Path(folder), turn)  # type: ignore[arg-type]
    sys.stdout.write(f"{steps * batch * length / (marks[-1] - marks[WARM])}\n")  # in one piece: others write there too


if __name__ == "__main__":
    main()
