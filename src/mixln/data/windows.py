"""Cuts text into windows for a given model. Shapes: N windows, T positions per window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mixln.data.documents import CHARACTERS_PER_TOKEN, Corpus, corpus
from mixln.data.packing import IGNORED, held_out_windows
from mixln.data.samples import TextSample
from mixln.data.settings import CorpusSettings
from mixln.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Kind = Literal["causal-lm", "masked-lm", "none"]

MASKED = 0.15
"""Share of a window's tokens that are masked for a masked language model (BERT, arXiv:1810.04805)."""
GOLDEN = (sqrt(5) - 1) / 2
"""For any bound, the integers i with i·GOLDEN modulo 1 below it are evenly spaced (a low-discrepancy sequence)."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of text.

    :param input_ids: token ids, (N, T).
    :param attention_mask: 1 where a position is text or a special token, 0 where it is padding, (N, T).
    :param labels: token ids to predict, (N, T); -100 at positions without loss. Those of a decoder are not shifted: like
        transformers, the loss compares position t with label t + 1, and the first label of a window is unused.
    :param sample: record of the text.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    sample: TextSample

    def batches(self, rows: int) -> Iterator[dict[str, Tensor]]:
        """Keyword arguments for the model, `rows` windows at a time; the last batch may have fewer.

        Without any label, `labels` is omitted, because a model without a head does not accept it.
        """
        labelled = bool((self.labels != IGNORED).any())
        for start in range(0, len(self.input_ids), rows):
            part = slice(start, start + rows)
            batch = {"input_ids": self.input_ids[part], "attention_mask": self.attention_mask[part]}
            yield {**batch, "labels": self.labels[part]} if labelled else batch


class _UnmaskedWindows(NamedTuple):
    """Windows before masking, all (N, T); `real` marks positions that are not padding, `special` special tokens; `used` is the number
    of documents of each part."""

    inputs: Tensor
    real: Tensor
    special: Tensor
    used: list[int]


def text_windows(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int,
    sequence_length: int,
    held_out_only: bool,
    kind: Kind,
    seed: int = 0,
    corpus_tokens: int | None = None,
) -> Windows:
    """Cuts the text that `settings` names into windows for a model, held-out documents first.

    If not all documents are needed, a subset spread evenly over the data is used, and only it is tokenized.

    A decoder's windows are cut from one stream with an end of text around each document, and overlap by one token, so that
    each token is predicted once: all held-out documents give the same loss as `mixln compare`. If the tokenizer begins
    every sequence with a special token, it replaces the overlapping token. An encoder's windows are cut from each
    document, with the special tokens that the tokenizer adds, and padded.

    :param tokens: number of positions without padding; exceeded by less than one window.
    :param sequence_length: positions per window, T.
    :param held_out_only: use only held-out documents, even if they have fewer than `tokens`; otherwise a text of a single document is
        read from its beginning.
    :param kind: `causal-lm`; `masked-lm`, where 15% of a window's tokens, at least one, are replaced by the mask token and
        are its labels; or `none`, for windows of an encoder without labels.
    :param seed: seed for choosing the masked tokens.
    :param corpus_tokens: number of training tokens for which a hub data set was streamed, so that the same documents are held out.
    :raises DataError: if the text cannot be read or is too short, or the tokenizer lacks what `kind` needs.
    """
    _check_tokenizer(tokenizer, kind)
    text = corpus(settings, tokens=corpus_tokens or tokens)
    parts = _parts(text, held_out_only)
    cut = (_stream_windows if kind == "causal-lm" else _document_windows)(parts, tokenizer, tokens, sequence_length)
    taken = int(cut.real.sum())
    _check(text.description, taken, tokens, len(cut.inputs), sequence_length, held_out_only)
    inputs, labels = _labelled(cut, kind, tokenizer.mask_token_id, seed)
    sample = TextSample(
        description=text.description,
        tokens=taken,
        asked=tokens,
        windows=len(inputs),
        length=sequence_length,
        held_out=cut.used[0],
        held_out_documents=len(text.held_out),
        others=sum(cut.used[1:]),
        from_beginning=not held_out_only and len(parts) == 1,
    )
    return Windows(input_ids=inputs, attention_mask=cut.real.long(), labels=labels, sample=sample)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, kind: Kind) -> None:
    """:raises DataError: if the tokenizer lacks what `kind` needs."""
    if kind != "causal-lm" and not tokenizer.is_fast:
        raise DataError(
            "tokenizer has no fast version (tokenizer.json), which an encoder's windows need; add that file"
        )
    if kind == "masked-lm" and tokenizer.mask_token_id is None:
        raise DataError(
            "tokenizer has no mask token, which a masked language model needs; set mask_token in its config"
        )


def _parts(text: Corpus, held_out_only: bool) -> list[list[str]]:
    """Groups of documents, to be used one after the other."""
    if held_out_only:
        return [text.held_out]
    if len(text.train) == len(text.held_out) == 1:  # a single document, whose end was held out
        return [[text.train[0] + text.held_out[0]]]
    return [text.held_out, text.train]


def _check(description: str, taken: int, tokens: int, windows: int, length: int, held_out_only: bool) -> None:
    """:raises DataError: if there is too little text."""
    if held_out_only and windows < 2:
        raise DataError(
            f"data {description}: the held-out part has {taken:,} tokens, fewer than two windows of {length}; "
            "give more text or a smaller --sequence-length"
        )
    if not held_out_only and taken < tokens:
        raise DataError(
            f"data {description}: it has {taken:,} tokens, fewer than the {tokens:,} requested; "
            "give more text or a smaller --tokens"
        )


def _stream_windows(parts: list[list[str]], tokenizer: Any, tokens: int, length: int) -> _UnmaskedWindows:
    """A decoder's windows; see :func:`mixln.data.packing.held_out_windows`."""
    import numpy as np
    import torch

    begin = _beginning(tokenizer)
    separators = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id)
    end = [next(token for token in separators if token is not None)] if separators != (None, None, None) else []
    first = end or begin

    def encode(text: str, wanted: int) -> tuple[list[int], int]:
        ids = _begun(text, wanted, lambda part: tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"])
        ids = (ids + end)[:wanted]
        return ids, len(ids)

    needed = ceil(tokens / length) * (length - 1) + 1
    documents, used = _gather(parts, needed - len(first), encode)
    stream = np.array([*first, *(token for ids in documents for token in ids)], dtype=np.int64)
    inputs, labels = held_out_windows(stream, length)
    if begin:
        inputs[:, 0] = begin[0]
    real = torch.from_numpy(labels != IGNORED)
    return _UnmaskedWindows(torch.from_numpy(inputs), real, torch.zeros_like(real), used)


def _document_windows(parts: list[list[str]], tokenizer: Any, tokens: int, length: int) -> _UnmaskedWindows:
    """An encoder's windows, each with special tokens."""
    import torch

    def windows(text: str) -> list[tuple[list[int], list[int]]]:
        cut = tokenizer(
            text,
            truncation=True,
            max_length=length,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        pairs = zip(cut["input_ids"], cut["special_tokens_mask"], strict=True)
        return [(ids, special) for ids, special in pairs if not all(special)]

    def encode(text: str, wanted: int) -> tuple[list[tuple[list[int], list[int]]], int]:
        taken, size = [], 0
        for window in _begun(text, wanted, windows, lambda cut: sum(len(ids) for ids, _ in cut)):
            if size >= wanted:
                break
            taken.append(window)
            size += len(window[0])
        return taken, size

    documents, used = _gather(parts, tokens, encode)
    rows = [window for document in documents for window in document]
    pad = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    inputs = torch.full((len(rows), length), pad)
    real, special = torch.zeros_like(inputs, dtype=torch.bool), torch.zeros_like(inputs, dtype=torch.bool)
    for row, (ids, marks) in enumerate(rows):
        inputs[row, : len(ids)] = torch.tensor(ids)
        special[row, : len(ids)] = torch.tensor(marks, dtype=torch.bool)
        real[row, : len(ids)] = True
    return _UnmaskedWindows(inputs, real, special, used)


def _gather(
    parts: list[list[str]], wanted: int, encode: Callable[[str, int], tuple[Any, int]]
) -> tuple[list[Any], list[int]]:
    """Encodes documents, one part after the other, until they have `wanted` tokens.

    The documents of each part are spread evenly over it and returned in their original order, except that the last one encoded comes
    last: it may be truncated, and all others must be followed by their end.

    :param encode: (document, tokens wanted) → (its encoding, number of tokens in it).
    :returns: the encodings, and the number of documents used of each part.
    """
    encodings, used = [], []
    for documents in parts:
        chosen = {}
        for index in sorted(range(len(documents)), key=lambda i: i * GOLDEN % 1):
            if wanted <= 0:
                break
            chosen[index], size = encode(documents[index], wanted)
            wanted -= size
        used.append(len(chosen))
        last = [chosen.popitem()[1]] if chosen and wanted <= 0 else []
        encodings += [chosen[index] for index in sorted(chosen)] + last
    return encodings, used


def _begun(text: str, wanted: int, encode: Callable[[str], Any], size: Callable[[Any], int] = len) -> Any:
    """Encodes a text, or only a beginning of it with more than `wanted` tokens: a document may be far longer than needed."""
    characters = wanted * CHARACTERS_PER_TOKEN
    while True:
        encoded = encode(text[:characters])
        if characters >= len(text) or size(encoded) > wanted:
            return encoded
        characters *= 2


def _beginning(tokenizer: Any) -> Sequence[int]:
    """The special token that the tokenizer puts before every sequence, as a list of one; empty if there is none."""
    added, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return added[:1] if added[:1] != plain[:1] else []


def _labelled(cut: _UnmaskedWindows, kind: Kind, mask: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Masks tokens as `kind` requires; returns inputs and labels, (N, T).

    :param mask: id of the mask token.
    """
    import torch

    if kind == "causal-lm":
        return cut.inputs, cut.inputs.masked_fill(~cut.real, IGNORED)
    if kind == "none":
        return cut.inputs, torch.full_like(cut.inputs, IGNORED)
    maskable = cut.real & ~cut.special
    count = (MASKED * maskable.sum(1, keepdim=True)).round().clamp(min=1)
    # Draws lie in [0, 1); 2 sorts all other positions behind them. A position is chosen if the rank of its draw is below the count.
    draw = torch.rand(cut.inputs.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(~maskable, 2.0)
    chosen = draw.argsort(dim=1).argsort(dim=1) < count
    return cut.inputs.masked_fill(chosen, mask), cut.inputs.masked_fill(~chosen, IGNORED)
