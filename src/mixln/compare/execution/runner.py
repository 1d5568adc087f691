"""Runs trials in workers, side by side, and tells of their progress; what the workers are is another's business."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from mixln.errors import Stopped, first_line
from mixln.files import no_room, set_aside
from mixln.quiet import quiet
from mixln.runs.folder import RunFolder
from mixln.runs.metrics import METRICS
from mixln.runs.trials import TRIAL_RUN, Trial
from mixln.training.stopping import asked, listening, stopped

log = logging.getLogger(__name__)

SMALL_MODEL = 20_000_000
"""Parameters up to which trials side by side, one thread each, train more tokens per second than one on all cores."""
ERROR = "error.txt"
"""Name of the file in a trial's folder that holds the traceback of its error."""
DEATHS = 3
"""Times that a trial's worker may be killed before the trial counts as failed."""
GRACE = 600.0
"""Seconds that workers have to save their trials after SIGTERM or Ctrl-C. Who gives less time ends them himself, or by a second Ctrl-C."""
LATE = "stopped; {} trials were not saved within {:.0f} s and go on from their last checkpoints"
"""What is said of workers that did not end within :data:`GRACE`: how many, and the seconds."""
LOCKED = 300.0
"""Seconds to wait for a trial that another process is still at: longer than a file server keeps the lock of a machine that is gone."""
PAUSES = (5.0, 600.0)
"""Seconds to wait when the disk was full, for the first time and at most: each time twice as long, for a quota shows no free bytes."""
ROOM = 64 * 2**20
"""Bytes that a disk must have free again before what it had no room for is tried again."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What a worker is given: everything that one trial, or one trial's chain of steps, needs.

    :param folder: the trial's folder.
    """

    trial: Trial
    folder: Path

    @abstractmethod
    def work(self) -> Any:
        """Does it, in the worker, and returns its result."""

    @abstractmethod
    def failure(self, reason: str) -> Any:
        """The result where it could not be done."""

    @property
    def after(self) -> Path | None:
        """Folder of the job that must have ended, well or not, before this one begins."""
        return None

    @property
    def metrics(self) -> Path:
        """The file of its rows while it runs."""
        return self.folder / METRICS


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one trial is.

    :param metrics: the last row of its metrics with a training loss; empty before the first.
    """

    job: Job
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How trials are spread over this machine.

    :param jobs: worker processes.
    :param threads: threads of each.
    :param gpus: visible GPUs; worker k takes GPU k modulo this number.
    """

    jobs: int
    threads: int
    gpus: int


