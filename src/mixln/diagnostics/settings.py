"""The settings of a diagnosis; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixln.bounds import MOST_TOKENS, Batch, Count, Range, Seed, check_numbers
from mixln.data.settings import NamedText
from mixln.errors import SettingsError
from mixln.placement import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What is measured of each model, and on how many tokens."""

    tokens: Annotated[int, Range(least=2, most=MOST_TOKENS)] = 32_768
    """Tokens of text for the angular distance, the performance drop and the residual stream (the papers: 262144)."""
    sequence_length: Annotated[int, Range(least=8, most=10**7)] = 256
    """Tokens per sequence; less where a model takes or was trained on less."""
    batch_size: Batch = 8
    """Sequences per forward pass."""
    drop: bool = True
    """Whether to measure the performance drop of every layer: about half as many forward passes as the model has layers."""
    blocks: tuple[Annotated[int, Range(least=2, most=MOST_LAYERS, rule="must be sizes of at least 2 layers")], ...] = ()
    """Also the drop of every block of so many consecutive layers, for example 2 4. Without it, of each size up to half of the
    layers, the one block at whose ends the residual stream points most alike (Gromov et al.)."""
    gradient_tokens: Annotated[int, Range(least=0, most=MOST_TOKENS)] = 8_192
    """Tokens for the gradients; 0 leaves them out."""
    jacobian_tokens: Annotated[int, Range(least=0, most=MOST_TOKENS)] = 0
    """Tokens to sample for the Jacobian of each layer, for example 16; 0 leaves it out, because it takes long."""
    last_token: bool = False
    """Angular distance at the last token of each sequence only (Gromov et al.) instead of all tokens."""
    tasks: tuple[str, ...] = ()
    """lm-eval tasks to measure the performance drop by, too; needs `pip install "mixln[tasks]"`."""
    task_folder: Path | None = None
    """Folder of your own lm-eval task files (.yaml). They may hold data and templates; those that run code are refused."""
    trust_task_code: bool = False
    """Let the files of --task-folder run code: !function, metrics of other packages, templates that are no longer in a sandbox."""
    task_limit: Count | None = None
    """Questions per task. Left out, all."""
    memory_gb: Annotated[float, Range(least=0, above=True, most=10**6, rule="must be above 0 and finite")] = 2.0
    """Gigabytes that the kept inputs of the layers may take; with less, some are computed twice."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights and of the forward pass. bfloat16 halves the memory and blurs small drops."""
    layer_list: str | None = None
    """Name of the list of layers within the model, for example model.layers, where it is not found."""
    seed: Seed = 0
    """Seed of the re-initialised weights, of masked tokens and of random directions."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.tasks and (self.task_folder or self.task_limit):
            raise SettingsError("task-folder and task-limit need --tasks; name the tasks")
        if self.trust_task_code and self.task_folder is None:
            raise SettingsError("trust-task-code is for the files of --task-folder; name the folder, or leave it out")


@dataclass(frozen=True, kw_only=True)
class DiagnoseSettings:
    """Measure what each layer of a model contributes, and say it in words, figures and a report.

    For any Hugging Face decoder or encoder, or trials of `mixln compare`; several models are shown side by side. Layers are
    counted from 1.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Models: a hub id, a folder, a GGUF file, a trial of mixln compare, or a whole comparison (its best trial of each placement)."""
    out: Path = Path("runs/diagnosis")
    """Folder for report.html, the figures and diagnosis.json."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for tokenized text and converted GGUF files."""
    text: Annotated[NamedText, tyro.conf.arg(name="")] = field(default_factory=NamedText)
    measure: Annotated[MeasureSettings, tyro.conf.arg(name="")] = field(default_factory=MeasureSettings)

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsError("models must name at least one: a hub id, a folder, a GGUF file or a trial; got none")
        if doubled := [model for model in self.models if self.models.count(model) > 1]:
            raise SettingsError(f"models must not repeat, got {doubled[0]} twice")
