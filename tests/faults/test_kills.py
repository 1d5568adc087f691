"""A comparison that is killed at random moments and resumed each time ends with the numbers of one that nobody disturbed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors import safe_open

from mixln.cli import main
from mixln.runs.checkpoints import corruption, sealed
from mixln.runs.metrics import METRICS
from mixln.runs.trials import RESULT
from tests import small

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the numbers are those of a machine without a GPU"),
]
CLOCK = ("seconds", "tokens_per_second", "first_step_seconds")
"""The figures that two runs need not share."""
LATEST = 120.0
"""Seconds that a run may take to come to the phase in which it is to be killed, or to its end."""
START = 5.0
"""About the seconds until a run trains."""
WORK = 4.0
"""Most seconds that a run trains before it is killed."""
REPORT = 5.0
"""About the seconds from the last trial to the end of a run."""


class Comparison:
    """A small comparison in `folder`, as a process group of its own.

    :param steps: of each trial.
    """

    def __init__(self, folder: Path, *, placements: tuple[str, ...], steps: int) -> None:
        folder.mkdir(parents=True)
        small.write_folder(folder / "text", small.documents())
        small.write_config(folder / "config.json")
        self.folder, self.trials = folder, 2 * len(placements)
        self.arguments = [
            *("compare", "--placements", *placements, "--seeds", "0", "1"),
            *("--learning-rates", "2e-2", "--steps", str(steps), "--evaluations", "4", "--checkpoint-seconds", "0.3"),
            *(
                "--model",
                str(folder / "config.json"),
                "--data",
                str(folder / "text"),
                "--held-out",
                "0.1",
                "--sequence-length",
                "16",
            ),
            *("--batch-size", "4", "--precision", "float32", "--jobs", "2"),
            *("--cache", str(folder / "cache"), "--out"),
        ]

    def start(self, out: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{out}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mixln", *self.arguments, str(self.folder / out)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self, out: str) -> None:
        """Runs it to its end, in this process and its workers."""
        assert main([*self.arguments, str(self.folder / out)]) == 0


class Torment:
    """Kills runs of a comparison, looks at what they leave each time, and counts."""

    def __init__(self, comparison: Comparison, seed: int) -> None:
        self.comparison, self.draw, self.seed = comparison, random.Random(seed), seed
        self.counts: Counter[str] = Counter()
        self.rounds: list[Path] = []
        self.began = 0.0
        self.ended: dict[Path, tuple[Any, ...]] = {}

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith("killed "))

    def run(self, kills: int) -> None:
        """Kills so many times; a comparison that comes to its end is followed by another in a new folder."""
        while self.kills < kills or not self.rounds:
            name = f"round{len(self.rounds)}"
            self.rounds.append(out := self.comparison.folder / name)
            reports = 0
            while self.kills < kills:
                done = len(list(out.glob(f"*/{RESULT}"))) == self.comparison.trials
                if done and reports == 3:
                    break
                reports += done
                self.began = time.time()
                process = self.comparison.start(name)
                if not self._reach(process, out, done) or not self._kill(process, out):
                    break
                self._look(out)
            self.comparison.finish(name)
            self.counts["runs to the end"] += 1
            self._look(out)
            left = [str(path) for path in out.rglob(".*") if path.name != ".lock"]
            assert not left, left
            for trial in out.glob("*/trial.json"):
                assert len(list(trial.parent.glob("checkpoint-*"))) == 1

    def _reach(self, process: subprocess.Popen[bytes], out: Path, done: bool) -> bool:
        """Waits for a random moment; whether the run is still there then."""
        if self.draw.random() < 1 / 3:
            return self._wait(process, self.draw.uniform(0, START))
        if done:
            return self._wait(process, self.draw.uniform(0.6 * START, START + REPORT))
        until = time.monotonic() + LATEST
        while not any(path.stat().st_mtime > self.began for path in out.glob(f"*/{METRICS}")):
            if process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.02)
        return self._wait(process, self.draw.uniform(0, WORK))

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        return process.poll() is None

    def _kill(self, process: subprocess.Popen[bytes], out: Path) -> bool:
        """Kills a worker and a moment later all; or the driver, whose workers must end by themselves; or all.

        :returns: whether the run was still there.
        """
        family = _children(process)
        servers = {child.pid for child in family if any("forkserver" in word for word in _words(child))}
        # A worker is forked from the server, and has its command line.
        workers = [child for child in family if child.pid in servers and _parent(child) in servers]
        whom = self.draw.choice(("worker", "driver", "group", "group"))
        if whom == "worker" and workers:
            self._count("a worker", out)
            self.draw.choice(workers).kill()
            self._wait(process, self.draw.uniform(0, 2 * WORK))
            family = [*family, *_children(process)]
        if process.poll() is not None:
            return False
        if whom == "driver":
            self._count("the driver", out)
            process.kill()
        else:
            self._count("the group", out)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive, f"{[_words(each) for each in alive]} go on without their driver"
        return True

    def _count(self, whom: str, out: Path) -> None:
        if len(list(out.glob(f"*/{RESULT}"))) == self.comparison.trials:
            phase = "at the end, the report with it"
        elif any(path.stat().st_mtime > self.began for path in out.glob(f"*/{METRICS}")):
            phase = "in the work"
        else:
            phase = "in the start-up"
        self.counts[f"killed {whom}"] += 1
        self.counts[phase] += 1

    def _look(self, out: Path) -> None:
        """Nothing that bears its final name is half-written, and no trial that ended has been touched since."""
        for path in named(out):
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.name == METRICS:
                for line in path.read_text("utf-8").splitlines()[:-1]:
                    assert json.loads(line)["step"] >= 0
            elif path.suffix == ".html":
                assert path.read_text("utf-8").endswith("</html>\n")
            elif path.suffix == ".png":
                assert path.read_bytes()[-8:-4] == b"IEND"
        for folder in {path.parent for path in out.glob("*/trial.json")}:
            for _, checkpoint in sealed(folder):
                assert corruption(checkpoint) == ""
            result = folder / RESULT
            if result.is_file():
                fact = result.stat()
                weights = folder / f"checkpoint-{json.loads(result.read_text())['step']}" / "model.safetensors"
                with safe_open(weights, framework="pt") as file:
                    assert file.keys()
                now = (result.read_bytes(), fact.st_ino, fact.st_mtime_ns, (folder / METRICS).read_bytes())
                assert self.ended.setdefault(folder, now) == now, f"{folder} was run to its end twice"
            elif (folder / METRICS).is_file():
                self.counts["trials that go on from a checkpoint" if sealed(folder) else "trials that begin anew"] += 1


def named(out: Path) -> Iterator[Path]:
    """The files that bear a final name."""
    for path in out.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts):
            yield path


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return []


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def numbers(out: Path) -> Any:
    """Everything in `results.json` but what the clock says, and the final weights' hashes."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: timeless(each) for name, each in value.items() if name not in CLOCK}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    weights = {
        path.parent.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.glob("*/checkpoint-*/model.safetensors")
    }
    # Its findings name the folder.
    results = (out / "results.json").read_text("utf-8").replace(json.dumps(str(out))[1:-1], "OUT")
    return timeless(json.loads(results)), weights


def torment(folder: Path, kills: int, *, placements: tuple[str, ...], steps: int, seed: int) -> Torment:
    """Kills a comparison so many times, resumes it each time, and holds it against one that is left alone."""
    comparison = Comparison(folder / "comparison", placements=placements, steps=steps)
    comparison.finish("whole")
    found = Torment(comparison, seed)
    found.run(kills)
    whole = numbers(comparison.folder / "whole")
    assert {trial["status"] for trial in whole[0]["trials"]} <= {"finished", "stalled"}
    for out in found.rounds:
        assert numbers(out) == whole
    print(f"\n{found.kills} kills in {len(found.rounds)} comparisons:", dict(sorted(found.counts.items())))
    return found


def test_a_comparison_that_is_killed_twice(tmp_path):
    assert torment(tmp_path, 2, placements=("mix(0.5)",), steps=240, seed=3).kills >= 2


@pytest.mark.slow
def test_a_comparison_that_is_killed_fifty_times(tmp_path):
    found = torment(tmp_path, 50, placements=("pre", "mix(0.5)", "hybrid*"), steps=600, seed=0)
    assert found.kills >= 50
    assert found.counts["in the start-up"] >= 10
    assert found.counts["in the work"] >= 20
