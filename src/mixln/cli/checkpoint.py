"""Functions shared by the commands that derive a checkpoint from another."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mixln.errors import DataError, SettingsError, StoreError
from mixln.files import cache_folder, check_writable, folder_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mixln.hosts.sources import Source


def check_new(out: Path) -> None:
    """Checks that the folder of a new checkpoint can be created.

    :raises StoreError: if it exists, or cannot be written.
    """
    if os.path.lexists(out):
        raise StoreError(f"out {out} already exists; choose a folder that does not")
    check_writable(out)


def one_source(model: str, cache: Path, *, convertible: bool = False) -> Source:
    """Finds the model given to a command.

    :param convertible: also accept what can only be converted: a model whose weights exist only as a pickle, or an encoder-decoder.
    :raises CheckpointError: if there is no such model.
    :raises SettingsError: if it is a comparison with several trials.
    """
    from mixln.compare.sources import find

    sources = find(model, cache=cache_folder(cache), pickled=convertible, encoder_decoders=convertible)
    if len(sources) > 1:
        raise SettingsError(f"model {model} is a comparison with {len(sources)} trials; name one of its trials")
    return sources[0]


def write(model: PreTrainedModel, source: Source, out: Path) -> None:
    """Writes a checkpoint atomically, with the tokenizer or image processor of its source, if that has one.

    :raises DataError: if the written tokenizer would give other tokens; see :func:`mixln.hosts.companions.write_companion`.
    """
    from mixln.hosts.companions import write_companion
    from mixln.hosts.sources import image_processor_of, tokenizer_of
    from mixln.quiet import quiet

    def made_meanwhile(folder: Path) -> bool:
        raise StoreError(
            f"out {folder} was created by another process in the meantime; choose a folder that does not exist"
        )

    with quiet(), folder_atomic(out, keeps=made_meanwhile) as folder:
        model.save_pretrained(folder)
        companion = None
        with suppress(DataError):
            companion = (image_processor_of if source.takes_images else tokenizer_of)(source)
        if companion is not None:
            write_companion(companion, folder, origin=source.path)
