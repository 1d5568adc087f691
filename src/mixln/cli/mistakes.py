"""A command line that cannot be parsed: what tyro draws as a box of many lines becomes one."""

from __future__ import annotations

import re
from difflib import get_close_matches


def one_line(box: str, arguments: list[str]) -> str:
    """What was wrong and where to look, without frame, title and the help of every option.

    :param box: what tyro wrote.
    :param arguments: the command line, without the program's name.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[│╭╮╰╯─]+|-{3,}", " ", line).strip() for line in plain.splitlines()[1:]]
    words = " ".join(line for line in lines if line)
    # Where a command has commands of its own, tyro says more of the same.
    words = re.sub(r" or misplaced| \(applied to .*?\)| Arguments are applied to .*? can matter\.", "", words)
    command = f"mixln {arguments[0]}" if re.match(r"[a-z]", arguments[0]) and "ubcommands" not in words else "mixln"
    help_ = f"see {command} --help"
    if unreadable := re.search(r"Error parsing (--[\w.-]+):.*?(?:\['(.*?)'\]|: '(.*?)')", words):
        given = (unreadable[2] or unreadable[3]).replace("', '", " ")
        return f"{unreadable[1]} cannot be {given!r}; {help_} for what it takes"
    if own := re.search(r"Error parsing ([\w.-]+): (.*?)( For full helptext|$)", words):
        step = re.search(r"\bafter\.(\w+)", own[1])  # whose settings begin with its name
        return f"{step[1]}.{own[2]}" if step else own[2]
    if words.startswith("Missing from"):
        missing = [line.split()[0] for line in lines if re.match(r"--[\w.-]+ |[A-Z]+( \[.*)?$", line)]
        return f"{', '.join(missing)} must be given; {help_}"
    if unknown := re.match(r"Unrecognized options: (.*?) (?:Perhaps|Available|For full)", words):
        given = unknown[1].replace(", ", " ")
        said = f"Unrecognized options: {given}"
        if known := re.search(r"Available subcommands: (.*?) For full", words):
            return f"{said}; the commands are {known[1]}"
        near = get_close_matches(given.split()[0], _options(lines, command), n=1, cutoff=0.0)
        return f"{said}; {f'did you mean {near[0]}? S' if near else 's'}{help_[1:]}"
    return f"{words.split(' For full helptext')[0]}; {help_}"


def _options(lines: list[str], command: str) -> list[str]:
    """The options that tyro finds alike: those of this command, or all where it has none."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if option := re.match(r"--[\w.-]+", line):
            found.setdefault(option[0], [])
        elif (place := re.match(r"in (mixln .*?) --help", line)) and found:
            found[list(found)[-1]].append(place[1])
    return [option for option, places in found.items() if command in places] or list(found)
