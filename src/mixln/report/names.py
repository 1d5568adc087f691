"""Display names of placements and models: printable, short and unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mixln.compare.results import Summary
from mixln.diagnostics.results import Diagnosis


def plain(text: str) -> str:
    """Replaces line breaks, escape characters and other unprintable characters by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def short(name: str, most: int = 28) -> str:
    """Truncates a name to `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def placements(summary: Summary) -> tuple[str, ...]:
    """The labels of a comparison's placements, short enough for a legend."""
    return tuple(short(plain(label)) for label in summary.labels)


def models(diagnoses: Sequence[Diagnosis]) -> tuple[str, ...]:
    """The names of diagnosed models, truncated if they stay unique."""
    full = [plain(diagnosis.model) for diagnosis in diagnoses]
    cut = Counter(map(short, full))
    return tuple(name if cut[short(name)] > 1 else short(name) for name in full)
