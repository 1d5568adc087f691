"""Damaged files: data, models, and folders of runs."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tests.faults.fuzz import commands as of
from tests.faults.fuzz.case import Case

NEW = ("--out", "new")

# What can be done to a file.

JUNK = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 1, 3, 1e30, -0.5, float("nan"), float("inf"), 10**18, 10**400, "", "x", "../..", "\u0000"]
    ),
    st.sampled_from(
        [[], [[]], {}, {"a": 1}, [1, "a"], "\x1b[2J", "x" * 10_000, 2**31, 2**63, -(2**63), "/dev/zero", "é"]
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
OF_WEIGHTS = st.one_of(
    st.tuples(st.sampled_from(["drop", "misshape", "retype", "nan", "extra", "length", "pickle"]), st.integers(0, 100)),
    st.tuples(st.just("header"), st.integers(0, 500), JUNK),
)
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

# Data.

READERS: dict[str, tuple[str, ...]] = {
    "pretrain": (*of.SINGLE, *NEW, "--data"),
    "streamed": (*of.SINGLE, *NEW, "--streaming", "--vocabulary-size", "300", "--data"),
    "compare": (*of.ONE, *NEW, "--data"),
    "prepare": (*of.PREPARATION, *NEW, "--data"),
    "diagnose": (*of.DIAGNOSIS, *NEW, "--data"),
    "evaluate": (*of.EVALUATION, *NEW, "--data"),
    "finetune": (*of.TUNING["finetune"], *NEW, "--data"),
    "reward": (*of.TUNING["reward"], *NEW, "--data"),
    "rlhf": (*of.JUDGED, *NEW, "--data"),
}
"""Commands that read data, whose name is still to come."""
OFTEN = sorted(READERS.keys() - {"compare"}) * 4 + ["compare"]
"""Names of them, those with workers less often: a new interpreter takes ten seconds."""


@st.composite
def mistaken_data(draw: st.DrawFn) -> Case:
    file = draw(st.sampled_from(["data.txt", "data.jsonl", "data.jsonl", "data.parquet", "text/000.txt"]))
    operations = [OF_FILE]
    if file == "data.jsonl":
        operations += [OF_JSON, st.tuples(st.just("line"), LINES)]
    if file == "data.parquet":
        operations += [st.tuples(st.just("columns"), st.integers(0, 5))]
    named = "text" if file.startswith("text/") else file
    return Case(
        kind="data",
        command=(*READERS[draw(st.sampled_from(OFTEN))], named),
        changes=((file, draw(st.one_of(operations))),),
    )


# Models.

TAKERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (words[:1], (*words[2:], *NEW))
    for name, words in {
        "diagnose": of.DIAGNOSIS,
        "evaluate": of.EVALUATION,
        "questions": of.ASKED,
        "finetune": of.TUNING["finetune"],
        "lora": of.LORA,
        "reward": of.TUNING["reward"],
        "rlhf": of.JUDGED,
        "prune": of.PRUNING,
        "convert": of.CONVERSION,
    }.items()
}
"""Commands that take a model: what stands before its name, and after it."""
FILES = (
    *["config.json"] * 3,
    *["model.safetensors"] * 2,
    *("tokenizer.json", "tokenizer_config.json", "generation_config.json"),
)


def taken(name: str, model: str) -> tuple[str, ...]:
    """A command with a model."""
    before, after = TAKERS[name]
    return (*before, model, *after)


@st.composite
def mistaken_model(draw: st.DrawFn) -> Case:
    file = draw(st.sampled_from(FILES))
    operation = draw(st.one_of(OF_FILE, *([OF_WEIGHTS] if file.endswith("safetensors") else [OF_JSON] * 3)))
    which = draw(st.integers(0, 9))
    if which == 0:
        changes = (("config.json", draw(st.one_of(OF_FILE, OF_JSON))),)
        command = draw(st.sampled_from([(*of.SINGLE, *NEW), of.PLAN, (*of.SINGLE, *NEW, "--vocabulary-size", "300")]))
        return Case(kind="models", command=command, changes=changes)
    model = draw(st.sampled_from(["placed", "stock"]))
    changed = ((f"{model}/{file}", operation),)
    if which == 1:
        return Case(kind="models", command=(*of.SINGLE, *NEW, "--tokenizer", model), changes=changed)
    if which == 2:
        judged = tuple("stock" if word == "rewarded/model" else word for word in of.REINFORCEMENT)
        return Case(kind="models", command=(*judged, *NEW), changes=((f"stock/{file}", operation),))
    return Case(kind="models", command=taken(draw(st.sampled_from(sorted(TAKERS))), model), changes=changed)


# Folders of runs.

TRIAL = "store/mix-0.5_lr0.003_seed0/"
ALONE = "single/mix-0.5_lr0.003_seed0/"
LAST = "checkpoint-2/"
PARTS = ("experiment.json", "experiment.json", "experiment.json")
OF_TRIAL = (
    "result.json",
    "result.json",
    "trial.json",
    "metrics.jsonl",
    "checksums.json",
    f"{LAST}config.json",
    f"{LAST}model.safetensors",
)
AGAIN = {
    "pretrain": (*of.SINGLE, "--out", "single"),
    "bare": ("pretrain", "--out", "single", *of.CACHE),
    "images of language": ("compare", "--task", "vision", "--out", "single", *of.CACHE),
    "diagnose": taken("diagnose", "single"),
    "evaluate": taken("evaluate", "single"),
    "trial": taken("prune", ALONE),
    "finetune": taken("finetune", ALONE),
}
"""Commands on the folder of one training."""
BOTH = {
    "compare": (*of.STORE, "--out", "store"),
    "extend": ("compare", "--extend", *of.STORE[1:], "--out", "store"),
    "bare": ("compare", "--out", "store", *of.CACHE),
    "diagnose": ("diagnose", "store", *of.MEASURED, *NEW),
}


@st.composite
def mistaken_store(draw: st.DrawFn) -> Case:
    """One or two files of a finished comparison, or of one training."""
    whole = draw(st.integers(0, 5)) == 0
    store, trial, again = ("store/", TRIAL, BOTH) if whole else ("single/", ALONE, AGAIN)
    files = [store + name for name in PARTS] + [trial + name for name in OF_TRIAL]
    changes = []
    for file in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
        of_json = file.endswith(("json", "jsonl"))
        changes += [(file, draw(st.one_of(OF_FILE, *([OF_JSON] * 3 if of_json else [OF_WEIGHTS]))))]
    return Case(kind="stores", command=again[draw(st.sampled_from(sorted(again)))], changes=tuple(changes))


JOBS: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "tuned": (
        ((*of.TUNING["finetune"], "--out", "tuned"), taken("evaluate", "tuned/model"), taken("prune", "tuned/model")),
        (
            "asked.json",
            "tuning-result.json",
            "checksums.json",
            "checkpoints/metrics.jsonl",
            "model/config.json",
            "model/model.safetensors",
        ),
    ),
    "rewarded": (
        ((*of.TUNING["reward"], "--out", "rewarded"), (*of.REINFORCEMENT, *NEW)),
        (
            "asked.json",
            "tuning-result.json",
            "checksums.json",
            "model/config.json",
            "model/model.safetensors",
            "model/tokenizer.json",
        ),
    ),
    "prepared": (
        (
            (*of.PREPARATION, "--out", "prepared"),
            (*of.SINGLE, *NEW, "--data", "prepared"),
            (*of.DIAGNOSIS, *NEW, "--data", "prepared"),
        ),
        ("info.json", "request.json", "tokenizer/tokenizer.json"),
    ),
    "diagnosed": (
        ((*of.DIAGNOSIS, "--out", "diagnosed"),),
        ("asked.json", "diagnosis.json", "checksums.json", "report.html"),
    ),
    "evaluated": (
        ((*of.EVALUATION, "--out", "evaluated"),),
        ("asked.json", "evaluation.json", "checksums.json", "table.md"),
    ),
    "vision": (
        (
            ("diagnose", "vision/pre_lr0.001_seed0", "--data", "images", *of.MEASURED, *NEW),
            ("diagnose", "vision", *of.MEASURED, *NEW),
        ),
        (
            "experiment.json",
            "pre_lr0.001_seed0/result.json",
            f"pre_lr0.001_seed0/{LAST}config.json",
            "pre_lr0.001_seed0/answers.npz",
        ),
    ),
}
"""Folder → the commands that read it, and its files."""
CHAIN = "pre_lr0.003_seed0/"
RAMP = "pre_lr1.0_seed0/"
SEARCHES: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "aligned": (
        ((*of.REINFORCEMENT, "--out", "aligned"),),
        ("asked.json", "tuning-result.json", "checksums.json", "model/config.json", "model/model.safetensors"),
    ),
    "chained": (
        ((*of.CHAINED, "--out", "chained"),),
        (
            *("experiment.json", "chain-request.json", f"{CHAIN}chain-result.json", f"{CHAIN}result.json"),
            f"{CHAIN}rlhf/tuning-result.json",
            *(
                f"{CHAIN}finetune/{name}"
                for name in ("tuning-result.json", "asked.json", "checksums.json", "model/config.json")
            ),
            *(
                f"{CHAIN}finetune/model/model.safetensors",
                f"{CHAIN}reward/tuning-result.json",
                f"{CHAIN}reward/model/config.json",
            ),
        ),
    ),
    "stressed": (
        ((*of.STRESS, "--out", "stressed"),),
        (
            *("stress.json", "search.json", "ramps/experiment.json"),
            *(f"ramps/{RAMP}{name}" for name in ("result.json", "metrics.jsonl", "trial.json", "checksums.json")),
        ),
    ),
    "searched": (
        ((*of.SEARCH, "--out", "searched"),),
        (
            "tune.json",
            "search.json",
            "stress/search.json",
            "stress/normal/experiment.json",
            f"stress/normal/{RAMP}result.json",
        ),
    ),
}


def _edited(
    kind: str, folders: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]]
) -> st.SearchStrategy[Case]:
    @st.composite
    def draw_one(draw: st.DrawFn) -> Case:
        folder = draw(st.sampled_from(sorted(folders)))
        again, files = folders[folder]
        changes = []
        for file in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
            kinds = (
                [OF_JSON] * 3 if file.endswith(("json", "jsonl")) else [OF_WEIGHTS] if file.endswith("tensors") else []
            )
            changes += [(f"{folder}/{file}", draw(st.one_of(OF_FILE, *kinds)))]
        return Case(kind=kind, command=draw(st.sampled_from(again)), changes=tuple(changes))

    return draw_one()


edited_jobs = _edited("jobs", JOBS)
edited_searches = _edited("searches", SEARCHES)
