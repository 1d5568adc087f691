"""The search for a share of Post-LN layers and a learning rate: ramps, then short trainings, then full ones over seeds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixln.compare import words
from mixln.compare.experiment import Display, facts_of_run, locked, title
from mixln.compare.pretraining import Pretraining
from mixln.compare.processes import Processes
from mixln.compare.results import Interval, Trial, TrialResult
from mixln.compare.runner import Job, Machine, Progress, machine, run
from mixln.compare.statistics import paired_difference, t_interval
from mixln.compare.store import TRIAL, read_result
from mixln.compare.tasks import KINDS, Prepared
from mixln.data.text import Text
from mixln.errors import MixlnError, SettingsError, StoreError
from mixln.files import check_writable, write_atomic
from mixln.records import difference, read_json, to_json
from mixln.search.results import Finalist, Proxy, Search
from mixln.search.settings import SearchSettings, placement_with
from mixln.search.stress import stress
from mixln.training.metrics import METRICS, read_metrics
from mixln.training.outcome import Outcome
from mixln.training.precision import resolve

if TYPE_CHECKING:
    import optuna

SETTINGS, STORAGE, STOP = "search.json", "search.log", "stop"
"""Files of a search: its settings, Optuna's storage; and in a short training's folder, that it is to end."""
DEEPEST = 1 / 32
"""The least learning rate that is tried, as a share of the highest that trains."""
STARTS = ((0.0, 0.25), (0.25, 0.25), (0.5, 0.25))
"""What is tried first: share of Post-LN layers, and learning rate as a share of the highest that trains."""
WARMUP = 5
"""Short trainings that are not pruned, because there is nothing to compare them with."""
SWEEP = 7 * 3
"""Settings of an exhaustive sweep: the shares of Table 5 of the Mix-LN paper, at three learning rates."""


class Ended(TrainerCallback):
    """Ends a training when a file appears in its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.path.exists():
            control.should_training_stop = True


@dataclass(frozen=True, kw_only=True)
class Short(Pretraining):
    """A short training, which the search may end."""

    def outcome(self, config: Any, **how: Any) -> Outcome:
        from mixln.training.pretrain import pretrain

        ended = Ended(self.folder / STOP)
        return pretrain(config, text=Text.load(self.text), settings=self.training, watchers=[ended], **how)


class Kept:
    """Workers that stay for the next jobs: starting one takes longer than a short training."""

    def __init__(self, plan: Machine) -> None:
        self.plan = plan
        self.workers: Processes | None = None

    def __call__(self, jobs: int) -> Kept:
        return self

    def submit(self, job: Job) -> Future[Any]:
        if self.workers is None:
            self.workers = Processes(self.plan, self.plan.jobs)
        return self.workers.submit(job)

    def stop(self) -> None:
        if self.workers:
            self.workers.stop()

    def close(self, *, kill: bool) -> None:
        """Ends them only where they are to be killed, or one has died."""
        if kill:
            self.end(kill=True)

    def end(self, *, kill: bool = False) -> None:
        """Ends them."""
        if self.workers:
            self.workers.close(kill=kill)
        self.workers = None


