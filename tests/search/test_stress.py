"""The learning-rate ramp from the command line, on a small model and text."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from mixln.cli import main
from mixln.report.figures.stress import charts
from mixln.report.tables.stress import table
from mixln.report.wording import pages, search_report
from mixln.search import stress
from mixln.search.findings import StabilityLimit, stress_findings
from mixln.search.results import LearningRateLimit, Ramp, RampOutcome
from mixln.search.settings import StressSettings
from mixln.training.schedule import ramp
from mixln.training.settings import RampSettings
from tests import small
from tests.compare.records import one
from tests.search.records import stressed


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stress")
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json", num_hidden_layers=4)
    return folder


def options(files, *more):
    return [
        *("--model", str(files / "config.json"), "--data", str(files / "text"), "--sequence-length", "16"),
        *("--vocabulary-size", "300", "--cache", str(files / "cache"), "--batch-size", "4", "--jobs", "1"),
        *("--held-out", "0.2", "--precision", "float32", *more),
    ]


def code_of(arguments):
    """The exit code, whether the mistake shows while the command line is read or after."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


def test_the_ramp_rises_by_the_same_factor():
    rates = [ramp(update, steps=5, decades=2.0) for update in range(5)]
    assert rates == pytest.approx([10**-2, 10**-1.5, 10**-1, 10**-0.5, 1])


@pytest.mark.long
def test_a_stress_test_orders_placements_and_depths(files, capsys):
    """Whoever it is, at learning rate 1,000 it does not train any more."""
    out = files / "out"
    command = ["stress", "--placements", "pre", "post", "--depths", "2", "4", "--seeds", "0", "1", "--steps", "60"]
    command += ["--highest", "1000", "--decades", "6", "--out", str(out)]
    assert main([*command, *options(files)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert search_report.STRESS_TITLE in shown
    assert "ramps: 2 layers" in shown
    found = json.loads((out / "stress.json").read_text())
    assert [(limit["placement"], limit["layers"]) for limit in found["limits"]] == [
        ("pre", 2), ("post", 2), ("pre", 4), ("post", 4),
    ]  # fmt: skip
    assert found["rates"] == pytest.approx([1e-3, 1000])
    for limit in found["limits"]:
        assert set(limit["failures"]) <= {"worsens", "stalls", "diverges"}
        assert limit["rate"] is None or 1e-3 < limit["rate"] < 1000
    assert len(found["ramps"]) == 8
    assert {"stress.md", "ramps.png", "report.html"} <= {path.name for path in out.iterdir()}
    assert [found["kind"] for found in found["findings"]].count("stability-limit") == 4
    assert pages.stress("Pre-LN, Post-LN").heading in (out / "report.html").read_text()
    before = (out / "stress.json").read_text()
    assert main([*command, *options(files)]) == 0
    assert "nothing to run" in capsys.readouterr().out
    assert json.loads((out / "stress.json").read_text())["limits"] == json.loads(before)["limits"]
    assert main([*command, *options(files), "--highest", "10"]) == 2
    assert "holds another search: highest was 1000.0, now 10.0; choose another --out" in capsys.readouterr().err


def test_a_ramp_that_failed_is_no_seed_that_never_trained():
    """Of two seeds one trained up to 0.01, and the other ended with an error."""
    sound = RampOutcome(rate=0.01, failure="stalls", spikes=0, first_spike=None, least=5.0, best_rate=0.01)
    ramp = Ramp(placement="pre", layers=2, init="normal", seed=0, breaking=sound, curve=((0.01, 5.0),))
    crashed = dataclasses.replace(ramp, seed=1, breaking=None, curve=(), error="out of memory")
    (limit,) = stress._limits([ramp, crashed], "pre")
    assert (limit.rate, limit.trained, limit.failed) == (None, 1, 1)
    found = stressed(limit)
    assert one(stress_findings(found), StabilityLimit).state == "failed"
    assert table(found).rows[0][2:4] == (
        ("1 stalled,", "1 failed"),
        (search_report.highest(None, censored=False, unknown=True),),
    )


@pytest.mark.parametrize("depths", [(12,), (6, 12)])
def test_the_figures_have_the_intervals_and_gaps_where_a_loss_is_beyond_them(depths):
    rates = [1e-3 * 10 ** (index / 4) for index in range(9)]
    losses = [6.0, 5.9, 5.5, 5.2, 5.0, 60.0, 60.0, 60.0, None]
    broken = RampOutcome(
        rate=rates[4], failure="diverges", spikes=0, first_spike=None, least=5.0, best_rate=rates[4]
    )  # fmt: skip
    found = stressed(
        *(
            LearningRateLimit(
                placement="pre", title="Pre-LN", layers=depth, init="normal", rate=rates[4], low=rates[3], high=50.0,
                trained=2, censored=0, failures=("diverges", "diverges"), spiked=0,
            )
            for depth in depths
        ),
        rates=(rates[0], rates[-1]),
        steps=9,
        ramps=tuple(
            Ramp(
                placement="pre", layers=depth, init="normal", seed=seed, breaking=broken,
                curve=tuple(zip(rates, losses, strict=True)),
            )
            for depth in depths for seed in (0, 1)
        ),
    )  # fmt: skip
    ramps, limits = charts(found)
    (panel,) = limits.panels
    spans = [trace for trace in panel.traces if trace.role == "span"]
    axis = panel.y if len(depths) > 1 else panel.x
    assert len(spans) == len(depths)
    assert axis.high < 1
    for span in spans:
        assert (span.y if len(depths) > 1 else span.x) == pytest.approx([rates[3], 0.1])  # where the ramp ended

    raw, smooth = (next(t for t in ramps.panels[0].traces if t.role == role) for role in ("training", "seed"))
    assert [math.isnan(y) for y in raw.y] == [loss is None or loss > 6.5 for loss in losses]
    assert smooth.x == rates[:-2]
    assert smooth.y[:3] == pytest.approx([ramps.panels[0].y.inside(loss) for loss in (5.9, 5.7, 5.5)])
    assert math.isnan(smooth.y[-1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--placements", "pre", "nonsense"], "placement 'nonsense' is not known"),
        (["--placements", "pre", "pre"], "placements must not repeat, got pre twice"),
        (["--depths", "4", "0"], "depths must be at least 1, got 0"),
        (["--steps", "10"], "steps must be at least 20 for a ramp, got 10"),
        (
            ["--placements", "pre", "mix(6)", "--depths", "12", "4"],
            "mix(6): the number of Post-LN layers must be at most the model's 4",
        ),
        (["--highest", "0"], "highest must be above 0 and finite, got 0.0"),
        (["--decades", "0"], "decades must lie in (0, 12] (powers of ten), got 0.0"),
        (["--inits", "normal", "nonsense"], "init 'nonsense' is not known"),
        (["--model", "nonsense"], "model 'nonsense' is not known"),
        (["--data", "nowhere.txt"], "data nowhere.txt does not exist"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(arguments, said, tmp_path, capsys):
    assert code_of(["stress", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_depth_and_init_has_a_folder_of_its_own(tmp_path):
    settings = StressSettings(out=tmp_path, depths=(6, 12), inits=("normal", "megatron"))
    made = [settings.comparison(depth, init) for depth in settings.depths for init in settings.inits]
    assert len({each.out for each in made}) == 4
    assert {(each.layers, each.init) for each in made} == {
        (6, "normal"), (6, "megatron"), (12, "normal"), (12, "megatron"),
    }  # fmt: skip
    assert isinstance(made[0].training, RampSettings)
