"""Malformed settings, data files, checkpoints and run stores: every command ends with one clear line, and damages nothing.

Inputs are drawn by hypothesis, always the same ones. Each goes through a command in this process; a comparison that would begin to
train is taken as accepted, because every check lies before that.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mixln.cli import main
from mixln.compare import experiment
from tests import decoders, small
from tests.cli.test_commands import run

LONGEST = 1500
"""Characters that a line may have, paths included."""
REPORTS = ("results.json", "table.md", "report.html", ".lock")
"""What a comparison that succeeds writes anew."""
TRAINING = ("--sequence-length", "16", "--batch-size", "4", "--held-out", "0.1", "--precision", "float32")
SHORT = ("--steps", "1", "--batch-size", "2", "--held-out-examples", "2", "--precision", "float32")
COUNTS: Counter[str] = Counter()
"""Inputs by kind and what became of them."""


class Accepted(BaseException):
    """The comparison would begin to train."""


@dataclass(frozen=True)
class Case:
    """An input.

    :param command: with names of files in the folder of the example.
    :param changes: file → what is done to it, an operation and its arguments.
    """

    kind: str
    command: tuple[str, ...]
    changes: tuple[tuple[str, tuple[Any, ...]], ...] = ()


# What can be done to a file.

JUNK = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            -1,
            0,
            1,
            3,
            1e30,
            -0.5,
            float("nan"),
            float("inf"),
            10**18,
            "",
            "x",
            "../..",
            "\u0000",
            [],
            [[]],
            {},
            {"a": 1},
            [1, "a"],
        ]
    ),
    st.text(max_size=8),
    st.integers(-5, 300),
)
SHARE = st.floats(0, 1, allow_nan=False)
BYTES = st.one_of(
    st.sampled_from([b"", b"\x00" * 64, b"\xff\xfe\x00junk", b"{", b"[]", b"null", b"1", b'"text"', b"[" * 100_000]),
    st.sampled_from(
        [
            b'{"a": &a [1], "b": *a}',
            b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
            b"!!python/object/apply:os.system [id]",
        ]
    ),
    st.binary(max_size=200),
)
OF_FILE = st.one_of(
    st.tuples(st.just("cut"), SHARE),
    st.tuples(st.just("flip"), SHARE, st.integers(0, 7)),
    st.tuples(st.just("bytes"), BYTES),
    st.tuples(st.sampled_from(["delete", "folder", "link to nothing", "link to itself"])),
)
OF_JSON = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 10_000), JUNK), st.tuples(st.just("remove"), st.integers(0, 10_000))
)
OF_WEIGHTS = st.tuples(
    st.sampled_from(["drop", "misshape", "retype", "nan", "extra", "length", "pickle"]), st.integers(0, 100)
)


def change(path: Path, operation: str, *how: Any) -> None:
    """Does one thing to a file."""
    if operation in ("set", "remove"):
        value = json.loads(path.read_text("utf-8").splitlines()[0] if path.suffix == ".jsonl" else path.read_text())
        places = list(_places(value))
        if not places:
            return
        holder, key = places[how[0] % len(places)]
        if operation == "set":
            holder[key] = how[1]
        else:
            del holder[key]
        path.write_text(json.dumps(value), "utf-8")
    elif operation == "cut":
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * how[0])])
    elif operation == "flip":
        data = bytearray(path.read_bytes())
        if data:
            data[min(len(data) - 1, int(len(data) * how[0]))] ^= 1 << how[1]
        path.write_bytes(data)
    elif operation == "bytes":
        path.write_bytes(how[0])
    elif operation == "line":
        path.write_text(path.read_text("utf-8") + how[0] + "\n", "utf-8", errors="surrogatepass")
    elif operation == "columns":
        columns = [
            {},
            {"text": [1, 2]},
            {"text": [None] * 60},
            {"text": [["a"]] * 60},
            {"text": [b"\xff"] * 60},
            {"prompt": [math.nan]},
        ]
        pyarrow.parquet.write_table(pyarrow.table(columns[how[0]]), path)
    elif operation == "length":
        path.write_bytes((2**62 + how[0]).to_bytes(8, "little") + path.read_bytes()[8:])
    elif operation == "pickle":
        path.unlink()
        (path.parent / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(path.parent / "pwned")))
    elif operation in ("drop", "misshape", "retype", "nan", "extra"):
        weights = load_file(path)
        name = sorted(weights)[how[0] % len(weights)]
        changed = {
            "misshape": lambda: torch.cat([weights[name], weights[name]]),
            "retype": lambda: weights[name].to(torch.int8),
            "nan": lambda: torch.full_like(weights[name], torch.nan),
            "extra": lambda: weights[name].clone(),
        }
        if operation == "drop":
            del weights[name]
        else:
            weights[f"{name}.extra" if operation == "extra" else name] = changed[operation]()
        save_file(weights, path, metadata={"format": "pt"})
    else:
        path.unlink()
        if operation == "folder":
            path.mkdir()
        elif operation.startswith("link"):
            path.symlink_to(path.name if operation == "link to itself" else "nowhere")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of nested JSON, as what holds it and its key or index."""
    if not isinstance(value, dict | list):
        return
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        yield from _places(inner)


