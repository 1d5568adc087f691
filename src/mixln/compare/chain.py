"""The chain: the same steps after pre-training for every trial, namely fine-tuning, evaluation, reward model and RLHF.

Each step has a subfolder of the trial's folder. `chain-result.json` there marks a trial that has completed all steps, and
`chain-request.json` in the experiment's folder holds the request. The baseline's reward model judges all placements of a seed, because
rewards of different reward models have no common scale.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixln.compare import former
from mixln.compare.chain_settings import ChainSettings
from mixln.compare.chain_statistics import summarise_chain
from mixln.compare.execution.runner import Job, Progress, Workers, run, write_error
from mixln.compare.results import Chain, ChainResult, Interruption, PlacementSummary
from mixln.compare.store import Store
from mixln.errors import Stopped, first_line
from mixln.evaluation.offline import PERPLEXITY
from mixln.files import no_room
from mixln.formats import duration
from mixln.hosts.sources import Source, find_model
from mixln.records import difference, to_json
from mixln.runs.checksums import read_sums
from mixln.runs.folder import REQUEST, RunFolder, RunKind
from mixln.runs.metrics import METRICS
from mixln.runs.outcome import PostTrainingOutcome
from mixln.runs.schema import Request, Schema
from mixln.runs.trials import TRIAL_RUN, Trial, TrialResult
from mixln.training.post_training_run import CHECKPOINTS, MODEL

log = logging.getLogger(__name__)

KEPT = Schema(
    kind="chain-result",
    file="chain-result.json",
    record=ChainResult,
    former="chain.json",
    upgrades=(
        lambda kept: {
            "request": _request(kept["asked"], kept.get("of")),
            "result": former.chain_result(kept["result"]),
        },
    ),
)
"""File in a trial's folder with the result of its chain."""
CHAIN_RUN = RunKind(
    noun="chain",
    request=Schema(kind="chain-request", file="chain-request.json", record=dict[str, Request], former="chain.json"),
    remedy="choose another --out",
)


@dataclass(frozen=True, kw_only=True)
class ChainJob(Job):
    """The chain of one trial as a worker's job.

    :param asked: request of the chain: step → everything that it depends on.
    :param judge: folder of the trial whose reward model judges; `None` if there is none.
    """

    chain: ChainSettings
    asked: dict[str, Any]
    cache: Path
    judge: Path | None

    def work(self) -> ChainResult:
        """Takes the steps in order. An error ends them, and keeps the results so far."""
        from mixln.compare.sources import find

        result = ChainResult(trial=self.trial)
        try:
            (source,) = find(str(self.folder), cache=self.cache)
            for name in steps(self.chain):
                result, source = STEPS[name](self, source, result)
                if result.status != "finished":
                    return result
        except Exception as error:
            if isinstance(error, Stopped) or no_room(error, self.folder):  # to be resumed: no result yet
                raise
            write_error(self.folder)
            return replace(result, status="failed", interruption=_error(f"{type(error).__name__}: {first_line(error)}"))
        RunFolder(self.folder, TRIAL_RUN).keep(KEPT, _request(self.asked, _trained(self.folder)), result)
        return result

    def failure(self, reason: str) -> ChainResult:
        return ChainResult(trial=self.trial, status="failed", interruption=_error(reason))

    @property
    def after(self) -> Path | None:
        """The trial whose reward model judges, if that is another one."""
        return self.judge if "rlhf" in self.chain.chain and self.judge != self.folder else None

    @property
    def metrics(self) -> Path:
        """The metrics file of the current step: the one written last."""
        files = list(self.folder.glob(f"*/{CHECKPOINTS}/{METRICS}"))
        return max(files, key=lambda path: path.stat().st_mtime, default=self.folder / METRICS)


def _finetune(job: ChainJob, source: Source, result: ChainResult) -> tuple[ChainResult, Source]:
    from mixln.training.post_training import finetune_step

    learning, seed = job.chain.finetune, job.trial.seed
    tuned = finetune_step(source, learning.chosen, learning.tuning, job.folder / "finetune", seed=seed)
    return _after(job, source, replace(result, finetuned=tuned), tuned, "finetune")


def _evaluate(job: ChainJob, source: Source, result: ChainResult) -> tuple[ChainResult, Source]:
    from mixln.data.settings import NamedText
    from mixln.evaluation.models import examine, prepare_exam

    exam = prepare_exam([source], job.chain.evaluate, NamedText(), cache=job.cache)
    (scores,) = examine(exam, job.folder / "evaluate", done=lambda scores: None)
    short = tuple(
        replace(score, metrics=tuple(replace(metric, values=(), weights=()) for metric in score.metrics))
        for score in scores.scores
    )
    return replace(result, scores=replace(scores, subject=None, scores=short)), source


def _reward(job: ChainJob, source: Source, result: ChainResult) -> tuple[ChainResult, Source]:
    from mixln.training.post_training import reward_step

    learning, seed = job.chain.reward, job.trial.seed
    reward = reward_step(source, learning.chosen, learning.tuning, job.folder / "reward", seed=seed)
    return replace(result, reward=reward), source


