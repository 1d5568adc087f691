"""The search for a share of Post-LN layers and a learning rate, on a small model and text."""

from __future__ import annotations

import json
import math
import os
import shutil

import pytest

from mixln.cli import main
from mixln.compare.execution.pool import PersistentPool
from mixln.compare.execution.runner import Machine
from mixln.compare.execution.trial_job import TrialJob
from mixln.compare.settings import CompareSettings
from mixln.errors import MixlnError
from mixln.report.wording import search as wording
from mixln.runs.trials import Trial, TrialResult
from mixln.search import finalists, proxy_trials, tune
from mixln.search.results import SEARCH
from mixln.search.settings import SearchSettings, placement_with
from mixln.training.settings import TrainSettings
from tests import small
from tests.runs.jobs import write_result
from tests.search.records import proxy
from tests.search.test_stress import code_of, options

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json", num_hidden_layers=4)
    return folder


def test_the_ends_of_the_share_are_pre_and_post():
    assert [placement_with(count, 4) for count in range(5)] == ["pre", "mix(1/4)", "mix(2/4)", "mix(3/4)", "post"]


def test_between_two_ramps_the_limit_is_their_geometric_mean():
    limits = ((0, 1e-1), (2, 1e-3), (4, 1e-4))
    assert proxy_trials.limit_at(limits, 0) == pytest.approx(1e-1)
    assert proxy_trials.limit_at(limits, 1) == pytest.approx(1e-2)
    assert proxy_trials.limit_at(limits, 4) == pytest.approx(1e-4)


def test_candidates_are_the_best_of_each_count_and_pre_ln():
    proxies = [
        proxy(1, 1e-3, 5.0), proxy(1, 2e-3, 4.8), proxy(2, 1e-3, 4.9), proxy(3, 1e-3, 4.0, "pruned"), proxy(4, 1e-3, None, "diverged"),
        proxy(0, 1e-3, 6.0), proxy(0, 2e-3, 5.5),
    ]  # fmt: skip
    assert [(each.post_layers, each.learning_rate) for each in tune.candidates(proxies, 1)] == [(1, 2e-3), (0, 2e-3)]
    assert [each.post_layers for each in tune.candidates(proxies, 3)] == [1, 2, 0]
    slow = [
        proxy(1, 1e-3, 5.0),
        proxy(2, 1e-3, 6.6, "stalled"),
        proxy(0, 1e-3, 6.7, "stalled"),
        proxy(0, 2e-3, 6.6, "stalled"),
    ]
    assert [(each.post_layers, each.learning_rate) for each in tune.candidates(slow, 3)] == [(1, 1e-3), (0, 2e-3)]


def result(loss, rate, seed=0, status="finished", step=40):
    return TrialResult(
        trial=Trial(placement="mix(1/4)", init="normal", learning_rate=rate, seed=seed), status=status, reason="", step=step, tokens=1,
        loss=loss, bits_per_byte=None, tokens_per_second=None, seconds=1.0,
    )  # fmt: skip


TUNING = 9
"""The seed by which learning rates are tuned."""


class Known:
    """A folder of full trainings that have ended: number of the learning rate → loss of the tuning seed, and of seeds 0 and 1; None where
    one diverged."""

    def __init__(self, folder, losses):
        self.folder, self.losses = folder, losses
        self.search = finalists.LearningRateSearch(proxy=proxy(1, 1e-3, 5.0), seed=TUNING)
        self.numbers = {self.search.rate(number): number for number in losses}
        for number, known in losses.items():
            rate = self.search.rate(number)
            for seed, loss in zip((TUNING, 0, 1), known, strict=False):
                write_result(self.at(rate, seed), result(loss, rate, seed, "finished" if loss else "diverged"))

    def at(self, rate, seed):
        folder = self.folder / f"{self.numbers[rate]}-{seed}"
        folder.mkdir(exist_ok=True, parents=True)
        return folder

    def job_of(self, candidate, rate, seed):
        trial = Trial(placement=candidate.placement, init="normal", learning_rate=rate, seed=seed)
        return TrialJob(
            trial=trial, folder=self.at(rate, seed), settings=SearchSettings().comparison(), config={}, data=self.folder
        )

    def climbed(self):
        (found,) = finalists.tune_learning_rates([self.search.proxy], TUNING, self.job_of, None, Silent(), 40)
        return found


