"""The small text and model as files.

Nothing of Hugging Face is imported before a test runs: pytest may load this file before it has gone offline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mixln.compare.settings import CompareSettings, ExecutorSettings
from mixln.data.settings import TextSettings
from mixln.training.settings import TrainSettings

Settings = Callable[..., CompareSettings]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, config.json and cache."""
    from tests import small

    folder = tmp_path_factory.mktemp("inputs")
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json")
    return folder


@pytest.fixture(scope="session")
def settings_for(inputs: Path) -> Settings:
    """Settings of a small comparison into a folder; changes go to the part that has the field."""

    def made(out: Path, *, text: dict | None = None, training: dict | None = None, **changes) -> CompareSettings:
        settings = CompareSettings(
            placements=("pre", "mix(0.5)"),
            learning_rates=(2e-2,),
            seeds=(0, 1),
            model=str(inputs / "config.json"),
            out=out,
            execution=ExecutorSettings(jobs=1),
            cache=inputs / "cache",
            text=TextSettings(**{"data": str(inputs / "text"), "sequence_length": 16, "held_out": 0.1, **(text or {})}),
            training=TrainSettings(
                **{"steps": 40, "batch_size": 4, "evaluations": 2, "precision": "float32", **(training or {})}
            ),
        )
        return replace(settings, **changes)

    return made
