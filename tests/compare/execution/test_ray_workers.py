"""Trials on a Ray cluster give the numbers that they give here, also when a worker is lost."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mixln.compare.experiment import compare
from mixln.compare.settings import ExecutorSettings
from mixln.errors import SettingsError, Stopped
from mixln.runs.checkpoints import sealed
from tests.compare.recorder import Recorder, until_it_trains
from tests.compare.test_experiment import TRIALS, numbers

pytestmark = [
    pytest.mark.slow,
    # Importing ray takes seconds, also where these tests are not run.
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
]


class Killer(Recorder):
    """A display that kills a worker of the cluster while it trains, once."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []

    def watch(self, running) -> None:
        super().watch(running)
        if running and not self.killed:
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                if process.read_bytes().startswith(b"ray::_work"):
                    self.killed.append(int(process.parent.name))
                    os.kill(self.killed[0], signal.SIGKILL)
                    return


def test_trials_on_ray_equal_those_of_processes_though_a_worker_is_killed(settings_for, tmp_path):
    training = {"steps": 200, "evaluations": 2}
    local = compare(settings_for(tmp_path / "local", training=training), Recorder())
    display = Killer()
    there = compare(
        settings_for(tmp_path / "ray", training=training, execution=ExecutorSettings(executor="ray")), display
    )
    assert display.killed
    assert [result.status for result in there.trials] == ["finished"] * 4
    assert numbers(there) == numbers(local)
    gone = settings_for(
        tmp_path / "ray", training=training, execution=ExecutorSettings(executor="ray", ray_address="127.0.0.1:1")
    )
    assert numbers(compare(gone, Recorder())) == numbers(local)  # what is done needs no cluster


def test_a_cluster_that_is_not_there_is_one_line(settings_for, tmp_path):
    with pytest.raises(SettingsError, match=r"ray-address 127\.0\.0\.1:1: no cluster answers"):
        compare(
            settings_for(tmp_path / "out", execution=ExecutorSettings(executor="ray", ray_address="127.0.0.1:1")),
            Recorder(),
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_stop_saves_its_trials(settings_for, tmp_path, number):
    training = {"steps": 2000, "evaluations": 2}
    settings = settings_for(
        tmp_path / "out", training=training, execution=ExecutorSettings(executor="ray"), placements=("pre",), seeds=(0,)
    )
    process = until_it_trains(driver, settings, TRIALS[0])
    os.kill(process.pid, number)
    process.join(120)
    assert process.exitcode == 128 + number
    ((step, _),) = sealed(settings.out / TRIALS[0])
    assert 0 < step < 2000


def driver(settings) -> None:
    try:
        compare(settings, Recorder())
    except Stopped as error:
        sys.exit(128 + error.args[0] if len(error.args) == 1 else 1)


def test_what_no_machine_of_the_cluster_has_is_one_line_and_nothing_is_written(settings_for, tmp_path):
    settings = settings_for(tmp_path / "out", execution=ExecutorSettings(executor="ray", cpus_per_trial=10_000))
    with pytest.raises(SettingsError, match="cpus-per-trial 10000 and gpus-per-trial 0 must fit on one machine"):
        compare(settings, Recorder())
    assert not settings.out.exists()


def test_a_cluster_of_its_own_listens_on_this_machine_alone():
    import psutil

    from mixln.compare.execution.ray_workers import RayWorkers
    from mixln.compare.execution.runner import Machine

    workers = RayWorkers(Machine(jobs=1, threads=1, gpus=0), None)
    try:
        us = psutil.Process()
        places = [
            connection.laddr.ip
            for process in (us, *us.children(recursive=True))
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    finally:
        workers.close(kill=False)
    assert len(places) >= 3
    assert {place.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}