@pytest.mark.parametrize(
    ("losses", "tried", "best"),
    [
        ({0: 5.0, 1: 4.0, 2: 4.5}, [0, 1, 2], 1),
        ({0: 5.0, 1: 5.5, -1: 4.0, -2: 4.1}, [0, 1, -1, -2], -1),
        ({0: 4.0, 1: 4.5, -1: 4.5}, [0, 1, -1], 0),
        ({0: 4.0, 1: None, -1: 4.5}, [0, 1, -1], 0),
        ({0: 6.0, 1: 5.0, 2: 4.0, 3: 3.0}, [0, 1, 2, 3], 3),  # enough
        ({0: None, 1: None, -1: None, -2: None}, [0, 1, -1, -2], -2),
    ],
)
def test_a_learning_rate_goes_up_while_that_is_better_and_else_down(losses, tried, best, tmp_path):
    found = Known(tmp_path, {number: [loss] for number, loss in losses.items()}).climbed()
    assert (list(found.tried), found.settled) == (tried, best)
    assert [found.rate(number) for number in (-1, 0, 1)] == [6.3e-4, 1e-3, 1.6e-3]


def test_the_last_of_its_direction_is_said_to_be():
    each = finalists.LearningRateSearch(proxy=proxy(1, 1e-3, 5.0), seed=TUNING)
    for numbers, settled, edge in (((0, 1, 2, 3), 3, True), ((0, 1, -1), 0, False), ((0, 1, -1, -2), -2, True)):
        each.tried, each.settled = {number: {} for number in numbers}, settled
        assert each.edge == edge


@pytest.mark.parametrize(
    ("second", "settled", "whole"),
    [
        ({1: 4.0, 0: 5.0, -1: 5.5}, 1, True),
        ({1: None, 0: 5.0, -1: 5.5}, 0, True),
        ({1: None, 0: None, -1: 5.5}, -1, True),
        ({1: None, 0: None, -1: None}, -1, False),
    ],
)
def test_who_does_not_train_at_all_seeds_goes_a_learning_rate_down(second, settled, whole, tmp_path):
    known = Known(tmp_path, {1: [4.0, 4.1, second[1]], 0: [5.0, 5.1, second[0]], 2: [4.5], -1: [5.5, 5.6, second[-1]]})
    found = known.climbed()
    assert found.settled == 1
    finalists.seeded([found], (0, 1), known.job_of, None, Silent(), 40)
    assert (found.settled, found.complete((0, 1))) == (settled, whole)
    (finalist,) = tune.ranked([found], (0, 1))
    assert finalist.losses == tuple(known.losses[settled][1:])  # the tuning seed is no result
    assert (finalist.loss is not None) == whole
    seeds = {1: (TUNING, 0, 1), 0: (TUNING, 0, 1), 2: (TUNING,)}
    tried = {each.learning_rate: each.seeds for each in finalist.tried}
    assert tried[found.rate(2)] == (TUNING,)
    assert tried[found.rate(1)] == seeds[1]


def test_an_error_ends_the_search_where_another_learning_rate_would_not_help(tmp_path, monkeypatch):
    asked = []

    def train(jobs, workers, display, more=lambda folder, result: ()):
        asked.append(len(jobs))
        for job in jobs:
            more(job.folder, result(None, job.trial.learning_rate, job.trial.seed, "failed"))
        return {job.folder: result(None, job.trial.learning_rate, job.trial.seed, "failed") for job in jobs}

    monkeypatch.setattr(finalists, "train", train)
    for known in (Known(tmp_path / "a", {0: []}), Known(tmp_path / "b", {0: [4.0], 1: [4.2], -1: [4.2]})):
        with pytest.raises(MixlnError, match=r"a full training failed: .*; run the same command again"):
            finalists.seeded([known.climbed()], (0, 1), known.job_of, None, Silent(), 40)
    assert asked == [1, 0, 2]  # while rates were tuned; then with all seeds, once


