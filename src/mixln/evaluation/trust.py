"""Keeps untrusted task files from running code.

A task file of lm-eval can run Python in four ways: a tag such as `!function`, which imports a file beside it; a metric that is not
lm-eval's own, which `evaluate` loads as a script; a template, which lm-eval renders with Jinja outside a sandbox; and an `include`
of a file that does one of these. Tags, metrics and includes are checked before lm-eval reads the files. Templates are rendered in
Jinja's sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixln.errors import SettingsError, first_line
from mixln.evaluation import offline

REMEDY = "remove it, or add --trust-task-code if you trust the folder as you would trust a program"
LARGEST = 2**24
"""Maximum size of a task file, bytes."""
MOST_ENTRIES = 100_000
"""Maximum number of entries in a task file: a few lines of YAML aliases can expand to billions."""
BUILDERS = {"arrow", "audiofolder", "csv", "imagefolder", "json", "parquet", "text", "videofolder", "webdataset", "xml"}
"""The file readers of `datasets` that run no code from the files."""


def check_files(folder: Path) -> None:
    """Checks all task files that lm-eval would find in a folder, and the files that they include.

    :raises SettingsError: for the first one that could run code.
    """
    seen: set[Path] = set()
    for path in sorted(folder.rglob("*.yaml")):
        _check(path.resolve(), folder.resolve(), seen)


def _check(path: Path, folder: Path, seen: set[Path]) -> None:
    import yaml

    if path in seen:
        return
    seen.add(path)
    if not path.is_relative_to(folder):
        raise SettingsError(f"task-folder {folder}: {path} is read, but is outside this folder; {REMEDY}")

    if not path.is_file():  # reading a pipe would block for ever
        raise SettingsError(f"task-folder: {path} is not a file; remove it")

    class Loader(yaml.SafeLoader):
        """Accepts plain data only."""

    def refuse(loader: Any, node: Any) -> None:
        raise SettingsError(
            f"task-folder: {path} has {node.tag} in line {node.start_mark.line + 1}, which runs code; {REMEDY}"
        )

    Loader.add_constructor(None, refuse)  # type: ignore[arg-type] (None: all tags without a constructor of their own)
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"it must have at most {LARGEST:,} bytes, got {size:,}")
        entries = Loader(path.read_bytes()).get_single_data()
        if _size(entries, {}) > MOST_ENTRIES:
            raise ValueError(f"with its aliases expanded, it must have at most {MOST_ENTRIES:,} entries")
    except SettingsError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(
            f"task-folder: {path} cannot be read as YAML: {first_line(error)}; correct or remove it"
        ) from error
    for name, value in _entries(entries):
        if name == "metric" and not _is_metric(value):
            raise SettingsError(
                f"task-folder: {path} has the metric {value}, which is not lm-eval's own and runs code; {REMEDY}"
            )
        if name in ("use_prompt", "hf_evaluate") and value:
            raise SettingsError(f"task-folder: {path} has {name} {value}, which loads code of other packages; {REMEDY}")
        if name == "dataset_path" and not _is_data(value):
            raise SettingsError(f"task-folder: {path} has the dataset_path {value}, which may run code; {REMEDY}")
        if name == "include":
            for included in value if isinstance(value, list) else [value]:
                other = (path.parent / str(included)).resolve()
                # lm-eval's own task files are part of the installation, and so as trusted as lm-eval itself.
                if not other.is_relative_to(offline.definitions().resolve()):
                    _check(other, folder, seen)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """All entries of all mappings, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name), inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _size(value: Any, sizes: dict[int, float]) -> float:
    """Number of entries at any depth with all aliases expanded; infinite if a value contains itself.

    :param sizes: `id` of a mapping or list → its number of entries, so that each is counted once.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = math.inf  # found again while its own entries are being counted: it contains itself
        sizes[id(value)] = 1 + sum(
            _size(inner, sizes) for inner in (value.values() if isinstance(value, dict) else value)
        )
    return sizes[id(value)]


def _is_metric(value: Any) -> bool:
    from lm_eval.api import metrics  # noqa: F401 (importing it fills the registry)
    from lm_eval.api.registry import METRIC_REGISTRY

    return isinstance(value, str) and value in METRIC_REGISTRY


def _is_data(value: Any) -> bool:
    """Whether `datasets` only reads data by this name: one of its file readers, a folder of files, or a hub data set."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as packaged

    return value is None or (isinstance(value, str) and (value not in packaged or value in BUILDERS))


@contextmanager
def sandboxed() -> Iterator[None]:
    """Makes lm-eval render templates in Jinja's sandbox, where they give the same text but cannot access Python internals.

    The setting is global to the process, so two threads must not use it at the same time.
    """
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    sandbox = SandboxedEnvironment(undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline)
    sandbox.filters.update(before.filters)
    utils.env = sandbox
    try:
        yield
    finally:
        utils.env = before
