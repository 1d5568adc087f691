"""Files that come from others run no code here: neither those of a model nor names that end up in a report."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from mixln.cli import main
from mixln.report.writing import write
from mixln.runs.checkpoints import SUMS, seal, sealed
from tests import decoders, small
from tests.report import samples

SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(2)" "onload=alert(3)></script>'


class Marker:
    """A pickle that makes a folder when it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("mixln: ")
    assert said.count("\n") == 1
    return said


def pickled(folder: Path, *, marker: Path) -> Path:
    """A stock model whose weights are a pickle with code in it."""
    decoders.save(folder, None)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(marker)))
    return folder


def test_the_marker_shows_a_pickle_that_is_read(tmp_path):
    pickle.loads(pickle.dumps(Marker(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    "command",
    [("diagnose",), ("evaluate",), ("finetune",), ("reward",), ("prune", "--layers", "1"), ("convert",)],
    ids=lambda words: words[0],
)
def test_weights_that_are_a_pickle_are_refused(command, tmp_path, capsys):
    model, out = pickled(tmp_path / "model", marker=tmp_path / "made"), tmp_path / "out"
    said = refusal(capsys, command[0], str(model), *command[1:], "--out", str(out))
    assert "pytorch_model.bin" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_reward_model_that_is_a_pickle_is_refused(tmp_path, capsys):
    model, judge = decoders.save(tmp_path / "model"), pickled(tmp_path / "judge", marker=tmp_path / "made")
    said = refusal(capsys, "rlhf", str(model), "--reward-model", str(judge), "--out", str(tmp_path / "out"))
    assert "which can run code when it is read" in said
    assert not (tmp_path / "made").exists()


def test_code_that_comes_with_a_model_is_not_run(tmp_path, capsys):
    """Neither that of a config of its own, nor that beside one that transformers knows."""
    code = f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n"
    for family in ("llama", "theirs"):
        folder = decoders.save(tmp_path / family, None)
        entries = json.loads((folder / "config.json").read_text())
        auto_map = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
        (folder / "config.json").write_text(json.dumps({**entries, "model_type": family, "auto_map": auto_map}))
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        tokenizer["auto_map"] = {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        (folder / "theirs.py").write_text(code)
    assert main(["prune", str(tmp_path / "llama"), "--layers", "1", "--out", str(tmp_path / "out")]) == 0
    assert "code that comes with a model is not run" in refusal(
        capsys, "prune", str(tmp_path / "theirs"), "--layers", "1", "--out", str(tmp_path / "other")
    )
    text = small.write_folder(tmp_path / "text", small.documents(4))
    for option, reason in (
        ("--model", "code that comes with a model is not run"),
        ("--tokenizer", "the held-out part has 83 tokens"),
    ):
        chosen = ["--data", str(text), option, str(tmp_path / "theirs"), "--cache", str(tmp_path / "cache")]
        assert reason in refusal(capsys, "compare", *chosen, "--out", str(tmp_path / "compared"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_to_go_on_from_runs_no_code(tmp_path, name):
    """Even where its checksums fit: the Trainer reads it with `weights_only`."""
    text, run = small.prepared(tmp_path), tmp_path / "run"
    small.train(text, run, checkpoint_seconds=0)
    ((_, checkpoint), *_) = reversed(sealed(run))
    torch.save(Marker(tmp_path / "made"), checkpoint / name)
    (checkpoint / SUMS).unlink()
    seal(checkpoint)
    with pytest.raises(pickle.UnpicklingError):
        small.train(text, run, checkpoint_seconds=0)
    assert not (tmp_path / "made").exists()


def test_no_source_file_reads_what_can_run_code():
    """`torch.load` with `weights_only`, no `trust_remote_code`, no unpickling, no unsafe YAML, no archive taken apart."""
    source = Path(__file__).parents[2] / "src"
    for path in source.rglob("*.py"):
        said = path.read_text("utf-8")
        for line in said.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, path
        for word in (
            *("trust_remote_code=True", "pickle.load", "yaml.load(", "unsafe_load", "extractall", "unpack_archive"),
            *("shell=True", "os.system"),
        ):
            assert word not in said, (path, word)


class Tags(HTMLParser):
    """The scripts, images and handlers of a page, as a browser takes it apart."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def infected(value: Any) -> Any:
    """A record with the script behind every text that is not one of a few fixed words."""
    if isinstance(value, str):
        return value if value in KEPT else value + SCRIPT
    if isinstance(value, tuple | list):
        return type(value)(infected(each) for each in value)
    if isinstance(value, dict):
        return {infected(name): infected(each) for name, each in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        texts = [name for name in value.__dataclass_fields__ if name != "kind"]  # a kind of warning is a fixed word too
        return replace(value, **{name: infected(getattr(value, name)) for name in texts})
    return value


KEPT = (
    "language",
    "finished",
    "diverged",
    "stalled",
    "failed",
    "all",
    "last",
    "lower",
    "higher",
    "attention",
    "feed_forward",
)


def test_no_text_becomes_markup_in_a_report(tmp_path):
    paths = write(infected(samples.usual()), tmp_path)
    page = next(path for path in paths if path.suffix == ".html").read_text("utf-8")
    plain = Tags()
    plain.feed(page)
    assert len(plain.scripts) == 3
    assert not plain.handlers
    assert "img" not in plain.tags
    panels = json.loads(plain.scripts[0])
    assert panels
    assert "alert(1)" in page
    assert not any("<script" in text for text in texts(panels))


def texts(value: Any) -> list[str]:
    """Every text that plotly is given; it reads tags in them."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []
