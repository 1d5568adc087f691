"""A single worker that consists of all processes of torchrun: one trial on several devices."""

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
    """The worker as rank 0 sees it: hands one job after the other to all ranks, and runs it itself in a thread.

    :param parallel: distribution of the model over the ranks.
    """

    def __init__(self, parallel: Parallel) -> None:
        self.parallel = parallel
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.busy, self.in_step = False, True

    def submit(self, job: Job) -> Future[Any]:
        assert isinstance(job, TrialJob)
        return self.thread.submit(self._do, replace(job, parallel=self.parallel))

    def _do(self, job: Job) -> Any:
        """:raises StoreError: if the job before failed: the other ranks may still be running it, or be gone."""
        if not self.in_step:
            raise StoreError(
                f"{job.folder} was not started, because the trial before it failed; run the same command again"
            )
        self.busy, self.in_step = True, False
        try:
            result = _work(job)
            self.in_step = ranks.size() == 1 or getattr(result, "status", "failed") != "failed"
            return result
        finally:
            self.busy = False

    def stop(self) -> None:
        """Nothing to do: the ranks share a signal when they next agree on a checkpoint."""

    def close(self, *, kill: bool) -> None:
        if kill and self.busy:
            if asked():
                print(f"mixln: {LATE.format(1, GRACE)}", file=sys.stderr, flush=True)
            os._exit(128 + stopped().args[0] if asked() else 1)  # a thread cannot be killed

    def lead(self, job: Any) -> Any:
        """Runs one job on all ranks, on this one in this thread; its errors are raised.

        :param job: has a `folder` and :meth:`train`, which every rank calls.
        """
        self.in_step = False
        result = ranks.agreed(job).train()
        self.in_step = True
        return result

    def dismiss(self) -> None:
        """Tells the other ranks that there are no more jobs; not after a failure, when they may still be running one."""
        if self.in_step:
            ranks.agreed(None)
            ranks.part()


def _work(job: Job) -> Any:
    """:raises StoreError: if the disk is full and there are other ranks, which cannot wait and resume together."""
    result = work(job)
    if result is NoResult.NO_ROOM and ranks.size() > 1:
        raise _full(job)
    return result


def _full(job: Job) -> StoreError:
    return StoreError(
        f"the disk of {job.folder} is full; free some space and run the same command again to resume from the last checkpoint"
    )


def on_all(
    parallel: Parallel, trainings: Iterable[OptimizerSettings], hand_out: Callable[[TorchrunWorkers], int]
) -> int:
    """Joins the processes that torchrun started, or this one alone, and runs jobs on all of them. Returns the exit code.

    :param trainings: the trainings to come, whose batches must be divisible among the ranks.
    :param hand_out: runs on rank 0, with the worker; returns the exit code.
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
    """Runs the jobs that rank 0 hands out, on the other ranks, until there are no more; returns the exit code."""
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
