"""The runs, each from the command line into a folder, and the numbers that are read from the files it leaves.

No number here depends on the clock. Words are left out: they may change without a new run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests import small

Numbers = dict[str, Any]
CURVES = ("train_curve", "eval_curve", "gradient_norms", "residual_variance")
MEASURED = ("angular", "stream", "drops", "tasks", "gradients", "initial", "jacobian")
PLACEMENTS = ("pre", "mix(0.5)", "hybrid*")
TUNING = (
    "--precision",
    "float32",
    "--steps",
    "4",
    "--batch-size",
    "4",
    "--evaluations",
    "2",
    "--held-out-examples",
    "6",
)
VISION = {
    "model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "image_size": 8, "patch_size": 4, "num_channels": 3,
}  # fmt: skip
EXPERTS = {
    "model_type": "olmoe", **small.SIZES, "num_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.5,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


def mixln(*arguments: str | Path) -> None:
    """Runs a command to its end.

    :raises AssertionError: with what it printed, if it fails.
    """
    done = subprocess.run(_command(arguments), capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, f"mixln {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"


def interrupted(*arguments: str | Path, when: Callable[[], bool]) -> None:
    """Starts a command and kills it and its workers once `when` holds."""
    process = subprocess.Popen(
        _command(arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,
    )
    until = time.monotonic() + 300
    while not when():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < until, "the command wrote no checkpoint in 300 s"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(arguments: tuple[str | Path, ...]) -> list[str]:
    return [sys.executable, "-m", "mixln", *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _text(folder: Path) -> tuple[str | Path, ...]:
    small.write_folder(folder / "text", small.documents())
    return (
        *("--data", folder / "text", "--cache", folder / "cache", "--vocabulary-size", "300", "--held-out", "0.1"),
        *("--sequence-length", "16", "--batch-size", "4", "--precision", "float32", "--compile", "off"),
    )


def _examples(folder: Path) -> Path:
    from tests.training.tuned import ROWS

    path = folder / "examples.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def comparison(folder: Path) -> Numbers:
    """Three placements, two seeds; killed in its first trial, resumed from the checkpoint; then diagnosed."""
    small.write_config(folder / "config.json", num_hidden_layers=4)
    command = (
        *(
            "compare",
            "--model",
            folder / "config.json",
            *_text(folder),
            "--placements",
            *PLACEMENTS,
            "--seeds",
            "0",
            "1",
        ),
        *("--steps", "40", "--evaluations", "4", "--learning-rates", "1e-2", "--jobs", "1", "--out", folder / "out"),
    )
    first = folder / "out" / "pre_lr0.01_seed0"
    interrupted(*command, "--checkpoint-seconds", "0", when=lambda: any(first.glob("checkpoint-[123]*/checksums.json")))
    assert not (first / "result.json").exists()
    mixln(*command, "--diagnose")
    found = _json(folder / "out" / "results.json")
    return {"trials": _trials(found), "placements": _placements(found), "diagnoses": _diagnoses(found["diagnoses"])}


def vision(folder: Path) -> Numbers:
    """Three placements, two seeds, on images of three colours."""
    from tests.data.image_files import write_images

    write_images(folder / "data", count=30)
    (folder / "config.json").write_text(json.dumps(VISION))
    mixln(
        *("compare", "--task", "vision", "--data", folder / "data", "--model", folder / "config.json"),
        *("--cache", folder / "cache", "--batch-size", "9", "--steps", "20", "--evaluations", "2", "--jobs", "1"),
        *(
            "--mixup",
            "0.2",
            "--label-smoothing",
            "0.1",
            "--average",
            "0.9",
            "--precision",
            "float32",
            "--compile",
            "off",
        ),
        *("--placements", *PLACEMENTS, "--seeds", "0", "1", "--out", folder / "out"),
    )
    found = _json(folder / "out" / "results.json")
    return {
        "trials": _trials(found),
        "placements": _placements(found),
        "answered": {each["placement"]: each["reliability"] for each in found["answered"]},
    }


def chain(folder: Path) -> Numbers:
    """Two placements, two seeds, through fine-tuning with LoRA, a task, a reward model and reinforcement learning."""
    from tests.diagnostics import zoo
    from tests.training.tuned import ROWS

    small.write_config(folder / "config.json")
    zoo.write_task(folder, [{"question": row["prompt"], "choices": ["one", "two"], "gold": 0} for row in ROWS[:8]])
    examples = _examples(folder)
    parts = {
        "finetune": ("--finetune.lora", "2"),
        "reward": (),
        "rlhf": ("--rlhf.generations", "2", "--rlhf.new-tokens", "4"),
    }
    chosen: list[str | Path] = []
    for name, own in parts.items():
        data = () if name == "rlhf" else ("--data", examples, *TUNING[-2:])
        options = (*TUNING[:-2], "--learning-rate", "1e-3", *data)
        chosen += [f"--{name}.{item[2:]}" if str(item).startswith("--") else item for item in options] + list(own)
    mixln(
        *("compare", "--model", folder / "config.json", *_text(folder), "--placements", "pre", "mix(0.5)"),
        *("--steps", "20", "--evaluations", "2", "--learning-rates", "1e-2", "--jobs", "1", "--out", folder / "out"),
        *("--chain", "finetune,evaluate,rlhf", "--evaluate.tasks", "small_choice", "--evaluate.task-folder", folder),
        *chosen,
    )
    found = _json(folder / "out" / "results.json")["chain"]
    return {
        "rows": {row["placement"]: row["figures"] for row in found["rows"]},
        "results": {
            _label(result["trial"]): {
                "finetune": _tuned(result["finetuned"]),
                "reward": _tuned(result["reward"]),
                "rlhf": _tuned(result["rlhf"]),
            }
            for result in found["results"]
        },
    }


def trainings(folder: Path) -> Numbers:
    """A model with experts on one text; then fine-tuning of all weights, a reward model with LoRA, and GRPO."""
    (folder / "config.json").write_text(json.dumps(EXPERTS))
    small.write_config(folder / "llama.json")
    text, examples = _text(folder), _examples(folder)
    pretrain = ("pretrain", *text, "--steps", "10", "--evaluations", "2", "--micro-batch-size", "2", "--placement")
    mixln(*pretrain, "post", "--model", folder / "config.json", "--out", folder / "experts")
    mixln(*pretrain, "keel", "--model", folder / "llama.json", "--out", folder / "base")
    (base,) = (folder / "base").glob("*/result.json")
    data = ("--data", examples, *TUNING, "--cache", folder / "cache")
    mixln("finetune", base.parent, *data, "--out", folder / "finetune")
    mixln("reward", folder / "finetune" / "model", *data, "--lora", "2", "--out", folder / "reward")
    mixln(
        *("rlhf", folder / "finetune" / "model", "--reward-model", folder / "reward" / "model", *data),
        *("--algorithm", "grpo", "--generations", "2", "--new-tokens", "4", "--out", folder / "grpo"),
    )
    (experts,) = (folder / "experts").glob("*/result.json")
    return {
        **{name: _trial(_json(path)) for name, path in (("experts", experts), ("pretrain", base))},
        **{name: _tuned(_json(folder / name / "tuning-result.json")) for name in ("finetune", "reward", "grpo")},
    }


def diagnosis(folder: Path) -> Numbers:
    """A stock Llama on a text of the caller's: angles, drops, gradients, Jacobians."""
    from tests import decoders

    decoders.save(folder / "model", None)
    small.write_folder(folder / "text", small.documents())
    mixln(
        *(
            "diagnose",
            folder / "model",
            "--data",
            folder / "text",
            "--out",
            folder / "out",
            "--cache",
            folder / "cache",
        ),
        *("--tokens", "256", "--sequence-length", "16", "--gradient-tokens", "64", "--batch-size", "4"),
    )
    return _diagnoses(_json(folder / "out" / "diagnosis.json")["models"])


