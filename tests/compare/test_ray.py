"""Trials on a Ray cluster give the numbers that they give here, also when a worker is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mixln.compare.experiment import compare
from mixln.errors import SettingsError
from tests.compare.recorder import Recorder
from tests.compare.test_experiment import numbers

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


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
    there = compare(settings_for(tmp_path / "ray", training=training, executor="ray"), display)
    assert display.killed
    assert [result.status for result in there.trials] == ["finished"] * 4
    assert numbers(there) == numbers(local)


def test_a_cluster_that_is_not_there_is_one_line(settings_for, tmp_path):
    with pytest.raises(SettingsError, match=r"ray-address 127\.0\.0\.1:1: no cluster answers"):
        compare(settings_for(tmp_path / "out", executor="ray", ray_address="127.0.0.1:1"), Recorder())