def test_who_fell_behind_while_rates_were_tuned_stands_behind(tmp_path):
    best = Known(tmp_path / "a", {0: [4.0, 4.1, 4.2], 1: [4.2], -1: [4.2]})
    behind = Known(tmp_path / "b", {0: [3.9], 1: [4.2], -1: [4.2]})
    ahead, other = best.climbed(), behind.climbed()
    finalists.seeded([ahead], (0, 1), best.job_of, None, Silent(), 40)
    first, second = tune.ranked([other, ahead], (0, 1))
    assert (first.losses, first.difference) == ((4.1, 4.2), None)
    assert (second.seeds, second.losses, second.loss) == ((), (), None)


def test_what_is_tried_first_is_tried_after_an_interruption_too(files, tmp_path):
    """Whatever was proposed before it, of what begins every search nothing is left out, and nothing is tried twice."""
    from optuna.trial import TrialState

    settings = SearchSettings(out=tmp_path, layers=4)
    limits = ((0, 0.1), (1, 0.02), (4, 0.02))
    job = proxy_trials.ProxyJob(
        trial=Trial(placement="pre", init="normal", learning_rate=1e-3, seed=3), folder=tmp_path, config={}, data=tmp_path,
        settings=settings.comparison(),
    )  # fmt: skip

    def proposals(count):
        search = proxy_trials.ProxyTrials(settings, job, layers=4, seed=3, limits=limits, worst=9.0)
        study = search._study(search._ended())
        return [search._job(study.ask()) for _ in range(count)]

    begun = proposals(5)
    assert [each.trial.placement for each in begun] == ["mix(1/4)", "mix(2/4)", "pre", "pre", "pre"]
    assert [each.trial.learning_rate for each in begun[2:]] == [
        0.005,
        0.0025,
        0.01,
    ]  # Pre-LN's, around the first of the others
    for path in (tmp_path / "short").iterdir():
        if path not in (begun[0].folder, begun[1].folder):
            shutil.rmtree(path)
    write_result(begun[0].folder, result(5.0, begun[0].trial.learning_rate, step=99))
    again = proposals(4)
    assert {each.folder for each in again} == {each.folder for each in begun[1:]}
    search = proxy_trials.ProxyTrials(settings, job, layers=4, seed=3, limits=limits, worst=9.0)
    assert TrialState.COMPLETE in [trial.state for trial in search._study(search._ended()).trials]


def test_a_search_chooses_shows_its_evidence_and_repeats_nothing(files, capsys):
    out = files / "out"
    command = ["tune", "--trials", "6", "--finalists", "2", "--seeds", "0", "1", "--steps", "40", "--proxy", "0.5"]
    command += ["--out", str(out), *options(files)]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    found = json.loads((out / "tune.json").read_text())
    chosen = found["chosen"]
    assert chosen == found["finalists"][0]
    assert (found["findings"][0]["kind"], found["findings"][0]["chosen"]) == ("choice", chosen)
    assert wording.verdict(SEARCH.read(out / "tune.json"))[0] in said
    losses = [each["loss"] for each in found["finalists"] if each["loss"] is not None]
    assert losses == sorted(losses)
    assert any(each["post_layers"] == 0 for each in found["finalists"])
    assert len(found["proxies"]) == 6
    assert [each["post_layers"] for each in found["proxies"][:5]] == [1, 2, 0, 0, 0]  # what is tried first
    assert {path.name.rpartition("seed")[2] for path in (out / "full").iterdir()} == {"0", "1", "2"}
    for each in found["finalists"]:
        assert each["seeds"] in ([0, 1], [])
        assert each["seeds"] or (each is not found["finalists"][0] and each["post_layers"])
        assert 1 <= len(each["tried"]) <= finalists.TRIES + finalists.RETREATS
        assert each["learning_rate"] in [tried["learning_rate"] for tried in each["tried"]]
    full_steps = sum(json.loads(path.read_text())["step"] for path in (out / "full").glob("*/result.json"))
    steps = 3 * 20 + sum(each["steps"] for each in found["proxies"]) + full_steps
    assert found["cost"] == pytest.approx(steps / 40)
    assert {"tune.md", "search.png", "report.html"} <= {path.name for path in out.iterdir()}

    assert not list((out / "short").glob("*/checkpoint-*"))

    marks = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == marks
    assert json.loads((out / "tune.json").read_text())["chosen"] == chosen

    # Cut off: a short training was under way and to be ended, and a full one is missing.
    next((out / "full").glob("*/result.json")).unlink()
    (short,) = [
        path.parent
        for path in (out / "short").glob("*/result.json")
        if '"number": 5' in (path.parent / "proposal.json").read_text()
    ]
    (short / "result.json").unlink()
    (short / "stop").touch()
    assert main(command) == 0
    assert len(list(out.rglob("result.json"))) == len(marks)
    again = json.loads((out / "tune.json").read_text())["chosen"]
    assert math.isclose(again["loss"], chosen["loss"], rel_tol=1e-5)

    assert main([*command, "--highest", "0.5"]) == 2
    assert "holds another search: highest was 1.0, now 0.5" in capsys.readouterr().err


