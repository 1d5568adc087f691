"""Idempotent, resumable job in a folder: returns a finished result, resumes an interrupted job, refuses a different request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from mixln.errors import MixlnError, StoreError, UnknownEntry
from mixln.files import TEMPORARY, check_writable, folder_atomic, make_folder, note, undone_on
from mixln.records import difference, from_json, to_json, unreadable
from mixln.runs.checksums import SUMS, Sums, difference_of, read_sums, sum_of, sums_of, write_sums
from mixln.runs.schema import Request, Schema

LOCK = ".lock"
R = TypeVar("R")
K = TypeVar("K")
REQUEST = Schema(kind="request", file="asked.json", record=Request)
"""Generic request; its entry `kind` names the job."""


class State(Enum):
    """Content of a folder according to its file names. Corrupt files are detected when they are read."""

    FREE = "nothing, or the lock and temporary files of a job that was killed before it began"
    BEGUN = "a job that has not finished"
    FINISHED = "a job with its result"
    FOREIGN = "something else"


@dataclass(frozen=True, kw_only=True)
class RunKind(Generic[R]):
    """A kind of job that has a folder to itself.

    :param noun: name of the job in error messages.
    :param remedy: remedy for a corrupt request.
    :param result: schema of the result; `None` if no single file marks the job as finished.
    :param again: infinitive that completes "delete it to …" in error messages.
    :param changed: describes how the files that belong to a result differ from their checksums; empty if they do not.
    """

    noun: str
    request: Schema[Any] = REQUEST
    remedy: str = "choose another --out, or delete the folder"
    result: Schema[R] | None = None
    again: str = "do this again"
    changed: Callable[[Path, Sums], str] = difference_of


class RunFolder(Generic[R]):
    """The folder of one job. The names of the first two files depend on the kind of job:

    asked.json       the request: everything that the result depends on; written first, it claims the folder
    result.json      written last: the job is finished
    checksums.json   length and SHA-256 of both, and of the files that belong to the result
    .lock            held by the process that works in the folder

    Each is written atomically, so that the process may be killed at any time. A refusal changes nothing in the folder.
    """

    def __init__(self, folder: Path, kind: RunKind[R]) -> None:
        self.folder, self.kind = folder, kind

    @property
    def state(self) -> State:
        """What the folder holds."""
        # The order matters: a concurrent process writes its request first, so if other files are seen here, the request is seen below.
        free = not self.folder.exists() or (self.folder.is_dir() and all(map(_ours, self.folder.iterdir())))
        if self.kind.request.path(self.folder).is_file():
            return State.FINISHED if self.has_result else State.BEGUN
        return State.FREE if free else State.FOREIGN

    @property
    def has_result(self) -> bool:
        """Whether the job is finished."""
        return self.kind.result is not None and self.kind.result.path(self.folder).is_file()

    # The request

    def request(self) -> Any:
        """The request in the folder; `None` if the folder is free.

        :raises StoreError: if it holds something else, or the request is corrupt.
        """
        match self.state:
            case State.FREE:
                return None
            case State.FOREIGN:
                raise self.foreign()
        path = self.kind.request.path(self.folder)
        try:
            return self.kind.request.read(path)
        except (OSError, ValueError) as error:
            raise StoreError(unreadable(path, error, self.kind.remedy)) from error

    def check(self, asked: Request) -> None:
        """Checks, without writing, that the folder is free or holds the same job.

        :raises StoreError: as :meth:`request`; also if it holds another job, or cannot be written.
        """
        check_writable(self.folder)
        present = self.request()
        if present is not None and (changed := difference(present, to_json(asked))):
            raise self.another(changed)

    def foreign(self) -> StoreError:
        """Error for a folder that holds something other than this kind of job."""
        return StoreError(f"out {self.folder} is not empty and holds no {self.kind.noun}; choose another --out")

    def another(self, difference: str, remedy: str = "choose another --out, or the same settings") -> StoreError:
        """Error for a folder that holds a job with a different request.

        :param difference: the first entry that differs, see :func:`~mixln.records.difference`.
        """
        return StoreError(f"out {self.folder} holds another {self.kind.noun}: {difference}; {remedy}")

    def begin(self, asked: Request) -> None:
        """Claims the folder for this job by writing its request."""
        make_folder(self.folder)
        self.kind.request.write(self.folder, asked)

    @contextmanager
    def locked(self, timeout: float = 0.0) -> Iterator[None]:
        """Locks the folder against other processes, and creates it if it is missing.

        :param timeout: seconds to wait for another process; negative to wait without limit.
        :raises StoreError: if another process still holds the lock.
        """
        make_folder(self.folder)
        if not (lock := self.folder / LOCK).exists():
            note(lock)
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(lock, timeout=timeout))
            except Timeout as error:
                raise StoreError(
                    f"out {self.folder} is in use by another mixln; wait for it, or choose another --out"
                ) from error
            yield

    # The result

    def result(self, belongs: Callable[[R], Sequence[str]] = lambda result: (), *, remedy: str = "") -> R | None:
        """The verified result; `None` if the job is not finished.

        :param belongs: result → files and folders that must exist.
        :param remedy: remedy for a corrupt result; by default to delete it.
        :raises StoreError: if the result or a file that belongs to it is missing, corrupt or changed.
        """
        if self.kind.result is None or not self.has_result:
            return None
        path, again = self.kind.result.path(self.folder), self.kind.again
        try:
            result = self.kind.result.read(path)
        except (OSError, ValueError) as error:
            raise StoreError(unreadable(path, error, remedy or f"delete it to {again}")) from error
        restore = f"restore it, or delete {path} to {again}"
        if missing := [name for name in belongs(result) if not (self.folder / name).exists()]:
            raise StoreError(f"{self.folder / missing[0]} is missing, which belongs to {path}; {restore}")
        try:
            sums = read_sums(self.folder) or {}
        except ValueError as error:
            raise StoreError(unreadable(self.folder / SUMS, error, restore)) from error
        if changed := self.kind.changed(self.folder, sums):
            raise StoreError(f"{self.kind.noun} {self.folder} has changed since it was written: {changed}; {restore}")
        return result

    def finish(self, result: R, belongs: Sequence[str] = ()) -> None:
        """Writes the checksums of the result and of the files that belong to it, then the result, which marks the job as finished.

        :param belongs: files and folders; missing ones are skipped.
        """
        assert self.kind.result is not None
        schema, request = self.kind.result, self.kind.request.file
        sums = {**sums_of(self.folder, request, *belongs), schema.file: sum_of(schema.text(result))}
        write_sums(self.folder, sums)
        schema.write(self.folder, result)

    def once(
        self, asked: Request, work: Callable[[], R], belongs: Callable[[R], Sequence[str]] = lambda result: ()
    ) -> tuple[R, bool]:
        """Runs the job unless it is finished. If it raises a :class:`MixlnError`, its new files are removed.

        :param work: runs the job, or resumes it from its files in the folder.
        :param belongs: result → files and folders that belong to it.
        :returns: the result, and whether it existed before.
        :raises StoreError: as :meth:`check`, :meth:`locked` and :meth:`result`.
        """
        self.check(asked)
        # Twice: the inner context removes this job's files before the lock is released, the outer one then removes the lock.
        with undone_on(self.folder, MixlnError), self.locked(), undone_on(self.folder, MixlnError):
            self.check(asked)
            if (finished := self.result(belongs)) is not None:
                return finished, True
            self.begin(asked)
            result = work()
            self.finish(result, belongs(result))
            return result, False

    # Further results in the same folder

    def recall(self, schema: Schema[K], asked: Request, name: str = "") -> K | None:
        """A result that :meth:`keep` wrote; `None` if there is none for this request, or it is corrupt.

        :param name: file name; by default that of the schema.
        :raises StoreError: if a newer mixln wrote it.
        """
        path = self.folder / name if name else schema.path(self.folder)
        try:
            kept = schema.entries(path)
        except UnknownEntry as error:
            raise StoreError(unreadable(path, error, "")) from error
        except (OSError, ValueError):
            return None
        try:
            return from_json(schema.record, kept["result"]) if kept["request"] == to_json(asked) else None
        except (ValueError, KeyError, TypeError):
            return None

    def keep(self, schema: Schema[K], asked: Request, result: K, name: str = "") -> None:
        """Stores a result that was derived from the content of the folder, together with its request."""
        path = self.folder / (name or schema.file)
        make_folder(path.parent)
        schema.write(path.parent, {"request": asked, "result": result}, path.name)

    # A folder whose name is its request

    def fill(self, make: Callable[[Path], R]) -> None:
        """Creates the folder atomically unless it has a result, as for a cache.

        :param make: fills an empty folder and returns the result.
        """
        schema = self.kind.result
        assert schema is not None
        if self.has_result:
            return
        # Another process may have created it meanwhile; its result is kept.
        created = folder_atomic(self.folder, keeps=lambda existing: RunFolder(existing, self.kind).has_result)
        with undone_on(self.folder, MixlnError), created as target:
            schema.write(target, make(target))


def _ours(path: Path) -> bool:
    """Whether a file may exist before a job has begun."""
    return path.name == LOCK or TEMPORARY.fullmatch(path.name) is not None
