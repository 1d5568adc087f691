"""Every kind of stored file has a name and a schema of its own, and versions are told apart."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mixln
from mixln.errors import RecordError, UnknownEntry
from mixln.runs.folder import RunKind
from mixln.runs.schema import Schema

ROWS = Schema(
    kind="rows", file="rows.json", record=dict[str, Any], former="old.json", upgrades=(lambda rows: {"n": rows[0]},)
)


def schemas() -> set[Schema[Any]]:
    """All that the package has."""
    root, found = Path(mixln.__file__).parent, set()
    for path in root.rglob("*.py"):
        if "Schema(" in path.read_text("utf-8"):
            name = ".".join(("mixln", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            for value in vars(importlib.import_module(name)).values():
                parts = (value.request, value.result) if isinstance(value, RunKind) else (value,)
                found |= {part for part in parts if isinstance(part, Schema)}
    return found


def test_no_two_kinds_of_file_share_a_name_or_a_schema():
    found = schemas()
    assert len(found) > 20
    for names in ([each.kind for each in found], [each.file for each in found]):
        assert sorted(names) == sorted(set(names))


def test_it_comes_back_under_its_name(tmp_path):
    ROWS.write(tmp_path, {"n": 3})
    assert json.loads((tmp_path / "rows.json").read_text()) == {"schema": "rows/2", "n": 3}
    (tmp_path / "old.json").write_text("[4]")
    assert ROWS.path(tmp_path) == tmp_path / "rows.json"
    assert ROWS.read(ROWS.path(tmp_path)) == {"n": 3}


def test_a_file_of_version_1_is_read_under_its_former_name(tmp_path):
    assert ROWS.path(tmp_path) == tmp_path / "rows.json"
    (tmp_path / "old.json").write_text("[4]")
    assert ROWS.read(ROWS.path(tmp_path)) == {"n": 4}


def test_a_file_is_upgraded_from_its_version_to_the_next_and_so_on(tmp_path):
    later = replace(ROWS, upgrades=(*ROWS.upgrades, lambda entries: {"count": entries["n"]}))
    (tmp_path / "old.json").write_text("[4]")
    assert later.read(later.path(tmp_path)) == {"count": 4}
    ROWS.write(tmp_path, {"n": 3})
    assert later.read(later.path(tmp_path)) == {"count": 3}
    later.write(tmp_path, {"count": 5})
    assert later.read(later.path(tmp_path)) == {"count": 5}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ('{"schema": "rows/3", "n": 1}', UnknownEntry, "schema is rows/3, newer than rows/2 of this version of mixln"),
        ('{"schema": "trial/2", "n": 1}', RecordError, 'schema must be rows/2, got "trial/2"'),
        ('{"schema": 2, "n": 1}', RecordError, "schema must be rows/2, got 2"),
        ('{"schema": ["rows/2"], "n": 1}', RecordError, 'schema must be rows/2, got ["rows/2"]'),
        ("[]", RecordError, "it is not a valid rows"),
        ("{", ValueError, "Expecting property name"),
    ],
)
def test_what_is_not_of_its_kind_or_newer_is_refused(tmp_path, text, kind, message):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(kind) as caught:
        ROWS.read(tmp_path / "rows.json")
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, UnknownEntry) is (kind is UnknownEntry)
