"""What is written is whole: when the writer fails in the middle, the old content stays and nothing half-written is left."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mixln.files import folder_atomic, no_room, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("content", "data"), [("grüße\r\n", "grüße\r\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_a_file_holds_exactly_what_was_written(tmp_path, content, data):
    write_atomic(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_bytes() == data
    assert names(tmp_path) == ["a.json"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "a long old content")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_whoever_reads_the_old_file_goes_on_reading_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with path.open() as reader:
        write_atomic(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("old", ["old", None])
def test_a_write_that_fails_in_the_middle_leaves_the_old_file(tmp_path, old):
    path = tmp_path / "a.json"
    if old is not None:
        path.write_text(old)
    with pytest.raises(OSError, match="File too large"), largest_file(1000):
        write_atomic(path, b"x" * 5000)
    assert names(tmp_path) == ([] if old is None else ["a.json"])
    assert old is None or path.read_text() == old


def test_content_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half a pair: \ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_name_that_a_folder_has_is_not_taken(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "a.json", "new")
    assert names(tmp_path) == ["a.json"]


def test_a_folder_appears_with_all_its_content(tmp_path):
    path = tmp_path / "deep" / "folder"
    with folder_atomic(path) as target:
        (target / "a").write_text("1")
        assert not path.exists()
        (target / "sub").mkdir()
        (target / "sub" / "b").write_text("2")
    assert names(path) == ["a", "sub"]
    assert names(path.parent) == ["folder"]


def fill_and_fail(path: Path, error: type[BaseException]) -> None:
    with folder_atomic(path) as target:
        (target / "new").write_text("new")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_whose_writer_fails_does_not_appear(tmp_path, error):
    with pytest.raises(error):
        fill_and_fail(tmp_path / "folder", error)
    assert names(tmp_path) == []


def test_a_writer_that_fails_leaves_the_old_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(RuntimeError):
        fill_and_fail(path, RuntimeError)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path):
    path = tmp_path / "folder"
    with folder_atomic(path) as target:
        (target / "mine").write_text("mine")
        path.mkdir()
        (path / "theirs").write_text("theirs")
    assert names(path) == ["theirs"]
    assert names(tmp_path) == ["folder"]


def test_a_file_in_the_folders_place_is_an_error(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(NotADirectoryError), folder_atomic(path):
        path.write_text("a file")
    assert path.read_text() == "a file"
    assert names(tmp_path) == ["folder"]


@pytest.fixture
def flushed(monkeypatch) -> set[int]:
    """The inodes of what has been flushed to the disk."""
    inodes, flush = set(), os.fsync

    def noted(handle: int) -> None:
        flush(handle)
        inodes.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    return inodes


def test_a_file_and_its_name_are_flushed_to_the_disk(tmp_path, flushed):
    write_atomic(tmp_path / "file", "content")
    assert {(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino} <= flushed


def test_a_folder_is_flushed_with_all_its_content(tmp_path, flushed):
    with folder_atomic(tmp_path / "folder") as target:
        (target / "inner").mkdir()
        (target / "inner" / "file").write_text("content")
    written = [tmp_path, tmp_path / "folder", *(tmp_path / "folder").rglob("*")]
    assert {path.stat().st_ino for path in written} <= flushed


def test_a_full_disk_is_told_from_other_failures(tmp_path):
    full = [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ]
    others = [
        OSError(errno.EACCES, "Permission denied"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("I/O error (os error 281)"),
    ]
    assert all(no_room(error, tmp_path) for error in full)
    assert not any(no_room(error, tmp_path) for error in others)
    with pytest.raises(ValueError, match="while saving") as caught:
        raise ValueError("while saving") from full[0]
    assert no_room(caught.value, tmp_path)