def tune(settings: SearchSettings, display: Display) -> Search:
    """Searches, or goes on with a search that was cut off.

    :raises SettingsError: if a setting cannot work, or Optuna is missing; :class:`StoreError` if the folder holds something else.
    """
    if find_spec("optuna") is None:
        raise SettingsError('tune needs the package optuna; run pip install "mixln[search]"')
    training = dataclasses.replace(settings.training, precision=resolve(settings.training.precision))
    settings = dataclasses.replace(settings, training=training, cache=settings.cache.expanduser())
    check_writable(settings.out)
    _check(settings)
    comparison, kind = settings.comparison(), KINDS["language"]
    data = kind.prepare(comparison, kind.config(comparison), display.say)
    layers = int(data.config.num_hidden_layers)
    with locked(settings.out):
        write_atomic(settings.out / SETTINGS, json.dumps(_asked(settings), indent=1))
        counts = tuple(sorted({0, layers // 4, layers // 2, layers}))
        display.say(f"ramps: {', '.join(placement_with(count, layers) for count in counts)}")
        found = stress(settings.stress(counts, layers), display)
        broken = [ramp.breaking for ramp in found.ramps]
        if errors := [ramp.error for ramp in found.ramps if ramp.error]:
            raise MixlnError(f"a ramp failed: {errors[0]}; run the same command again to try it once more")
        # What was never better than word frequencies in so short a ramp may yet be; the search finds out.
        limits = tuple(
            (count, each.rate or each.best_rate) for count, each in zip(counts, broken, strict=True) if each is not None
        )
        plan = machine(settings.jobs, parameters=_parameters(data), trials=settings.trials)
        workers = Kept(plan)
        try:
            proxies = _search(settings, data, limits, layers, plan, workers, display)
            finalists = _finals(settings, data, proxies, workers, display)
        finally:
            workers.end()
    ramps = len(counts) * settings.ramp_steps
    cost = (ramps + sum(proxy.steps for proxy in proxies)) / settings.steps + len(finalists) * len(settings.seeds)
    chosen = next((each for each in finalists if each.loss is not None and each.difference is None), None)
    search = Search(
        settings=_asked(settings),
        facts={**data.facts, "model": settings.model, **facts_of_run()},
        layers=layers,
        steps=settings.steps,
        proxy_steps=settings.proxy_steps,
        limits=limits,
        proxies=proxies,
        finalists=finalists,
        chosen=chosen,
        cost=cost,
        sweep=SWEEP * len(settings.seeds),
        verdict=(),
    )
    return dataclasses.replace(search, verdict=tuple(_verdict(search)))


def _asked(settings: SearchSettings) -> dict[str, Any]:
    private = ("out", "cache", "jobs", "engine")
    named = {name: value for name, value in dataclasses.asdict(settings).items() if name not in private}
    return json.loads(json.dumps(to_json(named)))


def _check(settings: SearchSettings) -> None:
    """:raises StoreError: if another search lies in the folder, or something else does."""
    path = settings.out / SETTINGS
    if not path.is_file():
        if settings.out.exists() and any(settings.out.iterdir()):
            raise StoreError(f"out {settings.out} is not empty and holds no search; choose another --out")
        return
    try:
        present = read_json(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); choose another --out, or delete the folder") from error
    if found := difference(present, _asked(settings)):
        raise StoreError(
            f"out {settings.out} holds another search: {found}; choose another --out, or the same settings"
        )


def _parameters(data: Prepared) -> int:
    import torch

    from mixln.hosts import build

    with torch.device("meta"):
        return sum(p.numel() for p in build(data.config, placement="pre", init="normal").parameters())


def limit_at(limits: Sequence[tuple[int, float]], count: int) -> float:
    """The highest learning rate that trains with so many Post-LN layers: between two that were tested, on a straight line of its
    logarithm."""
    return float(np.exp(np.interp(count, [count for count, _ in limits], [math.log(rate) for _, rate in limits])))


def rounded(rate: float) -> float:
    """Two significant digits, so that settings can be typed and meet again."""
    return float(f"{rate:.1e}")


def _search(
    settings: SearchSettings,
    data: Prepared,
    limits: Sequence[tuple[int, float]],
    layers: int,
    plan: Machine,
    workers: Kept,
    display: Display,
) -> tuple[Proxy, ...]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(settings.out / STORAGE))),
        study_name="tune",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=WARMUP, multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARMUP, n_warmup_steps=0),
    )
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # cut off: the same once more, from its checkpoint
        study.enqueue_trial(trial.params)
    if not study.trials:
        for share, part in STARTS:
            study.enqueue_trial({"post_layers": int(share * layers), "part": part})
    ended = [trial for trial in study.trials if trial.state.is_finished() and "proxy" in trial.user_attrs]
    proxies = [Proxy(**trial.user_attrs["proxy"]) for trial in ended]
    short = dataclasses.replace(settings.training, steps=settings.proxy_steps, tokens=None)
    display.begin(settings.trials, len(proxies), settings.proxy_steps)
    try:
        while len(proxies) < settings.trials:
            asked = [study.ask() for _ in range(min(plan.jobs, settings.trials - len(proxies)))]
            proxies += _round(settings, data, study, asked, limits, layers, short, workers, display)
    finally:
        display.end()
    return tuple(proxies)


