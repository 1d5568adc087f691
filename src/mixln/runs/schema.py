"""Schemas of the stored JSON files. Each file names its kind and schema version: `"schema": "trial-result/2"`.

Files of version 1 have no such entry; some had another name, shared by two kinds, or another structure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from mixln.errors import RecordError, UnknownEntry
from mixln.files import free_name, write_atomic
from mixln.records import from_json, read_json, to_json

T = TypeVar("T")
KEY = "schema"
Request = dict[str, Any]
"""Everything that a result depends on, in JSON types. Requests are compared entry by entry."""


@dataclass(frozen=True, kw_only=True)
class Schema(Generic[T]):
    """A kind of stored JSON file. One file name has one schema.

    :param kind: name of the kind, stored in the file.
    :param file: file name; where a folder holds several files of a kind, each is given its own name.
    :param record: class of the content.
    :param former: file name in version 1, if it was different.
    :param upgrades: conversions of the content from version 1 to 2, from 2 to 3, and so on; the last one gives the current version.
    :param computed: entries that are derived from the record; written for readers of the file, ignored when it is read.
    """

    kind: str
    file: str
    record: type[T]
    former: str = ""
    upgrades: tuple[Callable[[Any], Any], ...] = (lambda entries: entries,)
    computed: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The current version of the form, from 1."""
        return 1 + len(self.upgrades)

    @property
    def mark(self) -> str:
        """Kind and version as stored in the file: `trial-result/2`."""
        return f"{self.kind}/{self.version}"

    def path(self, folder: Path) -> Path:
        """Path of the file in a folder, whether or not it exists."""
        path, former = folder / self.file, folder / self.former
        return former if self.former and not os.path.lexists(path) and former.is_file() else path

    def entries(self, path: Path) -> Any:
        """The content of a file in JSON types, upgraded to the current version and without its mark.

        :raises ValueError: if it is corrupt; :class:`~mixln.errors.UnknownEntry` if a newer mixln wrote it; :class:`OSError` if it
            cannot be read.
        """
        data = read_json(path)
        version = self._version(data.pop(KEY, 1)) if isinstance(data, dict) else 1
        try:
            for upgrade in self.upgrades[version - 1 :]:
                data = upgrade(data)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise RecordError(f"is not a valid {self.kind}") from error
        if version == 1 or not self.computed:
            return data
        return {name: entry for name, entry in data.items() if name not in self.computed}

    def read(self, path: Path) -> T:
        """The record in a file; raises what :meth:`entries` raises."""
        return from_json(self.record, self.entries(path))

    def marked(self, content: Any) -> dict[str, Any]:
        """A record, or a dict, in JSON types, with kind and version."""
        return {KEY: self.mark, **to_json(content)}

    def text(self, content: Any) -> str:
        """The file's text."""
        return json.dumps(self.marked(content), indent=1, allow_nan=False)

    def write(self, folder: Path, content: Any, name: str = "") -> None:
        """Writes the file into a folder atomically; a folder or link of that name is set aside.

        :param name: file name; by default :attr:`file`.
        """
        path = folder / (name or self.file)
        free_name(path)
        write_atomic(path, self.text(content))

    def _version(self, mark: Any) -> int:
        if mark == 1:  # no file of version 1 has a mark
            return 1
        if marked := re.fullmatch(rf"{self.kind}/(\d{{1,9}})", str(mark)):
            version = int(marked[1])
            if version > self.version:
                raise UnknownEntry(f"is {mark}, newer than {self.mark} of this version of mixln", KEY)
            if version > 1:
                return version
        raise RecordError(f"must be {self.mark}, got {json.dumps(mark)[:100]}", KEY)
