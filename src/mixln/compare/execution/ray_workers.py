"""Workers as tasks of a Ray cluster, whose machines share a file system. Ray retries a task whose worker or machine is lost."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError

from mixln.compare.execution.runner import DEATHS, Job, Machine, work
from mixln.errors import SettingsError, first_line
from mixln.training.stopping import SIGNALS

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
            with _handlers():
                _join(address)
        except Exception as error:  # Ray raises many kinds
            raise SettingsError(
                f"ray-address {address or 'auto'}: no cluster answers: {first_line(error)}; start one with ray start --head"
            ) from error
        _check_room(machine)
        self.task = ray.remote(
            num_cpus=machine.threads, num_gpus=min(machine.gpus, 1), max_retries=DEATHS - 1, retry_exceptions=False
        )(_work)
        self.threads = machine.threads
        self.tasks: dict[Future[Any], Any] = {}

    def submit(self, job: Job) -> Future[Any]:
        task: Any = self.task.remote(job, self.threads)
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()  # what Ray has begun, only Ray can cancel

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


def _join(address: str | None) -> None:
    """Joins a cluster; where none is named or there, starts one that only this machine can reach.

    :raises ConnectionError: if there is none of that address.
    """
    init = partial(
        ray.init, ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
    )
    if address is not None:
        init(address=address)
        return
    try:
        init(address="auto")
    except ConnectionError:
        with _loopback():
            init(address="local")


@contextmanager
def _loopback() -> Iterator[None]:
    """A cluster that is started within it listens on 127.0.0.1 alone: Ray's tasks run code, and its ports ask nobody who they are.

    Ray does so by itself on Windows and macOS; elsewhere it takes the machine's outer address, even where it is given 127.0.0.1.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _handlers() -> Iterator[None]:
    """Keeps who listens to which signal: Ray would have SIGTERM for itself."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_room(machine: Machine) -> None:
    """:raises SettingsError: if no machine of the cluster has what one trial needs: Ray would wait for one."""
    need = {"CPU": machine.threads, "GPU": min(machine.gpus, 1)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= count for kind, count in need.items()) for node in nodes):
        most = {kind: f"{max(node.get(kind, 0) for node in nodes):.0f}" for kind in need}
        ray.shutdown()
        raise SettingsError(
            f"a trial needs {need['CPU']} processors and {need['GPU']} GPUs of one machine, and the cluster's have at most "
            f"{most['CPU']} and {most['GPU']}; lower --cpus-per-trial or --gpus-per-trial"
        )


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
