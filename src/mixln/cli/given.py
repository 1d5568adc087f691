"""Which options a command line gives: an option that is given is never taken for one that was left out, even with its default's value."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from mixln.errors import SettingsError

ALTERNATIVES = (("steps", "tokens"), ("steps", "epochs"), ("tokenizer", "vocabulary-size"))
"""Pairs of options that say the same in two ways."""

CHAINED = {"finetune": "finetune", "evaluate": "evaluate", "reward": "rlhf", "rlhf": "rlhf"}
"""Prefix of a `--chain` step's options → the step."""


def given(arguments: Sequence[str]) -> dict[str, str]:
    """Option → its first value, for all options of a command line; without dashes in front, and with dashes within.

    tyro knows no abbreviations, and a value of its own does not begin with two dashes. Of an option that is repeated, the last counts.
    """
    found: dict[str, str] = {}
    for index, text in enumerate(arguments):
        if text.startswith("--"):
            name, equals, value = text[2:].partition("=")
            found[name.replace("_", "-")] = value if equals else next(iter(arguments[index + 1 :]), "")
    return found


def alternatives(options: Collection[str]) -> set[str]:
    """The options that say in another way what one of these says: they must not be taken from a stored experiment beside it."""
    return {other for pair in ALTERNATIVES for mine, other in (pair, pair[::-1]) if mine in options}


def check_filled(arguments: Sequence[str]) -> None:
    """:raises SettingsError: if an option or an argument is an empty text: no file, model or number is called so."""
    before = ""
    for text in arguments:
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise SettingsError(f"{text!a} is not UTF-8, and reports and JSON files could not name it; rename it")
        name, equals, value = text.partition("=")
        path = value if equals and text.startswith("--") else text
        if path.startswith("~") and os.path.expanduser(path) == path:
            raise SettingsError(
                f"{path} begins with the home of a user that this machine does not know; write the path in full"
            )
        if not text.strip():
            what = before if before.startswith("--") and "=" not in before else "an argument"
        elif text.startswith("--") and equals and not value.strip():
            what = name
        else:
            before = text
            continue
        raise SettingsError(
            f"{what} cannot be ''; see mixln {arguments[0]} --help for what it takes".replace("  ", " ")
        )


def check_together(options: Collection[str], command: Any) -> None:
    """Refuses options of which one would be ignored beside another, or without the step that it is for.

    :raises SettingsError: if there are any.
    """
    for name in options:
        step, _, own = name.rpartition(".")
        for pair in ALTERNATIVES:
            other = f"{step}.{pair[1]}".removeprefix(".")
            if own == pair[0] and other in options:
                raise SettingsError(f"{name} and {other} are two ways to say the same; give only one of them")
    chain = getattr(getattr(command, "after", None), "chain", ())
    for name in options:
        step = CHAINED.get(name.partition(".")[0]) if "." in name else None
        if step is not None and step not in chain:
            raise SettingsError(f"{name} is for --chain {step}, which is not asked for; add it, or leave out --{name}")
