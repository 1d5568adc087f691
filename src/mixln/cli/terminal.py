"""What the commands print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, RenderHook
from rich.segment import Segment

from mixln.launch import launched

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult


def plain(text: str, keep: str = "") -> str:
    """A text without anything that a terminal obeys: a control character is shown as its escape sequence.

    :param keep: characters that stay as they are, for example a line break.
    """
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


@dataclass(frozen=True)
class _Plain:
    """Something to print, whose own text is plain; colours and tables are the console's."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(plain(segment.text, keep="\n"), segment.style)


class _Names(RenderHook):
    """Makes everything that a console prints plain: names come from files and folders of others."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(content) for content in renderables]


class Terminal:
    """Tables and lines on standard output, as they are: nothing in a name is taken for markup, and none reaches the terminal as a
    control sequence. Of several processes, rank 0 speaks."""

    def __init__(self) -> None:
        self.console = Console(quiet=launched()[0] > 0)
        self.console.push_render_hook(_Names())

    def show(self, table: RenderableType) -> None:
        self.console.print(table)

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line, which the terminal breaks and not we: a path in it can be copied."""
        self.console.print(plain(text, keep="\n"), highlight=False, markup=False, soft_wrap=True, style=style)

    def prose(self, text: str) -> None:
        """Sentences, which are broken between words."""
        self.console.print(plain(text, keep="\n"), highlight=False, markup=False)

    def note(self, text: str) -> None:
        """A sentence about a result."""
        self.prose(f"• {text}")

    def news(self, text: str) -> None:
        """What is going on, fainter than results."""
        self.line(text, style="dim")
