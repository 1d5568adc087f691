"""A worker that is this process itself, with those that torchrun started beside it: one trial on many devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mixln.compare.execution.runner import GRACE, LATE, Job, NoResult, work
from mixln.compare.execution.trial_job import TrialJob
from mixln.errors import Stopped, StoreError
from mixln.files import no_room
from mixln.launch import check_meeting, launched
from mixln.memory import keep_freed_memory
from mixln.quiet import quiet
from mixln.training import ranks
from mixln.training.settings import OptimizerSettings, Parallel
from mixln.training.stopping import asked, listening, stopped
from mixln.training.trainers import per_process


class TorchrunWorkers:
    """What rank 0 has, to hand one job after the other to all processes; it does them too, in a thread.

    :param parallel: what each process holds of the model.
    """

    def __init__(self, parallel: Parallel) -> None:
        self.parallel = parallel
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.busy, self.sound = False, True

    def submit(self, job: Job) -> Future[Any]:
        assert isinstance(job, TrialJob)
        return self.thread.submit(self._do, replace(job, parallel=self.parallel))

    def _do(self, job: Job) -> Any:
        """:raises StoreError: after a job that did not end as it should: the other processes may still be at it, or gone."""
        if not self.sound:
            raise StoreError(
                f"{job.folder} was not begun, because the training before it failed; run the same command again"
            )
        self.busy, self.sound = True, False
        try:
            result = _work(job)
            self.sound = ranks.size() == 1 or getattr(result, "status", "failed") != "failed"
            return result
        finally:
            self.busy = False

    def stop(self) -> None:
        """Nothing to do: a signal to one process is heard by all when they next agree on a checkpoint."""

    def close(self, *, kill: bool) -> None:
        if kill and self.busy:
            if asked():
                print(f"mixln: {LATE.format(1, GRACE)}", file=sys.stderr, flush=True)
            os._exit(128 + stopped().args[0] if asked() else 1)  # a thread cannot be killed

    def dismiss(self) -> None:
        """Tells the other processes that there is nothing more to do; not when a job failed, for they may still be at it."""
        if self.sound:
            ranks.agreed(None)
            ranks.part()


def _work(job: Job) -> Any:
    """:raises StoreError: if the disk is full and others wait for this process: they cannot go on together."""
    result = work(job)
    if result is NoResult.NO_ROOM and ranks.size() > 1:
        raise _full(job)
    return result


def _full(job: Job) -> StoreError:
    return StoreError(
        f"the disk of {job.folder} is full; make room and run the same command again: it goes on from its last checkpoint"
    )


def on_all(
    parallel: Parallel, trainings: Iterable[OptimizerSettings], hand_out: Callable[[TorchrunWorkers], int]
) -> int:
    """Joins the processes that were started together; one alone is enough. Returns the exit code.

    :param trainings: what will be trained, whose batches must go round.
    :param hand_out: what rank 0 does, with the worker that all of them are.
    """
    for training in trainings:
        per_process(training, launched()[1])
    check_meeting()
    ranks.check_one_gpu(shareable=True)
    ranks.meet()
    keep_freed_memory()
    if not ranks.first():
        return follow()
    workers = TorchrunWorkers(parallel)
    try:
        return hand_out(workers)
    finally:
        workers.dismiss()


def follow() -> int:
    """What the other processes do: every job that rank 0 hands out, until there is none; returns the exit code."""
    with listening(), quiet():
        while (job := ranks.agreed(None)) is not None:
            try:
                job.train()
            except Stopped as error:
                return 128 + error.args[0]
            except Exception as error:
                if not no_room(error, job.folder):
                    raise
                print(f"mixln: {_full(job)}", file=sys.stderr)
                return 2
    ranks.part()
    return 0
