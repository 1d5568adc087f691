"""Bounds on the growth of a text in a tokenizer's normalizer: a file of a few hundred bytes can ask for more memory than there is."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from mixln.errors import DataError

GROWTH = 20
"""Characters that a normalizer may make of one. Unicode's own forms make at most 18 (U+FDFA), usual tokenizers 1."""

STEPS = 500
"""Steps of a normalizer at most."""
REPEATED = 4
"""Number of matches of a step's pattern in a sample text."""


def check_normalizer(name: str, tokenizer: Any = None) -> None:
    """Checks a tokenizer's normalizer without running it. The library ends the process where it has no memory left.

    :param name: a folder, of which `tokenizer.json` is looked at before it is loaded, or what to call the tokenizer.
    :param tokenizer: the same, loaded: from the hub, or from files of another kind.
    :raises DataError: if it makes too much of a character.
    """
    if tokenizer is not None:
        text = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else "{}"
    elif (file := Path(name) / "tokenizer.json").is_file():
        text = file.read_text("utf-8", "replace")
    else:
        return
    try:
        steps = list(_steps(json.loads(text).get("normalizer")))
        found = _growth(steps[: STEPS + 1])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return  # whoever loads it says what is wrong with it
    if found > GROWTH or len(steps) > STEPS:
        raise DataError(
            f"tokenizer {name!r}: its normalizer makes more than {GROWTH} characters of one, or has more than {STEPS} steps; "
            "mend normalizer in tokenizer.json"
        )


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    """The steps applied to a text, in order."""
    if normalizer is None:
        return
    if normalizer["type"] == "Sequence":
        for each in normalizer["normalizers"]:
            yield from _steps(each)
    else:
        yield normalizer


def _growth(steps: list[dict[str, Any]]) -> float:
    """A bound: what is replaced by name is tried on what it looks for and on what it makes; of other steps, the largest they can do."""
    blind = prod(_largest(step) for step in steps)
    tried = [
        (start, text)
        for start, step in enumerate(steps)
        if step["type"] in ("Replace", "Prepend")
        for text in (step.get("pattern", {}).get("String") or "a", step.get("content") or step.get("prepend") or "a")
    ]
    wholes = ((0, text) for _, text in tried)
    # Repeated, for what is looked for may begin in one of them and end in the next.
    return blind * max((_tried(steps[start:], text * REPEATED) for start, text in chain(tried, wholes)), default=1.0)


def _largest(step: dict[str, Any]) -> int:
    """Characters that a step makes of one, where the characters are not known that it looks for."""
    if step["type"] == "Replace" and "String" not in step["pattern"]:
        return max(1, len(step["content"]))
    if step["type"] == "Precompiled":  # a trie, its size before it, and then what it leads to
        table = base64.b64decode(step["precompiled_charsmap"])
        made = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
        return max(1, *(len(text.decode("utf-8", "replace")) for text in made))
    return 1


def _tried(steps: list[dict[str, Any]], text: str) -> float:
    """Growth factor of a text's length; for a text that is too long, only a lower bound."""
    before = len(text)
    for step in steps:
        if step["type"] == "Prepend":
            text = step["prepend"] + text
        elif step["type"] == "Replace" and "String" in step["pattern"]:
            looked_for, made = step["pattern"]["String"], step["content"]
            if len(text) + text.count(looked_for) * (len(made) - len(looked_for)) > GROWTH * before:
                return GROWTH + 1.0
            text = text.replace(looked_for, made)
        if len(text) > GROWTH * before:
            return GROWTH + 1.0
    return len(text) / before
