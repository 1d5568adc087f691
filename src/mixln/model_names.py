"""Names of checkpoints: local paths and hub ids."""

from __future__ import annotations

import os
from pathlib import Path

from mixln.errors import CheckpointError

MODEL_KINDS = "name a hub id, a folder written by save_pretrained, a .gguf file, or a folder of mixln compare"
"""Remedy for a name that is none of these."""
FILE_ENDINGS = (".gguf", ".safetensors", ".bin", ".json")
"""Endings of files with weights, which no hub id has."""


def local_path(name: str) -> Path:
    """The path of a local model, with `~` expanded; an unknown user's home stays as it is."""
    return Path(os.path.expanduser(name))


def check_local_model(name: str) -> None:
    """Checks that a model exists if its name cannot be a hub id.

    :param name: a path, a hub id, or either of them followed by `:file.gguf`.
    :raises CheckpointError: if there is no file or folder of that name.
    """
    place, colon, file = name.rpartition(":")
    if (name and local_path(name).exists()) or (colon and file.endswith(".gguf") and place):
        return
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(FILE_ENDINGS):
        raise CheckpointError(f"model {name!r} does not exist; correct the path, or {MODEL_KINDS}")
