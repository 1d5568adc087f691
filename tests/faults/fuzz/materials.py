"""The materials: texts, models, images, and what every command of ours leaves. Each input gets a copy, as the current folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
from transformers import LlamaForCausalLM

from mixln.cli import main
from tests import decoders, small, tiny
from tests.data.image_files import write_images
from tests.diagnostics import zoo
from tests.faults.fuzz.commands import (
    CHAINED,
    DIAGNOSIS,
    EVALUATION,
    MINE,
    PREPARATION,
    REINFORCEMENT,
    SEARCH,
    SINGLE,
    STORE,
    STRESS,
    TUNING,
    VISION,
)
from tests.faults.fuzz.traps import OUTSIDE
from tests.hosts.test_sources import write_gguf

REPORTS = ("results.json", "table.md", "report.html")
"""What a comparison that succeeds writes anew."""


def basics(folder: Path) -> None:
    """A text, examples, a config, models of two kinds, images, a GGUF file, a task, and files of the user's."""
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json")
    texts = small.documents(60, 12)
    (folder / "data.txt").write_text("\n".join(texts * 4), "utf-8")
    rows = [{"text": t, "prompt": t[:20], "completion": t[20:], "chosen": t[20:], "rejected": t[21:]} for t in texts]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data.parquet")
    decoders.save(folder / "placed", "mix(0.5)")
    decoders.save(folder / "stock", None)
    write_images(folder / "images", count=6)
    config = tiny.tiny_config(vocab_size=300, max_position_embeddings=256, tie_word_embeddings=False)
    write_gguf(folder / "tiny.gguf", LlamaForCausalLM(config), decoders.tokenizer())
    (folder / "tasks").mkdir()
    zoo.write_task(folder / "tasks", [{"question": "one two three", "choices": ["four", "nine"], "gold": 0}] * 2)
    (folder / OUTSIDE / "deep").mkdir(parents=True)
    for name in ("mine.txt", "deep/mine.json", "model.safetensors", "checksums.json"):
        (folder / OUTSIDE / name).write_text("{}" if name.endswith("json") else "mine " * 40)
    (folder / MINE).write_text("the user's own notes")


MADE: dict[str, tuple[str, ...]] = {
    "store": STORE,
    "single": SINGLE,
    "tuned": TUNING["finetune"],
    "rewarded": TUNING["reward"],
    "aligned": REINFORCEMENT,
    "prepared": PREPARATION,
    "diagnosed": DIAGNOSIS,
    "evaluated": EVALUATION,
    "vision": VISION,
    "chained": CHAINED,
    "stressed": STRESS,
    "searched": SEARCH,
}
"""Folder → the command that fills it, without `--out`."""
NEEDS: dict[str, tuple[str, ...]] = {"aligned": ("rewarded",)}


def make(folder: Path, names: tuple[str, ...], run: Callable[..., int | None]) -> None:
    """Fills a folder with the materials, and with what commands make of them.

    :param run: runs a function in a process of its own, and returns its exit code.
    """
    assert run(lambda: basics(folder), folder) == 0
    for name in dict.fromkeys(needed for each in names for needed in (*NEEDS.get(each, ()), each)):
        code = run(lambda name=name: main([*MADE[name], "--out", name]), folder)
        assert code == 0 or (name == "searched" and code == 1), f"{name} cannot be made: exit code {code}"
    for name in ("store", "single"):  # so that what is missing is written
        for report in [folder / name / report for report in REPORTS] + list((folder / name).glob("*.png")):
            report.unlink(missing_ok=True)
