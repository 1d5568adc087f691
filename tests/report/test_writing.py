import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from mixln.compare.findings import findings
from mixln.compare.results import SUMMARY
from mixln.diagnostics.findings import findings as diagnosis_findings
from mixln.diagnostics.results import DIAGNOSES
from mixln.records import from_json, to_json
from mixln.report.figures.comparison import prepare
from mixln.report.writing import write, write_diagnosis
from mixln.runs.trials import TrialResult
from tests.report import diagnosis_samples, samples

pytestmark = pytest.mark.long

NAMES = ["results.json", "table.md", "loss.png", "perplexity.png", "gradients.png", "residual.png", "report.html"]


def test_everything_is_written_and_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    assert write(samples.one_seed(), folder) == [folder / name for name in NAMES]
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert write(samples.bare(), folder) == [folder / name for name in NAMES]
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert "out of memory" in (folder / "report.html").read_text(encoding="utf-8")


def test_results_can_be_read_back(tmp_path: Path) -> None:
    summary = samples.several_rates()
    text = write(summary, tmp_path)[0].read_text(encoding="utf-8")
    stored = json.loads(text)
    assert SUMMARY.read(tmp_path / "results.json") == summary
    computed = stored.pop("findings")
    assert stored == {"schema": "comparison/2", **json.loads(json.dumps(to_json(summary)))}
    assert [found["kind"] for found in computed] == [found.kind for found in findings(summary)]
    assert list(stored)[1 : 1 + len(dataclasses.fields(summary))] == [item.name for item in dataclasses.fields(summary)]
    assert text.startswith('{\n "schema": "comparison/2",\n "task": "language",\n "settings": {')


def test_figures_of_results_read_back_with_gaps() -> None:
    """A loss that is not finite is stored as null; the figures leave it out."""
    summary = samples.one_seed()
    curve = ((10, 8.0), (20, float("nan")), (30, float("inf")))
    trials = [dataclasses.replace(result, train_curve=curve, loss=None) for result in summary.trials]
    stored = json.loads(json.dumps(to_json(trials), allow_nan=False))
    again = dataclasses.replace(summary, trials=tuple(from_json(TrialResult, trial) for trial in stored))
    assert math.isnan(again.trials[0].train_curve[1][1])
    assert prepare(again)[0].panels[0].traces[0].points == ((10.0, 8.0),)


def test_a_failed_write_leaves_the_old_files(tmp_path: Path) -> None:
    write(samples.one_seed(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = dataclasses.replace(samples.usual(), settings={"unserializable": object()})
    with pytest.raises(TypeError):
        write(broken, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_report_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, mixln.report.writing; print(sorted({'torch', 'transformers', 'scipy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_diagnosis_is_written_and_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    names = ["diagnosis.json", "angular.png", "influence.png", "residual.png", "report.html"]
    for _ in range(2):
        assert write_diagnosis(diagnosis_samples.bare(), folder) == [folder / name for name in names]
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_diagnosis_can_be_read_back(tmp_path: Path) -> None:
    record = diagnosis_samples.mixed()
    stored = json.loads(write_diagnosis(record, tmp_path)[0].read_text(encoding="utf-8"))
    assert DIAGNOSES.read(tmp_path / "diagnosis.json") == record
    computed = stored.pop("findings")
    assert stored == {"schema": "diagnosis/2", **json.loads(json.dumps(to_json(record)))}
    assert {name: [found["kind"] for found in each] for name, each in computed.items()} == {
        model.model: [found.kind for found in diagnosis_findings(model)] for model in record.models
    }
    assert [model["model"] for model in stored["models"]] == ["Pre-LN", "vision", "no branches"]
    distance = record.models[0].angular.distance
    assert tuple(map(tuple, stored["models"][0]["angular"]["distance"])) == distance
    assert stored["models"][2]["drops"] is None


def test_a_comparison_writes_the_figures_of_its_diagnoses(tmp_path: Path) -> None:
    names = [path.name for path in write(diagnosis_samples.compared(), tmp_path)]
    more = [name for name in names if name not in NAMES]
    assert [name for name in names if name in NAMES] == NAMES
    assert {"diagnosis-angular.png", "diagnosis-drops.png", "diagnosis-gradients.png"} <= set(more)
    assert all(name.startswith("diagnosis-") and (tmp_path / name).stat().st_size > 10_000 for name in more)


def test_a_later_diagnosis_leaves_no_figure_of_an_earlier_one(tmp_path: Path) -> None:
    whole = diagnosis_samples.diagnoses(diagnosis_samples.model("a", 4))
    write_diagnosis(whole, tmp_path)
    (tmp_path / "mine.png").write_bytes(b"kept")
    assert (tmp_path / "gradients.png").is_file()
    without = dataclasses.replace(whole, models=(dataclasses.replace(whole.models[0], gradients=None, initial=None),))
    paths = write_diagnosis(without, tmp_path)
    assert set(tmp_path.iterdir()) == {*paths, tmp_path / "mine.png"}
    assert not (tmp_path / "gradients.png").exists()
