"""The kinds of JSON files that mixln stores. Each names its kind and the version of its form: `"schema": "trial-result/2"`.

Files of version 1 do not; some of them had another name, which two kinds shared, and some another form.
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
"""Everything that a result depends on, as JSON has it: two requests are compared entry by entry."""


@dataclass(frozen=True, kw_only=True)
class Schema(Generic[T]):
    """A kind of stored JSON file. One file name has one schema.

    :param kind: written into the file.
    :param file: its name in a folder; a file of a kind of which a folder holds several has a name of its own.
    :param record: class of the content.
    :param former: name in version 1, where that was another.
    :param upgrade: turns what a file of version 1 holds into the form of today.
    :param computed: entries that are written beside those of the record, because they follow from them; they are not read.
    """

    kind: str
    file: str
    record: type[T]
    version: int = 2
    former: str = ""
    upgrade: Callable[[Any], Any] = lambda entries: entries
    computed: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """Kind and version, as the file has them."""
        return f"{self.kind}/{self.version}"

    def path(self, folder: Path) -> Path:
        """Where the file lies in a folder; where it will lie, if it is not there."""
        path, former = folder / self.file, folder / self.former
        return former if self.former and not os.path.lexists(path) and former.is_file() else path

    def entries(self, path: Path) -> Any:
        """The content of a file as JSON has it, in the form of today and without its mark.

        :raises ValueError: if it is corrupt; :class:`~mixln.errors.UnknownEntry` if a newer mixln wrote it; :class:`OSError` if it
            cannot be read.
        """
        data = read_json(path)
        if not isinstance(data, dict) or self._version(data.pop(KEY, 1)) == 1:
            try:
                return self.upgrade(data)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise RecordError(f"has not the form of a {self.kind}") from error
        return {name: entry for name, entry in data.items() if name not in self.computed}

    def read(self, path: Path) -> T:
        """The record in a file; raises what :meth:`entries` raises."""
        return from_json(self.record, self.entries(path))

    def marked(self, content: Any) -> dict[str, Any]:
        """A record, or a dict, as JSON has it, with kind and version."""
        return {KEY: self.mark, **to_json(content)}

    def text(self, content: Any) -> str:
        """The file's text."""
        return json.dumps(self.marked(content), indent=1, allow_nan=False)

    def write(self, folder: Path, content: Any, name: str = "") -> None:
        """Writes the file into a folder as a whole or not at all; a folder or link that has its name is set aside.

        :param name: of the file, where that is not the kind's.
        """
        path = folder / (name or self.file)
        free_name(path)
        write_atomic(path, self.text(content))

    def _version(self, mark: Any) -> int:
        known = {1: 1, self.mark: self.version}
        if isinstance(mark, int | str) and mark in known:
            return known[mark]
        if (newer := re.fullmatch(rf"{self.kind}/(\d+)", str(mark))) and int(newer[1]) > self.version:
            raise UnknownEntry(f"is {mark}, newer than {self.mark} of this version of mixln", KEY)
        raise RecordError(f"must be {self.mark}, got {json.dumps(mark)[:100]}", KEY)
