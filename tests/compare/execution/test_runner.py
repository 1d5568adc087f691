"""How trials are spread over a machine, and what becomes of one whose training fails or whose worker is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from mixln.compare.execution import runner
from mixln.compare.execution.pool import ProcessPool
from mixln.compare.execution.runner import DEATHS, SMALL_MODEL, Job, Machine, machine, run, work
from mixln.compare.execution.torchrun import TorchrunWorkers
from mixln.compare.execution.trial_job import TrialJob
from mixln.compare.experiment import compare
from mixln.compare.findings import NothingTrained, findings
from mixln.compare.settings import CompareSettings
from mixln.compare.store import Store
from mixln.data.preparation import prepare
from mixln.errors import Stopped, StoreError
from mixln.runs.checkpoints import sealed
from mixln.runs.metrics import METRICS
from mixln.runs.trials import RESULT, Trial, read_result
from mixln.training.stopping import listening
from tests.compare.recorder import Recorder, until_it_trains
from tests.compare.test_experiment import TRIALS, numbers

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the numbers are those of a machine without a GPU")


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("jobs", "parameters", "expected"),
    [
        (None, SMALL_MODEL, (4, 1)),
        (None, SMALL_MODEL + 1, (1, 4)),
        (1, SMALL_MODEL, (1, 4)),
        (2, SMALL_MODEL + 1, (2, 2)),
        (3, SMALL_MODEL, (3, 1)),
        (9, SMALL_MODEL, (9, 1)),
    ],
)
def test_small_models_share_the_cores_and_large_ones_take_all(four_threads, jobs, parameters, expected):
    plan = machine(jobs, parameters=parameters, trials=100)
    assert plan == Machine(jobs=expected[0], threads=expected[1], gpus=0)


@pytest.fixture
def unfit(settings_for, tmp_path):
    """Settings of one trial whose tokenized text has lost its training part, and the folder of that text."""
    cache = tmp_path / "cache"
    settings = settings_for(tmp_path / "out", placements=("pre",), seeds=(0,), cache=cache)
    text = prepare(settings.text, vocabulary_size=300, tokens=settings.tokens, cache=cache)
    shutil.rmtree(text.folder / "train")
    return settings, text.folder


def test_an_error_in_a_training_is_a_failed_result_with_its_traceback(unfit):
    settings, text = unfit
    store, (trial,) = Store(settings.out), settings.trials({"pre": "normal"})
    model = json.loads(Path(settings.model).read_text())
    job = TrialJob(trial=trial, folder=store.add(trial), settings=settings, config=model, data=text)
    result = work(job)
    assert (result.status, result.trial, result.loss) == ("failed", trial, None)
    assert result.reason.startswith("FileNotFoundError: ")
    assert "\n" not in result.reason
    assert "Traceback" in (job.folder / "error.txt").read_text()
    assert not (job.folder / RESULT).exists()
    assert store.result(trial) is None


@pytest.mark.slow
def test_a_failed_trial_is_tried_again(unfit):
    settings, text = unfit
    first, second = Recorder(), Recorder()
    summary = compare(settings, first)
    assert [result.status for result in summary.trials] == ["failed"]
    assert summary.placements[0].best.failed == 1
    assert findings(summary)[0] == NothingTrained()
    shutil.rmtree(text)
    assert [result.status for result in compare(settings, second).trials] == ["finished"]
    assert second.begun == [(1, 0, 40)]
    assert not list(settings.out.glob("*/error.txt"))


class Killer(Recorder):
    """A display that kills the worker while it trains, a number of times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def watch(self, running) -> None:
        super().watch(running)
        if running and self.left:
            self.left -= 1
            for process in multiprocessing.active_children():
                process.kill()


