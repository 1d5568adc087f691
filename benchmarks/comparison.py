"""A whole comparison against a loop of stock Trainer runs over the same tokens: what a home-made script does.

    python benchmarks/comparison.py              # the default comparison: about a quarter of an hour on two cores
    python benchmarks/comparison.py --steps 100 --seeds 0

`mixln compare` starts with nothing, neither text nor compiled code: it reads and tokenizes its text, trains every placement with
all seeds, and writes its report; then again for another folder, where both are there. The loop is given that text ready for
training. It trains as many of transformers' `LlamaForCausalLM` in its `Trainer`, all Pre-LN as it knows no other, with the same
steps, batches, schedule, records of the loss, evaluations on the same held-out rows, and a checkpoint at the end, one after the
other with all cores, as a script does that does not think of them. Each is a process of its own, timed from start to end.
Prints the times, their ratios, and the share of a comparison that is around its trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mixln.compare.settings import CompareSettings
from mixln.runs.trials import RESULT
from mixln.training.settings import TrainSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(CompareSettings.DEFAULTS["seeds"]))
    parser.add_argument("--compile", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--loop", type=Path, nargs=2, metavar=("TEXT", "OUT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.loop:
        return loop(*chosen.loop, steps=chosen.steps, seeds=chosen.seeds)
    of_all = ["--steps", chosen.steps, "--seeds", *chosen.seeds]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root / "compiled")
        found = {"trials": len(chosen.seeds) * len(CompareSettings.DEFAULTS["placements"]), "steps": chosen.steps}
        for name in ("first", "again"):
            out, cache = root / name, root / "cache"
            ours = timed("-m", "mixln", "compare", *of_all, "--compile", chosen.compile, "--out", out, "--cache", cache)
            results = [json.loads(path.read_text("utf-8")) for path in out.glob(f"*/{RESULT}")]
            trained = sum(result["seconds"] for result in results)
            found[name] = {"seconds": ours, "set-up": 1 - trained / max(1, round(trained / ours)) / ours}
        (text,) = (root / "cache" / "text").iterdir()
        found["loop"] = {"seconds": timed(__file__, *of_all, "--loop", text, root / "loop")}
    print(f"{found['trials']} trials of {found['steps']} steps; a loop of Trainers: {found['loop']['seconds']:.0f} s")
    for name in ("first", "again"):
        seconds, around = found[name]["seconds"], found[name]["set-up"]
        ratio = found["loop"]["seconds"] / seconds
        print(
            f"mixln compare, {name}: {seconds:.0f} s, {ratio:.2f} times as fast; {around:.1%} of it around the trials"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def timed(*command: Any) -> float:
    """Seconds of a Python command; what it says goes nowhere but where it fails."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def loop(text: Path, out: Path, *, steps: int, seeds: list[int]) -> None:
    """A script as one writes it with transformers and datasets."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    from mixln.presets import model_config
    from mixln.training.trainers import RECORDS

    train, held_out = (datasets.load_from_disk(str(text / name)).with_format("torch") for name in ("train", "held_out"))
    train = train.map(lambda row: {"labels": row["input_ids"]}, batched=True)  # type: ignore[call-arg]
    settings, usual = CompareSettings(), TrainSettings()
    vocabulary = json.loads((text / "info.json").read_text("utf-8"))["vocabulary_size"]
    stock = model_config(
        settings.model, vocabulary_size=vocabulary, sequence_length=settings.text.sequence_length
    ).to_dict()
    for seed in seeds:
        for placement in settings.placements:
            set_seed(seed)
            arguments = TrainingArguments(
                output_dir=str(out / f"{placement}-{seed}"),
                max_steps=steps,
                per_device_train_batch_size=usual.batch_size,
                per_device_eval_batch_size=usual.batch_size,
                learning_rate=settings.learning_rates[0],
                lr_scheduler_type="cosine",
                warmup_steps=usual.warmup_steps(settings.text.sequence_length),
                weight_decay=usual.weight_decay,
                adam_beta2=usual.beta2,
                logging_steps=max(1, steps // RECORDS),
                eval_strategy="steps",
                eval_steps=steps // usual.evaluations,
                prediction_loss_only=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=seed,
            )
            model = LlamaForCausalLM(LlamaConfig(**stock))
            trainer = Trainer(model=model, args=arguments, train_dataset=train, eval_dataset=held_out)  # type: ignore[arg-type]
            trainer.train()
            trainer.save_model()


if __name__ == "__main__":
    main()
