"""Names of folders: one a placement, on every filesystem."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.runs.names import slug
from tests.tiny import EVERY

MANY = (
    *EVERY,
    "mix",
    "mix(3)",
    "mix(1/4)",
    "mix(1)",
    "mix(1.0)",
    "mix(.25)",
    "mix(0.250)",
    "mix(1e-1)",
    "group(2)",
    "group(4)",
    "group(2)+pre",
    "group+pre",
    "qkvnorm+qknorm+pre",
    "qknorm+group(2)+pre",
    "group(2)+qknorm+pre",
    "post*2,pre*1",
    "post*2,pre",
    "post,pre*1",
    "pre*1,post*2",
    "pre*3",
    "hybrid**1,pre",
    "hybrid*1,pre",
    "hybrid*,pre*1",
    "hybrid*,pre",
    "hybrid,pre",
    "hybrid**3",
    "hybrid*3",
    "mix(0.25)*2,pre",
    "mix(0.25),pre*2",
    "mix(2)*2,pre",
    "res-post*1,pre*2",
)


def test_placements_have_folder_names_of_their_own():
    assert len({slug(text) for text in set(MANY)}) == len(set(MANY))


@pytest.mark.parametrize("text", sorted(set(MANY)))
def test_a_folder_name_works_on_every_filesystem(text):
    assert re.fullmatch(r"[a-z0-9][a-z0-9._+-]*[a-z0-9]", slug(text))


@pytest.mark.parametrize(
    ("text", "name"),
    [("mix(0.25)", "mix-0.25"), ("hybrid**3,pre", "hybrid-starx3_pre"), ("mix(1/4)", "mix-1-of-4"), ("pre", "pre")],
)
def test_folder_names_by_hand(text, name):
    assert slug(text) == name


@st.composite
def placements(draw) -> str:
    """A text of the little language, of one to three parts."""
    terms = st.sampled_from(["pre", "post", "mix", "mix(0.5)", "mix(1/2)", "mix(2)", "hybrid", "hybrid*", "group(2)"])
    modifiers = st.sampled_from(["", "", "qknorm+", "group+", "group(2)+"])
    counts = st.sampled_from(["", "*1", "*2", "*12"])
    parts = draw(st.lists(st.tuples(modifiers, terms, counts), min_size=1, max_size=3))
    return ",".join("".join(part) for part in parts)


@given(st.sets(placements(), max_size=30))
def test_no_two_texts_share_a_folder_name(texts):
    assert len({slug(text) for text in texts}) == len(texts)
