"""Converts tyro's error messages, boxes of many lines, to one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from mixln.cli.compare import task_asked
from mixln.compare.settings import CompareSettings
from mixln.compare.tasks import TASKS

WIDE = 10_000
"""Width in columns at which tyro breaks no line."""


def one_line(box: str, arguments: list[str]) -> str:
    """The error and the command whose help explains it.

    :param box: tyro's message, `WIDE` columns wide.
    :param arguments: the command line, without the program's name.
    """
    blocks = list(_blocks(box))
    first = blocks[0][0]
    command = _command(box, arguments)
    asked = task_asked(arguments)
    task = f" --task {asked}" if command == "mixln compare" and asked != CompareSettings.task else ""
    see = f"see {command}{task} --help"
    if error := re.match(r"Error parsing ([\w.-]+): (.*)", first):
        name, reason = error.groups()
        if not name.startswith("--"):  # raised by our own check of the settings
            step = re.search(r"\bafter\.(\w+)", name)  # options of a chain's step begin with its name
            return f"{step[1]}.{reason}" if step else reason
        given = re.search(r"(?:from|arguments:|base 10:|float:) (?P<list>\[)?(?P<text>.*?)(?(list)\])\.?$", reason)
        return f"{name} cannot be {given['text'] if given else reason}; {see} for what it takes"
    parts = []
    options = [line.strip().split()[0] for line in _under(blocks, "Missing from") if _depth(line) == 4]
    if options:
        parts.append(f"{', '.join(options)} must be given")
    unknown = [re.sub(r" \(applied to .*\)$", "", line.strip()) for line in _under(blocks, "Unrecognized")]
    unknown = [word for text in unknown for word in text.split(", ")]
    if any(block[0].startswith("Unrecognized") for block in blocks):
        parts.append(f"Unrecognized options: {' '.join(unknown)}")
        commands = next((b[0].partition(": ")[2] for b in blocks if b[0].startswith("Available subcommands")), "")
        if commands:
            return "; ".join([*parts, f"expected one of {commands}", see])
        alike = dict.fromkeys([*_alike(blocks, command), *options])
        if command == "mixln compare":
            parts += _of_other_tasks(unknown, asked)
        near = [get_close_matches(w, [o for o in alike if o != w], n=1) for w in unknown if w.startswith("-")]
        if "(applied to mixln)" in box:
            parts.append("options must follow the command")
        if names := ", ".join(name for found in near for name in found):
            parts.append(f"did you mean {names}?")
    parts = parts or [" ".join(line.strip() for line in blocks[0]).rstrip(".")]
    return "; ".join([*parts, see]).replace("?; see", "? See")


def _of_other_tasks(words: list[str], asked: str) -> Iterator[str]:
    """States which of these options belong to another task."""
    for name, task in TASKS.items():
        known = [word for word in words if word in set(_options(task.settings))]
        if known and name != asked:
            yield f"{', '.join(known)} {'is' if len(known) == 1 else 'are'} for --task {name}"
            return


def _options(settings: Any) -> Iterator[str]:
    """The options of a class of settings, including those of nested classes."""
    hints = get_type_hints(settings)
    for item in fields(settings):
        if is_dataclass(hints[item.name]):
            yield from _options(hints[item.name])
        yield f"--{item.name.replace('_', '-')}"


def _blocks(box: str) -> Iterator[list[str]]:
    """The parts of the box between its horizontal rules, without title and frame.

    The frame consists of box-drawing characters, or of spaces and dashes where the terminal lacks them.
    """
    block: list[str] = []
    for line in [*re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:], "---"]:
        inner = re.sub(r"^(│ |  )|\s*│?\s*$", "", line)
        if re.fullmatch(r"[╰─╯-]{3,}", inner.strip()):
            if block:
                yield block
            block = []
        elif inner:
            block.append(inner)


def _under(blocks: list[list[str]], heading: str) -> list[str]:
    """The text after a heading and its colon, or else the lines below it."""
    for block in blocks:
        if block[0].startswith(heading):
            rest = block[0].partition(":")[2].strip()
            return [rest] if rest else [line for line in block[1:] if not line.startswith("Arguments are applied")]
    return []


def _alike(blocks: list[list[str]], command: str) -> list[str]:
    """The options of this command that tyro suggests as similar."""
    places: dict[str, set[str]] = {}
    option = ""
    for block in blocks:
        if not re.match(r"Perhaps you meant|Arguments similar to", block[0]):
            continue
        for line in block[1:]:
            if _depth(line) == 4 and line.strip().startswith("-"):
                option = line.split()[0]
                places.setdefault(option, set())
            elif option and (place := re.fullmatch(r"in (mixln .*) --help", line.strip())):
                places[option].add(place[1])
    return [option for option, commands in places.items() if command in commands]


def _command(box: str, arguments: list[str]) -> str:
    """The command that was meant, as far as it is known."""
    if named := re.search(r"(?:Missing from |applied to )(mixln [a-z ]+)[:)]", box):
        return named[1]
    words = [word for word in arguments if re.fullmatch(r"[a-z]+", word)]
    name = next((word for word in words if f"mixln {word} --help" in box), words[0] if words else "")
    return f"mixln {name}" if name and "Available subcommands" not in box else "mixln"


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
