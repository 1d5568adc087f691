"""What the commands print."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import Console

from mixln.launch import launched

if TYPE_CHECKING:
    from rich.console import RenderableType


class Terminal:
    """Tables and lines on standard output, as they are: nothing in a name is taken for markup. Of several processes, rank 0 speaks."""

    def __init__(self) -> None:
        self.console = Console(quiet=launched()[0] > 0)

    def show(self, table: RenderableType) -> None:
        self.console.print(table)

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line, which the terminal breaks and not we: a path in it can be copied."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)

    def prose(self, text: str) -> None:
        """Sentences, which are broken between words."""
        self.console.print(text, highlight=False, markup=False)

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
