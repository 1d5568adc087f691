"""Settings of the chain: the steps that every trial takes after pre-training. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mixln.data.settings import ExampleSettings
from mixln.errors import SettingsError, unknown
from mixln.evaluation.settings import TaskSettings
from mixln.training.settings import PostTrainingSettings, RlhfSettings

STEPS = ("finetune", "evaluate", "rlhf")


@dataclass(frozen=True, kw_only=True)
class ChainStepSettings:
    """Examples of a step, and its training."""

    chosen: Annotated[ExampleSettings, tyro.conf.arg(name="")] = field(default_factory=ExampleSettings)
    tuning: Annotated[PostTrainingSettings, tyro.conf.arg(name="")] = field(default_factory=PostTrainingSettings)


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """Steps after pre-training, the same for every trial. Each trial uses its own seed in all of them."""

    chain: tuple[str, ...] = ()
    """Steps to take with every trial after pre-training, in the order given: finetune, evaluate, rlhf (which first trains a reward model),
    for example finetune,evaluate,rlhf. The options of each step begin with its name."""
    finetune: ChainStepSettings = field(default_factory=ChainStepSettings)
    evaluate: TaskSettings = field(default_factory=TaskSettings)
    reward: ChainStepSettings = field(default_factory=ChainStepSettings)
    rlhf: RlhfSettings = field(default_factory=RlhfSettings)

    def __post_init__(self) -> None:
        steps = tuple(name for text in self.chain for name in text.replace(",", " ").split())
        object.__setattr__(self, "chain", steps)
        for name in steps:
            if name not in STEPS:
                raise SettingsError(unknown("chain", name, STEPS))
            if steps.count(name) > 1:
                raise SettingsError(f"chain must not repeat, got {name} twice")
