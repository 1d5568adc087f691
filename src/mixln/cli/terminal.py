"""Terminal output of the commands."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mixln.launch import launched


def plain(text: str, keep: str = "") -> str:
    """Replaces control characters by visible escape sequences, so that a name cannot control the terminal.

    :param keep: characters that are not replaced, for example a line feed.
    """
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


class SafeConsole(Console):
    """A console that escapes control characters in texts, such as names of files and models, and writes only its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text, keep="\n"), segment.style)


class Terminal:
    """Prints tables and lines on standard output. Names are neither interpreted as markup nor as control sequences.

    Of several processes, only rank 0 prints. The most recent terminal also prints the log records of mixln.
    """

    def __init__(self) -> None:
        self.console = SafeConsole(quiet=launched()[0] > 0)
        logger = logging.getLogger("mixln")
        logger.setLevel(logging.INFO)
        logger.handlers = [old for old in logger.handlers if not isinstance(old, LogLines)] + [LogLines(self)]

    def show(self, table: RenderableType) -> None:
        self.console.print(table)

    def line(self, text: str = "", style: str | None = None) -> None:
        """Prints one line without inserting line breaks, so that a path in it can be copied."""
        self.console.print(plain(text, keep="\n"), highlight=False, markup=False, soft_wrap=True, style=style)

    def prose(self, text: str) -> None:
        """Prints sentences, wrapped between words."""
        self.console.print(plain(text, keep="\n"), highlight=False, markup=False)

    def note(self, text: str) -> None:
        """Prints a sentence about a result. A command in backticks is printed on its own line, so that it can be copied."""
        words, command, rest = re.fullmatch(r"(.*?)(?:`(mixln [^`]+)`(.*))?", text, re.DOTALL).groups("")  # type: ignore[union-attr]
        self.prose(f"• {words}".rstrip())
        if command:
            self.line(f"  {command}")
        if rest.strip(" ."):
            self.prose(f"  {rest.strip()}")

    def news(self, text: str) -> None:
        """Prints a message on the progress, dimmer than results."""
        self.line(text, style="dim")

    def loading(self) -> None:
        """Says that libraries are imported now, which takes seconds, so that a command is never silent for long."""
        self.news("loading libraries")


class LogLines(logging.Handler):
    """Prints log records in a terminal, one per line."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self.terminal.news(f"{'warning: ' if record.levelno >= logging.WARNING else ''}{record.getMessage()}")
