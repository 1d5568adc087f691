"""The first two phases of a comparison: check everything that needs no data, then prepare the data."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from transformers import PreTrainedConfig

from mixln.compare.chain import check_chain
from mixln.compare.execution.runner import Machine, machine
from mixln.compare.results import DuplicatePlacement, RunWarnings
from mixln.compare.settings import GridSettings
from mixln.compare.store import Store
from mixln.compare.tasks import TASKS
from mixln.compare.tasks.task import Task, TaskData
from mixln.errors import MixlnError, SettingsError, StoreError, first_line
from mixln.files import bytes_texts, cache_folder, check_writable, existing
from mixln.hosts import count_parameters, family, placed_config, placement_for
from mixln.hosts.sources import device
from mixln.placement import Placement
from mixln.placement.preflight import risks
from mixln.runs.trials import Trial
from mixln.training.compiling import no_compiler, obstacle
from mixln.training.precision import resolve

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """A comparison with checked settings; no data have been read, and nothing has been written.

    :param settings: settings with the grid to run, the resolved precision and the absolute cache folder.
    :param folder_settings: the same with the grid of the experiment's folder, which may be larger.
    :param asked: the grid as given; with --extend, axes may be empty.
    :param extend: whether --extend was given.
    :param config: stock config of the models.
    :param placements: name → placement.
    :param inits: name → initialisation.
    """

    settings: GridSettings
    folder_settings: GridSettings
    asked: dict[str, list[Any]]
    extend: bool
    config: PreTrainedConfig
    placements: dict[str, Placement]
    inits: dict[str, str]

    @cached_property
    def store(self) -> Store:
        """The experiment's folder."""
        return Store(self.settings.out)

    @property
    def task(self) -> Task[Any, Any]:
        """The task of the models."""
        return TASKS[self.settings.task]

    def warnings(self) -> RunWarnings:
        """Known risks of the placements with these settings, and equal placements."""
        warm = self.task.warms_up(self.settings)
        stock = family(self.config).stock
        known = (
            risks(built, init=self.inits[name], warms_up=warm, stock=stock) for name, built in self.placements.items()
        )
        return RunWarnings(risks=tuple(chain.from_iterable(known)), duplicates=_duplicates(self.placements))

    def parameters(self, config: PreTrainedConfig) -> int:
        """Builds every model on the meta device, to find errors early; returns the parameters of the largest."""
        most = 0
        for name, built in self.placements.items():
            try:
                count = count_parameters(config, placement=built, init=self.inits[name], head=self.task.head)
            except MixlnError:
                raise
            except Exception as error:  # transformers validates configs in many places, with many types of exception
                raise SettingsError(
                    f"model {self.settings.model} cannot be built: {type(error).__name__}: {first_line(error)}"
                ) from error
            most = max(most, count)
        return most


@dataclass(frozen=True, kw_only=True)
class PreparedComparison:
    """A comparison that can run.

    :param shared: the part of the request that all trials share: settings, fingerprint of the data, model.
    :param parameters: parameters of the largest model.
    :param trials: all trials; `missing` of them have no result yet.
    :param chain: request of the chain, see :func:`mixln.compare.chain.check_chain`; empty without a chain.
    """

    plan: ComparisonPlan
    data: TaskData[Any]
    shared: dict[str, Any]
    parameters: int
    machine: Machine
    trials: tuple[Trial, ...]
    missing: int
    chain: dict[str, Any]

    @property
    def settings(self) -> GridSettings:
        """The settings of the plan."""
        return self.plan.settings

    @property
    def store(self) -> Store:
        """The experiment's folder."""
        return self.plan.store


def plan(settings: GridSettings, *, alone: bool) -> ComparisonPlan:
    """Checks settings, folder and models.

    :param alone: see :func:`mixln.compare.experiment.compare`.
    :raises MixlnError: as :func:`~mixln.compare.experiment.compare` does.
    """
    settings, extend = _resolved(settings), settings.extend
    store, asked = Store(settings.out), settings.grid()
    if extend and store.read() is None:
        raise StoreError(
            f"out {settings.out} holds no experiment to extend; omit --extend to start one, or correct --out"
        )
    folder_settings = settings.with_grid(store.check({"settings": settings.shared()}, asked, extend=extend))
    check_writable(settings.out)
    settings = settings.with_grid(asked) if alone else folder_settings
    config = TASKS[settings.task].config(settings)
    placements = {name: placement_for(config, name) for name in settings.placements}
    if settings.diagnose and (several := [name for name, built in placements.items() if built.streams != "single"]):
        raise SettingsError(
            f"diagnose supports a single residual stream, but {several[0]} has several; omit --diagnose or that placement"
        )
    planned = ComparisonPlan(
        settings=settings,
        folder_settings=folder_settings,
        asked=asked,
        extend=extend,
        config=config,
        placements=placements,
        inits={name: settings.init or built.init for name, built in placements.items()},
    )
    planned.parameters(config)
    return planned


