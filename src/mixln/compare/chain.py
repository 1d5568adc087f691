"""Pre-trained trials through the same steps: fine-tuning, evaluation, reward model and reinforcement learning.

Each step lies in the trial's folder, under its name; `chain-result.json` there marks a trial that has been through all, and
`chain-request.json` in the experiment's folder says what the steps are. One reward model judges all placements of a seed, that of the
baseline: rewards of different reward models have no common scale.
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
    upgrade=lambda kept: {
        "request": _request(kept["asked"], kept.get("of")),
        "result": former.chain_result(kept["result"]),
    },
)
"""The file in a trial's folder that keeps the result of its steps."""
CHAIN_RUN = RunKind(
    noun="chain",
    request=Schema(kind="chain-request", file="chain-request.json", record=dict[str, Request], former="chain.json"),
    remedy="choose another --out",
)


@dataclass(frozen=True, kw_only=True)
class ChainJob(Job):
    """One trial's steps as a worker's job.

    :param asked: everything that its steps depend on.
    :param judge: folder of the trial whose reward model judges; `None` where there is none.
    """

    chain: ChainSettings
    asked: dict[str, Any]
    cache: Path
    judge: Path | None

    def work(self) -> ChainResult:
        """An error ends the steps; what was done before it stays."""
        from mixln.compare.sources import find

        result = ChainResult(trial=self.trial)
        try:
            (source,) = find(str(self.folder), cache=self.cache)
            for name in steps(self.chain):
                result, source = STEPS[name](self, source, result)
                if result.status != "finished":
                    return result
        except Exception as error:
            if isinstance(error, Stopped) or no_room(error, self.folder):
                raise
            write_error(self.folder)
            return replace(result, status="failed", interruption=_error(f"{type(error).__name__}: {first_line(error)}"))
        RunFolder(self.folder, TRIAL_RUN).keep(KEPT, _request(self.asked, _trained(self.folder)), result)
        return result

    def failure(self, reason: str) -> ChainResult:
        return ChainResult(trial=self.trial, status="failed", interruption=_error(reason))

    @property
    def after(self) -> Path | None:
        """Its judge, whose reward model it waits for."""
        return self.judge if "rlhf" in self.chain.chain and self.judge != self.folder else None

    @property
    def metrics(self) -> Path:
        """That of the step that wrote last."""
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
    """The model that a training leaves, with the text that its trial held out; a reason where it leaves none."""
    if tuned.status == "diverged":
        diverged = Interruption(kind="divergence", step=name, optimizer_step=tuned.step, reason=tuned.reason)
        return replace(result, status="stopped", interruption=diverged), source
    found = find_model(str(job.folder / name / MODEL), cache=job.cache)
    return result, replace(found, title=source.title, trial=source.trial, trial_tokens=source.trial_tokens)


def _error(text: str) -> Interruption:
    return Interruption(kind="error", reason=text)


STEPS = {"finetune": _finetune, "evaluate": _evaluate, "reward": _reward, "rlhf": _rlhf}


def steps(chain: ChainSettings) -> list[str]:
    """The steps that are taken: reinforcement learning brings its reward model."""
    return [inner for name in chain.chain for inner in (("reward", name) if name == "rlhf" else (name,))]


def settings_of(chain: ChainSettings) -> dict[str, Any]:
    """The settings of the steps that are taken, by their names, each with the trainings of the model before it."""
    found: dict[str, Any] = {}
    trained: list[str] = []
    for name in steps(chain):
        found[name] = {"after": list(trained), **to_json(getattr(chain, name))}
        found[name].pop("trust_task_code", None)  # which changes no answer
        if name in ("finetune", "rlhf"):
            trained.append(name)
    return found


def check_chain(
    store: Store, chain: ChainSettings, cache: Path, *, tokenizer: Any, configs: dict[str, Any]
) -> dict[str, Any]:
    """Everything that can be wrong before the first trial: packages, tasks, examples, families, and another chain in the folder.

    :param tokenizer: of the comparison.
    :param configs: placement → config of its placed model.
    :returns: everything that the steps depend on: their settings, and what their examples are.
    :raises SettingsError: for a package or task; :class:`DataError` for questions and examples; :class:`CheckpointError` for the
        family; :class:`StoreError` for the folder.
    """
    from mixln.evaluation.harness import Harness
    from mixln.training.post_training import check_classifier, check_possible, completions, pairs, rlhf_pairs

    asked = settings_of(chain)
    _check_same(store, asked)
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
    """:raises StoreError: if a step that has begun in the folder was another."""
    there = _asked_before(store)
    for name in there.keys() & asked.keys():
        begun = any(store.folder.glob(f"*/{name}/{REQUEST.file}")) or any(store.folder.glob(f"*/{name}/*/*/*.json"))
        known = {entry: value for entry, value in there[name].items() if entry in asked[name]}
        if begun and (found := difference(known, asked[name])):
            raise RunFolder(store.folder, CHAIN_RUN).another(f"{name} {found}")


