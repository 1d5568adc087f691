"""The options given on a command line. An option given with the value of its default still counts as given."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from mixln.errors import SettingsError

ALTERNATIVES = (("steps", "tokens"), ("steps", "epochs"), ("tokenizer", "vocabulary-size"))
"""Pairs of options that set the same quantity."""

CHAINED = {"finetune": "finetune", "evaluate": "evaluate", "reward": "rlhf", "rlhf": "rlhf"}
"""Prefix of a `--chain` step's options → the step."""

OF_CHECKPOINT = ("model", "placement", "layers", "init", "tokenizer", "vocabulary-size")
"""Options of a training that a checkpoint decides if it starts from one."""


def given(arguments: Sequence[str]) -> dict[str, str]:
    """Option → its first value, for all options of a command line; names are without leading dashes, and with dashes for underscores.

    tyro has no abbreviated options, and no value begins with two dashes. The last of several equal options counts.
    """
    options: dict[str, str] = {}
    for index, text in enumerate(arguments):
        if text.startswith("--"):
            name, equals, value = text[2:].partition("=")
            options[name.replace("_", "-")] = value if equals else next(iter(arguments[index + 1 :]), "")
    return options


def alternatives(options: Collection[str]) -> set[str]:
    """The options that set the same quantity as one of these: they must not be taken from a stored experiment as well."""
    return {other for pair in ALTERNATIVES for option, other in (pair, pair[::-1]) if option in options}


def check_filled(arguments: Sequence[str]) -> None:
    """Checks every argument as text.

    :raises SettingsError: if one is empty, is not UTF-8, or begins with the home of an unknown user.
    """
    before = ""
    for text in arguments:
        # Python decodes arguments with surrogateescape: a byte that is not UTF-8 becomes a lone surrogate.
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise SettingsError(f"{text!a} is not UTF-8, so reports and JSON files cannot contain it; rename it")
        name, equals, value = text.partition("=")
        path = value if equals and text.startswith("--") else text
        if path.startswith("~") and os.path.expanduser(path) == path:
            raise SettingsError(
                f"{path} begins with the home of a user who is not known on this machine; give the full path"
            )
        if not text.strip():
            empty = before if before.startswith("--") and "=" not in before else "an argument"
        elif text.startswith("--") and equals and not value.strip():
            empty = name
        else:
            before = text
            continue
        raise SettingsError(f"{empty} cannot be ''; see mixln {arguments[0]} --help".replace("  ", " "))


def check_together(options: Collection[str], command: Any) -> None:
    """Refuses options that would be ignored: beside an alternative, beside a checkpoint, or without their step of the chain.

    :param command: the parsed command; its `UNUSED_WITH`, if it has one, maps an option to those that are ignored beside it.

    :raises SettingsError: if there is such an option.
    """
    for name in options:
        step, _, option = name.rpartition(".")
        for pair in ALTERNATIVES:
            other = f"{step}.{pair[1]}".removeprefix(".")
            if option == pair[0] and other in options:
                raise SettingsError(f"{name} and {other} set the same quantity; give only one of them")
    for name in OF_CHECKPOINT if "from" in options else ():
        if name in options:
            raise SettingsError(
                f"{name} and from: the checkpoint decides the {name}; omit --{name}, or train without --from"
            )
    if {"extend", "from"} <= set(options):
        raise SettingsError(
            "extend and from: only an experiment can be extended; omit --extend, or train without --from"
        )
    for option, others in getattr(command, "UNUSED_WITH", {}).items():
        if option in options and (unused := [name for name in others if name in options]):
            raise SettingsError(
                f"{option} and {unused[0]}: {option} leaves nothing to choose; omit --{unused[0]}, or --{option}"
            )
    chain = getattr(getattr(command, "after", None), "chain", ())
    for name in options:
        step = CHAINED.get(name.partition(".")[0]) if "." in name else None
        if step is not None and step not in chain:
            raise SettingsError(f"{name} needs --chain {step}, which is not given; add it, or remove --{name}")
