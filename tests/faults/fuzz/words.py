"""Mistaken command lines, numbers in every option, and environments."""

from __future__ import annotations

import random
from functools import cache

from hypothesis import strategies as st

from tests.faults.fuzz.case import Case
from tests.faults.fuzz.commands import BASES, EVALUATION, LORA, ONE, OPTIONS, PLAN, PREPARATION, SINGLE, TUNING

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
    st.sampled_from(
        [
            "../x",
            "new/new/new",
            "outside",
            "notes.txt/x",
            "images",
            "tiny.gguf",
            "placed",
            "tasks",
            "\x1b[2J",
            "\u202e",
            "True",
            "None",
        ]
    ),
    st.text(st.characters(exclude_characters="\0/~", exclude_categories=()), max_size=12),
)


@st.composite
def mistaken_settings(draw: st.DrawFn) -> Case:
    """One or two options of any command with a word that is none of theirs, or a model of that name, or an argument too many."""
    name = draw(st.sampled_from(sorted(BASES)))
    base = BASES[name]
    given = draw(st.lists(st.tuples(st.sampled_from(OPTIONS[name]), WORDS), max_size=2))
    words = [word for option, value in given for word in (f"--{option.name}", *([] if option.flag else [value]))]
    command = base.words
    if not given or draw(st.integers(0, 4)) == 0:
        place = base.named or 1
        command = (*command[:place], draw(WORDS), *command[place + bool(base.named) :])
    return Case(kind="settings", command=(*command, *words))


HUGE = (
    "9" * 400,
    "-" + "9" * 400,
    "1e15",
    "1" + "0" * 15,
    "9" * 20,
    "1e308",
    "1e400",
    "-1",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "²",
    "٣",
    "1,5",
    "0",
)
"""Numbers that no option takes, or few."""
ODD = (*HUGE, "1", "2", "0.5", "1e-320", "-0.0", "+1", "1_0", "007", "3e0")
"""Also such as an option may take; none of them asks for hours of work."""


@cache
def numbers() -> tuple[Case, ...]:
    """A number of 400 digits and two others in every option that takes one; in an order that mixes the commands."""
    draw = random.Random(24)
    cases = []
    for name, base in BASES.items():
        for option in OPTIONS[name]:
            if option.number:
                odd = HUGE if base.workers or "." in option.name else ODD
                chosen = ("9" * 400, *draw.sample(odd[1:], 0 if "." in option.name else 1))
                # A step of a chain that is not asked for has no settings.
                chain = ("--chain", "finetune,evaluate,rlhf") if "." in option.name else ()
                cases += [
                    Case(kind="numbers", command=(*base.words, *chain, f"--{option.name}={value}")) for value in chosen
                ]
    draw.shuffle(cases)
    return tuple(cases)


LAUNCH = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "COLUMNS",
    "LINES",
    "TERM",
    "NO_COLOR",
)
PLACES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "PATH")
LIBRARIES = (
    *(
        "MPLBACKEND",
        "MPLCONFIGDIR",
        "LC_ALL",
        "LANG",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "TOKENIZERS_PARALLELISM",
        "OMP_NUM_THREADS",
    ),
    *(
        "CUDA_VISIBLE_DEVICES",
        "ACCELERATE_MIXED_PRECISION",
        "ACCELERATE_USE_FSDP",
        "ACCELERATE_USE_CPU",
        "TRANSFORMERS_VERBOSITY",
    ),
    *(
        "DATASETS_VERBOSITY",
        "TORCH_LOGS",
        "PYTORCH_ENABLE_MPS_FALLBACK",
        "WANDB_MODE",
        "FORCE_COLOR",
        "TQDM_DISABLE",
        "RAY_ADDRESS",
    ),
)
"""Variables that libraries read when they are imported, or later."""
VALUES = (
    "",
    "abc",
    "-1",
    "0",
    "1",
    "2",
    "3.5",
    "9" * 400,
    "é",
    "/dev/null",
    "nonsense",
    "true",
    "nowhere/at/all",
    "\x1b[2J",
    "a=b\nc",
    "C",
)
QUICK = (
    ("placements", "show", "pre"),
    PLAN,
    (*PREPARATION, "--out", "new"),
    ("reproduce", "table1", "--plan"),
    ("plan", "--help"),
)
LONG = (
    *(
        (*SINGLE, "--out", "new"),
        (*TUNING["finetune"], "--out", "new"),
        (*EVALUATION, "--out", "new"),
        (*LORA, "--out", "new"),
    ),
    *(
        ("prune", "placed", "--layers", "1", "--cache", "cache", "--out", "new"),
        (*SINGLE, "--out", "new", "--parallel", "fsdp"),
    ),
)


@st.composite
def odd_environments(draw: st.DrawFn) -> Case:
    """One or two variables that a launcher, a shell or a library reads; or a umask."""
    what = draw(st.sampled_from(["launch", "launch", "places", "umask", "libraries"]))
    command = draw(st.sampled_from(LONG if what == "umask" else QUICK + LONG))
    if what == "umask":
        return Case(kind="environment", command=command, umask=draw(st.sampled_from([0, 0o077, 0o027, 0o002, 0o777])))
    names = {"launch": LAUNCH, "places": PLACES, "libraries": LIBRARIES}[what]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    values = st.one_of(st.none(), st.sampled_from(VALUES)) if what == "places" else st.sampled_from(VALUES)
    environment = tuple((name, draw(values)) for name in chosen)
    return Case(kind="environment", command=command, environment=environment, fresh=what == "libraries")


@st.composite
def odd_workers(draw: st.DrawFn) -> Case:
    """Environments of a comparison, whose workers are processes of their own."""
    name = draw(st.sampled_from(("RANK", "COLUMNS", "MPLBACKEND", "TMPDIR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")))
    environment = ((name, draw(st.sampled_from(VALUES))),)
    return Case(kind="environment", command=(*ONE, "--out", "new"), environment=environment, fresh=draw(st.booleans()))
