"""Workers as processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any

from mixln.compare.execution.runner import Job, Machine, work
from mixln.memory import keep_freed_memory
from mixln.training.stopping import listen


class ProcessPool:
    """As many as the machine is to have, each with its threads and perhaps its GPU.

    When one dies, all do.

    :param jobs: the most that there is to do.
    """

    def __init__(self, machine: Machine, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(
            max_workers=min(machine.jobs, jobs),
            mp_context=context,
            initializer=_start,
            initargs=(machine, context.Value("i", 0)),
        )

    def submit(self, job: Job) -> Future[Any]:
        return self.pool.submit(work, job)

    @property
    def broken(self) -> bool:
        """Whether one has died, and so all have."""
        return bool(self.pool._broken)

    def stop(self) -> None:
        for process in self._processes():
            process.terminate()  # which a worker only takes note of

    def close(self, *, kill: bool) -> None:
        for process in self._processes() if kill else ():
            process.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _processes(self) -> list[Any]:
        return list((self.pool._processes or {}).values())


class PersistentPool:
    """Workers that stay for the next jobs: starting one takes longer than a short training."""

    def __init__(self, plan: Machine) -> None:
        self.plan = plan
        self.workers: ProcessPool | None = None

    def __call__(self, jobs: int) -> PersistentPool:
        return self

    def submit(self, job: Job) -> Future[Any]:
        if self.workers is None:
            self.workers = ProcessPool(self.plan, self.plan.jobs)
        try:
            return self.workers.submit(job)
        except BrokenExecutor:  # one has died: the next try finds new ones
            self.end()
            raise

    def stop(self) -> None:
        if self.workers:
            self.workers.stop()

    def close(self, *, kill: bool) -> None:
        """Ends them only where they are to be killed, or one has died."""
        if self.workers and (kill or self.workers.broken):
            self.end(kill=kill)

    def end(self, *, kill: bool = False) -> None:
        """Ends them."""
        if self.workers:
            self.workers.close(kill=kill)
        self.workers = None


def _start(machine: Machine, counter: Any) -> None:
    with counter.get_lock():
        index = counter.value
        counter.value += 1
    if machine.gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        devices = [name for name in visible if name] or [str(number) for number in range(machine.gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    threading.Thread(target=_die_with_parent, daemon=True).start()
    listen()  # Ctrl-C reaches the driver, which tells the workers
    keep_freed_memory()
    logging.getLogger("mixln").addHandler(logging.StreamHandler())  # warnings only; the driver tells the course
    import torch

    torch.set_num_threads(machine.threads)


def _die_with_parent() -> None:
    """Ends this worker when the process that started it is gone: two must not train one trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
