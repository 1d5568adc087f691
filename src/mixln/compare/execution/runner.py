"""Runs trials in parallel on workers of any kind, and reports their progress."""

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
"""Parameters of a model up to which parallel trials on one thread each train more tokens per second than one trial on all cores."""
ERROR = "error.txt"
"""File in a trial's folder with the traceback of its error."""
DEATHS = 3
"""A trial has failed once its worker was killed this many times."""
GRACE = 600.0
"""Seconds that workers have to save their trials after SIGTERM or Ctrl-C. A second Ctrl-C ends them at once."""
LATE = "stopped; trials not saved within {1:.0f} s: {0}; they will resume from their last checkpoints"
"""Message about workers that did not end within :data:`GRACE`: their number, and the seconds."""
LOCKED = 300.0
"""Seconds to wait for a trial that another process has locked: longer than a file server keeps the lock of a machine that is gone."""
PAUSES = (5.0, 600.0)
"""Seconds to wait after the disk was full: the first time, and the maximum. The wait doubles each time, because the free space of a
quota cannot be queried."""
ROOM = 64 * 2**20
"""Bytes that must be free on a full disk before a retry."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """The work of one worker on one trial, or on its chain: everything that it needs, since it is pickled.

    :param folder: the trial's folder.
    """

    trial: Trial
    folder: Path

    @abstractmethod
    def work(self) -> Any:
        """Does the work, in the worker, and returns the result."""

    @abstractmethod
    def failure(self, reason: str) -> Any:
        """The result of a job that failed for this reason."""

    @property
    def after(self) -> Path | None:
        """Folder of the job that must have ended, successfully or not, before this one begins; `None` if there is none."""
        return None

    @property
    def metrics(self) -> Path:
        """File of its metrics while it runs."""
        return self.folder / METRICS


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of one trial.

    :param metrics: last row of its metrics with a training loss; empty if there is none yet.
    """

    job: Job
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Distribution of trials over this machine.

    :param jobs: worker processes.
    :param threads: threads per worker.
    :param gpus: visible GPUs; worker k takes GPU k modulo this number.
    """

    jobs: int
    threads: int
    gpus: int


def machine(jobs: int | None, *, parameters: int, trials: int) -> Machine:
    """Chooses worker processes and threads: one worker per GPU; without a GPU, one per core for small models, else a single one.

    :param jobs: the user's choice; `None` for the default.
    :param parameters: of one model.
    :param trials: of the experiment, the maximum number of workers.
    """
    import torch

    cores = torch.get_num_threads()
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if jobs is None:
        jobs = max(1, gpus) if gpus or parameters > SMALL_MODEL else cores
    jobs = min(jobs, trials)
    return Machine(jobs=jobs, threads=max(1, cores // jobs), gpus=gpus)


class Workers(Protocol):
    """Processes that run jobs, on this machine or on others that share its file system."""

    def submit(self, job: Job) -> Future[Any]:
        """Runs :func:`work` on a job as soon as a worker is free."""
        ...

    def stop(self) -> None:
        """Tells the workers to save their trials and to end."""

    def close(self, *, kill: bool) -> None:
        """Ends the workers, at once if `kill`, else after their current jobs."""


class NoResult(Enum):
    """Why a job has no result yet."""

    KILLED = "its worker died"
    NOT_BEGUN = "it was not started, or was stopped"
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
    """Runs every job and returns when all have ended. Ctrl-C stops the workers; their trials can be resumed later.

    A trial whose worker was killed resumes from its last checkpoint in a new worker, up to `DEATHS` times. A trial that filled the
    disk resumes when there is space.

    :param start: number of jobs → workers.
    :param finished: called with each result.
    :param watch: called about every `interval` seconds with the running trials.
    :param more: result → further jobs that it requires.
    :raises Stopped: after SIGTERM, once the workers have saved their trials.
    """
    waiting, deaths, pause = list(jobs), Counter[Path](), PAUSES[0]
    with listening():
        while waiting:
            # One of the jobs that ran when a worker died has killed it. Each of them runs alone, so that it cannot end the others too.
            suspects = [job for job in waiting if deaths[job.folder]]
            part = suspects[:1] or list(waiting)
            attempt = _Attempt(part, start(len(part)), finished, watch, more)
            lost = attempt.run(interval)
            waiting += attempt.jobs[len(part) :]
            new: list[Job] = []
            deaths.update(folder for folder, loss in lost.items() if loss is NoResult.KILLED)
            for job in attempt.jobs:
                if deaths[job.folder] == DEATHS:
                    del lost[job.folder]
                    failure = job.failure(f"its worker was killed {DEATHS} times, as happens when memory runs out")
                    finished(failure)
                    new += more(failure)
            waiting = [job for job in waiting if job not in attempt.jobs or job.folder in lost] + new
            if NoResult.NO_ROOM in lost.values():
                _wait_for_room(jobs[0].folder, pause)
                pause = min(2 * pause, PAUSES[1])


class _Attempt:
    """Runs jobs on one set of workers, until all have ended, a worker dies or the disk is full.

    :param jobs: the jobs; those that their results require are appended.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: Workers,
        finished: Callable[[Any], None],
        watch: Callable[[Sequence[Progress]], None],
        more: Callable[[Any], Sequence[Job]],
    ) -> None:
        self.jobs, self.blocked = list(jobs), list(jobs)
        self.workers, self.finished, self.watch, self.more = workers, finished, watch, more
        self.pending: dict[Future[Any], Job] = {}
        self.running: set[Path] = set()
        self.lost: dict[Path, NoResult] = {}
        self.began = time.time()

    def run(self, interval: float) -> dict[Path, NoResult]:
        """Runs the jobs; returns the folders of those without a result."""
        clean = False
        try:
            self._submit()
            if self.blocked and not self.pending:
                raise ValueError(
                    f"the jobs in {', '.join(str(job.folder) for job in self.blocked)} wait for each other"
                )
            while self.pending:
                for future in wait(self.pending, timeout=interval, return_when="FIRST_COMPLETED").done:
                    self._collect(future)
                if asked():
                    late = self._stop()
                    clean = not late  # workers that have saved end by themselves
                    raise stopped(*[LATE.format(len(late), GRACE)] if late else ())
                if not self.lost:
                    self._submit()
                self.running = {job.folder for future, job in self.pending.items() if future.running()}
                rows = (_progress(job, self.began) for job in self.pending.values())
                self.watch([progress for progress in rows if progress is not None])
            clean = True
        finally:
            self.workers.close(kill=not clean)
        return self.lost | {job.folder: NoResult.NOT_BEGUN for job in self.blocked}

    def _submit(self) -> None:
        """Submits the jobs that wait for no other."""
        unended = {job.folder for job in (*self.blocked, *self.pending.values())}
        for job in [job for job in self.blocked if job.after not in unended]:
            try:
                self.pending[self.workers.submit(job)] = job
            except BrokenExecutor:  # a worker has just died, which the pending futures will report
                return
            self.blocked.remove(job)

    def _collect(self, future: Future[Any]) -> None:
        """Takes the result of a future that is done."""
        job = self.pending.pop(future)
        try:
            result = future.result()
        except BrokenExecutor:
            # A dead worker breaks every future of its pool: only a job that ran can have killed it.
            result = NoResult.KILLED if job.folder in self.running else NoResult.NOT_BEGUN
        except Stopped:
            result = NoResult.NOT_BEGUN
        if isinstance(result, NoResult):
            self.lost[job.folder] = result
            return
        self.finished(result)
        new = self.more(result)
        self.jobs += new
        self.blocked += new

    def _stop(self) -> set[Future[Any]]:
        """Stops the workers, and returns the futures that have not ended within :data:`GRACE`."""
        for future in self.pending:
            future.cancel()
        self.workers.stop()
        return wait(self.pending, timeout=GRACE).not_done


