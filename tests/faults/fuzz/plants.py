"""Files, folders, copies and links of the user's in folders of ours: whatever a command does there, they stay."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from mixln.runs.checkpoints import UNFINISHED
from tests.faults.fuzz import commands as of
from tests.faults.fuzz.case import Case, Change
from tests.faults.fuzz.inputs import ALONE, NEW, TAKERS, taken

OWN = (
    *(
        "notes.txt",
        ".hidden",
        "result.json.bak",
        "figure.png",
        "error.txt",
        "caf\udce9.txt",
        "a\nb",
        ".report.mixln-mine",
    ),
    *("checkpoint-6-mybackup/mine.txt", "checkpoint-99/mine.txt", "checkpoint-notes/mine.txt", "checkpoint-2/mine.txt"),
    *("checkpoint-2.bak/mine.txt", "checkpoints/mine.txt", "model-old/mine.txt", "model/mine.txt", "report/mine.txt"),
    f"{UNFINISHED}/mine.txt",
)
LINKED = (
    "checkpoint-link",
    "checkpoint-3",
    "model-link",
    "checkpoint-2.passed-over",
    "report.html.old",
    UNFINISHED,
    "error.txt",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder of ours.

    :param command: goes on in it.
    :param within: places for files of the user's.
    :param missing: what of ours may be missing, so that there is work.
    :param mended: a file that the user may have mended.
    :param copied: what of ours the user may have copied.
    """

    command: tuple[str, ...]
    within: tuple[str, ...]
    missing: tuple[str, ...]
    copied: str
    mended: str = ""


FOLDERS: dict[str, Place] = {
    "single": Place(
        command=(*of.SINGLE, "--out", "single"),
        within=("single/", ALONE),
        missing=(f"{ALONE}checkpoint-2", f"{ALONE}result.json", f"{ALONE}checksums.json", "single/experiment.json"),
        copied=f"{ALONE}checkpoint-2",
    ),
    **{
        folder: Place(
            command=(*of.TUNING[name], "--out", folder),
            within=(f"{folder}/", f"{folder}/checkpoints/"),
            missing=(f"{folder}/model", f"{folder}/tuning-result.json", f"{folder}/model/model.safetensors"),
            copied=f"{folder}/model",
        )
        for folder, name in (("tuned", "finetune"), ("rewarded", "reward"))
    },
    "prepared": Place(
        command=(*of.PREPARATION, "--out", "prepared"),
        within=("prepared/", "prepared/tokenizer/", "prepared/held_out/", "prepared/train/"),
        missing=("prepared/info.json", "prepared/tokenizer"),
        copied="prepared/request.json",
        mended="text/000.txt",
    ),
    "diagnosed": Place(
        command=(*of.DIAGNOSIS, "--out", "diagnosed"),
        within=("diagnosed/",),
        missing=("diagnosed/report.html", "diagnosed/checksums.json"),
        copied="diagnosed/report.html",
    ),
    "evaluated": Place(
        command=(*of.EVALUATION, "--out", "evaluated"),
        within=("evaluated/",),
        missing=("evaluated/table.md", "evaluated/checksums.json"),
        copied="evaluated/table.md",
    ),
}
STARTED = (*[taken(name, "placed") for name in sorted(TAKERS)], (*of.SINGLE, *NEW), (*of.PREPARATION, *NEW))
"""Commands that begin something in the folder `new`."""


@st.composite
def neighbours(draw: st.DrawFn) -> Case:
    """Up to five of them in a folder of ours, where something of ours may be missing; or in the one that is to be made."""
    if draw(st.integers(0, 3)) == 0:
        names = draw(st.lists(st.sampled_from(OWN), min_size=1, max_size=2, unique=True))
        changes = tuple((f"new/{name}", ("file",)) for name in names)
        return Case(kind="neighbours", command=draw(st.sampled_from(STARTED)), changes=changes)
    place = FOLDERS[draw(st.sampled_from(["single", *FOLDERS]))]
    within = draw(st.sampled_from(place.within))
    made: list[Change] = []
    if draw(st.integers(0, 2)) == 0:
        made += [(f"{place.copied}-mine", ("copy", place.copied))]
    if draw(st.booleans()):
        made += [(draw(st.sampled_from(place.missing)), ("delete",))]
    if place.mended and draw(st.booleans()):
        made += [(place.mended, ("line", "one two three"))]
    made += [
        (within + name, ("file",)) for name in draw(st.lists(st.sampled_from(OWN), min_size=1, max_size=3, unique=True))
    ]
    if draw(st.booleans()):
        target = draw(st.sampled_from(["", "deep", "mine.txt"]))
        made += [(within + draw(st.sampled_from(LINKED)), ("link outside", target))]
    return Case(kind="neighbours", command=place.command, changes=tuple(made))
