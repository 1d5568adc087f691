"""Parses a command line, and converts tyro's error messages, boxes of many lines, to one line.

tyro reports errors as typed events through `tyro._errors`, a private module that may change in any release. With a release that
lacks the events, or has different ones, the message is generic.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn, Union

import tyro

from mixln.cli.compare import COMMANDS, task_asked
from mixln.compare.settings import CompareSettings
from mixln.errors import MixlnError, SettingsError

SIMILARITY = 0.7
"""Similarity (`difflib`, 0 to 1) from which an option is suggested for an unknown one."""


def parse(commands: Any, arguments: list[str]) -> Any:
    """Parses a command line of mixln.

    :param commands: the commands, as a union for tyro.
    :param arguments: the command line, without the program's name.
    :raises SettingsError: if it has a mistake; the message says what is wrong and which help explains it.
    """
    try:
        with redirect_stderr(io.StringIO()):  # without the hook, tyro prints its box
            return _parse(commands, arguments)
    except _Rejected as rejected:
        raise SettingsError(_one_line(rejected, commands, arguments)) from None
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            raise
        raise SettingsError(_generic(stop)) from None


class _Rejected(Exception):
    """tyro has rejected a command line."""

    def __init__(self, event: Any) -> None:
        super().__init__()
        self.event = event


def _reject(event: Any) -> NoReturn:
    raise _Rejected(event)


def _parse(commands: Any, arguments: list[str]) -> Any:
    with _hook():
        return tyro.cli(
            commands,
            prog="mixln",
            args=arguments,
            description="Put any normalization placement into a Hugging Face transformer, compare placements fairly, "
            "and measure what each layer contributes.",
            config=(tyro.conf.FlagCreatePairsOff,),
        )


def _hook() -> AbstractContextManager[None]:
    """A context in which tyro raises `_Rejected` for an error; without effect if this release of tyro has no such hook."""
    try:
        from tyro._errors import on_parse_error

        return on_parse_error(_reject)
    except (ImportError, TypeError):
        return nullcontext()


def _generic(error: BaseException) -> str:
    """The message of our own check of the settings if it failed, or else a message that needs nothing from tyro."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, MixlnError):
        cause = cause.__context__
    return str(cause or "the command line cannot be parsed; see mixln --help and mixln COMMAND --help")


def _one_line(rejected: _Rejected, commands: Any, arguments: list[str]) -> str:
    """The error and the command whose help explains it."""
    try:
        return _explained(rejected, commands, arguments)
    except (ImportError, AttributeError):  # this release of tyro has different events
        return _generic(rejected)


def _explained(rejected: _Rejected, commands: Any, arguments: list[str]) -> str:
    from tyro import _errors

    event = rejected.event
    command, parser, subcommands = _reached(commands, arguments)
    asked = task_asked(arguments)
    task = f" --task {asked}" if command == "mixln compare" and asked != CompareSettings.task else ""
    see = f"see {command}{task} --help"
    match event:
        case _errors.InstantiationFailure(argument=None, message=reason):  # raised by our own check of the settings
            # Only tyro's own error knows the dotted name of the settings.
            place = str(getattr(rejected.__context__, "arg", ""))
            step = re.search(r"\bafter\.(\w+)", place)  # options of a chain's step begin with its name
            return f"{step[1]}.{reason}" if step else reason
        case _errors.InstantiationFailure(argument=argument, message=reason):
            given = re.search(
                r"(?:from|arguments:|base 10:|float:) (?P<list>\[)?(?P<text>.*?)(?(list)\])\.?$", reason, re.M
            )
            return f"{_name(argument)} cannot be {given['text'] if given else reason}; {see} for what it takes"
        case _errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{_name(argument)} must be one of {', '.join(choices)}, got {value!r}; {see}"
        case _errors.BadValue(argument=argument):
            return f"{_name(argument)} must be given a value; {see}"
    parts, unknown = [], []
    if isinstance(event, _errors.MissingArgs):
        parts.append(f"{', '.join(_name(missing.arg) for missing in event.missing_arguments)} must be given")
        unknown = event.unrecognized_tokens
    elif isinstance(event, _errors.UnrecognizedArgs):
        unknown = event.tokens
    if unknown:
        parts.append(f"Unrecognized options: {' '.join(unknown)}")
    if subcommands:
        parts.append(f"expected one of {', '.join(subcommands)}")
    elif unknown:
        parts += _hints(unknown, list(_options(parser)), command, arguments)
    return "; ".join([*parts, see]).replace("?; see", "? See")


def _hints(unknown: list[str], options: list[str], command: str, arguments: list[str]) -> Iterator[str]:
    """Hints on options that the command does not have."""
    if command == "mixln compare":
        yield from _of_other_tasks(unknown, task_asked(arguments))
    if arguments[0] != command.split()[1]:
        yield "options must follow the command"
    near = [get_close_matches(word, options, n=1, cutoff=SIMILARITY) for word in unknown if word.startswith("-")]
    if names := ", ".join(name for names in near for name in names if name not in unknown):
        yield f"did you mean {names}?"


def _of_other_tasks(words: list[str], asked: str) -> Iterator[str]:
    """States which of these options belong to another task."""
    tasks = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())]  # noqa: UP007
    for name, parser in _choice(tasks).parser_from_name.items():
        options = set(_options(parser.evaluate()))
        known = [word for word in words if word in options]
        if known and name != asked:
            yield f"{', '.join(known)} {'is' if len(known) == 1 else 'are'} for --task {name}"
            return


def _reached(commands: Any, arguments: list[str]) -> tuple[str, Any, list[str]]:
    """The command of a command line, its parser, and its subcommands if one of them is missing."""
    path, parser, choice = "mixln", None, _choice(commands)
    for word in arguments:
        if choice and word in choice.parser_from_name:
            path, parser = f"{path} {word}", choice.parser_from_name[word].evaluate()
            choice = next(iter(parser.subparsers_from_intern_prefix.values()), None)
    return path, parser, list(choice.parser_from_name) if choice else []


def _choice(commands: Any) -> Any:
    """The commands of a union by name, from the error that tyro reports on an empty command line."""
    try:
        _parse(commands, [])
    except _Rejected as rejected:
        return rejected.event.subcommand_spec


def _options(parser: Any) -> Iterator[str]:
    """The options of a command, including those of nested settings."""
    for argument in parser.args:
        if not argument.is_positional() and tyro.conf.Suppress not in argument.field.markers:
            yield argument.lowered.name_or_flags[0]
    for child in parser.child_from_prefix.values():
        yield from _options(child)


def _name(argument: Any) -> str:
    """An option, or the placeholder of a positional argument, as the help shows it."""
    return str(argument.lowered.metavar).split()[0] if argument.is_positional() else argument.lowered.name_or_flags[0]
