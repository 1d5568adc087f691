"""A training step of this project against those of others, at equal settings: speed, interleaved in one process, and peak memory.

    python benchmarks/training_step.py                                      # the default comparison's model: two minutes on one core
    python benchmarks/training_step.py --model 71m --length 256 --repeats 5
    python benchmarks/training_step.py --model 71m --length 256 --batch 32 --repeats 0   # memory only

The others: transformers' `LlamaForCausalLM` in its `Trainer`, both as they come; the same model, one written by hand in plain
PyTorch and x-transformers' of the same shape (`peers.py`) in a loop of plain PyTorch.
Each trainer runs in a thread of its own and waits for its turn before each step, so that all of them meet the same machine.
Prints medians with quartiles and their ratio to the first contestant's, the first step's seconds (with the compiling of what no
contestant before has compiled), and the share of the operations that this machine's large matrix products reach in the same run
(6·N + 12·L·h·T operations a token). Memory is the operating system's high-water mark over three steps, in a process a
contestant. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peers import Plain, Stock, XTransformers
from plan_memory import peak
from torch import nn
from transformers import LlamaConfig, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import mixln
from mixln.memory import keep_freed_memory
from mixln.planning.flops import count_flops
from mixln.presets import model_config
from mixln.training.callbacks import Divergence, GradientNorms, Metrics
from mixln.training.compiling import Compile, compile_layers
from mixln.training.pretrain import PlacementTrainer, collate
from mixln.training.settings import TrainSettings
from mixln.training.trainers import arguments

STOCK = "Trainer"
COMPILED = ", compiled"
LONG = 10_000
Step = Callable[[], None]


class Turns(TrainerCallback):
    """Lets a Trainer go on by one step each time that it is called."""

    def __init__(self) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.go.acquire()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = self.over
        self.done.release()

    def __call__(self) -> None:
        self.go.release()
        self.done.acquire()


def trainer(made: Trainer) -> Step:
    """One step of a Trainer's training a call."""
    turns = Turns()
    made.add_callback(turns)
    threading.Thread(target=made.train, daemon=True).start()
    return turns


def rows(config: LlamaConfig, length: int) -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(config.vocab_size, (64, length), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in tokens] * 50


def stock(config: LlamaConfig, chosen: argparse.Namespace, folder: Path) -> Step:
    """transformers' Trainer and model, with the same batch, optimizer, clipping and records of the loss."""
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=LONG,
        per_device_train_batch_size=chosen.batch,
        learning_rate=1e-3,
        weight_decay=0.1,
        logging_steps=3,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=chosen.precision == "bfloat16",
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    made = Trainer(model=Stock(config).model, args=settings, train_dataset=rows(config, chosen.length))  # type: ignore[arg-type]
    made.remove_callback(PrinterCallback)
    return trainer(made)


def placed(placement: str, compile: Compile = "off") -> Callable[[LlamaConfig, argparse.Namespace, Path], Step]:
    """The trainer of `mixln compare`, with all that it records."""

    def make(config: LlamaConfig, chosen: argparse.Namespace, folder: Path) -> Step:
        settings = TrainSettings(batch_size=chosen.batch, precision=chosen.precision, steps=LONG)
        usual = arguments(settings, steps=LONG, learning_rate=1e-3, seed=0, folder=folder)
        model = mixln.from_config(config, placement=placement)
        compile_layers(model, compile, device="cpu", steps=LONG, sharded=False)
        made = PlacementTrainer(
            settings=settings,
            warmup_steps=1,
            model=model,
            args=TrainingArguments(**{**usual, "logging_steps": 3}, remove_unused_columns=False),
            train_dataset=rows(config, chosen.length),
            data_collator=collate,
            callbacks=[Metrics(lambda row: None, 1), GradientNorms(lambda row: None), Divergence(patience=None)],
        )
        return trainer(made)

    return make


def loop(peer: type[nn.Module], compiled: bool = False) -> Callable[[LlamaConfig, argparse.Namespace, Path], Step]:
    """A model of `peers.py` in a loop of plain PyTorch."""

    def make(config: LlamaConfig, chosen: argparse.Namespace, folder: Path) -> Step:
        model = peer(config).train()
        if compiled:
            model.compile()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        tokens = torch.stack([row["input_ids"] for row in rows(config, chosen.length)[: chosen.batch]])
        low = torch.autocast("cpu", torch.bfloat16) if chosen.precision == "bfloat16" else nullcontext()

        def step() -> None:
            with low:
                loss = model(tokens)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return step

    return make


