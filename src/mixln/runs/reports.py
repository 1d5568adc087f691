"""Folders into which a command writes a report, replacing its previous one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mixln.files import check_writable, remove_written, set_aside, settle, temporary_folder
from mixln.runs.checksums import difference_of, read_sums, sums_of, write_sums
from mixln.runs.folder import RunFolder, RunKind, State

log = logging.getLogger(__name__)


class ReportFolder:
    """A folder into which a command writes a report, replacing its previous one.

    :param kind: kind of report in one word; stored in `asked.json`.
    :param earlier: folder without `asked.json` → whether it holds a report of the first versions of mixln.
    """

    def __init__(self, folder: Path, kind: str, earlier: Callable[[Path], bool] = lambda folder: False) -> None:
        self.folder, self.kind, self.earlier = folder, kind, earlier
        self.run = RunFolder(folder, RunKind(noun=kind))

    def check(self) -> None:
        """Checks, without writing, that the folder is free or holds a report of this kind.

        :raises StoreError: if it holds anything else.
        """
        check_writable(self.folder)
        if self.run.state is State.FREE or (self.run.state is State.FOREIGN and self._is_earlier()):
            return
        if (self.run.request() or {}).get("kind") != self.kind:
            raise self.run.foreign()

    def _is_earlier(self) -> bool:
        try:
            return self.earlier(self.folder)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def claim(self) -> None:
        """Claims the folder for reports of this kind."""
        if self.run.state is not State.BEGUN:
            self.run.begin({"kind": self.kind})

    def publish(self, write: Callable[[Path], Sequence[Path]]) -> list[Path]:
        """Replaces the report in the folder. Files of other origin with the same names are renamed.

        :param write: writes the report into an empty folder and returns the paths of its files.
        :returns: the paths in `folder`, in the same order.
        """
        self.claim()
        try:
            listed = read_sums(self.folder) or {}
        except ValueError:
            listed = {}
        mine = {name for name, entry in listed.items() if not difference_of(self.folder, {name: entry})}
        with temporary_folder(self.folder / "report") as made:
            names = [path.name for path in write(made)]
            settle(made)
            for path in (self.folder / name for name in names if name not in mine):
                if os.path.lexists(path):
                    log.warning(f"{path} was not written by this command; it was renamed to {set_aside(path).name}")
            # The checksums come first: if the process is killed between two renames, the next run recognizes its own files.
            write_sums(self.folder, {**{name: listed[name] for name in mine}, **sums_of(made)})
            for name in names:
                os.replace(made / name, self.folder / name)
        remove_written(self.folder, mine - set(names))
        write_sums(self.folder, sums_of(self.folder, *names))
        return [self.folder / name for name in names]
