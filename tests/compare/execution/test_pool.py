"""How workers begin."""

from __future__ import annotations

import subprocess
import sys

from mixln.compare.execution.pool import _context
from mixln.compare.execution.runner import Machine

CPU, GPU = Machine(jobs=2, threads=1, gpus=0), Machine(jobs=2, threads=1, gpus=1)
ASK = "from tests.compare.execution.test_pool import CPU, _context; print(_context(CPU).get_start_method())"


def test_workers_are_forked_from_a_server_only_without_a_gpu():
    assert _context(CPU).get_start_method() == "forkserver"
    assert _context(GPU).get_start_method() == "spawn"


def test_where_the_server_has_no_socket_workers_are_spawned(tmp_path):
    """A socket's path has at most about 108 bytes."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    environment = {"TMPDIR": str(folder), "PYTHONPATH": ":".join(sys.path)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert asked.stdout == "spawn\n"