def _round(
    settings: SearchSettings,
    data: Prepared,
    study: optuna.Study,
    asked: Sequence[optuna.Trial],
    limits: Sequence[tuple[int, float]],
    layers: int,
    short: Any,
    workers: Kept,
    display: Display,
) -> Iterator[Proxy]:
    """Trains what was asked for, side by side, and tells the study."""
    import optuna

    jobs: dict[Path, Short] = {}
    trials: dict[Path, list[optuna.Trial]] = {}
    counts: dict[Path, int] = {}
    for each in asked:
        count = each.suggest_int("post_layers", 0, layers)
        part = each.suggest_float("part", DEEPEST, 1.0, log=True)
        rate = rounded(limit_at(limits, count) * part)
        trial = Trial(
            placement=placement_with(count, layers), init=settings.init, learning_rate=rate, seed=settings.seeds[0]
        )
        folder = settings.out / "short" / f"post-{count}_lr{rate!r}"
        trials.setdefault(folder, []).append(each)
        counts[folder] = count
        jobs[folder] = Short(
            trial=trial,
            folder=folder,
            config=data.config.to_dict(),
            text=_text(data),
            training=short,
            engine=settings.engine,
            together=settings.trials,
        )

    def watch(running: Sequence[Progress]) -> None:
        display.watch(running)
        for folder, each in trials.items():
            _report(each[0], folder)
            if each[0].should_prune() and not (folder / STOP).exists():
                (folder / STOP).touch()

    results = _train([*jobs.values()], workers, watch, display)
    for folder, same in trials.items():
        result = results[folder]
        _report(same[0], folder)
        proxy = Proxy(
            placement=result.trial.placement,
            post_layers=counts[folder],
            learning_rate=result.trial.learning_rate,
            loss=result.loss,
            steps=result.step,
            ended=_end(result, settings.proxy_steps),
        )
        for each in same:
            each.set_user_attr("proxy", dataclasses.asdict(proxy))
            if proxy.ended == "failed":
                study.tell(each, state=optuna.trial.TrialState.FAIL)
            elif proxy.ended == "pruned":
                study.tell(each, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(each, proxy.loss if proxy.loss is not None else data.floor.loss + 1)
            yield proxy


def _report(trial: optuna.Trial, folder: Path) -> None:
    """Tells the pruner of the evaluations so far."""
    known = trial.study.trials[trial.number].intermediate_values
    for step, loss in _evaluations(folder):
        if step not in known:
            trial.report(loss, step)


def _evaluations(folder: Path) -> list[tuple[int, float]]:
    rows = read_metrics(folder / METRICS)
    return [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]


def _end(result: TrialResult, steps: int) -> Any:
    if result.status in ("diverged", "failed"):
        return result.status
    if result.step < steps:
        return "pruned"
    return "stalled" if result.status == "stalled" else "whole"


def _text(data: Prepared) -> Path:
    assert data.text is not None
    return data.text.folder


def _train(
    jobs: Sequence[Pretraining],
    workers: Kept,
    watch: Callable[[Sequence[Progress]], None],
    display: Display,
) -> dict[Path, TrialResult]:
    """Trains what has no result yet; folder → result."""
    results = {job.folder: result for job in jobs if (result := read_result(job.folder)) is not None}
    missing = [job for job in jobs if job.folder not in results]
    for job in missing:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(job.folder / TRIAL, json.dumps(dataclasses.asdict(job.trial), indent=1))

    def finished(result: TrialResult) -> None:
        folder = next(job.folder for job in missing if job.trial == result.trial)
        results[folder] = result
        display.finished(result)

    if missing:
        run(missing, workers, finished=finished, watch=watch, say=display.say)
    return results


def candidates(proxies: Sequence[Proxy], count: int) -> list[Proxy]:
    """The best short trainings, of each number of Post-LN layers the best, and that of Pre-LN whatever it was."""
    best: dict[int, Proxy] = {}
    ranked = sorted(
        (proxy for proxy in proxies if proxy.loss is not None and proxy.ended in ("whole", "stalled")),
        key=lambda proxy: proxy.loss or 0.0,
    )
    for proxy in ranked:
        best.setdefault(proxy.post_layers, proxy)
    chosen = [*best.values()][:count]
    if 0 in best and best[0] not in chosen:
        chosen.append(best[0])
    return chosen


def _finals(
    settings: SearchSettings,
    data: Prepared,
    proxies: Sequence[Proxy],
    workers: Kept,
    display: Display,
) -> tuple[Finalist, ...]:
    """The finalists, the chosen one first, those that did not train at all seeds last."""
    chosen = candidates(proxies, settings.finalists)
    jobs = [
        Pretraining(
            trial=Trial(placement=proxy.placement, init=settings.init, learning_rate=proxy.learning_rate, seed=seed),
            folder=settings.out / "full" / f"post-{proxy.post_layers}_lr{proxy.learning_rate!r}_seed{seed}",
            config=data.config.to_dict(),
            text=_text(data),
            training=settings.training,
            engine=settings.engine,
            together=len(chosen) * len(settings.seeds),
        )
        for seed in settings.seeds
        for proxy in chosen
    ]
    done = sum(read_result(job.folder) is not None for job in jobs)
    display.begin(len(jobs), done, settings.steps)
    try:
        results = _train(jobs, workers, display.watch, display)
    finally:
        display.end()
    losses = {
        proxy: {
            result.trial.seed: result.loss
            for job in jobs
            if (job.trial.placement, job.trial.learning_rate) == (proxy.placement, proxy.learning_rate)
            and (result := results[job.folder]).loss is not None
        }
        for proxy in chosen
    }
    whole = [proxy for proxy in chosen if len(losses[proxy]) == len(settings.seeds)]
    whole.sort(key=lambda proxy: float(np.mean([*losses[proxy].values()])))
    ordered = [*whole, *(proxy for proxy in chosen if proxy not in whole)]
    return tuple(
        _finalist(proxy, losses[proxy], settings.seeds, losses[whole[0]] if whole and proxy != whole[0] else None)
        for proxy in ordered
    )


def _finalist(
    proxy: Proxy, losses: dict[int, float], seeds: tuple[int, ...], best: dict[int, float] | None
) -> Finalist:
    whole = len(losses) == len(seeds)
    mean, low, high = t_interval([*losses.values()]) if whole else (None, None, None)
    gap: Interval | None = None if best is None else paired_difference(losses, best)
    return Finalist(
        placement=proxy.placement,
        title=title(proxy.placement),
        post_layers=proxy.post_layers,
        learning_rate=proxy.learning_rate,
        seeds=seeds,
        losses=tuple(losses.get(seed) for seed in seeds),
        loss=mean,
        low=low,
        high=high,
        difference=gap,
    )


def _verdict(search: Search) -> Iterator[str]:
    chosen = search.chosen
    if chosen is None:
        yield "No candidate trained at all seeds: nothing can be chosen. Give more --trials, or more --steps."
        return
    interval = ""
    if chosen.low is not None and chosen.high is not None:
        interval = f" [{words.perplexity(math.exp(chosen.low))}, {words.perplexity(math.exp(chosen.high))}]"
    yield (
        f"Take {chosen.placement} ({chosen.post_layers} of {search.layers} layers Post-LN) at learning rate {chosen.learning_rate:g}: "
        f"held-out perplexity {words.perplexity(math.exp(chosen.loss or 0))}{interval} over {len(chosen.seeds)} seeds."
    )
    for each in search.finalists:
        if each is chosen:
            continue
        name = f"{each.placement} at {each.learning_rate:g}"
        if each.difference is None or each.loss is None:
            yield f"{name} did not train at all seeds."
        elif each.difference.low is None or each.difference.high is None:
            said = f"{name} is {words.percent(each.difference.mean)}% from it"
            yield f"{said}; with one seed there is no interval, and this supports no claim."
        else:
            said = f"{words.percent(each.difference.mean)}% [{words.percent(each.difference.low)}, {words.percent(each.difference.high)}]"
            tells = (
                "worse beyond the noise between seeds"
                if each.difference.excludes_zero
                else "not told from it by these seeds"
            )
            yield f"{name} has a perplexity {said} from it: {tells}."
    pruned = sum(proxy.ended == "pruned" for proxy in search.proxies)
    yield (
        f"It took as many steps as {search.cost:.1f} full trainings ({len(search.proxies)} short ones, {pruned} of them ended early); "
        f"trying the seven shares of Table 5 of the Mix-LN paper at three learning rates would take {search.sweep}."
    )
    yield "The short trainings prefer what learns fast, and of a longer training or a larger model the best may be another."
