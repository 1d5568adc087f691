"""Limits how much a tokenizer's normalizer can lengthen a text: a file of a few hundred bytes can require more memory than exists."""

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
"""Largest allowed ratio of output to input characters. Unicode normalization produces up to 18 (U+FDFA), common tokenizers 1."""

STEPS = 500
"""Largest allowed number of steps of a normalizer."""
REPEATED = 4
"""Repetitions of a step's pattern in a test string."""


def check_normalizer(name: str, tokenizer: Any = None) -> None:
    """Checks a tokenizer's normalizer without running it, since the tokenizers library aborts the process when memory runs out.

    :param name: a folder, whose `tokenizer.json` is checked before it is loaded; with `tokenizer`, a name for the error message.
    :param tokenizer: a loaded tokenizer, from the hub or from other files.
    :raises DataError: if the normalizer lengthens a text too much.
    """
    if tokenizer is not None:
        text = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else "{}"
    elif (file := Path(name) / "tokenizer.json").is_file():
        text = file.read_text("utf-8", "replace")
    else:
        return
    try:
        steps = list(_steps(json.loads(text).get("normalizer")))
        growth = _growth(steps[: STEPS + 1])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return  # loading it will report the error
    if growth > GROWTH or len(steps) > STEPS:
        raise DataError(
            f"tokenizer {name!r}: its normalizer may replace one character by more than {GROWTH}, or has more than {STEPS} steps; "
            "correct `normalizer` in tokenizer.json"
        )


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    """Iterates over the steps of a normalizer, in order."""
    if normalizer is None:
        return
    if normalizer["type"] == "Sequence":
        for step in normalizer["normalizers"]:
            yield from _steps(step)
    else:
        yield normalizer


def _growth(steps: list[dict[str, Any]]) -> float:
    """Upper bound of the growth factor.

    Steps that replace a fixed string are run on their patterns and replacements. For all other steps, the largest growth that they
    can produce is assumed.
    """
    blind = prod(_largest(step) for step in steps)
    tried = [
        (start, text)
        for start, step in enumerate(steps)
        if step["type"] in ("Replace", "Prepend")
        for text in (step.get("pattern", {}).get("String") or "a", step.get("content") or step.get("prepend") or "a")
    ]
    complete = ((0, text) for _, text in tried)
    # Repeated, because a pattern may match across the end of one copy and the start of the next.
    return blind * max((_tried(steps[start:], text * REPEATED) for start, text in chain(tried, complete)), default=1.0)


def _largest(step: dict[str, Any]) -> int:
    """Largest number of characters that a step can produce for one, whatever the character."""
    if step["type"] == "Replace" and "String" not in step["pattern"]:
        return max(1, len(step["content"]))
    if step["type"] == "Precompiled":  # size of a trie (4 bytes), the trie, then its replacements, separated by NUL
        table = base64.b64decode(step["precompiled_charsmap"])
        made = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
        return max(1, *(len(text.decode("utf-8", "replace")) for text in made))
    return 1


def _tried(steps: list[dict[str, Any]], text: str) -> float:
    """Growth factor of a text's length; stops early with a lower bound once it exceeds :data:`GROWTH`."""
    before = len(text)
    for step in steps:
        if step["type"] == "Prepend":
            text = step["prepend"] + text
        elif step["type"] == "Replace" and "String" in step["pattern"]:
            pattern, content = step["pattern"]["String"], step["content"]
            # The length is computed before the text is built, which might not fit into memory.
            if len(text) + text.count(pattern) * (len(content) - len(pattern)) > GROWTH * before:
                return GROWTH + 1.0
            text = text.replace(pattern, content)
        if len(text) > GROWTH * before:
            return GROWTH + 1.0
    return len(text) / before
