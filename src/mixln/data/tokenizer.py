"""Loads a tokenizer or trains one on the documents, and tokenizes documents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.data.settings import MOST_VOCABULARY
from mixln.errors import DataError, SettingsError, first_line
from mixln.normalizers import check_normalizer

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
WORD = 10_000
"""Longest word in the training of a tokenizer, characters, approximately; longer ones are split. The time grows with its square."""


def named_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Loads an existing tokenizer.

    :raises DataError: if it cannot be loaded, has no fast version or no end of sequence, or its normalizer lengthens texts too much.
    """
    from transformers import AutoTokenizer

    from mixln.quiet import quiet

    place = _tokenizer_at(name)
    check_normalizer(place)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            tokenizer.encode("A word.")  # entries of a wrong type raise only in use
    except Exception as error:  # transformers raises OSError, ValueError and other types for the same problem
        raise DataError(
            f"tokenizer {name!r} cannot be loaded: {first_line(error)}; name a folder or a hub id that holds one"
        ) from error
    if not tokenizer.is_fast:
        raise DataError(f"tokenizer {name!r} has no fast version (tokenizer.json), which packing needs; name another")
    if tokenizer.eos_token_id is None:
        raise DataError(f"tokenizer {name!r} has no end-of-sequence token, which separates documents; name another")
    check_normalizer(name, tokenizer)
    return tokenizer


def _tokenizer_at(name: str) -> str:
    """The folder of a tokenizer, or its hub id if it exists on the hub.

    The hub is queried once: transformers would query it for each file, with retries if there is no network.

    :raises DataError: if it is a file, a path that does not exist, or not a public model on the hub.
    """
    from huggingface_hub import HfApi, snapshot_download

    from mixln.hosts.sources import HUB_SECONDS

    remedy = "name a folder or a hub id that holds one"
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return str(path)
    if path.exists():
        raise DataError(f"tokenizer {name!r} is a file; name its folder, or a hub id")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".json", ".model", ".txt")):
        raise DataError(f"tokenizer {name!r} does not exist; {remedy}")
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # no network, offline mode, no such model: use an earlier download
        try:
            return snapshot_download(name, local_files_only=True)
        except Exception:
            raise DataError(f"tokenizer {name!r} cannot be loaded: {first_line(error)}; {remedy}") from error
    return name


def trained_tokenizer(documents: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the training documents only.

    :raises SettingsError: if it is to have too many tokens.
    """
    if size > MOST_VOCABULARY:
        raise SettingsError(
            f"vocabulary-size must be at most {MOST_VOCABULARY:,} for a tokenizer that mixln trains, got {size}; set it"
        )
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=size,  # type: ignore[call-arg]
        special_tokens=[END_OF_TEXT],  # type: ignore[call-arg]
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # type: ignore[call-arg]
        show_progress=False,  # type: ignore[call-arg]
    )
    bpe.train_from_iterator(_short_words(documents, bpe.pre_tokenizer), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, bos_token=END_OF_TEXT
    )


def _short_words(documents: Iterable[str], pre_tokenizer: Any) -> Iterator[str]:
    """The documents, split within words longer than :data:`WORD`."""
    for document in documents:
        begin = 0
        for start in range(0, len(document) - WORD + 1, WORD):
            part = document[start : start + WORD]
            if len(part.split(None, 1)) < 2 and len(pre_tokenizer.pre_tokenize_str(part)) == 1:
                yield document[begin : start + WORD]
                begin = start + WORD
        yield document[begin:]


def encoded(documents: list[str], tokenizer: Any) -> list[np.ndarray]:
    """The tokens of each document, followed by an end of text.

    :raises DataError: if the tokenizer fails.
    """
    import numpy as np

    if not documents:
        return []
    try:
        rows = tokenizer(documents, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a Rust panic in the library; its class cannot be imported
            raise
        raise DataError(f"the tokenizer fails on this text: {first_line(error)}; use another --tokenizer") from error
    return [np.array([*ids, tokenizer.eos_token_id], dtype=np.int64) for ids in rows]


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, origin: str | None) -> None:
    """Writes a tokenizer into a folder.

    :param origin: folder or hub id from which it was loaded; `None` for one that was trained here.
    :raises DataError: if the written tokenizer gives other tokens.
    """
    from mixln.hosts.companions import write_companion

    folder.mkdir(exist_ok=True)
    write_companion(tokenizer, folder, origin=os.path.expanduser(origin or ""))
