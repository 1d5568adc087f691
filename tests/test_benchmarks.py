"""Every benchmark can be loaded: what it takes from the package is still there. What they measure is no test's business."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_can_be_loaded(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))  # as python does for a script
    assert "main" in runpy.run_path(str(path)) or path.stem == "peers"
    sys.modules.pop("peers", None)