@pytest.fixture
def long_settings(settings_for, tmp_path):
    """One trial that trains for some seconds."""
    return settings_for(tmp_path / "out", placements=("pre",), seeds=(0,), training={"steps": 500, "evaluations": 1})


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_goes_on_in_another(long_settings, tmp_path):
    killed = compare(long_settings, killer := Killer(1))
    assert killer.left == 0
    whole = compare(replace(long_settings, out=tmp_path / "whole"), Recorder())
    assert [result.status for result in killed.trials] == ["finished"]
    assert numbers(killed) == numbers(whole)


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_every_time_fails(long_settings):
    summary = compare(long_settings, killer := Killer(DEATHS))
    assert killer.left == 0
    assert [result.status for result in summary.trials] == ["failed"]
    assert summary.trials[0].reason.startswith(f"its worker was killed {DEATHS} times")
    assert not list(long_settings.out.glob(f"*/{RESULT}"))


def run_elsewhere(settings) -> None:
    compare(settings, Recorder())


@pytest.mark.slow
def test_a_comparison_that_is_killed_ends_with_the_same_numbers(settings_for, tmp_path):
    """The whole process is killed while its second trial trains; its worker must not go on either."""
    training = {"steps": 200, "evaluations": 2}
    settings = settings_for(tmp_path / "killed", training=training)
    process = until_it_trains(run_elsewhere, settings, TRIALS[1])
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [(settings.out / name / RESULT).exists() for name in TRIALS] == [True, False, False, False]
    second = settings.out / TRIALS[1] / "metrics.jsonl"
    time.sleep(1)
    size = second.stat().st_size
    time.sleep(1)
    assert second.stat().st_size == size
    display = Recorder()
    again = compare(settings, display)
    assert display.begun == [(4, 1, 200)]
    whole = compare(settings_for(tmp_path / "whole", training=training), Recorder())
    assert numbers(again) == numbers(whole)
    assert findings(replace(again, folder=whole.folder)) == findings(whole)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
def test_a_comparison_that_is_terminated_saves_its_trials(settings_for, tmp_path):
    training = {"steps": 200, "evaluations": 2}
    settings = settings_for(tmp_path / "ended", training=training)
    process = until_it_trains(run_elsewhere, settings, TRIALS[1])
    process.terminate()
    process.join(60)
    assert process.exitcode == 1
    ((step, _),) = sealed(settings.out / TRIALS[1])
    display = Recorder()
    again = compare(settings, display)
    assert display.begun == [(4, 1, 200)]
    whole = compare(settings_for(tmp_path / "whole", training=training), Recorder())
    assert numbers(again) == numbers(whole)
    assert 0 < step < 200


class Filler(Recorder, logging.Handler):
    """A display that fills the disk while a trial trains, and frees it when it is told that the disk is full."""

    def __init__(self, disk: Path) -> None:
        Recorder.__init__(self)
        logging.Handler.__init__(self)
        self.file = disk / "filler"
        self.paused = 0

    def watch(self, running) -> None:
        super().watch(running)
        if running and not self.file.exists() and not self.paused:
            with contextlib.suppress(OSError), self.file.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("paused: the disk"):
            self.paused += 1
            self.file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def told(self) -> Iterator[Filler]:
        """Within it, the display hears what mixln logs."""
        logger = logging.getLogger("mixln")
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a disk of 100 MB cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_pauses_and_loses_nothing(settings_for, tmp_path, small_disk, news):
    training = {"steps": 200, "evaluations": 2}
    with Filler(small_disk).told() as display:
        found = compare(settings_for(small_disk / "out", training=training), display)
    assert display.paused >= 1
    assert [result.status for result in found.trials] == ["finished"] * 4
    assert numbers(found) == numbers(compare(settings_for(tmp_path / "whole", training=training), Recorder()))


@dataclass(frozen=True, kw_only=True)
class Hungry(Job):
    """A job that finds the quota used up, which shows no lack of free bytes, so many times."""

    times: int

    def work(self) -> int:
        tries = len(list(self.folder.glob("[0-9]*")))
        (self.folder / str(tries)).touch()
        if tries < self.times:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return tries

    def failure(self, reason: str) -> int:
        raise AssertionError(reason)


