"""Finds models by name, including those of a comparison: a trial's folder, one of its checkpoints, or an experiment."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from mixln.compare.results import alike
from mixln.compare.store import EXPERIMENT, Store
from mixln.compare.tasks import task_of
from mixln.errors import StoreError
from mixln.hosts.sources import Source, find_model, refuse_pickle
from mixln.records import unreadable
from mixln.runs.checkpoints import changed, sealed
from mixln.runs.trials import TRIAL, Trial, TrialResult, read_result, read_trial

log = logging.getLogger(__name__)


def find(name: str, *, cache: Path, pickled: bool = False, encoder_decoders: bool = False) -> list[Source]:
    """Finds the models of a name, without loading their weights.

    :param name: an experiment's folder, which gives one trial per placement, see :func:`representatives`; a trial's folder, or one of
        its checkpoints; or any name that :func:`mixln.hosts.sources.find_model` accepts.
    :param cache: folder under which GGUF files are converted.
    :param pickled: also accept a model whose weights exist only as a pickle; `encoder_decoders`: or an encoder-decoder.
    :raises StoreError: if a trial has no checkpoint.
    :raises CheckpointError: if there is no such model.
    """
    folder = Path(os.path.expanduser(name)).absolute()
    if (folder / EXPERIMENT).is_file():
        return _of_experiment(name, folder, cache)
    if (folder / TRIAL).is_file():
        return [_of_trial(name, folder, cache)]
    if (folder / "config.json").is_file() and (folder.parent / TRIAL).is_file():
        return [_of_checkpoint(name, folder, cache)]
    source = find_model(name, cache=cache, encoder_decoders=encoder_decoders)
    if not pickled:
        refuse_pickle(source)
    return [source]


@dataclass(frozen=True, kw_only=True)
class Representatives:
    """One trial for each placement of an experiment.

    :param sources: placement → model of its trial.
    :param seeds: placement → seed of its trial.
    :param missing: placement without a trial → the reason; empty if none has finished.
    """

    sources: dict[str, Source]
    seeds: dict[str, int]
    missing: dict[str, str]


def representatives(name: str, folder: Path, cache: Path) -> Representatives:
    """Finds, for each placement of an experiment, the trial at its best learning rate with the lowest seed.

    :param name: the name by which the user gave the experiment.
    :raises StoreError: if no placement has one.
    """
    placements = (Store(folder).read() or {})["grid"]["placements"]
    ended = {path.parent: _result(path.parent) for path in sorted(folder.glob(f"*/{TRIAL}"))}
    trained = {result.trial: (path, result) for path, result in ended.items() if result and result.loss is not None}
    if not trained:
        raise StoreError(f"experiment {name} has no finished trial; finish its mixln compare first")
    sources: dict[str, Source] = {}
    seeds: dict[str, int] = {}
    missing: dict[str, str] = {}
    for placement in placements:
        results = [result for trial, (_, result) in trained.items() if trial.placement == placement]
        if not results:
            missing[placement] = ""
            continue
        chosen = _representative(results)
        try:
            sources[placement] = _of_trial(name, trained[chosen][0], cache)
            seeds[placement] = chosen.seed
        except StoreError as error:
            missing[placement] = str(error)
    if not sources:
        raise StoreError(
            f"experiment {name} has no trial with a checkpoint; run its mixln compare again in a new folder"
        )
    return Representatives(sources=sources, seeds=seeds, missing=missing)


def _of_experiment(name: str, folder: Path, cache: Path) -> list[Source]:
    chosen = representatives(name, folder, cache)
    for placement, reason in chosen.missing.items():
        if reason:
            log.info(f"{reason}; {placement} is skipped")
        else:
            log.info(f"{name}: {placement} has no finished trial and is skipped")
    if len(set(chosen.seeds.values())) > 1:
        seeds = ", ".join(f"{placement} {seed}" for placement, seed in chosen.seeds.items())
        log.info(f"{name}: the seeds of the placements differ; each is the lowest that trained: {seeds}")
    return list(chosen.sources.values())


def _representative(results: list[TrialResult]) -> Trial:
    """The lowest finished seed, at the learning rate with the most finished trials; among equals, the one with the lowest mean loss."""
    rates: dict[float, list[TrialResult]] = {}
    for result in results:
        rates.setdefault(result.trial.learning_rate, []).append(result)

    def rank(cell: list[TrialResult]) -> tuple[int, float]:
        return -sum(r.status == "finished" for r in cell), mean(r.loss for r in alike(cell) if r.loss is not None)

    return min(min(rates.values(), key=rank), key=lambda r: (r.status != "finished", r.trial.seed)).trial


def _of_trial(name: str, folder: Path, cache: Path) -> Source:
    result = _result(folder)
    if result is not None and result.loss is not None:
        checkpoint = folder / f"checkpoint-{result.step}"
        if not (checkpoint / "config.json").is_file():
            raise StoreError(f"trial {folder} has finished, but its {checkpoint.name} is missing; choose another trial")
        return _of_checkpoint(name, checkpoint, cache)
    if complete := sealed(folder):
        return _of_checkpoint(name, complete[-1][1], cache)
    if result is None:
        raise StoreError(
            f"trial {folder} has not finished and has no complete checkpoint; finish its mixln compare first"
        )
    raise StoreError(f"trial {folder} {result.status} and has no checkpoint: {result.reason}; choose another trial")


def _of_checkpoint(name: str, checkpoint: Path, cache: Path) -> Source:
    folder = checkpoint.parent
    if change := changed(checkpoint):
        raise StoreError(f"{checkpoint} is corrupt: {change}; restore it, or choose another trial")
    trial, result = read_trial(folder), _result(folder)
    title = f"{trial.placement}, seed {trial.seed}"
    if result is None or checkpoint.name != f"checkpoint-{result.step}":
        title += f", step {checkpoint.name.removeprefix('checkpoint-')}"
    elif result.status != "finished":
        title += f", {result.status}"
    source = replace(find_model(str(checkpoint), cache=cache), name=name, title=title)
    if not (folder.parent / EXPERIMENT).is_file():  # the trial's folder was moved out of its experiment
        return source
    experiment = Store(folder.parent).read() or {}
    try:
        return task_of(experiment).trained_on(experiment, source)
    except (ValueError, KeyError) as error:
        path, remedy = folder.parent / EXPERIMENT, "run its mixln compare again in a new folder"
        raise StoreError(unreadable(path, error, remedy)) from error


def _result(folder: Path) -> TrialResult | None:
    return read_result(folder, "delete its folder and run its mixln compare again")