def _rlhf(job: ChainJob, source: Source, result: ChainResult) -> tuple[ChainResult, Source]:
    from mixln.training.post_training import rlhf_step

    if job.judge is None or not (job.judge / "reward" / MODEL / "config.json").is_file():
        missing = Interruption(kind="no-reward-model", step="rlhf")
        return replace(result, status="stopped", interruption=missing), source
    result, judge = replace(result, judge=job.judge.name), job.judge / "reward" / MODEL
    model = find_model(str(judge), cache=job.cache)
    chosen, seed = job.chain.reward.chosen, job.trial.seed
    tuned = rlhf_step(source, model, chosen, job.chain.rlhf, job.folder / "rlhf", seed=seed)
    return _after(job, source, replace(result, rlhf=tuned), tuned, "rlhf")


def _after(
    job: ChainJob, source: Source, result: ChainResult, tuned: PostTrainingOutcome, name: str
) -> tuple[ChainResult, Source]:
    """The result with the fine-tuned model, which keeps what is known of its trial's data; interrupted if the training diverged."""
    if tuned.status == "diverged":
        diverged = Interruption(kind="divergence", step=name, optimizer_step=tuned.step, reason=tuned.reason)
        return replace(result, status="stopped", interruption=diverged), source
    model = find_model(str(job.folder / name / MODEL), cache=job.cache)
    return result, replace(model, title=source.title, trial=source.trial, trial_tokens=source.trial_tokens)


def _error(text: str) -> Interruption:
    return Interruption(kind="error", reason=text)


STEPS = {"finetune": _finetune, "evaluate": _evaluate, "reward": _reward, "rlhf": _rlhf}


def steps(chain: ChainSettings) -> list[str]:
    """The steps to take; `rlhf` is preceded by its reward model."""
    return [inner for name in chain.chain for inner in (("reward", name) if name == "rlhf" else (name,))]


def settings_of(chain: ChainSettings) -> dict[str, Any]:
    """Step → its settings, with the earlier steps that have trained its model."""
    settings: dict[str, Any] = {}
    trained: list[str] = []
    for name in steps(chain):
        settings[name] = {"after": list(trained), **to_json(getattr(chain, name))}
        settings[name].pop("trust_task_code", None)  # a permission, which changes no result
        if name in ("finetune", "rlhf"):
            trained.append(name)
    return settings


def check_chain(
    store: Store, chain: ChainSettings, cache: Path, *, tokenizer: Any, configs: dict[str, Any]
) -> dict[str, Any]:
    """Checks the chain before the first trial: packages, tasks, examples, model families, and the chain already in the folder.

    :param tokenizer: tokenizer of the comparison.
    :param configs: placement → config of its placed model.
    :returns: the request of the chain: step → its settings and the fingerprint of its examples.
    :raises SettingsError: for a package or task.
    :raises DataError: for questions or examples.
    :raises CheckpointError: for a model family.
    :raises StoreError: if the folder holds a different chain.
    """
    from mixln.evaluation.harness import Harness
    from mixln.training.post_training import check_classifier, check_possible, completions, pairs, rlhf_pairs

    asked = settings_of(chain)
    _check_same(store, asked)  # before the examples are read, which takes longer
    config = next(iter(configs.values()))
    if {"finetune", "rlhf"} & set(chain.chain):
        check_possible()
    if "evaluate" in chain.chain:
        tasks = chain.evaluate
        names = [name for name in tasks.tasks if name != PERPLEXITY]
        Harness(
            names,
            cache=cache,
            folder=tasks.task_folder,
            trusted=tasks.trust_task_code,
            where=tasks.questions,
            limit=tasks.limit,
            shots=tasks.shots,
        )
    if "finetune" in chain.chain:
        asked["finetune"]["examples"] = completions(
            chain.finetune.chosen, chain.finetune.tuning, tokenizer, config
        ).fingerprint
    if "rlhf" in chain.chain:
        for name, placed in configs.items():
            check_classifier(placed, f"placement {name}")
        asked["reward"]["examples"] = pairs(chain.reward.chosen, chain.reward.tuning, tokenizer, config).fingerprint
        prompts = rlhf_pairs(chain.reward.chosen, chain.rlhf, tokenizer, config, tokenizer, config)
        asked["rlhf"]["examples"] = prompts.fingerprint
    _check_same(store, asked)
    return asked


def _check_same(store: Store, asked: dict[str, Any]) -> None:
    """:raises StoreError: if a step of the same name has begun in the folder with different settings."""
    before = _asked_before(store)
    for name in before.keys() & asked.keys():
        begun = any(store.folder.glob(f"*/{name}/{REQUEST.file}")) or any(store.folder.glob(f"*/{name}/*/*/*.json"))
        known = {entry: value for entry, value in before[name].items() if entry in asked[name]}
        if begun and (change := difference(known, asked[name])):
            raise RunFolder(store.folder, CHAIN_RUN).another(f"{name} {change}")


def _asked_before(store: Store) -> dict[str, Request]:
    """The request of the chain in the folder; empty if there is none."""
    exists = CHAIN_RUN.request.path(store.folder).is_file()
    return RunFolder(store.folder, CHAIN_RUN).request() if exists else {}


