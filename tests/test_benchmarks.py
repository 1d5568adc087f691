"""Every benchmark can be loaded: what it takes from the package is still there. What they measure is no test's business."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests import tiny

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_can_be_loaded(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))  # as python does for a script
    assert "main" in runpy.run_path(str(path)) or path.stem == "peers"
    sys.modules.pop("peers", None)


@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*", "gated+pre"])
def test_stacked_trials_are_the_separate_ones(placement, monkeypatch):
    """Losses and weights, each trial with its own initial weights, tokens and learning rate."""
    monkeypatch.syspath_prepend(str(BENCHMARKS[0].parent))
    import stacked

    rates = [1e-3, 3e-3, 1e-2]
    # In float64: Adam divides by the size of gradients that may be as small as the rounding of float32.
    made = [[model.double() for model in stacked.trials(tiny.tiny_config(), placement, 3, "cpu")] for _ in range(2)]
    together, separate = stacked.StackedTrials(made[0], rates), stacked.SeparateTrials(made[1], rates)
    random = torch.Generator().manual_seed(1)
    for _ in range(4):
        tokens = torch.randint(64, (3, 4, 12), generator=random)
        torch.testing.assert_close(together.step(tokens), separate.step(tokens), rtol=1e-5, atol=1e-5)
    for index, model in enumerate(made[1]):
        for name, weight in model.named_parameters():
            torch.testing.assert_close(together.weights[name][index], weight, rtol=1e-4, atol=1e-4)
