"""Which families of the installed transformers can be placed, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import transformers
from transformers import CONFIG_MAPPING

from mixln.errors import MixlnError
from mixln.hosts.derive import HEADS
from mixln.hosts.families import host_of
from mixln.hosts.family import Host
from mixln.hosts.verify import verified

KINDS = ("causal-lm", "masked-lm", "image-classification")
"""Heads by which a family is counted."""


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """One family.

    :param kinds: those of :data:`KINDS` for which transformers has a class of the family.
    :param host: its record; `None` if it cannot be placed.
    :param difference: largest relative difference between placed and stock model; 0 if they are equal to the bit.
    :param reason: why it cannot be placed, with the line of its code; empty if it can.
    """

    model_type: str
    kinds: tuple[str, ...]
    host: Host | None = None
    difference: float = 0.0
    reason: str = ""


def families() -> dict[str, tuple[str, ...]]:
    """Model type → kinds, for every family of the installed transformers with a head of one of these kinds."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in KINDS:
        for model_type in _names(kind):
            if model_type in CONFIG_MAPPING and not model_type.startswith("placed_"):
                found[model_type] = (*found.get(model_type, ()), kind)
    return found


def _names(kind: str) -> Mapping[str, str]:
    """Model type → class name, of the models with a head."""
    return getattr(transformers.models.auto.modeling_auto, f"MODEL_FOR_{HEADS[kind]}_MAPPING_NAMES")


def survey() -> Iterator[Surveyed]:
    """Derives and verifies every family in turn; the first time, this takes a minute."""
    for model_type, kinds in sorted(families().items()):
        yield survey_one(model_type, kinds)


def survey_one(model_type: str, kinds: tuple[str, ...]) -> Surveyed:
    """Derives and verifies one family."""
    try:
        host = host_of(model_type)
        result = verified(host)
    except MixlnError as error:
        return Surveyed(model_type=model_type, kinds=kinds, reason=str(error))
    if result.failure:
        return Surveyed(model_type=model_type, kinds=kinds, reason=result.failure)
    return Surveyed(model_type=model_type, kinds=kinds, host=host, difference=result.difference)
