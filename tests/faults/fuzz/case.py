"""One input of the fuzzer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Change = tuple[str, tuple[Any, ...]]
"""A file, and what is done to it: an operation of :mod:`tests.faults.fuzz.files` or :mod:`tests.faults.fuzz.traps`, and its arguments."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command and the folder that it runs in.

    :param command: with names of files in that folder.
    :param changes: what is done to the materials beforehand.
    :param environment: variables that are set; `None` unsets one.
    :param umask: of the process.
    :param fresh: run it in a new interpreter: libraries read some variables when they are imported.
    """

    kind: str
    command: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    environment: tuple[tuple[str, str | None], ...] = ()
    umask: int = 0o022
    fresh: bool = False

    def option(self, name: str, default: str = "") -> str:
        """The last value of an option."""
        found = default
        for word, following in zip(self.command, (*self.command[1:], ""), strict=True):
            if word == name:
                found = following
            elif word.startswith(f"{name}="):
                found = word.partition("=")[2]
        return found

    def __str__(self) -> str:
        words = [word if len(word) <= 60 else f"{word[:60]}… ({len(word)})" for word in self.command]
        parts = {"changes": self.changes, "environment": self.environment}
        more = "".join(f"; {name} {str(part)[:600]}" for name, part in parts.items() if part)
        mask = "" if self.umask == 0o022 else f"; umask {self.umask:03o}"
        return f"{self.kind}: mixln {words}{more}{mask}{'; a new interpreter' if self.fresh else ''}"
