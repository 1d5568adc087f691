"""The kinds of inputs: where each comes from, how many there are, and what of ours they need."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.fuzz import hostile, inputs, plants, words
from tests.faults.fuzz.case import Case

POOL = 4
"""Inputs that are drawn for each that is taken: hypothesis likes to draw neighbours of what it has drawn."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of inputs.

    :param source: draws one, or gives all of them.
    :param fast: how many the fast tests take; `slow` likewise.
    :param needs: the folders of the materials that they need, beside the basic ones.
    """

    source: st.SearchStrategy[Case] | Callable[[], tuple[Case, ...]]
    fast: int
    slow: int
    needs: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "settings": Kind(source=words.mistaken_settings(), fast=8, slow=150),
    "numbers": Kind(source=words.numbers, fast=8, slow=len(words.numbers())),
    "environment": Kind(source=st.one_of(*[words.odd_environments()] * 9, words.odd_workers()), fast=3, slow=80),
    "data": Kind(source=inputs.mistaken_data(), fast=5, slow=120),
    "models": Kind(source=inputs.mistaken_model(), fast=5, slow=150),
    "stores": Kind(source=inputs.mistaken_store(), fast=5, slow=120, needs=("store", "single")),
    "jobs": Kind(source=inputs.edited_jobs, fast=3, slow=100, needs=tuple(inputs.JOBS)),
    "searches": Kind(source=inputs.edited_searches, fast=0, slow=40, needs=tuple(inputs.SEARCHES)),
    "images": Kind(source=hostile.odd_images(), fast=3, slow=80, needs=("vision",)),
    "gguf": Kind(source=hostile.odd_gguf(), fast=3, slow=80),
    "traps": Kind(source=hostile.traps, fast=4, slow=120, needs=("single", *inputs.JOBS)),
    "neighbours": Kind(source=plants.neighbours(), fast=4, slow=80, needs=("single", *inputs.JOBS)),
}


def inputs_of(kind: str, count: int) -> Iterator[Case]:
    """So many different inputs of a kind, always the same ones."""
    source = KINDS[kind].source
    drawn = _drawn(source) if isinstance(source, st.SearchStrategy) else source()
    pool = list({repr(case): case for case in drawn}.values())
    random.Random(kind).shuffle(pool)
    yield from pool[:count]


@cache
def _drawn(source: st.SearchStrategy[Case]) -> list[Case]:
    drawn: list[Case] = []

    @settings(
        max_examples=POOL * max(kind.slow for kind in KINDS.values() if kind.source is source),
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=source)
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()
    return drawn
