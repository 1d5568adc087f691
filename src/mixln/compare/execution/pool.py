"""Workers as processes on this machine."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any

from mixln.compare.execution.runner import Job, Machine, work
from mixln.memory import keep_freed_memory
from mixln.training.stopping import listen

PRELOADED = ("mixln.compare.execution.trial_job", "mixln.training.pretraining", "mixln.training.trainers")
"""Modules that every worker needs, with torch and transformers."""


class ProcessPool:
    """Worker processes, each with its share of the threads and, where there are several, one GPU.

    If one dies, all end: `ProcessPoolExecutor` cannot tell which job was lost.

    :param jobs: number of jobs, the maximum number of workers.
    """

    def __init__(self, machine: Machine, jobs: int) -> None:
        context = _context(machine)
        self.pool = ProcessPoolExecutor(
            max_workers=min(machine.jobs, jobs),
            mp_context=context,
            initializer=_start,
            initargs=(machine, context.Value("i", 0), dict(os.environ)),
        )

    def submit(self, job: Job) -> Future[Any]:
        return self.pool.submit(work, job)

    @property
    def broken(self) -> bool:
        """Whether a worker has died."""
        return bool(self.pool._broken)

    def stop(self) -> None:
        for process in self._processes():
            process.terminate()  # SIGTERM, on which the worker saves its trial, see `listen`

    def close(self, *, kill: bool) -> None:
        for process in self._processes() if kill else ():
            process.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _processes(self) -> list[Any]:
        return list((self.pool._processes or {}).values())


class PersistentPool:
    """A process pool that is kept between comparisons: starting a worker takes longer than a short trial."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.workers: ProcessPool | None = None

    def __call__(self, jobs: int) -> PersistentPool:
        return self

    def submit(self, job: Job) -> Future[Any]:
        if self.workers is None:
            self.workers = ProcessPool(self.machine, self.machine.jobs)
        try:
            return self.workers.submit(job)
        except BrokenExecutor:  # a worker has died: the next attempt starts a new pool
            self.end()
            raise

    def stop(self) -> None:
        if self.workers:
            self.workers.stop()

    def close(self, *, kill: bool) -> None:
        """Ends the workers only if they are to be killed, or one has died."""
        if self.workers and (kill or self.workers.broken):
            self.end(kill=kill)

    def end(self, *, kill: bool = False) -> None:
        """Ends the workers."""
        if self.workers:
            self.workers.close(kill=kill)
        self.workers = None


def _context(machine: Machine) -> Any:
    """The start method of the workers: forkserver, which imports everything once, where the machine allows it; else spawn.

    Importing takes about six seconds of CPU time, longer than a short trial. Never by a fork of this process: the threads of torch do
    not survive one, and the other process has not started any. With a GPU not by a fork at all, because importing a library may
    already initialise CUDA or Metal. Settings that a library reads when it is imported are those of this process's first pool.
    """
    if machine.gpus or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    try:
        multiprocessing.forkserver.ensure_running()
    except OSError:  # its socket lies in TMPDIR, whose path may be too long for one, or whose file system may have none
        return multiprocessing.get_context("spawn")
    return context


def _start(machine: Machine, counter: Any, environment: dict[str, str]) -> None:
    # A worker that was forked has the environment of the first pool.
    os.environ.clear()
    os.environ.update(environment)
    with counter.get_lock():
        index = counter.value
        counter.value += 1
    if machine.gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        devices = [name for name in visible if name] or [str(number) for number in range(machine.gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    threading.Thread(target=_die_with_parent, daemon=True).start()
    listen()  # Ctrl-C reaches every process of the terminal; only the driver acts on it, and stops the workers
    keep_freed_memory()
    logging.getLogger("mixln").addHandler(logging.StreamHandler())  # warnings only; the driver reports the progress
    import torch

    torch.set_num_threads(machine.threads)


def _die_with_parent() -> None:
    """Ends this worker when its driver is gone: a restarted driver must not train the same trial twice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
