"""What is hostile: images, GGUF files, and traps in the place of files that a command reads, or where it writes."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.faults.fuzz import commands as of
from tests.faults.fuzz.case import Case, Change
from tests.faults.fuzz.inputs import AGAIN, ALONE, FILES, JOBS, NEW, OF_FILE, OF_TRIAL, READERS, SHARE, TAKERS, taken
from tests.faults.fuzz.traps import PICTURES

Trap = tuple[object, ...]
TAKER = st.sampled_from(sorted(TAKERS))

# Images.

NAMES = (
    *("caf\udce9.png", "a\nb.png", "\x1b[2J.png", "x" * 240 + ".png", "-rf.png", " .png", ".hidden.png", "Thumbs.db"),
    *("a.PNG.exe", "..png", "\u202egnp.png", "a|b`c`.png", "<img src=x>.png"),
)
IMAGES = ("images/red/00.png", "images/green/05.png", "images/blue/zz.gif", "images/red/zz.png", "images/blue/zz.jpg")
NO_IMAGES: tuple[Trap, ...] = (
    *(("pipe",), ("socket",), ("link to", "/dev/zero"), ("link to", "/dev/null"), ("link outside", "mine.txt")),
    *(("sparse",), ("folder of files",)),
)
CLASSES: tuple[Change, ...] = (
    ("images/green", ("delete",)),
    ("images/empty/.keep", ("file",)),
    ("images/x\x1b[2J", ("folder of files",)),
    ("images/stray.png", ("picture", "palette")),
)
"""What else may be odd about the folder."""
DIAGNOSED = ("diagnose", "vision/pre_lr0.001_seed0", "--data", "images", *of.MEASURED, *NEW)
COMPARED = (*of.VISION, *NEW)


@st.composite
def odd_images(draw: st.DrawFn) -> Case:
    """Damaged, odd and dangerous images, and names; in a folder of which up to half may be unreadable."""
    place = draw(st.sampled_from(IMAGES))
    kinds = [st.tuples(st.just("picture"), st.sampled_from(PICTURES)), st.sampled_from(NO_IMAGES)]
    if "zz" not in place:
        flip = st.tuples(st.just("flip"), SHARE, st.integers(0, 7))
        kinds += [OF_FILE, flip, st.tuples(st.just("odd name"), st.sampled_from(NAMES))]
    changes: list[Change] = [(place, draw(st.one_of(kinds)))]
    if draw(st.integers(0, 3)) == 0:
        changes += [draw(st.sampled_from(CLASSES))]
    compared = draw(st.sampled_from([COMPARED, (*COMPARED, "--unreadable", "0.5")]))
    return Case(kind="images", command=draw(st.sampled_from([compared, DIAGNOSED])), changes=tuple(changes))


# GGUF.

FIELDS = tuple(
    f"llama.{name}"
    for name in (
        *("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"),
        *("attention.head_count_kv", "vocab_size"),
    )
)
SIZES = (0, 1, 2, 3, 7, 2**31, 2**32 - 1, 10**9, 30_000_000)
OFFSETS = (0, 1, 32, 2**32, 2**63, 2**64 - 32, 2**64 - 1)


@st.composite
def odd_gguf(draw: st.DrawFn) -> Case:
    """A GGUF file with damaged bytes, most of them in its header, or with numbers in it that do not fit."""
    operation = draw(
        st.one_of(
            OF_FILE,
            st.tuples(st.just("flip"), st.floats(0, 0.1), st.integers(0, 7)),
            st.tuples(st.just("field"), st.sampled_from(FIELDS), st.sampled_from(SIZES)),
            st.tuples(st.just("offset"), st.integers(0, 100), st.sampled_from(OFFSETS)),
        )
    )
    return Case(kind="gguf", command=taken(draw(TAKER), "tiny.gguf"), changes=(("tiny.gguf", operation),))


# Traps.

ENDLESS: tuple[Trap, ...] = (
    *(("pipe",), ("socket",), ("link to", "/dev/zero"), ("link to", "/dev/null"), ("link to", "/dev/full")),
    *(("link to", "/proc/self/environ"), ("link outside", "mine.txt"), ("sparse",), ("folder of files",)),
)
"""What may stand anywhere, in place of a file or beside it."""
IN_PLACE: tuple[Trap, ...] = (*ENDLESS, ("sparse", b'{"a": '), ("moved outside",))
"""What may stand in place of a file."""
LINE = b'{"text": "one two three"}\n'
BOMBS: dict[str, tuple[Trap, ...]] = {
    "gz": (("gzip bomb", LINE), ("gzip bomb", bytes(2**20)), ("gzip bomb", b"x" * 2**20)),
    "parquet": (("parquet bomb",),),
    "txt": (("long", 60_000_000), ("long", 3_000_000)),
    "jsonl": (("long", 60_000_000), ("nested",)),
}
"""Ending → what unpacks to more than there is memory, or has no break."""
OF_FOLDERS = ("pretrain", "streamed", "prepare", "diagnose", "evaluate")
"""Commands that read a folder of texts."""
BESIDE = ("zz.txt", "zz.jsonl", "zz.json.gz", "zz.parquet", ".ipynb_checkpoints/000.txt", "deep/zz.txt")
OF_MODELS = (*FILES, "extra.safetensors", "tokenizer.model", "adapter_config.json")
LAUGHS = "a: &a [x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A YAML file of a few lines that stands for nine to the eighth."""
YAMLS = (
    LAUGHS,
    "task: zz\ndoc_to_text: !function evil.f\n",
    "include: /dev/zero\n",
    "task: zz\ninclude: ../outside/mine.txt\n",
)
PLACES = ("new", "new", "cache", "new/report.html", "new/result.json", "new/.lock")
LEADING: tuple[Trap, ...] = (*ENDLESS, ("link outside", ""), ("link outside", "deep"))


