"""What the commands print."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mixln.launch import launched


def plain(text: str, keep: str = "") -> str:
    """A text without anything that a terminal obeys: a control character is shown as its escape sequence.

    :param keep: characters that stay as they are, for example a line break.
    """
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


class SafeConsole(Console):
    """A console that writes control characters of its own alone: those of texts, such as names of files and models, are escaped."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text, keep="\n"), segment.style)


class Terminal:
    """Tables and lines on standard output, as they are: nothing in a name is taken for markup, and none reaches the terminal as a
    control sequence. Of several processes, only rank 0 prints.

    The newest terminal also prints what mixln logs.
    """

    def __init__(self) -> None:
        self.console = SafeConsole(quiet=launched()[0] > 0)
        logger = logging.getLogger("mixln")
        logger.setLevel(logging.INFO)
        logger.handlers = [old for old in logger.handlers if not isinstance(old, LogLines)] + [LogLines(self)]

    def show(self, table: RenderableType) -> None:
        self.console.print(table)

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line, which the terminal breaks and not we: a path in it can be copied."""
        self.console.print(plain(text, keep="\n"), highlight=False, markup=False, soft_wrap=True, style=style)

    def prose(self, text: str) -> None:
        """Sentences, which are broken between words."""
        self.console.print(plain(text, keep="\n"), highlight=False, markup=False)

    def note(self, text: str) -> None:
        """A sentence about a result; a command in it, between backticks, stands on a line of its own that can be copied whole."""
        words, command, rest = re.fullmatch(r"(.*?)(?:`(mixln [^`]+)`(.*))?", text, re.DOTALL).groups("")  # type: ignore[union-attr]
        self.prose(f"• {words}".rstrip())
        if command:
            self.line(f"  {command}")
        if rest.strip(" ."):
            self.prose(f"  {rest.strip()}")

    def news(self, text: str) -> None:
        """What is going on, fainter than results."""
        self.line(text, style="dim")


class LogLines(logging.Handler):
    """Prints log records in a terminal, one line each."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self.terminal.news(f"{'warning: ' if record.levelno >= logging.WARNING else ''}{record.getMessage()}")