def test_a_short_training_is_ended_by_a_file(files):
    """The callback that ends it looks when a loss is recorded."""
    from transformers import TrainerControl, TrainerState

    control, state = TrainerControl(), TrainerState()
    watcher = proxy_trials.StopOnFile(files / "stop")
    state.log_history = [{"loss": 1.0}]
    for exists, evaluated, ends in ((False, False, False), (True, False, False), (True, True, True)):
        if exists:
            (files / "stop").touch()
        if evaluated:
            state.log_history.append({"eval_loss": 1.0})
        watcher.on_log(None, state, control)
        assert control.should_training_stop == ends


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "5"], "trials must be at least 6, got 5: "),
        (["--finalists", "0"], "finalists must be at least 1, got 0"),
        (["--proxy", "0"], "proxy must lie in (0, 1] (a share of the steps), got 0.0"),
        (["--layers", "0"], "layers must be at least 1, got 0"),
        (["--model", "nonsense"], "model 'nonsense' is not known"),
        (["--init", "nonsense"], "init 'nonsense' is not known"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(arguments, said, tmp_path, capsys):
    assert code_of(["tune", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["tune", "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no search" in capsys.readouterr().err


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune, "find_spec", lambda name: None)
    assert main(["tune", "--out", str(tmp_path / "out")]) == 2
    assert "tune needs the package optuna; run pip install optuna" in capsys.readouterr().err


def test_the_ramps_have_the_settings_of_the_training():
    settings = SearchSettings()
    made = settings.stress((0, 6), 12)
    assert (made.placements, made.training.steps) == (("pre", "mix(6/12)"), 150)
    assert made.training.beta2 == settings.training.beta2


class Dies(proxy_trials.ProxyJob):
    """A training whose worker is killed the first time."""

    def work(self):
        mark = self.folder / "died"
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return super().work()


def test_workers_that_stay_are_replaced_when_one_dies(files):
    """And the training that it was at goes on in a new one."""
    text = small.prepared(files)
    job = Dies(
        trial=Trial(placement="pre", init="normal", learning_rate=1e-3, seed=0),
        folder=files / "dies",
        config=small.config().to_dict(),
        data=text.folder,
        settings=CompareSettings(training=TrainSettings(steps=4, batch_size=4, precision="float32")),
    )
    workers = PersistentPool(Machine(jobs=1, threads=1, gpus=0))
    try:
        results = proxy_trials.train([job], workers, Silent())
        assert results[job.folder].status in ("finished", "stalled")
        assert results[job.folder].step == 4
    finally:
        workers.end()


class Silent:
    """A display that shows nothing."""

    def begin(self, trials, done, steps):
        pass

    def end(self):
        pass

    def say(self, text):
        pass

    def warn(self, warning):
        pass

    def watch(self, running):
        pass

    def finished(self, result):
        pass
