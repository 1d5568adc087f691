"""The settings of the text refuse what cannot work, and say the field, the rule and the value."""

from __future__ import annotations

import dataclasses
import re

import pytest

from mixln.data.settings import TextSettings
from mixln.errors import SettingsError

WRONG = [
    ({"sequence_length": 1}, "sequence-length must be at least 2 tokens, got 1"),
    ({"sequence_length": -5}, "sequence-length must be at least 2 tokens, got -5"),
    ({"held_out": 0.0}, "held-out must lie between 0 and 0.5 (a share of the documents), got 0.0"),
    ({"held_out": 0.5}, "held-out must lie between 0 and 0.5 (a share of the documents), got 0.5"),
    ({"held_out": float("nan")}, "held-out must lie between 0 and 0.5 (a share of the documents), got nan"),
    ({"vocabulary_size": 256}, "vocabulary-size must be at least 257 (256 bytes and an end of text), got 256"),
    (
        {"vocabulary_size": 300, "tokenizer": "t5-small"},
        "vocabulary-size is for a tokenizer that mixln trains; omit it or --tokenizer",
    ),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[said for _, said in WRONG])
def test_wrong_settings(settings, said):
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}$"):
        TextSettings(**settings)


@pytest.mark.parametrize("settings", [{"sequence_length": 2}, {"held_out": 0.499}, {"vocabulary_size": 257}])
def test_the_ends_of_each_range_are_allowed(settings):
    made = TextSettings(**settings)
    assert dataclasses.replace(made) == made