def run_chain(
    store: Store,
    chain: ChainSettings,
    asked: dict[str, Any],
    trials: Sequence[TrialResult],
    placements: Sequence[PlacementSummary],
    *,
    baseline: str,
    cache: Path,
    start: Callable[[int], Workers],
    at_a_time: int,
) -> Chain:
    """Takes every trial that has a model through the steps, or through those that are missing, and summarises the results.

    :param asked: request of the chain, see :func:`check_chain`.
    :param trials: results of the pre-training.
    :param placements: their summaries, with the best learning rate of each placement.
    :param start: number of jobs → workers.
    :param at_a_time: number of trials in parallel.
    """
    RunFolder(store.folder, CHAIN_RUN).begin({**_asked_before(store), **asked})
    alive = [result.trial for result in trials if result.loss is not None]
    results = {trial: _kept(store.trial_folder(trial), trial, asked) for trial in alive}
    judges = _judges(store, alive, placements, baseline)
    jobs = [
        ChainJob(
            trial=trial,
            folder=store.trial_folder(trial),
            chain=chain,
            asked=asked,
            cache=cache,
            judge=judges.get(trial.seed),
        )
        for trial, kept in results.items()
        if kept is None
    ]
    log.info(f"chain {', '.join(chain.chain)}: {len(alive) - len(jobs)} of {len(alive)} trials done")
    clock = ChainProgress(len(jobs), at_a_time)

    def finished(result: ChainResult) -> None:
        results[result.trial] = result
        done = sum(stored is not None for stored in results.values())
        reason = f" ({result.interruption.reason})" if result.interruption and result.interruption.reason else ""
        left = clock.left(len(alive) - done)
        log.info(f"chain: trial {done} of {len(alive)}: {result.trial.label}: {result.status}{reason}{left}")

    # Judges first: the others wait for their reward models.
    run(sorted(jobs, key=lambda job: job.after is not None), start, finished=finished, watch=clock.watch)
    ended = [result for result in results.values() if result is not None]
    return summarise_chain([*ended, *_untrained(trials)], placements, chain, baseline=baseline, settings=asked)


def _judges(
    store: Store, alive: Sequence[Trial], placements: Sequence[PlacementSummary], baseline: str
) -> dict[int, Path]:
    """Seed → folder of the baseline's trial at its best learning rate, whose reward model judges all placements."""
    best = next(row.best.learning_rate for row in placements if row.placement == baseline)
    return {t.seed: store.trial_folder(t) for t in alive if (t.placement, t.learning_rate) == (baseline, best)}


def _untrained(trials: Sequence[TrialResult]) -> list[ChainResult]:
    """The results of trials whose pre-training left no model."""
    return [
        ChainResult(
            trial=result.trial,
            status="stopped",
            interruption=Interruption(kind="pretraining", status=result.status),
        )
        for result in trials
        if result.loss is None
    ]


class ChainProgress:
    """Logs the progress of the running trials, and estimates the remaining time.

    :param trials: number of trials to run.
    :param workers: number of trials in parallel.
    :param seconds: minimum time between two messages.
    """

    def __init__(self, trials: int, workers: int, seconds: float = 30.0) -> None:
        self.trials, self.workers, self.seconds = trials, workers, seconds
        self.last = self.began = time.monotonic()

    def left(self, trials: int) -> str:
        """Estimated time of the remaining trials, in words; empty in the last round of `workers` trials."""
        rounds = [math.ceil(count / self.workers) for count in (self.trials - trials, self.trials)]
        if rounds[0] == rounds[1]:
            return ""
        return f", about {duration((time.monotonic() - self.began) * (rounds[1] - rounds[0]) / rounds[0])} left"

    def watch(self, running: Sequence[Progress]) -> None:
        if time.monotonic() - self.last < self.seconds:
            return
        self.last = time.monotonic()
        for progress in running:
            row = progress.metrics
            loss = f", loss {row['loss']:.3f}" if "loss" in row else ""
            step = progress.job.metrics.parents[1].name
            log.info(f"chain: {progress.job.trial.label}: {step}, step {row.get('step', 0)}{loss}")


def _trained(folder: Path) -> str | None:
    """Checksum of the pre-trained model with which the chain begins; `None` if the trial has no checksums."""
    sums = read_sums(folder) or {}
    model = sorted((name, digest) for name, (_, digest) in sums.items() if "/" in name)
    return hashlib.sha256(json.dumps(model).encode()).hexdigest() if model else None


def _request(asked: Request, model: str | None) -> Request:
    """Everything that the result of a trial's chain depends on.

    :param model: checksum of the pre-trained model, see :func:`_trained`.
    """
    return {"steps": asked, "model": model}


def _kept(folder: Path, trial: Trial, asked: Request) -> ChainResult | None:
    """The stored result of a trial's chain, if the same steps were run with the trial's current model."""
    result = RunFolder(folder, TRIAL_RUN).recall(KEPT, _request(asked, _trained(folder)))
    return result if result is not None and result.trial == trial else None
