"""A training step of this project against those of others, at equal settings: speed, step by step in turn, and peak memory.

    python benchmarks/training_step.py                                      # the default comparison's model: three minutes on one core
    python benchmarks/training_step.py --model 71m --length 256 --repeats 5
    python benchmarks/training_step.py --model 71m --length 256 --batch 32 --repeats 0   # memory only

The others: transformers' `LlamaForCausalLM` in its `Trainer`, both as they come, and with the C library told to keep freed memory
(`mixln/memory.py`), as this project's workers and all further contestants are; the same model, one written by hand in plain PyTorch
and x-transformers' of the same shape (`peers.py`) in a loop of plain PyTorch.
Each has a process of its own that waits for its turn before each step, so that all of them meet the same machine. A turn goes
from the beginning of a step to that of the next: data, records and all.
Prints medians with quartiles and their ratio to the first contestant's, the first step's seconds (with compiling, from torch's
cache on the disk where it has seen this before), and the share of the operations that this machine's large matrix products reach
in the same run (6·N + 12·L·h·T operations a token). Memory is the operating system's high-water mark over three steps above what
there was before the model, in further processes. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
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
from mixln.training.language_modelling import PlacementTrainer, collate
from mixln.training.settings import TrainSettings
from mixln.training.trainers import arguments

STOCK = "Trainer"
COMPILED = ", compiled"
WARM = 3
"""Steps that are not counted."""
LONG = 10_000
Turn = Callable[[], bool]
"""Called at the beginning of each step: waits for the turn, and says whether there is one more."""
Run = Callable[[LlamaConfig, argparse.Namespace, Path, Turn], None]
"""Trains until there are no more turns."""


class Turns(TrainerCallback):
    """Lets a Trainer do a step a turn."""

    def __init__(self, turn: Turn) -> None:
        self.turn, self.more = turn, True

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.more = self.turn()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = not self.more


def rows(config: LlamaConfig, length: int) -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(config.vocab_size, (64, length), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in tokens] * 50


def stock(config: LlamaConfig, chosen: argparse.Namespace, folder: Path, turn: Turn) -> None:
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
    made.add_callback(Turns(turn))
    made.train()


def placed(placement: str, compile: Compile = "off") -> Run:
    """The trainer of `mixln compare`, with all that it records."""

    def run(config: LlamaConfig, chosen: argparse.Namespace, folder: Path, turn: Turn) -> None:
        settings = TrainSettings(batch_size=chosen.batch, precision=chosen.precision, steps=LONG)
        usual = arguments(settings, steps=LONG, learning_rate=1e-3, seed=0, folder=folder)
        model = mixln.from_config(config, placement=placement)
        compile_layers(model, compile, device="cpu", steps=LONG, sharded=False)
        PlacementTrainer(
            settings=settings,
            warmup_steps=1,
            model=model,
            args=TrainingArguments(**{**usual, "logging_steps": 3}, remove_unused_columns=False),
            train_dataset=rows(config, chosen.length),
            data_collator=collate,
            callbacks=[
                Turns(turn),
                Metrics(lambda row: None, 1),
                GradientNorms(lambda row: None),
                Divergence(patience=None),
            ],
        ).train()

    return run


def loop(peer: type[nn.Module], compiled: bool = False) -> Run:
    """A model of `peers.py` in a loop of plain PyTorch."""

    def run(config: LlamaConfig, chosen: argparse.Namespace, folder: Path, turn: Turn) -> None:
        model = peer(config).train()
        if compiled:
            model.compile()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        tokens = torch.stack([row["input_ids"] for row in rows(config, chosen.length)[: chosen.batch]])
        low = torch.autocast("cpu", torch.bfloat16) if chosen.precision == "bfloat16" else nullcontext()
        while turn():
            with low:
                loss = model(tokens)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return run


def product(config: LlamaConfig, chosen: argparse.Namespace, folder: Path, turn: Turn) -> None:
    """No training: a product of 2048 × 2048 matrices."""
    square = torch.randn(2048, 2048, dtype=getattr(torch, chosen.precision))
    while turn():
        square @ square


PEERS: dict[str, Run] = {
    STOCK: stock,
    "Trainer, kept": stock,
    "stock, plain loop": loop(Stock),
    "plain PyTorch": loop(Plain),
    "plain, compiled": loop(Plain, compiled=True),
    "x-transformers": loop(XTransformers),
}
OURS = [place + how for how in ("", COMPILED) for place in ("pre", "mix(0.25)", "hybrid*")]


def contestant(name: str) -> Run:
    """One of the others, or a placement of this project, perhaps compiled."""
    if name == "product":
        return product
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
    parser.add_argument("--run", nargs=2, metavar=("NAME", "WHAT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    config = model_config(chosen.model, sequence_length=chosen.length)
    if chosen.run:
        name, what = chosen.run
        if name != STOCK:
            keep_freed_memory()
        return memory(name, config, chosen) if what == "memory" else steps(name, config, chosen)
    found: dict[str, dict[str, float]] = {
        name: {"peak_memory": float(Child(name, "memory").read())} for name in chosen.only
    }
    if chosen.repeats:
        for name, more in speed(config, chosen).items():
            found[name] |= more
    tell(found, chosen)
    if chosen.json:
        settings = {name: value for name, value in vars(chosen).items() if name not in ("json", "run")}
        chosen.json.write_text(json.dumps({"settings": settings, "found": found}, indent=1) + "\n")


class Child:
    """A process that does something for one contestant, as it is told, a line at a time."""

    def __init__(self, name: str, what: str) -> None:
        command = [sys.executable, __file__, *sys.argv[1:], "--run", name, what]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            sys.exit(f"{self.name} has failed")
        return line

    def step(self) -> float:
        """Seconds of one turn."""
        assert self.process.stdin is not None
        began = time.perf_counter()
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.read()
        return time.perf_counter() - began


def steps(name: str, config: LlamaConfig, chosen: argparse.Namespace) -> None:
    """In a child: a step for each line that it is given."""

    def turn() -> bool:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        return bool(sys.stdin.readline())

    with tempfile.TemporaryDirectory() as folder:
        contestant(name)(config, chosen, Path(folder), turn)


def memory(name: str, config: LlamaConfig, chosen: argparse.Namespace) -> None:
    """In a child: bytes above what was there before the model, at most, in three steps. One of a tiny model loads the libraries."""

    def few(count: int) -> Turn:
        left = iter(range(count))
        return lambda: next(left, None) is not None

    with tempfile.TemporaryDirectory() as folder:
        small = argparse.Namespace(**{**vars(chosen), "batch": 1, "length": 8})
        contestant(name)(model_config("tiny"), small, Path(folder) / "a", few(1))
        torch.compiler.reset()
        print(peak(lambda: contestant(name)(config, chosen, Path(folder) / "b", few(3))))


def speed(config: LlamaConfig, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of the steps of all, one after the other, again and again."""
    children = {name: Child(name, "steps") for name in (*chosen.only, "product")}
    for child in children.values():
        child.read()
    seconds: dict[str, list[float]] = {name: [] for name in children}
    for _ in range(chosen.repeats + WARM):
        for name, child in children.items():
            seconds[name].append(child.step())
    for child in children.values():
        child.process.kill()
    reachable = 2 * 2048**3 / statistics.median(seconds.pop("product")[WARM:])
    with torch.device("meta"):
        flops = count_flops(mixln.from_config(config, placement="pre", init=None), chosen.length).model
    tokens = chosen.batch * chosen.length
    result = {}
    for name, times in seconds.items():
        quarter = statistics.quantiles(times[WARM:], n=4)
        result[name] = {
            "tokens_per_second": tokens / quarter[1],
            "low": tokens / quarter[2],
            "high": tokens / quarter[0],
            "first_step": times[0],
            "utilisation": flops * tokens / quarter[1] / reachable,
        }
    return result


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
