"""A folder in which one job is done once: its result is returned if it is there, an interrupted job resumes, another is refused."""

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
"""The request of a job that has no form of its own: its entry `kind` names the job."""


class State(Enum):
    """What a folder holds, as far as the names of its files tell. A file that is corrupt is found when it is read."""

    FREE = "nothing, or what a job leaves that was killed before it had begun"
    BEGUN = "a job that has not finished"
    FINISHED = "a job with its result"
    FOREIGN = "something else"


@dataclass(frozen=True, kw_only=True)
class RunKind(Generic[R]):
    """A kind of job that has a folder to itself.

    :param noun: what error messages call it.
    :param remedy: for a corrupt request.
    :param result: what it leaves; `None` where no single file marks it as finished.
    :param again: what to do to have it done again, an infinitive.
    :param changed: describes how the files that belong to a result differ from their checksums; empty if they do not.
    """

    noun: str
    request: Schema[Any] = REQUEST
    remedy: str = "choose another --out, or delete the folder"
    result: Schema[R] | None = None
    again: str = "do this again"
    changed: Callable[[Path, Sums], str] = difference_of


class RunFolder(Generic[R]):
    """The folder of one job. Its files, of which the job names the first two:

    asked.json       the request: everything that the result depends on; written first, it makes the folder this job's
    result.json      written last: the job is finished
    checksums.json   bytes and SHA-256 of both, and of what belongs to the result
    .lock            held by the process that works in the folder

    Each is written as a whole or not at all, so that a process may be killed at any time. A refusal changes nothing in the folder.
    """

    def __init__(self, folder: Path, kind: RunKind[R]) -> None:
        self.folder, self.kind = folder, kind

    @property
    def state(self) -> State:
        """What the folder holds."""
        # In this order: whatever another process puts there meanwhile, its request is there before it.
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
        """What was asked for here; `None` if the folder is free.

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
        there = self.request()
        if there is not None and (found := difference(there, to_json(asked))):
            raise self.another(found)

    def foreign(self) -> StoreError:
        """The error about a folder that holds something else."""
        return StoreError(f"out {self.folder} is not empty and holds no {self.kind.noun}; choose another --out")

    def another(self, difference: str, remedy: str = "choose another --out, or the same settings") -> StoreError:
        """The error about a folder that holds another job.

        :param difference: in which entry of its request.
        """
        return StoreError(f"out {self.folder} holds another {self.kind.noun}: {difference}; {remedy}")

    def begin(self, asked: Request) -> None:
        """Makes the folder this job's."""
        make_folder(self.folder)
        self.kind.request.write(self.folder, asked)

    @contextmanager
    def locked(self, timeout: float = 0.0) -> Iterator[None]:
        """Keeps other processes out; the folder is made if it is missing.

        :param timeout: seconds to wait for another process; negative to wait for ever.
        :raises StoreError: if one is still there.
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
        """The result, if it and what belongs to it are as they were written; `None` if the job is not finished.

        :param belongs: files and folders that must be there.
        :param remedy: for a corrupt result, where deleting it is none.
        :raises StoreError: if they are not.
        """
        if self.kind.result is None or not self.has_result:
            return None
        path, again = self.kind.result.path(self.folder), self.kind.again
        try:
            result = self.kind.result.read(path)
        except (OSError, ValueError) as error:
            raise StoreError(unreadable(path, error, remedy or f"delete it to {again}")) from error
        back = f"put it back, or delete {path} to {again}"
        if missing := [name for name in belongs(result) if not (self.folder / name).exists()]:
            raise StoreError(f"{self.folder / missing[0]} is missing, which belongs to {path}; {back}")
        try:
            sums = read_sums(self.folder) or {}
        except ValueError as error:
            raise StoreError(unreadable(self.folder / SUMS, error, back)) from error
        if found := self.kind.changed(self.folder, sums):
            raise StoreError(f"{self.kind.noun} {self.folder} is not as it was written: {found}; {back}")
        return result

    def finish(self, result: R, belongs: Sequence[str] = ()) -> None:
        """Writes the checksums of the result and of what belongs to it, then the result.

        :param belongs: files and folders; those that are not there are left out.
        """
        assert self.kind.result is not None
        schema, request = self.kind.result, self.kind.request.file
        sums = {**sums_of(self.folder, request, *belongs), schema.file: sum_of(schema.text(result))}
        write_sums(self.folder, sums)
        schema.write(self.folder, result)

    def once(
        self, asked: Request, work: Callable[[], R], belongs: Callable[[R], Sequence[str]] = lambda result: ()
    ) -> tuple[R, bool]:
        """Does the job, unless its result is there. Of a job that is refused nothing stays that it has written.

        :param work: resumes from what it left in the folder, if it was interrupted.
        :param belongs: files and folders that belong to a result.
        :returns: the result, and whether it was there already.
        :raises StoreError: as :meth:`check`, :meth:`locked` and :meth:`result`.
        """
        self.check(asked)
        # The lock is removed too, and what was written by this job before the lock is released.
        with undone_on(self.folder, MixlnError), self.locked(), undone_on(self.folder, MixlnError):
            self.check(asked)
            if (there := self.result(belongs)) is not None:
                return there, True
            self.begin(asked)
            result = work()
            self.finish(result, belongs(result))
            return result, False

    # More results in the same folder

    def recall(self, schema: Schema[K], asked: Request, name: str = "") -> K | None:
        """A result that :meth:`keep` wrote; `None` if there is none that answers the same request, or it is corrupt.

        :param name: of the file, where that is not the kind's.
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
        """Keeps a result that was computed from what the folder holds, with the request that it answers."""
        path = self.folder / (name or schema.file)
        make_folder(path.parent)
        schema.write(path.parent, {"request": asked, "result": result}, path.name)

    # A folder whose name is its request

    def fill(self, make: Callable[[Path], R]) -> None:
        """Makes the whole folder, unless its result is there, as for a cache: as a whole or not at all.

        :param make: fills an empty folder and returns the result.
        """
        schema = self.kind.result
        assert schema is not None
        if self.has_result:
            return
        whole = folder_atomic(self.folder, keeps=lambda there: RunFolder(there, self.kind).has_result)
        with undone_on(self.folder, MixlnError), whole as target:
            schema.write(target, make(target))


def _ours(path: Path) -> bool:
    """Whether a file may be there before a job has begun."""
    return path.name == LOCK or TEMPORARY.fullmatch(path.name) is not None