def test_where_the_quota_is_used_up_it_waits_longer_and_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PAUSES", (0.05, 0.2))
    waited: list[float] = []
    usual = runner._wait_for_room
    monkeypatch.setattr(runner, "_wait_for_room", lambda folder, pause: (waited.append(pause), usual(folder, pause)))
    job = Hungry(
        trial=Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0), folder=tmp_path / "a", times=4
    )
    job.folder.mkdir()
    finished: list[int] = []
    run([job], lambda count: Here(), finished=finished.append, watch=lambda running: None)
    assert waited == [0.05, 0.1, 0.2, 0.2]
    assert len(finished) == 1


class Here:
    """A worker that is this process."""

    def submit(self, job: Job) -> Future:
        future: Future = Future()
        future.set_result(work(job))
        return future

    def stop(self) -> None: ...

    def close(self, *, kill: bool) -> None: ...


@pytest.mark.long
def test_a_trial_that_another_has_ended_meanwhile_is_not_trained_again(settings_for, tmp_path):
    """A worker that waited for the lock of one whose driver had died."""
    settings = settings_for(tmp_path / "out")
    compare(replace(settings, placements=("pre",), seeds=(0,)), Recorder())
    folder = settings.out / TRIALS[0]
    before = {path: path.stat().st_mtime_ns for path in (folder / RESULT, folder / METRICS)}
    result = read_result(folder)
    job = TrialJob(trial=result.trial, folder=folder, settings=settings, config={}, data=tmp_path)
    assert work(job) == result
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_one_process_that_trains_by_itself_waits_for_room_too(settings_for, tmp_path, small_disk, news):
    """As `mixln pretrain` does it, without workers."""
    training = {"steps": 200, "evaluations": 2}
    chosen = {"placements": ("pre",), "seeds": (0,), "training": training}
    workers = TorchrunWorkers("ddp")
    with Filler(small_disk).told() as display:
        found = compare(settings_for(small_disk / "out", **chosen), display, workers=workers)
    workers.dismiss()
    assert display.paused >= 1
    assert [result.status for result in found.trials] == ["finished"]
    assert numbers(found) == numbers(compare(settings_for(tmp_path / "whole", **chosen), Recorder()))


@dataclass(frozen=True, kw_only=True)
class Halts(TrialJob):
    """A training that a signal ended."""

    def work(self):
        (self.folder / "begun").touch()
        raise Stopped(signal.SIGTERM)


