"""Masked language modelling (BERT, arXiv:1810.04805): predict masked tokens from the tokens on both sides.

The models are decoders without the causal mask (`is_causal: false` in their config). Every placed family of language models can be one,
so placements are compared on the architecture of current encoders (rotary embedding, SwiGLU) without a family of their own.
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
"""Mask token that is added to a tokenizer without one."""
HIDDEN, RANDOM = 0.8, 0.1
"""Shares of the predicted tokens that are replaced by the mask token and by a random token, as in BERT; the rest are unchanged."""
HELD_OUT = 2**64 - 1
"""Key of the held-out masks, in place of seed and step: the same for all trials, and above the largest seed of a training."""


@dataclass(frozen=True, kw_only=True)
class MaskedCompareSettings(CompareSettings):
    """Train masked language models, placements × learning rates × seeds, on equal terms, and report the best with intervals.

    Without arguments: four placements of a small 12-layer bidirectional Llama, two seeds, on the text included in mixln.
    If it is interrupted, run the same command again: finished trials are kept, the others resume.
    """

    task: Annotated[str, NEUTRAL] = "masked-lm"
    """Task: language, masked-lm or vision. The options depend on the task; see for example mixln compare --task vision --help."""
    out: Annotated[Path, NEUTRAL] = Path("runs/masked-lm")
    """Folder of the experiment: trials, figures, report.html."""
    mask_share: Annotated[
        float, Range(least=0, above=True, most=0.9, rule="must lie in (0, 0.9] (a share of the tokens)", interval=True)
    ] = 0.15
    """Share of each sequence's tokens to predict, at least one token. 80% of these are replaced by the mask token, 10% by a random token,
    and 10% are unchanged."""
    after: Annotated[ChainSettings, NEUTRAL, tyro.conf.Suppress] = field(default_factory=ChainSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.after.chain:
            raise SettingsError(f"chain is for --task language only; omit {', '.join(self.after.chain)}")


@dataclass(frozen=True, kw_only=True)
class MaskedTokens:
    """Masks tokens. The masks depend only on seed, step and sequence, so that a resumed run sees the same ones.

    :param mask: id of the mask token.
    :param special: ids of tokens that are never predicted.
    :param vocabulary: number of tokens.
    :param share: share of each sequence's tokens to predict.
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
        """Masks one sequence; returns inputs and labels, (T,) each.

        :param candidates: (T,), true for tokens that may be predicted; special tokens never are.
        :param key: seed and step.
        :param row: index of the sequence within the step.
        """
        import numpy as np

        candidates = candidates & ~np.isin(ids, self.special)
        # Philox is counter-based: its numbers depend only on key and counter, not on what was drawn before.
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, row]))
        order, kind, other = random.random((3, len(ids)))
        count = min(int(candidates.sum()), max(1, round(self.share * int(candidates.sum()))))
        chosen = np.zeros(ids.shape, dtype=bool)
        # `order` lies in [0, 1): with 2.0, tokens that are not candidates sort last.
        chosen[np.where(candidates, order, 2.0).argsort()[:count]] = True
        inputs = np.where(chosen & (kind < HIDDEN), self.mask, ids)
        replaced = chosen & (kind >= HIDDEN) & (kind < HIDDEN + RANDOM)
        inputs = np.where(replaced, (other * self.vocabulary).astype(ids.dtype), inputs)
        return inputs, np.where(chosen, ids, IGNORED)


class MaskedRows(Sequence[dict[str, "Tensor"]]):
    """Held-out sequences with fixed masks. Consecutive sequences share one token, which is a candidate only in the first of the two."""

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
    """Predict masked tokens from the tokens on both sides."""

    name, settings = "masked-lm", MaskedCompareSettings
    metrics = replace(LANGUAGE, ranking=replace(PERPLEXITY, name="masked perplexity"), beside=())

    def config(self, settings: MaskedCompareSettings) -> PreTrainedConfig:
        return _both_ways(config_of(settings))

    def prepare(self, settings: MaskedCompareSettings, config: PreTrainedConfig) -> TaskData[Text]:
        # One token fewer than the model's vocabulary, which leaves room for the mask token.
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
    """The tokenizer with a mask token; if it has none, one is appended to its vocabulary."""
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    return tokenizer


def _both_ways(config: PreTrainedConfig) -> PreTrainedConfig:
    config.is_causal = False
    return config


TASK = MaskedTask()
