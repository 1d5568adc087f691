"""What must be true of every input: one clear line or a proper end, no traceback, no hang, and nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mixln.files import ASIDE, TEMPORARY
from tests.faults.fuzz.case import Case
from tests.faults.fuzz.files import change
from tests.faults.fuzz.runner import Ran, run

LONGEST = 1500
"""Characters that a line may have, paths included."""
STATE = re.compile(
    r"(experiment|results|result|trial|checksums|asked|answers|request|search|proposal|info|diagnosis|evaluation|stress|tune|chain|judge)\.json"
    r"|metrics\.jsonl|.*\.(md|html|png|db|log)|error\.txt"
)
"""Files of ours that the command which owns a folder may write anew."""
Content = dict[str, tuple[str, bytes]]
"""Path → what it is, with its permissions, and what is in it."""


def complaint(case: Case, materials: Path, *, quick: bool = False) -> tuple[str, str]:
    """What became of an input, one word; and what is wrong with that, empty if nothing is."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = shutil.copytree(materials, Path(place) / "example", symlinks=True)
        pristine = content(folder)
        here = Path.cwd()
        os.chdir(folder)
        try:
            for file, (operation, *how) in case.changes:
                change(Path(file), operation, *how)
        finally:
            os.chdir(here)
        before = content(folder)
        ran = run(case, folder, quick=quick)
        found = judged(case, ran, pristine, before, content(folder))
        outcome = {None: "hang", 0: "ran to its end", 1: "ended with 1", 2: "refused"}.get(
            ran.code, f"exit code {ran.code}"
        )
        return outcome, f"{found}\n    ({ran.seconds:.1f} s, {ran.megabytes} MB)" if found else ""


@dataclass(kw_only=True)
class Found:
    """What became of many inputs: outcome → how many; what is wrong, an entry an input; and how long it took."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [f"{count} {name}" for name, count in sorted(self.counts.items())]
        return (
            f"{self.counts.total()} inputs in {self.seconds:.0f} s: {', '.join([*parts, f'{len(self.wrong)} wrong'])}"
        )


def examine(
    cases: Iterable[Case], materials: Path, *, quick: bool = False, tell: Callable[[str], None] = lambda text: None
) -> Found:
    """Holds inputs against what must be true.

    :param tell: takes what is wrong, as it is found.
    """
    found, began = Found(), time.monotonic()
    for number, case in enumerate(cases):
        outcome, wrong = complaint(case, materials, quick=quick)
        found.counts[outcome] += 1
        if wrong:
            found.wrong.append(f"#{number} {case}\n    {wrong}")
            tell(found.wrong[-1])
    found.seconds = time.monotonic() - began
    return found


def judged(case: Case, ran: Ran, pristine: Content, before: Content, after: Content) -> str:
    """What is wrong, in words; empty if nothing is."""
    if ran.code is None:
        return f"a hang: {ran.errors[-1500:]}"
    for text in (ran.errors, ran.out):
        if "Traceback (most recent call last)" in text or "panicked at" in text:
            return f"a traceback, exit code {ran.code}: …{text[-1500:]}"
    if any(name.endswith("pwned") for name in after):
        return "code that came with a model was run"
    if any(name.endswith("error.txt") and name not in before for name in after):
        return f"an error in a trial: {next(data for name, (_, data) in after.items() if name.endswith('error.txt'))[-1500:]!r}"
    if ran.left:
        return f"it left {'; '.join(ran.left)}"
    if left := [name for name in after if TEMPORARY.fullmatch(Path(name).name) and name not in before]:
        return f"it left {left}"
    if ran.code == 2:
        return _refusal(case, ran, before, after)
    if ran.code == 1:
        if "failed" in ran.out or not re.search(r"diverged|none of|stalled|no model was written", ran.out):
            return f"exit code 1: {ran.out[-500:]} {ran.errors[-500:]}"
    elif ran.code != 0:
        return f"exit code {ran.code}: {ran.errors[-800:]}"
    return _lost(case, pristine, before, after) or _private(case, before, after)


def _refusal(case: Case, ran: Ran, before: Content, after: Content) -> str:
    said = ran.errors
    if said.count("\n") != 1 or not said.startswith("mixln: ") or not said.endswith("\n"):
        return f"not one line: {said[:1500]!r}"
    if len(said) > LONGEST or not said[:-1].isprintable():
        return f"not clear: {said[:300]!r} ({len(said)})"
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    free = _free(case)
    changed = [
        name for name in changed if not (name.startswith(free) and (name not in before or name.startswith("cache")))
    ]
    return f"a refusal changed {changed}: {said}" if changed else ""


def _free(case: Case) -> tuple[str, ...]:
    """Where a refusal may leave something new: in the cache; and of several models, a report has those that were done before the one
    that is refused."""
    several = case.command[0] in ("diagnose", "evaluate") and len(_models(case)) != 1
    return ("cache", *filter(None, [case.option("--cache")]), *(["new"] if several else []))


def _models(case: Case) -> list[str]:
    models = []
    for word in case.command[1:]:
        if word.startswith("--"):
            break
        models += [word, *([word] if word.startswith("store") else [])]  # a comparison is several
    return models


def _lost(case: Case, pristine: Content, before: Content, after: Content) -> str:
    """Files that were there and that this run had no right to change or remove, in words."""
    out = case.option("--out", "runs").rstrip("/")
    own = f"{out}/"
    for name, was in before.items():
        if after.get(name) == was or name.startswith("cache"):
            continue
        place = "is changed" if name in after else "is gone"
        if not name.startswith(own) and name != out:
            return f"lost: {name} {place}, which lies outside of --out {out}"
        inner = name.removeprefix(own)
        if STATE.fullmatch(Path(name).name) and name in after and name in pristine and pristine[name][0] == was[0]:
            continue
        if pristine.get(name) == was:  # written by us, unchanged since
            continue
        moved = any(
            ASIDE in other and re.sub(rf"{re.escape(ASIDE)}(-\d+)?", "", other) == name and here == was
            for other, here in after.items()
        )
        if not moved:
            return f"lost: {inner} {place}, which was the user's or had been changed"
    return ""


def _private(case: Case, before: Content, after: Content) -> str:
    """Files that are readable by more people than the umask says."""
    for name, (kind, _) in after.items():
        if name not in before and kind[0] in "-d" and int(kind[1:], 8) & case.umask:
            return f"{name} has the permissions {kind[1:]} at umask {case.umask:03o}"
    return ""


def content(folder: Path) -> Content:
    """Everything in a folder; nothing is followed, and of pipes and terabytes nothing is read."""
    found: Content = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            facts = path.lstat()
            kind = f"{stat.filemode(facts.st_mode)[0]}{stat.S_IMODE(facts.st_mode):03o}"
            if name == ".lock":
                continue
            if stat.S_ISLNK(facts.st_mode):
                data = os.fsencode(os.readlink(path))
            elif stat.S_ISREG(facts.st_mode):
                large = facts.st_size > 2**26
                data = f"{facts.st_size} bytes of {facts.st_mtime_ns}".encode() if large else path.read_bytes()
            else:
                data = b""
            found[path.relative_to(folder).as_posix()] = (kind, data)
    return found