def recipe(folder: Path) -> Numbers:
    """A recipe of one comparison at two learning rates, its trials diagnosed."""
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json", num_hidden_layers=4)
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.recipe", str(folder)], capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    found = _json(folder / "out" / "small-cpu" / "reproduction.json")
    return {
        "measured": {f"{each['quantity']} {each['placement']}": dict(_leaves(each)) for each in found["measured"]},
        "orderings": {
            f"{each['quantity']} {index}": dict(_leaves(each)) for index, each in enumerate(found["orderings"])
        },
        "swept": [dict(_leaves(each)) for each in found["swept"]],
        "lines": {f"{each['curve']} {each['placement']} {each['seed']}": each["points"] for each in found["lines"]},
    }


RUNS: dict[str, Callable[[Path], Numbers]] = {
    "comparison": comparison,
    "vision": vision,
    "chain": chain,
    "trainings": trainings,
    "diagnosis": diagnosis,
    "recipe": recipe,
}


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _label(trial: dict[str, Any]) -> str:
    return f"{trial['placement']} {trial['learning_rate']:g} {trial['seed']}"


def _trials(found: dict[str, Any]) -> Numbers:
    return {_label(trial["trial"]): _trial(trial) for trial in found["trials"]}


def _trial(trial: dict[str, Any]) -> Numbers:
    names = ("status", "step", "tokens", "loss", "bits_per_byte", "figures", *CURVES)
    return {name: trial[name] for name in names}


def _placements(found: dict[str, Any]) -> Numbers:
    names = ("learning_rate", "seeds", "finished", "loss", "loss_deviation", "bits_per_byte", "figures", "difference")
    return {row["placement"]: {name: row["best"][name] for name in names} for row in found["placements"]}


def _tuned(result: dict[str, Any]) -> Numbers:
    names = ("status", "step", "examples", "held_out", "before", "after", "curves", "gradient_norms")
    return {name: result[name] for name in names}


def _diagnoses(found: list[dict[str, Any]]) -> Numbers:
    return {each["model"].rpartition("/")[2]: {name: dict(_leaves(each[name])) for name in MEASURED} for each in found}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of a nested record by their paths; words and times are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not name.endswith("seconds"):
                yield from _leaves(inner, f"{path}.{name}".strip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
