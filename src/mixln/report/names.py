"""Names of placements and models as they can be shown: printable, short, and different from each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mixln.compare.results import Summary
from mixln.diagnostics.results import Diagnosis


def plain(text: str) -> str:
    """A name without line breaks, escape sequences and other characters that do not print."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def short(name: str, most: int = 28) -> str:
    """A name cut to `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def placements(summary: Summary) -> tuple[str, ...]:
    """The labels of a comparison's placements, short enough for a legend."""
    return tuple(short(plain(label)) for label in summary.labels)


def models(diagnoses: Sequence[Diagnosis]) -> tuple[str, ...]:
    """The names of diagnosed models, cut where they stay different."""
    full = [plain(diagnosis.model) for diagnosis in diagnoses]
    cut = Counter(map(short, full))
    return tuple(name if cut[short(name)] > 1 else short(name) for name in full)
