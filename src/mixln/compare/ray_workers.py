"""Workers as tasks of a Ray cluster, whose machines share a file system. Ray retries a task whose worker or machine is lost."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from mixln.compare.runner import DEATHS, Job, Machine, work
from mixln.errors import SettingsError, first_line

PATIENCE = 10.0
"""Seconds in which a cluster must answer."""


class RayWorkers:
    """Tasks on the cluster that `address` names, each with so many processors and GPUs.

    :param machine: its threads are the processors of a task, its GPUs those of a task.
    :param address: of the cluster; `None` for the one that this machine belongs to, or else one on this machine alone.
    :raises SettingsError: if there is no such cluster.
    """

    def __init__(self, machine: Machine, address: str | None) -> None:
        try:
            _knock(address)
            ray.init(
                address=address,
                ignore_reinit_error=True,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises many kinds
            raise SettingsError(
                f"ray-address {address or 'auto'}: no cluster answers: {first_line(error)}; start one with ray start --head"
            ) from error
        self.task = ray.remote(
            num_cpus=machine.threads, num_gpus=min(machine.gpus, 1), max_retries=DEATHS - 1, retry_exceptions=False
        )(_work)
        self.threads = machine.threads
        self.tasks: dict[Future[Any], Any] = {}

    def submit(self, job: Job) -> Future[Any]:
        task: Any = self.task.remote(job, self.threads)
        answer: Future[Any] = Future()

        def ended(future: Future[Any]) -> None:
            try:
                answer.set_result(future.result())
            except RayTaskError as error:
                answer.set_exception(error.cause if isinstance(error.cause, Exception) else error)
            except RayError as error:
                answer.set_result(job.failure(f"its worker was lost {DEATHS} times: {first_line(error)}"))

        task.future().add_done_callback(ended)
        self.tasks[answer] = task
        return answer

    def stop(self) -> None:
        for answer, task in self.tasks.items():
            if not answer.done():
                ray.cancel(task)

    def close(self, *, kill: bool) -> None:
        if kill:
            self.stop()
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Sees that somebody answers there: Ray itself would wait for minutes.

    :raises OSError: if nobody does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _work(job: Job, threads: int) -> Any:
    import torch

    from mixln.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    return work(job)
