"""Work that is done once in a folder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from filelock import FileLock

from mixln.errors import StoreError
from mixln.runs.folder import LOCK
from tests.runs.jobs import ASKED, RESULT, once


@dataclass(frozen=True, kw_only=True)
class Found:
    value: float


ASKING = {"kind": "test", "settings": {"steps": 3, "data": {"examples": (1, 2)}}}


def test_it_is_done_once(tmp_path):
    calls = []
    assert once(tmp_path / "out", ASKING, Found, lambda: calls.append(1) or Found(value=0.5)) == (
        Found(value=0.5),
        False,
    )
    assert once(tmp_path / "out", ASKING, Found, lambda: calls.append(1) or Found(value=0.5)) == (
        Found(value=0.5),
        True,
    )
    assert calls == [1]


def test_what_was_cut_off_goes_on(tmp_path):
    def cut() -> Found:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "out", ASKING, Found, cut)
    assert not (tmp_path / "out" / RESULT).exists()
    assert once(tmp_path / "out", ASKING, Found, lambda: Found(value=1.0)) == (Found(value=1.0), False)


def test_another_is_refused_before_anything_is_written(tmp_path):
    once(tmp_path / "out", ASKING, Found, lambda: Found(value=0.5))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = {**ASKING, "settings": {"steps": 4}}
    with pytest.raises(StoreError, match=r"holds another training: steps was 3, now 4; choose another --out"):
        once(tmp_path / "out", other, Found, lambda: Found(value=1.0))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_foreign_and_damaged_folders(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("\\section{}")
    with pytest.raises(StoreError, match="is not empty and holds no training"):
        once(tmp_path / "mine", ASKING, Found, lambda: Found(value=1.0))
    once(tmp_path / "out", ASKING, Found, lambda: Found(value=0.5))
    (tmp_path / "out" / RESULT).write_text('{"value"')
    with pytest.raises(StoreError, match=r"result.json is corrupt .*; delete it to do this again"):
        once(tmp_path / "out", ASKING, Found, lambda: Found(value=1.0))
    (tmp_path / "out" / ASKED).write_text("{")
    with pytest.raises(StoreError, match=r"asked.json is corrupt"):
        once(tmp_path / "out", ASKING, Found, lambda: Found(value=1.0))


def test_two_at_once(tmp_path):
    once(tmp_path / "out", ASKING, Found, lambda: Found(value=0.5))
    with FileLock(tmp_path / "out" / LOCK), pytest.raises(StoreError, match="is in use by another mixln"):
        once(tmp_path / "out", ASKING, Found, lambda: Found(value=1.0))
