"""The whole command in a process of its own: two placements, one seed, six steps."""

from __future__ import annotations

import json

import pytest

from mixln.compare.findings import NothingTrained
from mixln.report.wording.comparison import sentence
from tests import small
from tests.cli.test_commands import run

pytestmark = pytest.mark.long


def test_compare_from_the_command_line_to_the_report(tmp_path):
    small.write_folder(tmp_path / "text", small.documents())
    small.write_config(tmp_path / "config.json")
    out = tmp_path / "out"
    found = run(
        *("compare", "--placements", "pre", "mix(0.5)", "--seeds", "3", "--learning-rates", "1e-2", "--steps", "6"),
        *("--model", str(tmp_path / "config.json"), "--data", str(tmp_path / "text"), "--held-out", "0.1"),
        *("--sequence-length", "16", "--batch-size", "4", "--precision", "float32", "--jobs", "1"),
        *("--out", str(out), "--cache", str(tmp_path / "cache")),
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "trials: 0 of 2 done, 2 to run, 6 steps each" in found.stdout
    assert f"report: {out / 'report.html'}" in found.stdout
    for name in ("pre_lr0.01_seed3", "mix-0.5_lr0.01_seed3"):
        result = json.loads((out / name / "result.json").read_text())
        assert (result["status"], result["step"]) == ("stalled", 6)
    results = json.loads((out / "results.json").read_text())
    assert results["findings"][0] == {"kind": "nothing-trained"}
    assert sentence(NothingTrained(), "language") in " ".join(found.stdout.split())
    assert [row["placement"] for row in results["placements"]] == ["pre", "mix(0.5)"]
    assert [trial["loss"] for trial in results["trials"]] == [
        json.loads((out / name / "result.json").read_text())["loss"]
        for name in ("pre_lr0.01_seed3", "mix-0.5_lr0.01_seed3")
    ]
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "table.md").read_text().count("mix(0.5)") >= 1
