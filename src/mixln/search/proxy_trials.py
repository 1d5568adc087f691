"""The proxy trials of a search: short trainings that Optuna proposes, run in parallel and stopped early if they fall behind.

Optuna's study is kept in memory and rebuilt from the trial folders on resuming, so that there is no second store to keep consistent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixln.compare.display import Display
from mixln.compare.execution.pool import PersistentPool
from mixln.compare.execution.runner import Progress, run
from mixln.compare.execution.trial_job import TrialJob
from mixln.errors import StoreError
from mixln.records import unreadable
from mixln.runs.checkpoints import remove, written_in
from mixln.runs.metrics import METRICS, read_metrics
from mixln.runs.schema import Schema
from mixln.runs.trials import Trial, TrialResult, check_claim, claim, read_result
from mixln.search.results import Proxy
from mixln.search.settings import SearchSettings, placement_with

if TYPE_CHECKING:
    import optuna

STOP = "stop"
"""Marker file in a proxy trial's folder that requests it to stop."""
DEEPEST = 1 / 128
"""The lowest learning rate that is tried, as a fraction of the stability limit."""
STARTS = ((0.25, 1 / 4), (0.5, 1 / 4))
"""The first proposals: share of Post-LN layers, and learning rate as a fraction of the stability limit."""
PRE_STARTS = (1.0, 0.5, 2.0)
"""The next proposals, so that Pre-LN, the baseline, is tuned too: its learning rate as a multiple of the first of `STARTS`. Pre-LN stays
stable far above its optimal learning rate, so a fraction of its stability limit is a poor initial guess."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Optuna's proposal for a proxy trial.

    :param number: index of the proposal, from 0.
    :param params: `post_layers`, the number of Post-LN layers, and `part`, the learning rate as a fraction of the stability limit.
    """

    number: int
    params: dict[str, Any]


PROPOSAL = Schema(kind="proposal", file="proposal.json", record=Proposal)


