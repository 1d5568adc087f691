"""The families of the installed transformers that can be placed, as a section of docs/hosts.md: `python -m tests.hosts.counted`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import transformers

from mixln.hosts.survey import Surveyed, survey
from mixln.quiet import quiet
from tests.hosts.matrix import DOCUMENT, SECTIONS

TITLES = {
    "causal-lm": "causal language models",
    "masked-lm": "masked language models",
    "image-classification": "image classifiers",
    "image-features": "image encoders without a head",
    "seq2seq-lm": "encoder-decoders of text",
    "speech-seq2seq": "encoder-decoders of speech",
    "text-features": "text models without a head, most of them parts of multimodal models",
    "sequence-classification": "sequence classifiers",
    "token-classification": "token classifiers",
}
"""Kind that was verified → its name for readers."""
HEADING = "## Families of transformers {version}"


def counts(found: Iterable[Surveyed]) -> Counter[str]:
    """Number of families that are placed and verified, by kind."""
    return Counter(one.kind for one in found if one.host is not None)


def section(found: list[Surveyed]) -> str:
    """The section about the installed version."""
    number = counts(found)
    rounded = sorted(one.model_type for one in found if one.host is not None and one.difference)
    lines = [
        HEADING.format(version=transformers.__version__),
        "",
        "Placed and verified with their first head, by kind:",
        "",
    ]
    for kind, title in TITLES.items():
        names = sorted(one.model_type for one in found if one.host is not None and one.kind == kind)
        if names:
            lines += [f"- {number[kind]} {title}: {', '.join(names)}"]
    equal = (
        f"to the bit, except in {', '.join(rounded)}, where they are equal to float32 rounding"
        if rounded
        else "to the bit"
    )
    lines += ["", f"Logits and gradients of placed and stock model are equal {equal}.", "", "Refused:", ""]
    lines += [f"- {one.model_type}: {one.reason}" for one in found if one.host is None]
    return "\n".join([*lines, ""])


def written(text: str, new: str) -> str:
    """The document with the section of one version replaced or added; the other versions stay."""
    before, *sections = re.split(SECTIONS, text)
    heading = new.splitlines()[0]
    kept = [old for old in sections if old.splitlines()[0] != heading]
    return "\n".join(part.rstrip("\n") + "\n" for part in [before, *sorted([*kept, new], reverse=True)])


if __name__ == "__main__":
    with quiet():
        made = section(list(survey()))
    DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8"), made), "utf-8")