PEERS: dict[str, Callable[[LlamaConfig, argparse.Namespace, Path], Step]] = {
    STOCK: stock,
    "stock, plain loop": loop(Stock),
    "plain PyTorch": loop(Plain),
    "plain, compiled": loop(Plain, compiled=True),
    "x-transformers": loop(XTransformers),
}
OURS = [place + how for how in ("", COMPILED) for place in ("pre", "mix(0.25)", "hybrid*")]


def contestant(name: str) -> Callable[[LlamaConfig, argparse.Namespace, Path], Step]:
    """One of the others, or a placement of this project, perhaps compiled."""
    return PEERS.get(name) or placed(name.removesuffix(COMPILED), "on" if name.endswith(COMPILED) else "off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", nargs="*", default=[*PEERS, *OURS], help="some of the others, placements, and 'pre, compiled'"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    config = model_config(chosen.model, sequence_length=chosen.length)
    if chosen.memory_of:
        print(memory(config, chosen), flush=True)
        os._exit(0)  # without waiting for trainers that wait for their turns
    found = {name: {"peak_memory": _child(name)} for name in chosen.only}
    if chosen.repeats:
        for name, more in speed(config, chosen).items():
            found[name] |= more
    tell(found, chosen)
    if chosen.json:
        settings = {name: value for name, value in vars(chosen).items() if name not in ("json", "memory_of")}
        chosen.json.write_text(json.dumps({"settings": settings, "found": found}, indent=1) + "\n")


def speed(config: LlamaConfig, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of the steps of all, one after the other, again and again."""
    keep_freed_memory()
    dtype = getattr(torch, chosen.precision)
    square = torch.randn(2048, 2048, dtype=dtype)
    seconds: dict[str, list[float]] = {name: [] for name in (*chosen.only, "product")}
    first = {}
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Step] = {
            name: contestant(name)(config, chosen, Path(folder) / str(number))
            for number, name in enumerate(chosen.only)
        }
        steps["product"] = lambda: square @ square
        for repeat in range(chosen.repeats + 3):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                took = time.perf_counter() - began
                first.setdefault(name, took)
                if repeat >= 3:
                    seconds[name].append(took)
        for step in steps.values():
            if isinstance(step, Turns):
                step.over = True
                step()
    reachable = 2 * 2048**3 / statistics.median(seconds.pop("product"))
    with torch.device("meta"):
        flops = count_flops(mixln.from_config(config, placement="pre", init=None), chosen.length).model
    tokens = chosen.batch * chosen.length
    result = {}
    for name, times in seconds.items():
        quarter = statistics.quantiles(times, n=4)
        result[name] = {
            "tokens_per_second": tokens / quarter[1],
            "low": tokens / quarter[2],
            "high": tokens / quarter[0],
            "first_step": first[name],
            "utilisation": flops * tokens / quarter[1] / reachable,
        }
    return result


def memory(config: LlamaConfig, chosen: argparse.Namespace) -> int:
    """Bytes above what was there before the model, at most, in three steps."""
    with tempfile.TemporaryDirectory() as folder:
        small = argparse.Namespace(**{**vars(chosen), "batch": 1, "length": 8})
        step = contestant(chosen.memory_of)(model_config("tiny"), small, Path(folder) / "a")
        step()  # loads the libraries

        def three_steps() -> None:
            step = contestant(chosen.memory_of)(config, chosen, Path(folder) / "b")
            for _ in range(3):
                step()

        return peak(three_steps)


def _child(name: str) -> int:
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def tell(found: dict[str, dict[str, float]], chosen: argparse.Namespace) -> None:
    print(f"{chosen.model}, batch {chosen.batch} x {chosen.length}, {chosen.precision}, {chosen.threads} threads")
    print(
        f"{'':<18} {'tokens/s':>9} {'(quartiles)':>17} {'ratio':>6} {'first s':>8} {'of peak':>8} {'memory MB':>10} {'ratio':>6}"
    )
    reference = found[chosen.only[0]]
    for name, figures in found.items():
        speed = ""
        if "tokens_per_second" in figures:
            ratio = figures["tokens_per_second"] / reference["tokens_per_second"]
            spread = f"({figures['low']:,.0f}–{figures['high']:,.0f})"
            speed = f"{figures['tokens_per_second']:>9,.0f} {spread:>17} {ratio:>6.2f} "
            speed += f"{figures['first_step']:>8.1f} {figures['utilisation']:>8.0%}"
        memory = f"{figures['peak_memory'] / 1e6:>10,.0f} {figures['peak_memory'] / reference['peak_memory']:>6.2f}"
        print(f"{name:<18} {speed:<52} {memory}")


if __name__ == "__main__":
    main()