class StopOnFile(TrainerCallback):
    """Stops a training if a file exists, but not before its first evaluation, so that it has a loss."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.path.exists() and any("eval_loss" in row for row in state.log_history):
            control.should_training_stop = True


@dataclass(frozen=True, kw_only=True)
class ProxyJob(TrialJob):
    """A proxy trial, which the search may stop early."""

    @property
    def watchers(self) -> Sequence[TrainerCallback]:
        return [StopOnFile(self.folder / STOP)]


def train(
    jobs: Sequence[TrialJob],
    workers: PersistentPool,
    display: Display,
    watch: Callable[[Sequence[Progress]], None] | None = None,
    more: Callable[[Path, TrialResult], Sequence[TrialJob]] = lambda folder, result: (),
) -> dict[Path, TrialResult]:
    """Runs the jobs that have no result yet.

    :param more: folder and result of a finished job → jobs to add.
    :returns: folder → result.
    """
    results = {job.folder: result for job in jobs if (result := read_result(job.folder)) is not None}
    for job in jobs:
        check_claim(job.folder, job.trial, job.shared)
    folders: dict[Trial, Path] = {}

    def prepared(jobs: Sequence[TrialJob]) -> Sequence[TrialJob]:
        for job in jobs:
            folders[job.trial] = job.folder
            claim(job.folder, job.trial, job.shared)
            (job.folder / STOP).unlink(missing_ok=True)  # from a killed process, whose job is run again
        return jobs

    def finished(result: TrialResult) -> None:
        results[folders[result.trial]] = result
        display.finished(result)

    if missing := prepared([job for job in jobs if job.folder not in results]):
        run(
            missing,
            workers,
            finished=finished,
            watch=watch or display.watch,
            more=lambda result: prepared(more(folders[result.trial], result)),
        )
    return results


def limit_at(limits: Sequence[tuple[int, float]], count: int) -> float:
    """The stability limit for `count` Post-LN layers, interpolated linearly in the logarithm of the learning rate."""
    return float(np.exp(np.interp(count, [count for count, _ in limits], [math.log(rate) for _, rate in limits])))


def rounded(rate: float) -> float:
    """Rounded to two significant digits, so that it is easy to type and equal proposals share a folder."""
    return float(f"{rate:.1e}")


class ProxyTrials:
    """The proxy trials of a search.

    :param template: a job without trial and folder.
    :param layers: number of layers of the model.
    :param seed: seed of all proxy trials; must not be one of the final seeds, whose results would then be biased by the selection.
    :param limits: (number of Post-LN layers, stability limit).
    :param worst: loss that counts for a training that diverged, nats per token.
    """

    def __init__(
        self,
        settings: SearchSettings,
        template: ProxyJob,
        *,
        layers: int,
        seed: int,
        limits: Sequence[tuple[int, float]],
        worst: float,
    ) -> None:
        self.settings, self.template = settings, template
        self.layers, self.seed, self.limits, self.worst = layers, seed, limits, worst
        self.folder = settings.out / "short"

    def search(self, workers: PersistentPool, display: Display) -> tuple[Proxy, ...]:
        """Runs the missing proxy trials, one per worker at a time; when one ends, the next is proposed."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ended = self._ended()
        study = self._study(ended)
        done = {folder: proxy for folder, _, proxy in ended}
        running: dict[Path, list[optuna.Trial]] = {}

        def proposed(count: int) -> list[ProxyJob]:
            """The next `count` jobs without a result. The result of a repeated proposal is reported again without training."""
            jobs: list[ProxyJob] = []
            while len(jobs) < count and len(done) + len(running) < self.settings.trials:
                trial = study.ask()
                job = self._job(trial)
                if job.folder in running:
                    running[job.folder].append(trial)
                elif (result := read_result(job.folder)) is not None:
                    self._tell(study, trial, job.folder, result)
                else:
                    running[job.folder] = [trial]
                    jobs.append(job)
            return jobs

        def more(folder: Path, result: TrialResult) -> list[ProxyJob]:
            for trial in running.pop(folder):
                done[folder] = self._tell(study, trial, folder, result)
            for checkpoint in written_in(folder):  # only the loss of a proxy trial is used
                remove(checkpoint)
            return proposed(1)

        def watch(progress: Sequence[Progress]) -> None:
            display.watch(progress)
            for item in progress:
                trial = running[item.job.folder][0]
                report(trial, item.job.folder)
                # Pre-LN is never pruned: others learn faster at first, and it is the baseline that must be tuned.
                if trial.params["post_layers"] and trial.should_prune():
                    (item.job.folder / STOP).touch()

        display.begin(self.settings.trials, len(done), self.settings.proxy_steps)
        try:
            train(proposed(workers.machine.jobs), workers, display, watch, more)
        finally:
            display.end()
        return tuple(done[folder] for folder in sorted(done, key=lambda folder: self._proposal(folder).number))

    def _study(self, ended: Sequence[tuple[Path, dict[str, Any], Proxy]]) -> optuna.Study:
        """The study, rebuilt from the results of finished trials; interrupted ones are proposed again."""
        import optuna

        starts = self._starts()
        startup = len(starts)
        study = optuna.create_study(
            # A seed that differs after every resumption, because the same one would repeat earlier proposals.
            sampler=optuna.samplers.TPESampler(
                seed=len(ended), n_startup_trials=startup, multivariate=True, constant_liar=True
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0),
        )
        space = {
            "post_layers": optuna.distributions.IntDistribution(0, self.layers),
            "part": optuna.distributions.FloatDistribution(DEEPEST, 1.0, log=True),
        }
        states = optuna.trial.TrialState
        for folder, params, proxy in ended:
            study.add_trial(
                optuna.create_trial(
                    params=params,
                    distributions=space,
                    state=states.PRUNED if proxy.ended == "pruned" else states.COMPLETE,
                    value=None if proxy.ended == "pruned" else self._value(proxy),
                    intermediate_values=dict(evaluations(folder)),
                )
            )
        folders = [path.parent for path in self.folder.glob(f"*/{PROPOSAL.file}")]
        proposed = sorted(((self._proposal(folder), folder) for folder in folders), key=lambda pair: pair[0].number)
        for proposal, folder in proposed:
            if read_result(folder) is None:
                study.enqueue_trial(proposal.params)
        known = [proposal.params for proposal, _ in proposed]
        for start in starts:
            if start not in known:
                study.enqueue_trial(start)
        return study

    def _starts(self) -> list[dict[str, Any]]:
        """The first proposals."""
        starts = [{"post_layers": max(1, int(share * self.layers)), "part": part} for share, part in STARTS]
        first = limit_at(self.limits, starts[0]["post_layers"]) * starts[0]["part"]
        for multiple in PRE_STARTS:
            part = multiple * first / limit_at(self.limits, 0)
            starts.append({"post_layers": 0, "part": min(1.0, max(DEEPEST, part))})
        return starts

    def _ended(self) -> list[tuple[Path, dict[str, Any], Proxy]]:
        """Folder, parameters and result of every finished proxy trial, in the order of the proposals."""
        finished = []
        for path in self.folder.glob(f"*/{PROPOSAL.file}"):
            if (result := read_result(path.parent)) is not None:
                proposal = self._proposal(path.parent)
                finished.append((proposal.number, path.parent, proposal.params, self._proxy(result, proposal.params)))
        return [(folder, params, proxy) for _, folder, params, proxy in sorted(finished, key=lambda entry: entry[0])]

    @staticmethod
    def _proposal(folder: Path) -> Proposal:
        path = folder / PROPOSAL.file
        try:
            return PROPOSAL.read(path)
        except (OSError, ValueError) as error:
            raise StoreError(unreadable(path, error, "delete its folder to train it again")) from error

    def _job(self, trial: optuna.Trial) -> ProxyJob:
        """The job of a proposal, which is written to its folder."""
        count = trial.suggest_int("post_layers", 0, self.layers)
        part = trial.suggest_float("part", DEEPEST, 1.0, log=True)
        rate = rounded(limit_at(self.limits, count) * part)
        folder = self.folder / f"post-{count}_lr{rate!r}"
        if not (folder / PROPOSAL.file).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            number = len(list(self.folder.glob(f"*/{PROPOSAL.file}")))
            PROPOSAL.write(folder, Proposal(number=number, params=trial.params))
        placement = placement_with(count, self.layers)
        trained = Trial(placement=placement, init=self.settings.init, learning_rate=rate, seed=self.seed)
        return dataclasses.replace(self.template, folder=folder, trial=trained)

    def _tell(self, study: optuna.Study, trial: optuna.Trial, folder: Path, result: TrialResult) -> Proxy:
        import optuna

        report(trial, folder)
        proxy = self._proxy(result, trial.params)
        if proxy.ended in ("pruned", "failed"):
            state = optuna.trial.TrialState.PRUNED if proxy.ended == "pruned" else optuna.trial.TrialState.FAIL
            study.tell(trial, state=state)
        else:
            study.tell(trial, self._value(proxy))
        return proxy

    def _value(self, proxy: Proxy) -> float:
        return self.worst if proxy.loss is None else proxy.loss

    def _proxy(self, result: TrialResult, params: dict[str, Any]) -> Proxy:
        pruned = result.status in ("finished", "stalled") and result.step < self.settings.proxy_steps
        return Proxy(
            placement=result.trial.placement,
            post_layers=params["post_layers"],
            learning_rate=result.trial.learning_rate,
            loss=result.loss,
            steps=result.step,
            ended="pruned" if pruned else result.status,
        )


def report(trial: optuna.Trial, folder: Path) -> None:
    """Reports the evaluations so far to the pruner."""
    known = trial.study.trials[trial.number].intermediate_values
    for step, loss in evaluations(folder):
        if step not in known:
            trial.report(loss, step)


def evaluations(folder: Path) -> list[tuple[int, float]]:
    """(step, held-out loss in nats per token) of the evaluations so far."""
    rows = read_metrics(folder / METRICS)
    return [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