def _wait_for_room(folder: Path, pause: float) -> None:
    """Waits until the disk has space again, and at least `pause` seconds."""
    until = time.monotonic() + pause
    log.info(
        f"paused: the disk of {folder.parent} is full; free at least {ROOM >> 20} MB to resume, or stop with Ctrl-C: "
        "no finished trial is lost"
    )
    while shutil.disk_usage(folder).free < ROOM or time.monotonic() < until:
        if asked():
            raise stopped()
        time.sleep(min(1.0, pause))  # at most 1 s, so that Ctrl-C is answered soon
    log.info("the disk has space again: resuming")


def _progress(job: Job, since: float) -> Progress | None:
    """The last metrics of a running trial; `None` if it has written none since this time (Unix time, seconds)."""
    with contextlib.suppress(OSError), job.metrics.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mtime < since:  # metrics of an earlier run
            return None
        file.seek(max(0, status.st_size - 20_000))  # about a hundred rows; the first and the last may be incomplete
        for line in reversed(file.read().decode("utf-8", "replace").splitlines()):
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                if row.get("loss") is not None:
                    return Progress(job=job, metrics=row)
        return Progress(job=job, metrics={})
    return None


def write_error(folder: Path) -> None:
    """Writes the traceback of the current exception to `error.txt`."""
    with contextlib.suppress(OSError):
        if os.path.lexists(folder / ERROR):
            set_aside(folder / ERROR)
        (folder / ERROR).write_text(traceback.format_exc(), "utf-8")


def clear_error(folder: Path) -> None:
    """Deletes the traceback of an earlier attempt, but not a user's file of the same name."""
    path = folder / ERROR
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open(encoding="utf-8", errors="replace") as file:
                ours = file.readline().startswith("Traceback (most recent call last)")
            if ours:
                path.unlink()


def work(job: Job) -> Any:
    """Runs a job in this process. An error gives the job's failure, with the traceback in `error.txt`.

    :returns: the job's result, or :attr:`NoResult.NO_ROOM`.
    :raises Stopped: if SIGTERM came before the job ended.
    """
    if asked():
        raise stopped()
    clear_error(job.folder)
    try:
        # A worker on another machine, whose driver died, may still run this job.
        with RunFolder(job.folder, TRIAL_RUN).locked(timeout=LOCKED), quiet():
            return job.work()
    except Exception as error:
        if no_room(error, job.folder):
            return NoResult.NO_ROOM
        if isinstance(error, Stopped):
            raise
        write_error(job.folder)
        return job.failure(f"{type(error).__name__}: {first_line(error)}")