def _asked_before(store: Store) -> dict[str, Request]:
    """The steps that were asked for in the folder, by name."""
    there = CHAIN_RUN.request.path(store.folder).is_file()
    return RunFolder(store.folder, CHAIN_RUN).request() if there else {}


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
    """Takes every trial that left a model through the steps, or what is missing of them, and returns what became of them.

    :param asked: what :func:`check_chain` gave.
    :param trials: of the pre-training.
    :param placements: their summaries: they say which learning rate is whose best.
    :param start: gives workers, `at_a_time` of them.
    """
    RunFolder(store.folder, CHAIN_RUN).begin({**_asked_before(store), **asked})
    alive = {result.trial: result for result in trials if result.loss is not None}
    results = {trial: _kept(store.trial_folder(trial), trial, asked) for trial in alive}
    best = next(row.best.learning_rate for row in placements if row.placement == baseline)
    judges = {t.seed: t for t in alive if (t.placement, t.learning_rate) == (baseline, best)}
    jobs = [
        ChainJob(
            trial=trial,
            folder=store.trial_folder(trial),
            chain=chain,
            asked=asked,
            cache=cache,
            judge=store.trial_folder(judges[trial.seed]) if trial.seed in judges else None,
        )
        for trial in alive
        if results[trial] is None
    ]
    log.info(f"chain {', '.join(chain.chain)}: {len(alive) - len(jobs)} of {len(alive)} trials done")
    clock = ChainProgress(len(jobs), at_a_time)

    def finished(result: ChainResult) -> None:
        results[result.trial] = result
        done = sum(each is not None for each in results.values())
        why = f" ({result.interruption.reason})" if result.interruption and result.interruption.reason else ""
        said = f"{result.trial.label}: {result.status}{why}{clock.left(len(alive) - done)}"
        log.info(f"chain: trial {done} of {len(alive)}: {said}")

    run(sorted(jobs, key=lambda job: job.after is not None), start, finished=finished, watch=clock.watch)
    dead = [
        ChainResult(
            trial=result.trial,
            status="stopped",
            interruption=Interruption(kind="pretraining", status=result.status),
        )
        for result in trials
        if result.loss is None
    ]
    ended = [result for result in results.values() if result is not None]
    return summarise_chain([*ended, *dead], placements, chain, baseline=baseline, settings=asked)


class ChainProgress:
    """Tells now and then where the running trials are.

    :param trials: that are to go through; `workers` at a time.
    """

    def __init__(self, trials: int, workers: int, seconds: float = 30.0) -> None:
        self.trials, self.workers, self.seconds = trials, workers, seconds
        self.last = self.began = time.monotonic()

    def left(self, trials: int) -> str:
        """About the time that so many trials more will take, in words: they go in rounds of as many as there are workers."""
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
            said = f", loss {row['loss']:.3f}" if "loss" in row else ""
            step = progress.job.metrics.parents[1].name
            log.info(f"chain: {progress.job.trial.label}: {step}, step {row.get('step', 0)}{said}")


def _trained(folder: Path) -> str | None:
    """A checksum of the model that a trial left, which its steps began with; `None` where it has none."""
    sums = read_sums(folder) or {}
    model = sorted((name, digest) for name, (_, digest) in sums.items() if "/" in name)
    return hashlib.sha256(json.dumps(model).encode()).hexdigest() if model else None


def _request(asked: Request, model: str | None) -> Request:
    """Everything that the result of a trial's chain depends on.

    :param model: checksum of the model that the trial left, see :func:`_trained`.
    """
    return {"steps": asked, "model": model}


def _kept(folder: Path, trial: Trial, asked: Request) -> ChainResult | None:
    """The stored result of a trial's chain, if the same steps were run with the trial's current model."""
    result = RunFolder(folder, TRIAL_RUN).recall(KEPT, _request(asked, _trained(folder)))
    return result if result is not None and result.trial == trial else None
