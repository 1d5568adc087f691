"""Packs training tokens into sequences of equal length, and held-out tokens into windows that predict each token once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixln.data.tokenizer import encoded
from mixln.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

IGNORED = -100
"""Label of positions without loss, as in torch's cross-entropy."""


def stream(documents: list[str], tokenizer: Any) -> np.ndarray:
    """Concatenates the token ids of all documents, with an end of text before the first and after each."""
    import numpy as np

    return np.concatenate([np.array([tokenizer.eos_token_id]), *encoded(documents, tokenizer)])


def held_out_rows(documents: list[str], tokenizer: Any, length: int, description: str) -> Dataset:
    """The windows of held-out documents, see :func:`held_out_windows`.

    :raises DataError: if the documents are shorter than one window.
    """
    tokens = stream(documents, tokenizer)
    check_length(len(tokens), "held-out", length, description)
    return windows(tokens, length)


def windows(stream: np.ndarray, length: int) -> Dataset:
    """The windows of :func:`held_out_windows` as rows."""
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    columns = dict(zip(("input_ids", "labels"), held_out_windows(stream, length), strict=True))
    features = datasets.Features({name: datasets.List(datasets.Value("int32")) for name in columns})
    as_rows = {name: list(values.astype(np.int32)) for name, values in columns.items()}
    return datasets.Dataset.from_dict(as_rows, features=features)


def check_length(tokens: int, name: str, length: int, description: str) -> None:
    if tokens < length:
        raise DataError(
            f"data {description}: the {name} part has {tokens} tokens, fewer than one sequence of {length}; "
            "give more text or a smaller --sequence-length"
        )


def held_out_windows(stream: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a stream of n tokens into windows of `length` that overlap by one token, so that each of tokens 2..n is a target once.

    :returns: inputs and labels, both (windows, length). The last window is padded; a padded label is -100. The labels are
        not shifted: like transformers, the loss compares position t with label t + 1, and the first label of a window is unused.
    """
    import numpy as np

    starts = range(0, max(1, len(stream) - 1), length - 1)
    inputs = np.full((len(starts), length), stream[-1])
    labels = np.full((len(starts), length), IGNORED)
    for row, start in enumerate(starts):
        window = stream[start : start + length]
        inputs[row, : len(window)] = window
        labels[row, : len(window)] = window
    return inputs, labels


def unigram_loss(counts: np.ndarray, targets: np.ndarray) -> float:
    """Mean −log p of the targets under a unigram model of the training tokens with add-one smoothing, nats."""
    import numpy as np

    counts = counts + 1
    return float(-np.log(counts / counts.sum())[targets].mean())
