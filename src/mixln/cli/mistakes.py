"""Parses a command line; what is wrong with it becomes one line, in place of the box of many lines that tyro draws.

tyro reports what it rejects as typed events, through `tyro._errors`. That module is not part of tyro's stable interface, so
`pyproject.toml` admits only the releases that were tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn, Union

import tyro
from tyro import _errors

from mixln.cli.compare import COMMANDS, task_asked
from mixln.compare.settings import CompareSettings
from mixln.errors import SettingsError

SIMILARITY = 0.7
"""Similarity (`difflib`, 0 to 1) from which an option is suggested for an unknown one."""


def parse(commands: Any, arguments: list[str]) -> Any:
    """Parses a command line of mixln.

    :param commands: the commands, as a union for tyro.
    :param arguments: the command line, without the program's name.
    :raises SettingsError: if it cannot be parsed: what is wrong and which help to read.
    """
    try:
        return _parse(commands, arguments)
    except _Rejected as rejected:
        # An error in settings below a prefix is known to tyro's own error alone, which the event does not carry.
        place = getattr(rejected.__context__, "arg", "")
        raise SettingsError(_one_line(rejected.event, str(place), commands, arguments)) from None


class _Rejected(Exception):
    """tyro has rejected a command line."""

    def __init__(self, event: _errors.ParseErrorEvent) -> None:
        super().__init__()
        self.event: Any = event


def _reject(event: _errors.ParseErrorEvent) -> NoReturn:
    raise _Rejected(event)


def _parse(commands: Any, arguments: list[str]) -> Any:
    with _errors.on_parse_error(_reject):
        return tyro.cli(
            commands,
            prog="mixln",
            args=arguments,
            description="Put any normalization placement into a Hugging Face transformer, compare placements on equal terms, "
            "and measure what each layer contributes.",
            config=(tyro.conf.FlagCreatePairsOff,),
        )


def _one_line(event: _errors.ParseErrorEvent, place: str, commands: Any, arguments: list[str]) -> str:
    """What is wrong and where to look.

    :param place: dotted name of the settings that refused their values, if they did.
    """
    command, parser, subcommands = _reached(commands, arguments)
    asked = task_asked(arguments)
    task = f" --task {asked}" if command == "mixln compare" and asked != CompareSettings.task else ""
    look = f"see {command}{task} --help"
    match event:
        case _errors.InstantiationFailure(argument=None, message=reason):  # our own check of the settings raised it
            step = re.search(r"\bafter\.(\w+)", place)  # whose options begin with its name
            return f"{step[1]}.{reason}" if step else reason
        case _errors.InstantiationFailure(argument=argument, message=reason):
            given = re.search(
                r"(?:from|arguments:|base 10:|float:) (?P<list>\[)?(?P<text>.*?)(?(list)\])\.?$", reason, re.M
            )
            return f"{_name(argument)} cannot be {given['text'] if given else reason}; {look} for what it takes"
        case _errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{_name(argument)} must be one of {', '.join(choices)}, got {value!r}; {look}"
        case _errors.BadValue(argument=argument):
            return f"{_name(argument)} must be given a value; {look}"
    parts, unknown = [], []
    if isinstance(event, _errors.MissingArgs):
        parts.append(f"{', '.join(_name(missing.arg) for missing in event.missing_arguments)} must be given")
        unknown = event.unrecognized_tokens
    elif isinstance(event, _errors.UnrecognizedArgs):
        unknown = event.tokens
    if unknown:
        parts.append(f"Unrecognized options: {' '.join(unknown)}")
    if subcommands:
        parts.append(f"first comes one of {', '.join(subcommands)}")
    elif unknown:
        parts += _hints(unknown, list(_options(parser)), command, arguments)
    return "; ".join([*parts, look]).replace("?; see", "? See")


def _hints(unknown: list[str], options: list[str], command: str, arguments: list[str]) -> Iterator[str]:
    """What may have been meant by options that a command does not have."""
    if command == "mixln compare":
        yield from _of_other_tasks(unknown, task_asked(arguments))
    if arguments[0] != command.split()[1]:
        yield "a command's options come after it"
    near = [get_close_matches(word, options, n=1, cutoff=SIMILARITY) for word in unknown if word.startswith("-")]
    if names := ", ".join(name for found in near for name in found if name not in unknown):
        yield f"did you mean {names}?"


def _of_other_tasks(words: list[str], asked: str) -> Iterator[str]:
    """Which of these options another task has."""
    tasks = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())]  # noqa: UP007
    for name, parser in _choice(tasks).parser_from_name.items():
        options = set(_options(parser.evaluate()))
        found = [word for word in words if word in options]
        if found and name != asked:
            yield f"{', '.join(found)} {'is' if len(found) == 1 else 'are'} for --task {name}"
            return


def _reached(commands: Any, arguments: list[str]) -> tuple[str, Any, list[str]]:
    """The command that a line asks for, its parser, and the commands of which one must still be named."""
    path, parser, choice = "mixln", None, _choice(commands)
    for word in arguments:
        if choice and word in choice.parser_from_name:
            path, parser = f"{path} {word}", choice.parser_from_name[word].evaluate()
            choice = next(iter(parser.subparsers_from_intern_prefix.values()), None)
    return path, parser, list(choice.parser_from_name) if choice else []


def _choice(commands: Any) -> Any:
    """The commands of a union by name, as tyro reports them when none is named."""
    try:
        _parse(commands, [])
    except _Rejected as rejected:
        return rejected.event.subcommand_spec


def _options(parser: Any) -> Iterator[str]:
    """The options of a command."""
    for argument in parser.args:
        if not argument.is_positional() and tyro.conf.Suppress not in argument.field.markers:
            yield argument.lowered.name_or_flags[0]
    for child in parser.child_from_prefix.values():
        yield from _options(child)


def _name(argument: Any) -> str:
    """An option, or the placeholder of a positional argument, as the help shows it."""
    return str(argument.lowered.metavar).split()[0] if argument.is_positional() else argument.lowered.name_or_flags[0]