def _resolved(settings: GridSettings) -> GridSettings:
    """The settings with precision and cache folder resolved for the machine that trains."""
    execution, training = settings.execution, settings.training
    if settings.engine.compile == "on" and execution.executor == "local" and (reason := obstacle(device())):
        raise no_compiler(reason)
    # With GPUs on a cluster, trials run on other machines than this one, so this CPU does not decide the precision.
    elsewhere = execution.executor == "ray" and execution.gpus_per_trial > 0 and training.precision == "auto"
    training = replace(training, precision="bfloat16" if elsewhere else resolve(training.precision))
    return replace(settings, training=training, cache=cache_folder(settings.cache))


def prepare(plan: ComparisonPlan) -> PreparedComparison:
    """Prepares the data, and checks everything that depends on it.

    :raises MixlnError: as :func:`~mixln.compare.experiment.compare` does.
    """
    settings, store, task = plan.settings, plan.store, plan.task
    data = task.prepare(settings, plan.config)
    parameters = plan.parameters(data.config)
    trials = tuple(settings.trials(plan.inits))
    shared = {
        "settings": settings.shared(),
        task.entry: {"fingerprint": data.fingerprint},
        "model": {name: value for name, value in data.config.to_dict().items() if name != "transformers_version"},
    }
    workers = machine(settings.execution.jobs, parameters=parameters, trials=len(trials))
    chain = _checked_chain(plan, data)
    for trial in trials:
        store.result(trial)  # reports a corrupt result, rather than a difference of the experiment that follows from it
    store.check(shared, plan.asked, extend=plan.extend)
    prepared = PreparedComparison(
        plan=plan,
        data=data,
        shared=shared,
        parameters=parameters,
        machine=workers,
        trials=trials,
        missing=sum(store.result(trial, shared) is None for trial in trials),
        chain=chain,
    )
    _check_folder_names(store, trials)
    _check_disk(prepared)
    return prepared


def _checked_chain(plan: ComparisonPlan, data: TaskData[Any]) -> dict[str, Any]:
    after = plan.settings.after
    if not after.chain:
        return {}
    log.info(f"chain: checking {', '.join(after.chain)}")
    configs = {name: placed_config(data.config, built) for name, built in plan.placements.items()}
    return check_chain(plan.store, after, plan.settings.cache, tokenizer=plan.task.tokenizer(data), configs=configs)


def _check_disk(prepared: PreparedComparison) -> None:
    """:raises StoreError: if the disk has no space for the checkpoints of the missing trials."""
    store = prepared.store
    # Bytes. A final checkpoint holds float32 weights (4 bytes each). Each running trial has up to two resumable checkpoints, because the
    # old one is deleted only after the new one is complete.
    final = 4 * prepared.parameters * prepared.missing
    resumable = 2 * prepared.settings.training.state_bytes * prepared.parameters
    need = final + resumable * min(prepared.machine.jobs, prepared.missing)
    check_writable(store.folder)
    free = shutil.disk_usage(existing(store.folder)).free
    if free < need:
        needed, available = bytes_texts(need, free)
        raise StoreError(
            f"out {store.folder} needs {needed} for checkpoints, but its disk has {available} free; free some, or choose another --out"
        )


def _check_folder_names(store: Store, trials: Sequence[Trial]) -> None:
    """:raises SettingsError: if two placements differ only in characters that folder names omit."""
    if len({store.trial_folder(trial) for trial in trials}) < len(trials):
        raise SettingsError(
            f"placements must have distinct folder names, got {', '.join(dict.fromkeys(trial.placement for trial in trials))}; "
            "compare those with the same name in separate folders"
        )


def _duplicates(placements: dict[str, Placement]) -> tuple[DuplicatePlacement, ...]:
    """Pairs of names of the same placement, such as `mix(0.25)` and `mix(3)` on 12 layers."""
    seen: dict[Any, str] = {}
    firsts = {name: seen.setdefault(replace(built, name=""), name) for name, built in placements.items()}
    return tuple(DuplicatePlacement(first=first, second=name) for name, first in firsts.items() if first != name)
