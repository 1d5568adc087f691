"""Workers as tasks on a Ray cluster whose machines share a file system. Ray retries a task whose worker or machine is lost."""

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
"""Seconds to wait for a connection to the cluster."""


class RayWorkers:
    """Tasks on a Ray cluster.

    :param machine: its threads are the CPU cores per task, its GPUs the GPUs per task.
    :param address: address of the cluster; `None` for the one that this machine belongs to, or else a new one on this machine.
    :raises SettingsError: if the cluster does not answer, or none of its machines has the resources for one task.
    """

    def __init__(self, machine: Machine, address: str | None) -> None:
        try:
            _check_connection(address)
            with _handlers():
                _join(address)
        except Exception as error:  # Ray raises errors of many types
            raise SettingsError(
                f"ray-address {address or 'auto'}: no cluster answers: {first_line(error)}; start one with ray start --head"
            ) from error
        _check_resources(machine)
        self.task = ray.remote(
            num_cpus=machine.threads, num_gpus=min(machine.gpus, 1), max_retries=DEATHS - 1, retry_exceptions=False
        )(_work)
        self.threads = machine.threads
        self.tasks: dict[Future[Any], Any] = {}

    def submit(self, job: Job) -> Future[Any]:
        task: Any = self.task.remote(job, self.threads)
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()  # from here on, only Ray can cancel the task

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
    """Joins a cluster; without an address and a running cluster, starts one that only this machine can reach.

    :raises ConnectionError: if there is no cluster at the address.
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
    """Makes a cluster that is started within it listen on 127.0.0.1 only: Ray's ports run code without authentication.

    Ray does so by default on Windows and macOS. On Linux it uses the machine's external address, even if it is given 127.0.0.1.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _handlers() -> Iterator[None]:
    """Restores the signal handlers, because Ray replaces that of SIGTERM."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_resources(machine: Machine) -> None:
    """Ray itself would wait for a machine with enough resources.

    :raises SettingsError: if no machine of the cluster has the resources for one trial.
    """
    need = {"CPU": machine.threads, "GPU": min(machine.gpus, 1)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= count for kind, count in need.items()) for node in nodes):
        most = {kind: f"{max(node.get(kind, 0) for node in nodes):.0f}" for kind in need}
        ray.shutdown()
        raise SettingsError(
            f"cpus-per-trial {need['CPU']} and gpus-per-trial {need['GPU']} must fit on one machine of the cluster, which have at most "
            f"{most['CPU']} cores and {most['GPU']} GPUs; lower them"
        )


def _check_connection(address: str | None) -> None:
    """Connects to the address once; Ray itself would wait for minutes.

    :raises OSError: if nothing answers within :data:`PATIENCE`.
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