def _ending(name: str) -> str:
    return name.rsplit(".", 1)[1]


@st.composite
def _in_text(draw: st.DrawFn) -> Case:
    file = draw(st.sampled_from([*BESIDE, "000.txt"]))
    trap = draw(st.sampled_from([*ENDLESS, *BOMBS[_ending(file)] * 4]))
    command = (*READERS[draw(st.sampled_from(OF_FOLDERS))], "text")
    return Case(kind="traps", command=command, changes=((f"text/{file}", trap),))


@st.composite
def _as_data(draw: st.DrawFn) -> Case:
    file = draw(st.sampled_from(["data.txt", "data.jsonl", "data.parquet", "data.json.gz"]))
    traps = ENDLESS if file == "data.json.gz" else IN_PLACE
    trap = draw(st.sampled_from([*traps, *BOMBS[_ending(file)] * 4]))
    reader = draw(st.sampled_from(sorted(READERS.keys() - {"compare"})))
    return Case(kind="traps", command=(*READERS[reader], file), changes=((file, trap),))


@st.composite
def _in_model(draw: st.DrawFn) -> Case:
    file = draw(st.sampled_from([*[f"placed/{name}" for name in OF_MODELS], "tiny.gguf"]))
    traps = IN_PLACE if file.removeprefix("placed/") in (*FILES, "tiny.gguf") else ENDLESS
    more: list[Trap] = [("normalizer",)] * 6 if file.endswith("tokenizer.json") else []
    more += [("nested",)] if file.endswith("json") else []
    command = taken(draw(TAKER), file.split("/")[0])
    return Case(kind="traps", command=command, changes=((file, draw(st.sampled_from([*traps, *more]))),))


@st.composite
def _in_run(draw: st.DrawFn) -> Case:
    alone = ALONE.removeprefix("single/")
    own = (tuple(AGAIN.values()), ("experiment.json", *[alone + name for name in OF_TRIAL]))
    folder = draw(st.sampled_from(["single", "single", *JOBS]))
    again, files = own if folder == "single" else JOBS[folder]
    file = f"{folder}/{draw(st.sampled_from(files))}"
    return Case(kind="traps", command=draw(st.sampled_from(again)), changes=((file, draw(st.sampled_from(IN_PLACE))),))


@st.composite
def _where_it_writes(draw: st.DrawFn) -> Case:
    reader = draw(st.sampled_from(sorted(READERS.keys() - {"compare"})))
    command = draw(
        st.sampled_from([(*READERS[reader], "data.jsonl"), *[taken(name, "placed") for name in sorted(TAKERS)]])
    )
    changes = ((draw(st.sampled_from(PLACES)), draw(st.sampled_from(LEADING))),)
    return Case(kind="traps", command=command, changes=changes)


@st.composite
def _in_task(draw: st.DrawFn) -> Case:
    file = draw(st.sampled_from(["tasks/small.yaml", "tasks/questions.jsonl", "tasks/zz.yaml"]))
    trap = draw(st.sampled_from([*ENDLESS, *[("yaml", text) for text in YAMLS] * 2]))
    return Case(kind="traps", command=taken("questions", "placed"), changes=((file, trap),))


@st.composite
def _as_config(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from([(*of.SINGLE, *NEW), of.PLAN]))
    trap = draw(st.sampled_from([*IN_PLACE, ("nested",)]))
    return Case(kind="traps", command=command, changes=(("config.json", trap),))


traps = st.sampled_from(
    [_in_text()] * 3
    + [_as_data()] * 2
    + [_in_model()] * 3
    + [_in_run()] * 2
    + [_where_it_writes(), _in_task(), _as_config()]
).flatmap(lambda chosen: chosen)
"""A trap in the place of a file that a command reads, or beside it, or where it writes."""
