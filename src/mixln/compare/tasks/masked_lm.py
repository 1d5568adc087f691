"""Masked language modelling (BERT, arXiv:1810.04805): tokens that are hidden, from those on both sides.

The models are decoders whose attention is not causal (`is_causal: false` in their config): every placed family of language models can
be one, so that placements are compared on the architecture of today's encoders (rotary embedding, SwiGLU) without a family of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from mixln.bounds import Range
from mixln.compare.chain_settings import ChainSettings
from mixln.compare.metrics import LANGUAGE, PERPLEXITY
from mixln.compare.results import FrequencyBaseline, TrialLength
from mixln.compare.settings import CompareSettings
from mixln.compare.tasks.language import LanguageTask, config_of, prepared_text
from mixln.compare.tasks.task import TaskData
from mixln.data.packing import IGNORED
from mixln.data.text import Text
from mixln.errors import SettingsError
from mixln.records import NEUTRAL

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from mixln.training.language_modelling import LanguageObjective

MASK = "<|mask|>"
"""The mask token of a tokenizer that has none."""
HIDDEN, RANDOM = 0.8, 0.1
"""Shares of the predicted tokens that are replaced by the mask token and by a random token; the rest are unchanged."""
HELD_OUT = 2**64 - 1
"""In place of a seed and a step, the key of the held-out masks: the same for all trials. No training has such a seed."""


@dataclass(frozen=True, kw_only=True)
class MaskedCompareSettings(CompareSettings):
    """Train masked language models, placements × learning rates × seeds, on equal terms and report which won, with intervals.

    Without arguments: four placements of a small 12-layer Llama that sees both sides of each token, two seeds, on the text that comes
    with mixln. Run the same command again to finish what was cut off; nothing is repeated.
    """

    task: Annotated[str, NEUTRAL] = "masked-lm"
    """The task: language, masked-lm or vision. Each has options of its own: mixln compare --task vision --help."""
    out: Annotated[Path, NEUTRAL] = Path("runs/masked-lm")
    """Folder of the experiment: trials, figures, report.html."""
    mask_share: Annotated[
        float, Range(least=0, above=True, most=0.9, rule="must lie in (0, 0.9] (a share of the tokens)", interval=True)
    ] = 0.15
    """Share of each sequence's tokens that are predicted, at least one. 80% of these are replaced by the mask token, 10% by a random
    token, and 10% stay as they are."""
    after: Annotated[ChainSettings, NEUTRAL, tyro.conf.Suppress] = field(default_factory=ChainSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.after.chain:
            raise SettingsError(f"chain is for task language only; leave out {', '.join(self.after.chain)}")


@dataclass(frozen=True, kw_only=True)
class MaskedTokens:
    """Hides tokens, as a function of seed, step and sequence alone: a resumed training sees the same masks.

    :param mask: id of the mask token.
    :param special: ids of tokens that are never predicted.
    :param vocabulary: number of tokens.
    :param share: of each sequence's tokens that are predicted.
    """

    mask: int
    special: tuple[int, ...]
    vocabulary: int
    share: float
    whole: ClassVar[bool] = False

    def training(self, batch: dict[str, Tensor], *, seed: int, step: int, row: int) -> dict[str, Tensor]:
        import numpy as np
        import torch

        rows = batch["input_ids"].cpu().numpy()
        hidden = [
            self.hide(ids, np.ones(ids.shape, dtype=bool), key=(seed, step), row=row + index)
            for index, ids in enumerate(rows)
        ]
        inputs, labels = (torch.from_numpy(np.stack(part)).to(batch["input_ids"]) for part in zip(*hidden, strict=True))
        return {**batch, "input_ids": inputs, "labels": labels, "shift_labels": labels}

    def held_out(self, rows: Any) -> MaskedRows:
        return MaskedRows(self, rows)

    def hide(
        self, ids: np.ndarray, candidates: np.ndarray, *, key: tuple[int, int], row: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels of one sequence, (T,).

        :param candidates: which tokens may be predicted, beside the special ones.
        :param key: seed and step; `row` is the sequence's number among those of the step.
        """
        import numpy as np

        candidates = candidates & ~np.isin(ids, self.special)
        # Philox is counter-based: its numbers are a function of key and counter, whatever was drawn before.
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, row]))
        order, kind, other = random.random((3, len(ids)))
        count = min(int(candidates.sum()), max(1, round(self.share * int(candidates.sum()))))
        chosen = np.zeros(ids.shape, dtype=bool)
        chosen[np.where(candidates, order, 2.0).argsort()[:count]] = True
        inputs = np.where(chosen & (kind < HIDDEN), self.mask, ids)
        replaced = chosen & (kind >= HIDDEN) & (kind < HIDDEN + RANDOM)
        inputs = np.where(replaced, (other * self.vocabulary).astype(ids.dtype), inputs)
        return inputs, np.where(chosen, ids, IGNORED)


class MaskedRows(Sequence[dict[str, "Tensor"]]):
    """Held-out sequences with their masks, always the same. Neighbours share a token: it is no candidate in the second of them."""

    def __init__(self, tokens: MaskedTokens, rows: Any) -> None:
        self.tokens, self.rows = tokens, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        import torch

        ids, known = (self.rows[index][name].numpy() for name in ("input_ids", "labels"))
        candidates = known != IGNORED
        candidates[0] = False
        inputs, labels = self.tokens.hide(ids, candidates, key=(HELD_OUT, HELD_OUT), row=index)
        return {
            "input_ids": torch.from_numpy(inputs),
            "labels": torch.from_numpy(labels),
            "shift_labels": torch.from_numpy(labels),
        }


class MaskedTask(LanguageTask[MaskedCompareSettings]):
    """Hidden tokens from those on both sides."""

    name, settings = "masked-lm", MaskedCompareSettings
    metrics = replace(LANGUAGE, ranking=replace(PERPLEXITY, name="masked perplexity"), beside=())

    def config(self, settings: MaskedCompareSettings) -> PreTrainedConfig:
        return _both_ways(config_of(settings))

    def prepare(self, settings: MaskedCompareSettings, config: PreTrainedConfig) -> TaskData[Text]:
        # One less than the model has, for the mask token: a config.json says how many there may be.
        text = prepared_text(settings, config.vocab_size - 1)
        info, tokenizer = text.info, with_mask(text.tokenizer())
        return TaskData(
            source=text,
            folder=text.folder,
            fingerprint=info.fingerprint,
            config=_both_ways(config_of(settings, len(tokenizer))),
            length=TrialLength(steps=settings.steps, amount=settings.tokens, predicted=settings.mask_share),
            floor=FrequencyBaseline(loss=info.unigram_loss),
            text=replace(info, vocabulary_size=len(tokenizer)),
        )

    def objective(self, settings: MaskedCompareSettings, folder: Path) -> LanguageObjective:
        from mixln.training.language_modelling import LanguageObjective

        text = Text.load(folder)
        tokenizer = with_mask(text.tokenizer())
        tokens = MaskedTokens(
            mask=tokenizer.mask_token_id,  # type: ignore[arg-type]
            special=tuple(tokenizer.all_special_ids),
            vocabulary=len(tokenizer),
            share=settings.mask_share,
        )
        return LanguageObjective(text, tokens, tokenizer)


def with_mask(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a mask token, after its last token if it has none of its own."""
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    return tokenizer


def _both_ways(config: PreTrainedConfig) -> PreTrainedConfig:
    config.is_causal = False
    return config


TASK = MaskedTask()