def machine(jobs: int | None, *, parameters: int, trials: int) -> Machine:
    """Chooses worker processes and threads: one worker a GPU; without a GPU one a core for small models, else one for all.

    :param jobs: the user's choice; `None` to choose here.
    :param parameters: of one model.
    :param trials: of the whole experiment: more workers have nothing to do.
    """
    import torch

    cores = torch.get_num_threads()
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if jobs is None:
        jobs = max(1, gpus) if gpus or parameters > SMALL_MODEL else cores
    jobs = min(jobs, trials)
    return Machine(jobs=jobs, threads=max(1, cores // jobs), gpus=gpus)


class Workers(Protocol):
    """Processes that do jobs, on this machine or on others that share its file system."""

    def submit(self, job: Job) -> Future[Any]:
        """Has a job done by :func:`work`, now or when one is free."""
        ...

    def stop(self) -> None:
        """Tells the workers to save what they are at, and to end."""

    def close(self, *, kill: bool) -> None:
        """Ends the workers, at once or after what they are at."""


class NoResult(Enum):
    """Why a job has no result yet."""

    KILLED = "its worker died"
    NOT_BEGUN = "it has not begun, or was stopped"
    NO_ROOM = "the disk was full"


def run(
    jobs: Sequence[Job],
    start: Callable[[int], Workers],
    *,
    finished: Callable[[Any], None],
    watch: Callable[[Sequence[Progress]], None],
    more: Callable[[Any], Sequence[Job]] = lambda result: (),
    interval: float = 0.5,
) -> None:
    """Runs every job and returns when all have ended; Ctrl-C ends the workers at once, and their trials can go on later.

    A trial whose worker was killed goes on from its last checkpoint in a new one, up to `DEATHS` times; one that found the disk
    full goes on when there is room.

    :param start: gives workers for so many jobs.
    :param finished: called with each result as it comes.
    :param watch: called about every `interval` seconds with the trials that are running.
    :param more: result → jobs that are to be done because of it.
    :raises Stopped: after SIGTERM, when the workers have saved their trials.
    """
    waiting, deaths, pause = list(jobs), Counter[Path](), PAUSES[0]
    with listening():
        while waiting:
            # One of those that ran when a worker died has killed it: alone, it cannot take the others with it.
            suspects = [job for job in waiting if deaths[job.folder]]
            part = suspects[:1] or list(waiting)
            known = len(part)
            lost = _run_part(part, start(known), finished, watch, more, interval)
            waiting += part[known:]
            new: list[Job] = []
            deaths.update(folder for folder, loss in lost.items() if loss is NoResult.KILLED)
            for job in part:
                if deaths[job.folder] == DEATHS:
                    del lost[job.folder]
                    failure = job.failure(f"its worker was killed {DEATHS} times, as happens when memory runs out")
                    finished(failure)
                    new += more(failure)
            waiting = [job for job in waiting if job not in part or job.folder in lost] + new
            if NoResult.NO_ROOM in lost.values():
                _wait_for_room(jobs[0].folder, pause)
                pause = min(2 * pause, PAUSES[1])


def _run_part(
    jobs: list[Job],
    workers: Workers,
    finished: Callable[[Any], None],
    watch: Callable[[Sequence[Progress]], None],
    more: Callable[[Any], Sequence[Job]],
    interval: float,
) -> dict[Path, NoResult]:
    """Runs jobs until all have ended, a worker dies or the disk is full; returns the folders of those without a result.

    What comes of their results is added to them.
    """
    began = time.time()
    running: set[Path] = set()
    lost: dict[Path, NoResult] = {}
    blocked = list(jobs)
    pending: dict[Future[Any], Job] = {}

    def submit() -> None:
        unended = {job.folder for job in (*blocked, *pending.values())}
        for job in [job for job in blocked if job.after not in unended]:
            try:
                pending[workers.submit(job)] = job
            except BrokenExecutor:  # a worker has died just now: those that are pending will say so
                return
            blocked.remove(job)

    whole = False
    try:
        submit()
        if blocked and not pending:
            raise ValueError(f"the jobs in {', '.join(str(job.folder) for job in blocked)} wait for each other")
        while pending:
            for future in wait(pending, timeout=interval, return_when="FIRST_COMPLETED").done:
                job = pending.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor:
                    result = NoResult.KILLED if job.folder in running else NoResult.NOT_BEGUN
                except Stopped:
                    result = NoResult.NOT_BEGUN
                if isinstance(result, NoResult):
                    lost[job.folder] = result
                else:
                    finished(result)
                    new = more(result)
                    jobs += new
                    blocked += new
            if asked():
                for future in pending:
                    future.cancel()
                workers.stop()
                late = wait(pending, timeout=GRACE).not_done
                whole = not late  # those that have saved end by themselves, and leave nothing behind
                raise stopped(*[LATE.format(len(late), GRACE)] if late else ())
            if not lost:
                submit()
            running = {job.folder for future, job in pending.items() if future.running()}
            watch([progress for job in pending.values() if (progress := _progress(job, began)) is not None])
        whole = True
    finally:
        workers.close(kill=not whole)
    return lost | {job.folder: NoResult.NOT_BEGUN for job in blocked}


def _wait_for_room(folder: Path, pause: float) -> None:
    """Waits so many seconds, and until the disk has room again."""
    until = time.monotonic() + pause
    log.info(
        f"paused: the disk of {folder.parent} is full; free at least {ROOM >> 20} MB and it goes on by itself, or end it with Ctrl-C: "
        "no finished trial is lost"
    )
    while shutil.disk_usage(folder).free < ROOM or time.monotonic() < until:
        if asked():
            raise stopped()
        time.sleep(min(1.0, pause))
    log.info("the disk has room again: going on")


def _progress(job: Job, since: float) -> Progress | None:
    """Reads the end of a running trial's metrics; `None` if it has written none since this time (seconds of the epoch)."""
    with contextlib.suppress(OSError), job.metrics.open("rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_mtime < since:
            return None
        file.seek(max(0, facts.st_size - 20_000))
        for line in reversed(file.read().decode("utf-8", "replace").splitlines()):
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                if row.get("loss") is not None:
                    return Progress(job=job, metrics=row)
        return Progress(job=job, metrics={})
    return None


def write_error(folder: Path) -> None:
    """Keeps the traceback of the error that is being handled."""
    with contextlib.suppress(OSError):
        if os.path.lexists(folder / ERROR):
            set_aside(folder / ERROR)
        (folder / ERROR).write_text(traceback.format_exc(), "utf-8")


def clear_error(folder: Path) -> None:
    """Deletes the traceback of an earlier try; a file of the user's that is called so stays."""
    path = folder / ERROR
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open(encoding="utf-8", errors="replace") as file:
                ours = file.readline().startswith("Traceback (most recent call last)")
            if ours:
                path.unlink()


def work(job: Job) -> Any:
    """Does a job in the process that it is called in; an error is a result too, with its traceback in `error.txt`.

    :returns: the job's result, or :attr:`NoResult.NO_ROOM`.
    :raises Stopped: if SIGTERM ended it before its end, or had come before its beginning.
    """
    if asked():
        raise stopped()
    clear_error(job.folder)
    try:
        # Of a driver that died, a worker elsewhere may still be at it.
        with RunFolder(job.folder, TRIAL_RUN).locked(timeout=LOCKED), quiet():
            return job.work()
    except Exception as error:
        if no_room(error, job.folder):
            return NoResult.NO_ROOM
        if isinstance(error, Stopped):
            raise
        write_error(job.folder)
        return job.failure(f"{type(error).__name__}: {first_line(error)}")
