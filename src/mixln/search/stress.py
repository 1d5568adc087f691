"""Learning-rate ramps over placements × depths × initialisations × seeds, to find the stability limit of each."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mixln.compare.display import Display
from mixln.compare.experiment import compare
from mixln.compare.results import Summary
from mixln.compare.settings import CompareSettings
from mixln.compare.statistics import paired_difference, t_interval
from mixln.compare.tasks import TASKS
from mixln.files import cache_folder
from mixln.hosts import placement_for
from mixln.nn.schemes import scheme
from mixln.placement.zoo import title
from mixln.presets import model_config
from mixln.runs.trials import TrialResult
from mixln.search.folder import folder_of, named
from mixln.search.results import LearningRateLimit, Ramp, Stress
from mixln.search.settings import StressSettings
from mixln.search.stability_limit import ramp_outcome

log = logging.getLogger(__name__)


def stress(settings: StressSettings, display: Display) -> Stress:
    """Runs the missing ramps and determines the stability limits.

    :raises SettingsError: if a setting is invalid; :class:`DataError` for the data; :class:`StoreError` for the folder.
    """

    def layers(depth: int | None) -> int:
        config = model_config(settings.model, layers=depth, sequence_length=settings.text.sequence_length)
        return int(config.num_hidden_layers)

    groups = [(depth, init) for depth in settings.depths or (None,) for init in settings.inits or (None,)]
    comparisons = [settings.comparison(depth, init) for depth, init in groups]
    counts = [layers(depth) for depth, _ in groups]
    for comparison in comparisons:  # all of them before anything is written
        _check(comparison)
    run = folder_of(settings)
    first = replace(comparisons[0], cache=cache_folder(settings.cache))
    task = TASKS[first.task]
    task.prepare(first, task.config(first))
    log.info(
        f"learning rate from {settings.lowest:g} to {settings.highest:g} in {settings.steps:,} steps; trainings are expected to diverge"
    )
    with run.locked():
        run.begin(named(settings))
        summaries = [_compared(comparison, display, several=len(groups) > 1) for comparison in comparisons]
    reference = summaries[0]
    ramps = [
        [_ramp(result, settings, reference.floor.loss, depth) for result in summary.trials]
        for summary, depth in zip(summaries, counts, strict=True)
    ]
    limits = [limit for group in ramps for limit in _limits(group, settings.placements[0])]
    return Stress(
        settings=named(settings),
        baseline=settings.placements[0],
        rates=(settings.lowest, settings.highest),
        steps=settings.steps,
        floor=reference.floor.loss,
        limits=tuple(limits),
        ramps=tuple(ramp for group in ramps for ramp in group),
        text=reference.text,
        provenance=reference.provenance,
    )


def _compared(comparison: CompareSettings, display: Display, *, several: bool) -> Summary:
    if several:
        depth = f"{comparison.layers} layers" if comparison.layers else ""
        log.info(f"ramps: {', '.join(part for part in (depth, comparison.init) if part)}")
    return compare(comparison, display)


def _check(comparison: CompareSettings) -> None:
    """:raises SettingsError: if a placement, an initialisation or the model is invalid."""
    config = model_config(comparison.model, layers=comparison.layers, sequence_length=comparison.text.sequence_length)
    for name in comparison.placements:
        placement_for(config, name)
    if comparison.init is not None:
        scheme(comparison.init)


def _ramp(result: TrialResult, settings: StressSettings, floor: float, layers: int) -> Ramp:
    steps = settings.steps

    def rate(step: int) -> float:
        return settings.highest * settings.training.share(step - 1, steps=steps, warmup_steps=0)

    curve = [(rate(step), loss) for step, loss in result.train_curve]
    rates = [step_rate for step_rate, _ in curve]
    if result.status == "diverged":
        rates += [settings.highest]  # more rates than losses tell ramp_outcome that the training was stopped
    failed = result.status == "failed" or not curve
    return Ramp(
        placement=result.trial.placement,
        layers=layers,
        init=result.trial.init,
        seed=result.trial.seed,
        breaking=None if failed else ramp_outcome(rates, [loss for _, loss in curve], floor=floor),
        curve=tuple(curve),
        error=result.reason if failed else "",
    )


def _limits(ramps: Sequence[Ramp], baseline: str) -> Iterator[LearningRateLimit]:
    """The stability limit of each placement, from ramps with one depth and one setting of the initialisation."""

    def rates(members: Sequence[Ramp]) -> dict[int, float]:
        return {ramp.seed: math.log(ramp.rate) for ramp in members if ramp.rate}

    reference = [ramp for ramp in ramps if ramp.placement == baseline]
    for placement in dict.fromkeys(ramp.placement for ramp in ramps):
        members = sorted((ramp for ramp in ramps if ramp.placement == placement), key=lambda ramp: ramp.seed)
        outcomes = [ramp.breaking for ramp in members if ramp.breaking]
        logs = rates(members)
        mean, low, high = t_interval([*logs.values()]) if _all_stable(members) else (None, None, None)
        comparable = placement != baseline and _all_stable(members) and _all_stable(reference)
        yield LearningRateLimit(
            placement=placement,
            title=title(placement),
            layers=members[0].layers,
            init=members[0].init,
            rate=_exp(mean),
            low=_exp(low),
            high=_exp(high),
            trained=sum(outcome.rate is not None for outcome in outcomes),
            censored=sum(outcome.failure == "none" for outcome in outcomes),
            failures=tuple(outcome.failure for outcome in outcomes),
            spiked=sum(outcome.spikes > 0 for outcome in outcomes),
            failed=len(members) - len(outcomes),
            ratio=paired_difference(logs, rates(reference)) if comparable else None,
        )


def _all_stable(ramps: Sequence[Ramp]) -> bool:
    """Whether every ramp has a stable learning rate."""
    return all(ramp.rate is not None for ramp in ramps)


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)
