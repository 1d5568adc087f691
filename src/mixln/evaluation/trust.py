"""Task files of other people: without a word of trust, none of them runs code.

A task file of lm-eval can run Python in four ways: a tag such as `!function`, which imports a file beside it; a metric that is not
lm-eval's own, which `evaluate` loads as a script; a template, which lm-eval gives to a Jinja that is no sandbox; and an `include` of
a file that does one of these. The first two and the last are looked for in the files, before lm-eval sees them; templates are
rendered in Jinja's sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixln.errors import SettingsError, first_line
from mixln.evaluation import offline

REMEDY = "leave it out, or add --trust-task-code if you trust the folder like a program"
LARGEST = 2**24
"""Bytes of a task file."""
MOST_ENTRIES = 100_000
"""Entries of a task file, at most: a few lines of YAML aliases can expand to billions."""
BUILDERS = {"arrow", "audiofolder", "csv", "imagefolder", "json", "parquet", "text", "videofolder", "webdataset", "xml"}
"""Readers of files in `datasets` that read data and nothing else."""


def check_files(folder: Path) -> None:
    """Looks through all task files that lm-eval would find in a folder, and through what they include.

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
        raise SettingsError(f"task-folder {folder}: {path} is read, and lies outside of it; {REMEDY}")

    if not path.is_file():  # a pipe would wait for ever
        raise SettingsError(f"task-folder: {path} is no file; take it out")

    class Loader(yaml.SafeLoader):
        """Knows plain data alone."""

    def refuse(loader: Any, node: Any) -> None:
        raise SettingsError(
            f"task-folder: {path} has {node.tag} in line {node.start_mark.line + 1}, which runs code; {REMEDY}"
        )

    Loader.add_constructor(None, refuse)  # type: ignore[arg-type] (None: any tag that is not plain data)
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"it has {size:,} bytes, more than the {LARGEST:,} that are read")
        entries = Loader(path.read_bytes()).get_single_data()
        if _size(entries, {}) > MOST_ENTRIES:
            raise ValueError(f"its aliases stand for more than {MOST_ENTRIES:,} entries")
    except SettingsError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(
            f"task-folder: {path} cannot be read as YAML: {first_line(error)}; mend it or take it out"
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
                if not other.is_relative_to(
                    offline.definitions().resolve()
                ):  # lm-eval's own are part of the installation
                    _check(other, folder, seen)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every entry of every object, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name), inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _size(value: Any, sizes: dict[int, float]) -> float:
    """Entries at any depth, those behind an alias as often as it stands there; infinitely many where a part contains itself.

    :param sizes: by the identity of what has been counted.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = math.inf
        sizes[id(value)] = 1 + sum(
            _size(inner, sizes) for inner in (value.values() if isinstance(value, dict) else value)
        )
    return sizes[id(value)]


def _is_metric(value: Any) -> bool:
    from lm_eval.api import metrics  # noqa: F401 (whose import fills the registry)
    from lm_eval.api.registry import METRIC_REGISTRY

    return isinstance(value, str) and value in METRIC_REGISTRY


def _is_data(value: Any) -> bool:
    """True if `datasets` only reads data by this name: one of its readers of files, a folder of files, or a data set of the hub."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as packaged

    return value is None or (isinstance(value, str) and (value not in packaged or value in BUILDERS))


@contextmanager
def sandboxed() -> Iterator[None]:
    """Within it, lm-eval renders templates in Jinja's sandbox: the same text, and nothing of Python's own can be reached.

    It changes the whole process: not for two threads at a time.
    """
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    inside = SandboxedEnvironment(undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline)
    inside.filters.update(before.filters)
    utils.env = inside
    try:
        yield
    finally:
        utils.env = before