class Evil:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


# The materials: each example gets a copy, as the current folder.


USUAL = (
    *[
        "--data",
        "text",
        "--cache",
        "cache",
        "--sequence-length",
        "16",
        "--batch-size",
        "4",
        "--held-out",
        "0.1",
        "--precision",
        "float32",
    ],
    "--seeds",
    "0",
)
STORED = ("compare", "--placements", "pre", "mix(0.5)", "--steps", "6", "--jobs", "1", "--model", "config.json", *USUAL)


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, examples, a config, two models and a finished comparison."""
    folder = tmp_path_factory.mktemp("materials")
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json")
    texts = small.documents(60, 12)
    (folder / "data.txt").write_text("\n".join(texts * 4), "utf-8")
    rows = [{"text": t, "prompt": t[:20], "completion": t[20:], "chosen": t[20:], "rejected": t[21:]} for t in texts]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data.parquet")
    decoders.save(folder / "placed", "mix(0.5)")
    decoders.save(folder / "stock", None)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main([*STORED, "--out", "store"]) == 0
    for path in [folder / "store" / name for name in REPORTS] + list((folder / "store").glob("*.png")):
        path.unlink()
    return folder


# The inputs of each kind.

WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "x",
            "-1",
            "0",
            "1",
            "2.5",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "1e-320",
            "9" * 20,
            "--",
            "=",
            "[red]",
            "x" * 5000,
            "a\nb",
        ]
    ),
    st.sampled_from(
        [
            "~nobody/x",
            "/dev/null",
            "config.json",
            "text",
            "store",
            "data.jsonl",
            "\udcff",
            "𝔸",
            "pre",
            "mix(",
            "mix(1/0)",
            "post*0,pre*12",
        ]
    ),
    st.sampled_from(
        [
            "mix(nan)",
            "mix(1e999)",
            "pre*99999999999",
            "((((((",
            "group(0)",
            "norm(,)+pre",
            "qknorm+" * 50 + "pre",
            "pre,,post",
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12),
)
TUNED = [
    "examples",
    "held-out-examples",
    "steps",
    "epochs",
    "learning-rate",
    "batch-size",
    "micro-batch-size",
    "warmup",
    "lora",
    "lora-alpha",
    "seed",
    "data",
    "evaluations",
    "precision",
]
OPTIONS: dict[tuple[str, ...], list[str]] = {
    (*STORED[:1], *STORED[4:]): [
        *[
            "placements",
            "learning-rates",
            "seeds",
            "baseline",
            "model",
            "init",
            "out",
            "jobs",
            "executor",
            "steps",
            "tokens",
            "evaluations",
            "batch-size",
        ],
        *[
            "micro-batch-size",
            "warmup",
            "beta1",
            "beta2",
            "weight-decay",
            "max-gradient-norm",
            "data",
            "text-column",
            "held-out",
            "tokenizer",
        ],
        *[
            "vocabulary-size",
            "sequence-length",
            "checkpoint-seconds",
            "chain",
            "finetune.examples",
            "evaluate.tasks",
            "rlhf.beta",
            "extend",
        ],
    ],
    ("diagnose", "placed", "--data", "data.txt", "--tokens", "64"): [
        *[
            "data",
            "text-column",
            "held-out",
            "tokens",
            "sequence-length",
            "batch-size",
            "blocks",
            "gradient-tokens",
            "jacobian-tokens",
        ],
        *["tasks", "task-folder", "task-limit", "memory-gb", "precision", "layer-list", "seed", "out", "cache"],
    ],
    ("finetune", "placed", "--data", "data.jsonl", *SHORT): TUNED,
    ("reward", "placed", "--data", "data.jsonl", *SHORT): TUNED,
    ("rlhf", "placed", "--reward-model", "placed", "--data", "data.jsonl", *SHORT): [
        *TUNED,
        *["generations", "new-tokens", "temperature", "beta", "algorithm", "reward-model"],
    ],
    ("prune", "placed", "--layers", "1", "--out", "new"): ["layers", "out", "precision", "layer-list"],
    ("convert", "placed", "--out", "new"): ["out", "placement"],
    ("evaluate", "placed", "--tasks", "perplexity", "--data", "data.txt"): [
        *["tasks", "limit", "shots", "questions", "task-folder", "batch-size", "precision", "data", "held-out"]
    ],
    ("placements", "show", "pre"): ["layers", "family"],
}


@st.composite
def mistaken_settings(draw: st.DrawFn) -> Case:
    base = draw(st.sampled_from(sorted(OPTIONS)))
    given = draw(st.lists(st.tuples(st.sampled_from(OPTIONS[base]), WORDS), max_size=2))
    options = [word for name, value in given for word in (f"--{name}", *([] if name == "extend" else [value]))]
    if not given or draw(st.integers(0, 4)) == 0:  # a model or a placement of that name, or an argument too many
        place = draw(st.integers(1, 2)) if base[0] == "placements" else 1
        base = (*base[:place], draw(WORDS), *base[place + 1 :])
    return Case("settings", (*base, *options))


DATA = {
    "compare": (*STORED[:-2], "--seeds", "0", "--out", "new", "--data"),
    "diagnose": ("diagnose", "placed", "--tokens", "64", "--gradient-tokens", "0", "--out", "new", "--data"),
    "evaluate": ("evaluate", "placed", "--tasks", "perplexity", "--out", "new", "--data"),
    "finetune": ("finetune", "placed", "--out", "new", *SHORT, "--data"),
    "reward": ("reward", "placed", "--out", "new", *SHORT, "--data"),
}
LINES = st.one_of(
    st.dictionaries(
        st.sampled_from(["text", "prompt", "completion", "chosen", "rejected", "messages"]), JUNK, max_size=4
    ).map(json.dumps),
    st.sampled_from(
        [
            '{"text": "\\ud800"}',
            '{"prompt": "a", "completion": NaN}',
            '{"prompt": {"a": [1]}, "completion": []}',
            "[" * 5000,
            '{"text": ' + "1" * 5000 + "}",
        ]
    ),
    st.text(max_size=20),
)


@st.composite
def mistaken_data(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(sorted(DATA)))
    file = draw(st.sampled_from(["data.txt", "data.jsonl", "data.parquet"]))
    operations = [OF_FILE]
    if file == "data.jsonl":
        operations += [OF_JSON, st.tuples(st.just("line"), LINES)]
    if file == "data.parquet":
        operations += [st.tuples(st.just("columns"), st.integers(0, 5))]
    return Case("data", (*DATA[command], file), ((file, draw(st.one_of(operations))),))


MODEL = {
    "prune": ("--layers", "1", "--out", "new"),
    "convert": ("--out", "new"),
    **{name: (*DATA[name][2:], "data.txt") for name in ("diagnose", "evaluate")},
    **{name: (*DATA[name][2:], "data.jsonl") for name in ("finetune", "reward")},
}


@st.composite
def mistaken_model(draw: st.DrawFn) -> Case:
    file = draw(
        st.sampled_from(
            ["config.json"] * 3
            + ["model.safetensors"] * 2
            + ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
        )
    )
    operation = draw(st.one_of(OF_FILE, *([OF_WEIGHTS] if file.endswith("safetensors") else [OF_JSON] * 3)))
    if draw(st.integers(0, 9)) == 0:
        command = (*STORED[:-8], "--cache", "cache", *TRAINING, "--seeds", "0", "--out", "new", "--model")
        return Case("models", (*command, "config.json"), (("config.json", draw(st.one_of(OF_FILE, OF_JSON))),))
    model, name = draw(st.sampled_from(["placed", "stock"])), draw(st.sampled_from(sorted(MODEL)))
    return Case("models", (name, model, *MODEL[name]), ((f"{model}/{file}", operation),))


TRIAL = "store/mix-0.5_lr0.003_seed0/"
STORE = {
    "compare": (*STORED, "--out", "store"),
    "extend": ("compare", "--extend", *STORED[4:], "--out", "store"),
    "diagnose": ("diagnose", "store", *MODEL["diagnose"][:-2]),
    "trial": ("prune", TRIAL, *MODEL["prune"]),
}


@st.composite
def mistaken_store(draw: st.DrawFn) -> Case:
    file = draw(
        st.sampled_from(
            ["store/experiment.json"] * 3
            + [TRIAL + "result.json"] * 3
            + [TRIAL + "trial.json", TRIAL + "metrics.jsonl", TRIAL + "checkpoint-6/config.json"]
        )
    )
    operation = draw(st.one_of(OF_FILE, *[OF_JSON] * (1 if file.endswith("l") else 3)))
    return Case("stores", STORE[draw(st.sampled_from(sorted(STORE)))], ((file, operation),))


# What must be true of each.


def complaint(case: Case, materials: Path) -> str:
    """What is wrong with how a command takes an input; empty if nothing is."""
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(materials, Path(place) / "example", symlinks=True)
        with contextlib.chdir(folder):
            for file, (operation, *how) in case.changes:
                change(Path(file), operation, *how)
            before = content(Path())
            code, said, trace = command(case)
            after = content(Path())
    COUNTS[f"{case.kind}: {code}"] += 1
    # Of several models, a report has those that were done before the one that is refused.
    free = ("cache", "runs", "new" if case.command[:2] == ("diagnose", "store") else "cache")
    if trace:
        return trace
    if any("pwned" in name for name in after):
        return "code that came with a model was run"
    if code == 0 or code == "accepted":
        kept = [name for name in before if name.startswith(("store/", "placed/", "stock/", "text/", "data"))]
        changed = [name for name in kept if after.get(name) != before[name] and name != "store/experiment.json"]
        return f"a success changed {changed}" if changed and case.kind != "stores" else ""
    if code != 2:
        return f"exit code {code}: {said}"
    if said.count("\n") != 1 or not said.startswith("mixln: ") or not said.endswith("\n"):
        return f"not one line: {said!r}"
    if len(said) > LONGEST or "Traceback" in said:
        return f"not clear: {said[:300]!r} ({len(said)})"
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    changed = [name for name in changed if not name.startswith(free)]
    return f"a refusal changed {changed}: {said}" if changed else ""


def content(folder: Path) -> dict[str, bytes]:
    """Every file by its path; of links and folders, what they are."""
    found = {}
    for path in folder.rglob("*"):
        name = path.as_posix()
        if path.is_symlink() or path.is_dir():
            found[name] = os.readlink(path).encode() if path.is_symlink() else b"folder"
        elif path.name != ".lock":
            found[name] = path.read_bytes()
    return found


def command(case: Case) -> tuple[Any, str, str]:
    """Runs the command in this process: exit code, standard error, and the end of the traceback where one got out of it."""
    import transformers

    errors = io.StringIO()
    with contextlib.ExitStack() as stack:
        for where, name in ((experiment, "run"), (transformers.Trainer, "train")):
            stack.enter_context(mock.patch.object(where, name, side_effect=Accepted))
        if case.kind == "settings":
            stack.enter_context(mock.patch("mixln.compare.diagnosis.diagnose", side_effect=Accepted))
        stack.enter_context(mock.patch("mixln.report._pngs", return_value={}))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(errors))
        stack.enter_context(within(60))
        try:
            return main(list(case.command)), errors.getvalue(), ""
        except SystemExit as stop:
            return stop.code, errors.getvalue(), ""
        except Accepted:
            return "accepted", errors.getvalue(), ""
        except BaseException as error:
            return "", "", "".join(traceback.format_exception(error)[-4:])


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises where what is inside takes longer."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"a hang: still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


KINDS = {
    "settings": (mistaken_settings(), 15, 120),
    "data": (mistaken_data(), 15, 100),
    "models": (mistaken_model(), 15, 120),
    "stores": (mistaken_store(), 15, 100),
}
"""Kind → inputs, how many in the fast suite, and how many in the slow one."""


def examine(kind: str, count: int, materials: Path) -> None:
    """Holds so many inputs of a kind against what must be true."""
    COUNTS.clear()

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=KINDS[kind][0])
    def each(case: Case) -> None:
        found = complaint(case, materials)
        assert not found, f"{case}: {found}"

    each()
    print(f"\n{kind}:", dict(sorted(COUNTS.items())))


@pytest.mark.parametrize("kind", KINDS)
def test_a_malformed_input_is_one_clear_line(kind, materials):
    examine(kind, KINDS[kind][1], materials)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case("settings", (*STORED, "--out", "new", "--steps", "a\nb")),
        Case("data", (*DATA["diagnose"], "data.jsonl"), (("data.jsonl", ("bytes", b"[" * 100_000)),)),
        Case("models", ("prune", "placed", *MODEL["prune"]), (("placed/model.safetensors", ("cut", 0.5)),)),
        Case("models", ("diagnose", "stock", *MODEL["diagnose"]), (("stock/model.safetensors", ("pickle", 0)),)),
        Case("stores", STORE["compare"], (("store/experiment.json", ("cut", 0.7)),)),
        Case("stores", STORE["diagnose"], ((f"{TRIAL}result.json", ("bytes", b"null")),)),
    ],
    ids=lambda case: f"{case.kind}-{case.command[0]}",
)
def test_the_same_holds_of_the_command_in_a_process_of_its_own(case, materials, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(materials, tmp_path / "example"))
    for file, (operation, *how) in case.changes:
        change(Path(file), operation, *how)
    before = content(Path())
    found = run(*case.command)
    assert found.returncode == 2
    assert found.stderr.startswith("mixln: ")
    assert found.stderr.count("\n") == 1
    assert {name: data for name, data in content(Path()).items() if not name.startswith("cache")} == {
        name: data for name, data in before.items() if not name.startswith("cache")
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_malformed_inputs_are_one_clear_line_each(kind, materials):
    examine(kind, KINDS[kind][2], materials)
