"""The short trainings of a search: what Optuna proposes is trained, side by side, and ended early where it falls behind.

Optuna's study lives in memory and is made anew from the folders of the trainings, so that there is one store and nothing to repair.
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
"""File in a short training's folder: that it is to end."""
DEEPEST = 1 / 128
"""The least learning rate that is tried, as a share of the highest that trains."""
STARTS = ((0.25, 1 / 4), (0.5, 1 / 4))
"""What is tried first: share of Post-LN layers, and learning rate as a share of the highest that trains."""
PRE_STARTS = (1.0, 0.5, 2.0)
"""Then Pre-LN, so that what the others are compared with has been tuned too: its learning rate as a multiple of the first of those. It
bears learning rates far above those at which it learns best, so that a share of what it bears says little."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What Optuna proposed for a short training.

    :param number: of the proposal, from 0.
    """

    number: int
    params: dict[str, Any]


PROPOSAL = Schema(kind="proposal", file="proposal.json", record=Proposal)


class StopOnFile(TrainerCallback):
    """Ends a training when a file appears in its folder, once it has been evaluated."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.path.exists() and any("eval_loss" in row for row in state.log_history):
            control.should_training_stop = True


@dataclass(frozen=True, kw_only=True)
class ProxyJob(TrialJob):
    """A short training, which the search may end."""

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
    """Trains what has no result yet; folder → result.

    :param more: folder and result → what is to be trained because of it.
    """
    results = {job.folder: result for job in jobs if (result := read_result(job.folder)) is not None}
    for job in jobs:
        check_claim(job.folder, job.trial, job.shared)
    folders: dict[Trial, Path] = {}

    def prepared(jobs: Sequence[TrialJob]) -> Sequence[TrialJob]:
        for job in jobs:
            folders[job.trial] = job.folder
            claim(job.folder, job.trial, job.shared)
            (job.folder / STOP).unlink(missing_ok=True)  # of a training that was killed: it begins anew
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
    """The highest learning rate that trains with so many Post-LN layers: between two that were tested, on a straight line of its
    logarithm."""
    return float(np.exp(np.interp(count, [count for count, _ in limits], [math.log(rate) for _, rate in limits])))


def rounded(rate: float) -> float:
    """Two significant digits, so that settings can be typed and meet again."""
    return float(f"{rate:.1e}")


class ProxyTrials:
    """The short trainings of one search.

    :param template: a job with everything but trial and folder.
    :param layers: of the model.
    :param seed: of all short trainings, which no full one has.
    :param limits: number of Post-LN layers → highest learning rate that trains.
    :param worst: the loss that counts for a training that diverged, nats per token.
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
        """Trains what is missing of them, so many at a time as there are workers: as one ends, the next is proposed."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = self._study()
        done = {folder: proxy for folder, _, proxy in self._ended()}
        running: dict[Path, list[optuna.Trial]] = {}

        def proposed(count: int) -> list[ProxyJob]:
            """The next so many that have not been trained. What was proposed before is told again, and not trained."""
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
            for checkpoint in written_in(folder):  # nobody asks for the weights of a short training
                remove(checkpoint)
            return proposed(1)

        def watch(progress: Sequence[Progress]) -> None:
            display.watch(progress)
            for each in progress:
                trial = running[each.job.folder][0]
                report(trial, each.job.folder)
                # Pre-LN is not measured against the others, which learn faster: its own best is what they are compared with.
                if trial.params["post_layers"] and trial.should_prune():
                    (each.job.folder / STOP).touch()

        display.begin(self.settings.trials, len(done), self.settings.proxy_steps)
        try:
            train(proposed(workers.plan.jobs), workers, display, watch, more)
        finally:
            display.end()
        return tuple(done[folder] for folder in sorted(done, key=lambda folder: self._proposal(folder).number))

    def _study(self) -> optuna.Study:
        """What Optuna would know, from the trainings that have ended; those that were cut off are proposed again."""
        import optuna

        ended = self._ended()
        starts = self._starts()
        startup = len(starts)
        study = optuna.create_study(
            # Another seed each time, or what was drawn before would be drawn again.
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
        proposed = sorted(self.folder.glob(f"*/{PROPOSAL.file}"), key=lambda path: self._proposal(path.parent).number)
        for path in proposed:
            if read_result(path.parent) is None:
                study.enqueue_trial(self._proposal(path.parent).params)
        for start in starts:
            if start not in [self._proposal(path.parent).params for path in proposed]:
                study.enqueue_trial(start)
        return study

    def _starts(self) -> list[dict[str, Any]]:
        """What is proposed first."""
        starts = [{"post_layers": max(1, int(share * self.layers)), "part": part} for share, part in STARTS]
        first = limit_at(self.limits, starts[0]["post_layers"]) * starts[0]["part"]
        for multiple in PRE_STARTS:
            part = multiple * first / limit_at(self.limits, 0)
            starts.append({"post_layers": 0, "part": min(1.0, max(DEEPEST, part))})
        return starts

    def _ended(self) -> list[tuple[Path, dict[str, Any], Proxy]]:
        """In the order in which they were proposed."""
        found = []
        for path in self.folder.glob(f"*/{PROPOSAL.file}"):
            if (result := read_result(path.parent)) is not None:
                proposal = self._proposal(path.parent)
                found.append((proposal.number, path.parent, proposal.params, self._proxy(result, proposal.params)))
        return [(folder, params, proxy) for _, folder, params, proxy in sorted(found, key=lambda entry: entry[0])]

    @staticmethod
    def _proposal(folder: Path) -> Proposal:
        path = folder / PROPOSAL.file
        try:
            return PROPOSAL.read(path)
        except (OSError, ValueError) as error:
            raise StoreError(unreadable(path, error, "delete its folder to train it again")) from error

    def _job(self, trial: optuna.Trial) -> ProxyJob:
        """What is to be trained for a proposal, which is written down."""
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
    """Tells the pruner of the evaluations so far."""
    known = trial.study.trials[trial.number].intermediate_values
    for step, loss in evaluations(folder):
        if step not in known:
            trial.report(loss, step)


def evaluations(folder: Path) -> list[tuple[int, float]]:
    """(step, held-out loss) of a training, as far as it is."""
    rows = read_metrics(folder / METRICS)
    return [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
