"""Settings of a diagnosis. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixln.bounds import MOST_TOKENS, Batch, Count, Layers, Range, Seed, check_numbers
from mixln.data.settings import NamedText
from mixln.diagnostics.results import Method, Units
from mixln.errors import SettingsError
from mixln.placement import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """The measurements to make and the number of tokens for each."""

    tokens: Annotated[int, Range(least=2, most=MOST_TOKENS)] = 32_768
    """Tokens for the angular distance, the performance drop and the residual stream (262144 in the papers)."""
    sequence_length: Annotated[int, Range(least=8, most=10**7)] = 256
    """Tokens per sequence; reduced to the shortest length that a model accepts or was trained on."""
    batch_size: Batch = 8
    """Sequences per forward pass."""
    drop: bool = True
    """Measure the performance drop of every layer. Costs about half as many forward passes as the model has layers."""
    blocks: tuple[Annotated[int, Range(least=2, most=MOST_LAYERS, rule="must be sizes of at least 2 layers")], ...] = ()
    """Measure the drop of all blocks of this many consecutive layers, for example 2 4. By default, one block for each of several
    sizes up to half of the layers: the one with the smallest angular distance between its ends (Gromov et al.)."""
    sublayers: bool = False
    """Also measure the drop of only the attention, and of only the feed-forward, of every layer: twice as many more passes as --drop."""
    remove: Layers | None = None
    """Choose this many layers, which need not be adjacent, to remove together: greedily, by their single drops, and as one block, and
    measure the model without each set. Costs half as many forward passes as the model has layers, times this number."""
    units: Units = "layers"
    """The unit of --remove: whole layers, only attention, only feed-forward, or sublayers (both kinds)."""
    gradient_tokens: Annotated[int, Range(least=0, most=MOST_TOKENS)] = 8_192
    """Tokens for the gradients; 0 to omit them."""
    jacobian_tokens: Annotated[int, Range(least=0, most=MOST_TOKENS)] = 0
    """Tokens to sample for the Jacobian of each layer, for example 16; 0 to omit it. Slow."""
    last_token: bool = False
    """Average the angular distance over the last token of each sequence (Gromov et al.) instead of all tokens."""
    tasks: tuple[str, ...] = ()
    """lm-eval tasks on which to measure the performance drop as well; needs `pip install "mixln[tasks]"`."""
    task_folder: Path | None = None
    """Folder of your own lm-eval task files (.yaml). They may contain data and templates; files that run code are refused."""
    trust_task_code: bool = False
    """Allow the files of --task-folder to run code: !function, metrics of other packages, templates outside the sandbox."""
    task_limit: Count | None = None
    """Questions per task; all by default."""
    memory_gb: Annotated[float, Range(least=0, above=True, most=10**6, rule="must be above 0 and finite")] = 2.0
    """Memory for intermediate layer inputs, GB (10⁹ bytes); inputs that do not fit are recomputed."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """dtype of the weights and the forward pass. bfloat16 halves the memory, but small drops are lost in rounding errors."""
    layer_list: str | None = None
    """Name of the list of layers in the model, for example model.layers, if it cannot be found automatically."""
    seed: Seed = 0
    """Seed for the re-initialised weights, the masked tokens and the random directions."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.units != "layers" and self.remove is None:
            raise SettingsError(f"units {self.units} needs --remove; give the number to remove, or omit --units")
        if self.sublayers and not self.drop:
            raise SettingsError("sublayers needs the performance drop; omit --no-drop, or --sublayers")
        if not self.tasks and (self.task_folder or self.task_limit):
            raise SettingsError("task-folder and task-limit need --tasks; give the tasks, or omit them")
        if self.trust_task_code and self.task_folder is None:
            raise SettingsError(
                "trust-task-code applies to the files of --task-folder; give the folder, or omit trust-task-code"
            )


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """Method that selects the layers to remove, for --budget and --remove."""

    method: Method = "greedy"
    """greedy: one layer after the other, each time the one that is needed least given those that are gone; one-shot: the layers with
    the smallest drops of their own; contiguous: the best block of adjacent layers."""
    tokens: Annotated[int, Range(least=2, most=MOST_TOKENS)] = 8_192
    """Tokens on which the models without layers are measured."""
    sequence_length: Annotated[int, Range(least=8, most=10**7)] = 256
    """Tokens per sequence; reduced to the shortest length that the model accepts or was trained on."""
    batch_size: Batch = 8
    """Sequences per forward pass."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class DiagnoseSettings:
    """Measure what each layer of a model contributes, and write a report with figures.

    Works on any Hugging Face decoder, encoder or image classifier, and on trials of `mixln compare`; several models are shown side
    by side. Layers are counted from 1.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Models: hub ids, folders, GGUF files, trials of mixln compare, or whole comparisons (the best trial of each placement)."""
    out: Path = Path("runs/diagnosis")
    """Folder for report.html, the figures and diagnosis.json."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for tokenized text and converted GGUF files."""
    text: Annotated[NamedText, tyro.conf.arg(name="")] = field(default_factory=NamedText)
    measure: Annotated[MeasureSettings, tyro.conf.arg(name="")] = field(default_factory=MeasureSettings)

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsError("models must name at least one hub id, folder, GGUF file or trial, got none")
        if doubled := [model for model in self.models if self.models.count(model) > 1]:
            raise SettingsError(f"models must not repeat, got {doubled[0]} twice")