def test_of_several_trainings_none_is_begun_after_one_that_was_stopped(tmp_path):
    """Processes that train together must not go on apart: another may have ended."""
    workers, folders = TorchrunWorkers("ddp"), [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    trial = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    first, second = (
        workers.submit(Halts(trial=trial, folder=folder, settings=CompareSettings(), config={}, data=tmp_path))
        for folder in folders
    )
    with pytest.raises(Stopped):
        first.result()
    with pytest.raises(StoreError, match="the trial before it failed"):
        second.result()
    assert [(folder / "begun").exists() for folder in folders] == [True, False]
    workers.close(kill=True)  # nothing is under way that would have to be killed
    workers.dismiss()


class Noting(TorchrunWorkers):
    """Also notes the jobs."""

    def __init__(self) -> None:
        super().__init__("ddp")
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> Future:
        self.jobs.append(job)
        return super().submit(job)


def test_trials_know_how_many_their_process_does(settings_for, tmp_path):
    """For compiling pays the more, the more of them share what is compiled."""
    noting = Noting()
    compare(settings_for(tmp_path, placements=("pre", "post"), seeds=(0, 1)), Recorder(), workers=noting)
    noting.dismiss()
    assert [job.together for job in noting.jobs] == [4] * 4


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
def test_nothing_is_begun_after_a_signal(tmp_path):
    """Of a queue, a worker that was told to stop takes nothing more."""
    trial = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    with listening():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            work(Second(trial=trial, folder=tmp_path))
    assert not list(tmp_path.iterdir())


def run_all(jobs: list[Job], finished: Callable, more: Callable = lambda result: ()) -> None:
    """Runs jobs in two processes."""
    plan = Machine(jobs=2, threads=1, gpus=0)
    run(
        jobs,
        lambda count: ProcessPool(plan, count),
        finished=finished,
        watch=lambda running: None,
        more=more,
    )


@dataclass(frozen=True, kw_only=True)
class Second(Job):
    """A job that may wait for another, and says whether that had ended when it began.

    :param until: it does not end before there is this file.
    """

    first: Path | None = None
    until: Path | None = None

    @property
    def after(self) -> Path | None:
        return self.first

    def work(self) -> tuple[str, bool]:
        was_there = self.first is None or (self.first / "ended").exists()
        while self.until is not None and not self.until.exists():
            time.sleep(0.01)
        (self.folder / "ended").touch()
        return self.folder.name, was_there

    def failure(self, reason: str) -> tuple[str, bool]:
        return reason, False


def test_a_job_waits_for_the_one_that_it_needs_and_not_for_the_others(tmp_path):
    names, found = ("a", "b", "c", "d"), []
    for name in names:
        (tmp_path / name).mkdir()
    trial = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    needs = {"a": "c", "b": "c", "d": "gone"}  # what is not among the jobs has ended before
    jobs = [
        Second(trial=trial, folder=tmp_path / name, first=tmp_path / needs[name] if name in needs else None)
        for name in names
    ]
    jobs[2] = replace(jobs[2], until=tmp_path / "d" / "ended")
    run_all(jobs, found.append)
    # That it ends at all says that d was not held back: c ends only after d.
    assert dict(found) == {"a": True, "b": True, "c": True, "d": False}


@dataclass(frozen=True, kw_only=True)
class Deadly(Second):
    """A job that kills its worker the first time."""

    def work(self) -> tuple[str, bool]:
        if not (self.folder / "tried").exists():
            (self.folder / "tried").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work()


@pytest.mark.slow
def test_jobs_that_wait_are_not_lost_with_a_worker(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    trial = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    jobs = [
        Deadly(trial=trial, folder=tmp_path / "a"),
        Second(trial=trial, folder=tmp_path / "b", first=tmp_path / "a"),
        Second(trial=trial, folder=tmp_path / "c", first=tmp_path / "a"),
    ]
    found: list = []
    run_all(jobs, found.append)
    assert sorted(found) == [("a", True), ("b", True), ("c", True)]


def follow(tmp_path, first):
    """Of `b` comes `c`, and of `c` comes `d`, beside another first job; the names of all that ended."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    trial = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    follows = {"b": "c", "c": "d"}
    found: list = []
    run_all(
        [replace(first, trial=trial, folder=tmp_path / "a"), Second(trial=trial, folder=tmp_path / "b")],
        found.append,
        lambda result: [Second(trial=trial, folder=tmp_path / follows[result[0]])] if result[0] in follows else [],
    )
    return sorted(name for name, _ in found)


def test_what_comes_of_a_result_is_done_while_others_run(tmp_path):
    """`a` ends no earlier than `d`."""
    nothing = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    first = Second(trial=nothing, folder=tmp_path, until=tmp_path / "d" / "ended")
    assert follow(tmp_path, first) == ["a", "b", "c", "d"]


@pytest.mark.slow
def test_what_comes_of_a_result_is_not_lost_with_a_worker(tmp_path):
    nothing = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    assert follow(tmp_path, Deadly(trial=nothing, folder=tmp_path)) == ["a", "b", "c", "d"]


def test_jobs_that_wait_for_each_other_are_a_mistake(tmp_path):
    trial = Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0)
    jobs = [
        Second(trial=trial, folder=tmp_path / name, first=tmp_path / other) for name, other in (("a", "b"), ("b", "a"))
    ]
    with pytest.raises(ValueError, match="wait for each other"):
        run_all(jobs, print)
