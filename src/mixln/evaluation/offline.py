"""lm-eval's task definitions with local data: the same prompts, choices and metrics, without the hub.

Each task file includes lm-eval's own and changes only the location of the rows, so lm-eval's command finds the same tasks if it is
given the folder with `--include_path`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixln.data import questions
from mixln.errors import DataError, SettingsError
from mixln.evaluation.settings import PERPLEXITY
from mixln.files import folder_atomic

FORMAT = 1
"""Version of the written files, part of their folder's name; increase it whenever their contents change."""
DEFINITIONS = {
    "arc_easy": ("arc/arc_easy.yaml", "test"),
    "arc_challenge": ("arc/arc_challenge.yaml", "test"),
    "boolq": ("super_glue/boolq/default.yaml", "validation"),
    "commonsense_qa": ("commonsense_qa/default.yaml", "validation"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "test"),
    "piqa": ("piqa/piqa.yaml", "validation"),
    "social_iqa": ("siqa/siqa.yaml", "validation"),
    "winogrande": ("winogrande/default.yaml", "validation"),
}
"""Task → (lm-eval's task file, split that it is evaluated on)."""
MMLU_GROUPS = ("_mmlu", "_mmlu_stem", "_mmlu_other", "_mmlu_social_sciences", "_mmlu_humanities")
MMLU = "mmlu"


def names() -> tuple[str, ...]:
    """The tasks that do not need the hub if the package is installed."""
    return (*DEFINITIONS, MMLU)


def write_tasks(cache: Path) -> Path:
    """Writes the task files and their rows unless they exist.

    :param cache: folder of the cache.
    :returns: the folder of the task files.
    :raises DataError: if the package with the questions is not installed, or this version of lm-eval lacks a task file.
    """
    own = definitions()
    questions.folder()
    key = _key(FORMAT, questions.PACKAGE, version("lm-eval"), own, cache.absolute())
    target = cache.absolute() / "tasks" / key
    if target.is_dir():
        return target
    with folder_atomic(target) as folder:
        for name, (definition, split) in DEFINITIONS.items():
            _write_rows(folder / f"{name}.parquet", questions.EVALUATION[name]())
            _write_task(folder / f"{name}.yaml", own / definition, {split: target / f"{name}.parquet"})
        for subject in questions.mmlu_subjects():
            files = {split: f"mmlu_{subject}_{split}.parquet" for split in ("dev", "test")}
            for split, file in files.items():
                _write_rows(folder / file, questions.mmlu(subject, split))
            definition = own / "mmlu/default" / f"mmlu_{subject}.yaml"
            _write_task(
                folder / f"mmlu_{subject}.yaml", definition, {split: target / file for split, file in files.items()}
            )
        for group in MMLU_GROUPS:
            included = own / "mmlu/default" / f"{group}.yaml"
            (folder / f"{group}.yaml").write_text(_yaml({"include": str(included)}), "utf-8")
    return target


def write_perplexity(documents: list[str], cache: Path) -> Path:
    """Writes the task `perplexity` on these documents unless it exists, and returns its folder."""
    own = definitions()
    digest = hashlib.sha256("\0".join(documents).encode("utf-8")).hexdigest()
    target = cache.absolute() / "tasks" / _key(FORMAT, digest, version("lm-eval"), own, cache.absolute())
    if target.is_dir():
        return target
    with folder_atomic(target) as folder:
        _write_rows(folder / "text.parquet", ({"page": document} for document in documents))
        entries = {
            "task": PERPLEXITY,
            "doc_to_target": "{{page}}",
            "should_decontaminate": False,
            "metadata": {"version": FORMAT},
        }
        _write_task(folder / "text.yaml", own / "wikitext/wikitext.yaml", {"test": target / "text.parquet"}, entries)
    return target


def definitions() -> Path:
    """The folder of lm-eval's own task files.

    :raises SettingsError: if lm-eval is not installed.
    """
    # Importing lm_eval takes seconds; its location does not need it.
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise SettingsError('tasks need the package lm-eval; run pip install "mixln[tasks]"')
    return Path(spec.origin).parent / "tasks"


def _write_task(path: Path, definition: Path, files: dict[str, Path], entries: dict[str, Any] | None = None) -> None:
    """:param files: split → file of its rows. All other splits of the definition are removed."""
    if not definition.is_file():
        raise DataError(
            f"lm-eval {version('lm-eval')} has no {definition.parent.name}/{definition.name}; install lm-eval 0.4.13"
        )
    splits: dict[str, str | None] = {f"{kind}_split": None for kind in ("training", "validation", "test")}
    for split in files:
        if split != "dev":
            splits[f"{split}_split"] = split
    where = {
        "include": str(definition),
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
    }
    path.write_text(_yaml({**where, **splits, **(entries or {})}), "utf-8")


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.Table.from_pylist(list(rows)), path)


def _yaml(entries: dict[str, Any]) -> str:
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"  # JSON is a subset of YAML


def _key(*parts: Any) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode("utf-8")).hexdigest()[:20]
