"""Training steps on one GPU: placed models against stock ones, at four sizes; and trials stacked into one model against separate ones.

    PYTHONPATH=src python benchmarks/gpu.py --json gpu.json

Needs torch, transformers, accelerate and numpy, and a checkout; tokens are random. It begins no measurement after
--minutes, and lists those that it left out.

All contestants are trained by transformers' `Trainer`, with bfloat16 by autocast, float32 weights, and fused AdamW: the stock Llama as it
comes, compiled whole, and with Liger's kernels where they are installed; and placed models with the loss in chunks, as `mixln compare`
trains them, as written and with compiled layers. Contestants take turns in rounds, each round in the opposite order. The ratio is that to
the stock Llama of the same run. MFU is 6·N + 12·L·h·T operations a token over the data sheet's peak of dense bfloat16 products.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from stacked import compared
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import mixln
from mixln.errors import first_line
from mixln.nn.loss import without_logits
from mixln.planning.flops import count_flops
from mixln.planning.settings import DEVICES
from mixln.presets import model_config
from mixln.training.compiling import compile_layers
from mixln.training.private_methods import each_row_one_sequence

SIZES = {"71m": (64, 1024), "130m": (32, 1024), "250m": (32, 1024), "1b": (8, 1024)}
"""Preset → sequences per step, tokens per sequence."""
WARM = 4
"""Steps that are not counted: compiling, and the first use of each kernel."""
STOCK = "Trainer"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """:param placement: of a placed model; `None` for the stock model.
    :param compiled: compiled layers of a placed model, or the whole stock model.
    """

    placement: str | None = None
    compiled: bool = False
    liger: bool = False


CONTESTANTS = {
    STOCK: Contestant(),
    "Trainer, compiled": Contestant(compiled=True),
    "Trainer, Liger": Contestant(liger=True),
    "pre": Contestant(placement="pre"),
    "pre, compiled": Contestant(placement="pre", compiled=True),
    "mix(0.25), compiled": Contestant(placement="mix(0.25)", compiled=True),
    "hybrid*, compiled": Contestant(placement="hybrid*", compiled=True),
}


class Clock(TrainerCallback):
    """Seconds from the end of the first :data:`WARM` steps to the end of the last."""

    def __init__(self, device: str) -> None:
        self.device, self.began, self.seconds = device, 0.0, 0.0

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM:
            wait(self.device)
            self.began = time.perf_counter()
        if state.global_step == args.max_steps:
            wait(self.device)
            self.seconds = time.perf_counter() - self.began


class InChunks(Trainer):
    """The loss never holds all logits."""

    def compute_loss(self, model: nn.Module, *arguments: Any, **more: Any) -> Any:
        with without_logits(self.accelerator.unwrap_model(model)), each_row_one_sequence():
            return super().compute_loss(model, *arguments, **more)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def tokens_per_second(
    one: Contestant, config: Any, *, batch: int, length: int, steps: int, device: str
) -> dict[str, float]:
    """Speed and peak memory (bytes, 0 on a processor) of `steps` steps of a new model."""
    torch.manual_seed(0)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model: PreTrainedModel = (
        LlamaForCausalLM(config) if one.placement is None else mixln.from_config(config, placement=one.placement)
    )
    if one.placement is not None and one.compiled:
        compile_layers(model, "on", device=device, steps=WARM + steps, sharded=False)
    row = torch.randint(config.vocab_size, (length,), generator=torch.Generator().manual_seed(0))
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=WARM + steps,
            per_device_train_batch_size=batch,
            learning_rate=1e-4,
            optim="adamw_torch_fused",
            bf16=True,
            use_cpu=device == "cpu",
            # torch_compile would switch TF32 on for all contestants that follow. Only a GPU has the setting.
            tf32=False if device == "cuda" else None,
            logging_nan_inf_filter=False,  # it waits for the device in every step
            use_liger_kernel=one.liger,
            torch_compile=one.placement is None and one.compiled,
            logging_steps=WARM + steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device == "cuda",
        )
        rows: Any = [{"input_ids": row, "labels": row}] * (batch * (WARM + steps))
        kind = Trainer if one.placement is None else InChunks
        trainer = kind(model=model, args=arguments, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"tokens_per_second": batch * length * steps / clock.seconds, "peak_memory": float(peak)}


def clear(device: str) -> None:
    """Frees what a contestant held. After an error, call it outside the handler, which still holds the traceback."""
    gc.collect()
    torch.compiler.reset()
    if device == "cuda":
        torch.cuda.empty_cache()


def peak_flops(device: str) -> float | None:
    """FLOP/s of dense bfloat16 products by the data sheet; `None` for a device that is not in the table."""
    name = torch.cuda.get_device_name().lower() if device == "cuda" else ""
    found = [spec for key, spec in DEVICES.items() if key.partition("-")[0] in name.replace(" ", "")]
    return found[0].bfloat16 * 1e12 if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*SIZES], choices=[*SIZES, "tiny"])
    parser.add_argument("--only", nargs="+", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument("--steps", type=int, default=20, help="counted steps of a contestant in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--batch", type=int, help="sequences per step, in place of those of each size")
    parser.add_argument("--length", type=int, help="tokens per sequence, in place of those of each size")
    parser.add_argument("--trials", type=int, nargs="*", default=[2, 4, 8], help="numbers of stacked trials")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu only to try the benchmark")
    parser.add_argument("--json", type=Path, help="file for the figures")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: torch finds no GPU; --device cpu tries the benchmark on a processor")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    end = time.monotonic() + 60 * chosen.minutes
    machine = torch.cuda.get_device_name() if chosen.device == "cuda" else platform.processor()
    print(f"{machine}; torch {torch.__version__}, transformers {transformers.__version__}")
    found: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "transformers": transformers.__version__}
    for model in chosen.models:
        found[model] = compare(model, chosen, end)
        keep(found, chosen.json)
    found["stacked"] = stacked(chosen, end)
    keep(found, chosen.json)


def keep(found: dict[str, Any], file: Path | None) -> None:
    """Writes what was found so far: a node may end a job at any time."""
    sys.stdout.flush()
    if file:
        file.write_text(json.dumps(found, indent=1) + "\n")


def stacked(chosen: argparse.Namespace, end: float) -> dict[str, float]:
    """Steps of the default comparison's model: how many times as fast stacked trials are."""
    ratios = {}
    config = model_config("tiny", sequence_length=128)
    for count in chosen.trials:
        if time.monotonic() > end:
            print(f"{count} stacked trials: left out, --minutes {chosen.minutes:g} are over")
            continue
        try:
            ratio = compared(config, "pre", count, batch=8, length=128, device=chosen.device, repeats=10)
        except Exception as error:  # out of memory, a kernel without a batched form
            print(f"{count} stacked trials: {type(error).__name__}: {first_line(error)}")
            continue
        ratios[str(count)] = ratio
        print(f"tiny, {count} trials: stacked steps are {ratio:.2f} times as fast as separate ones")
    return ratios


