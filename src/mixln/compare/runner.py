"""Runs trials in worker processes, side by side, and tells of their progress."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixln.compare.results import Trial
from mixln.errors import first_line
from mixln.memory import keep_freed_memory
from mixln.quiet import quiet
from mixln.training.metrics import METRICS

SMALL_MODEL = 20_000_000
"""Parameters up to which trials side by side, one thread each, train more tokens per second than one on all cores."""
ERROR = "error.txt"
"""Name of the file in a trial's folder that holds the traceback of its error."""
DEATHS = 3
"""Times that a trial's worker may be killed before the trial counts as failed."""


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


def run(
    jobs: Sequence[Job],
    machine: Machine,
    *,
    finished: Callable[[Any], None],
    watch: Callable[[Sequence[Progress]], None],
    interval: float = 0.5,
) -> None:
    """Runs every job and returns when all have ended; Ctrl-C ends the workers at once, and their trials can go on later.

    A trial whose worker was killed goes on from its last checkpoint in a new one, up to `DEATHS` times.

    :param finished: called with each result as it comes.
    :param watch: called about every `interval` seconds with the trials that are running.
    """
    waiting = list(jobs)
    while waiting:
        lost = _run_pool(waiting, machine, finished, watch, interval)
        suspects = [job for job in waiting if lost.get(job.folder)]
        waiting = [job for job in waiting if lost.get(job.folder) is False]
        for job in suspects:  # one of them killed the worker: alone, it cannot take the others with it
            for _ in range(DEATHS - 1):
                if not _run_pool([job], machine, finished, watch, interval):
                    break
            else:
                finished(job.failure(f"its worker was killed {DEATHS} times, as happens when memory runs out"))


def _run_pool(
    jobs: Sequence[Job],
    machine: Machine,
    finished: Callable[[Any], None],
    watch: Callable[[Sequence[Progress]], None],
    interval: float,
) -> dict[Path, bool]:
    """Runs jobs until all have ended or a worker dies; returns the folders of those lost with it: was it running?"""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    pool = ProcessPoolExecutor(
        max_workers=min(machine.jobs, len(jobs)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(machine, counter),
    )
    began = time.time()
    running: set[Path] = set()
    lost: dict[Path, bool] = {}
    blocked = list(jobs)
    pending: dict[Future[Any], Job] = {}

    def submit() -> None:
        unended = {job.folder for job in (*blocked, *pending.values())}
        for job in [job for job in blocked if job.after not in unended]:
            try:
                pending[pool.submit(_work, job)] = job
            except BrokenProcessPool:  # a worker has died just now: those that are pending will say so
                return
            blocked.remove(job)

    try:
        submit()
        if blocked and not pending:
            raise ValueError(f"the jobs in {', '.join(str(job.folder) for job in blocked)} wait for each other")
        while pending:
            for future in wait(pending, timeout=interval, return_when="FIRST_COMPLETED").done:
                job = pending.pop(future)
                try:
                    finished(future.result())
                except BrokenProcessPool:
                    lost[job.folder] = job.folder in running
            if not lost:
                submit()
            running = {job.folder for future, job in pending.items() if future.running()}
            watch([progress for job in pending.values() if (progress := _progress(job, began)) is not None])
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return lost | {job.folder: False for job in blocked}


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
        (folder / ERROR).write_text(traceback.format_exc(), "utf-8")


def _start_worker(machine: Machine, counter: Any) -> None:
    with counter.get_lock():
        index = counter.value
        counter.value += 1
    if machine.gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        devices = [name for name in visible if name] or [str(number) for number in range(machine.gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends the workers
    keep_freed_memory()
    import torch

    torch.set_num_threads(machine.threads)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it is gone: two must not train one trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _work(job: Job) -> Any:
    """Runs in a worker; an error is a result too, with its traceback in `error.txt`."""
    (job.folder / ERROR).unlink(missing_ok=True)
    try:
        with quiet():
            return job.work()
    except Exception as error:
        write_error(job.folder)
        return job.failure(f"{type(error).__name__}: {first_line(error)}")