def compare(model: str, chosen: argparse.Namespace, end: float) -> dict[str, Any]:
    """Median speed, ratio to stock, MFU and peak memory of every contestant at one size."""
    batch, length = SIZES.get(model, (8, 128))
    batch, length = chosen.batch or batch, chosen.length or length
    config = model_config(model, sequence_length=length)
    names = [name for name in chosen.only if "Liger" not in name or find_spec("liger_kernel")]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = {}
    trouble: dict[str, str] = {}
    for round in range(chosen.rounds):
        for name in names if round % 2 == 0 else reversed(names):
            if time.monotonic() > end:
                trouble.setdefault(name, f"round {round + 1} left out, --minutes {chosen.minutes:g} are over")
                continue
            try:
                seen = tokens_per_second(
                    CONTESTANTS[name], config, batch=batch, length=length, steps=chosen.steps, device=chosen.device
                )
                speeds[name].append(seen["tokens_per_second"])
                memory[name] = seen["peak_memory"]
            except Exception as error:  # of a contestant's own: out of memory, a kernel that does not compile
                trouble[name] = f"{type(error).__name__}: {first_line(error)}"
            clear(chosen.device)
    with torch.device("meta"):
        flops = count_flops(mixln.from_config(config, placement="pre", init=None), length).model
    peak = peak_flops(chosen.device)
    print(f"\n{model}, {batch} x {length} tokens a step, {chosen.rounds} rounds of {chosen.steps} steps")
    print(f"MFU of {peak / 1e12:,.0f} TFLOP/s (data sheet, SXM)" if peak else "no MFU: the device is not in the table")
    print(f"{'':<20} {'tokens/s':>12} {'ratio':>6} {'MFU':>5} {'memory GB':>10}")
    rows = {}
    for name in names:
        if speeds[name]:
            speed = statistics.median(speeds[name])
            ratio = speed / statistics.median(speeds[STOCK]) if speeds.get(STOCK) else None
            mfu = flops * speed / peak if peak else None
            rows[name] = {"tokens_per_second": speeds[name], "ratio": ratio, "mfu": mfu, "peak_memory": memory[name]}
            shown = (f"{ratio:.2f}" if ratio else "–", f"{mfu:.0%}" if mfu else "–", f"{memory[name] / 1e9:.1f}")
            print(f"{name:<20} {speed:>12,.0f} {shown[0]:>6} {shown[1]:>5} {shown[2]:>10}")
        if name in trouble:
            print(f"{name:<20} {trouble[name]}")
    return {"batch": batch, "length": length, "found": rows, "trouble": trouble}


if __name__ == "__main__":
    main()
