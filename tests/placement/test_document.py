"""docs/placements.md is what the entries say, and says what a reader needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixln.cli import main
from mixln.cli.document import document
from mixln.nn.schemes import INIT_MODIFIERS, SCHEMES
from mixln.placement import MODIFIERS, ZOO

WRITTEN = Path(__file__).parents[2] / "docs" / "placements.md"


def test_document_is_written_from_the_entries():
    assert WRITTEN.read_text("utf-8") == document(), "run: just documents"


@pytest.mark.parametrize("name", ZOO)
def test_every_placement_has_formula_drawing_init_and_source(name):
    entry = ZOO[name]
    section = document().split(f"## {entry.title}: `{entry.example}`\n")[1].split("\n## ")[0]
    assert entry.formula in section
    assert f"Recommended init: `{entry.init}`" in section
    assert entry.source in section
    assert "layer 4 " in section
    assert all(text in section for text in entry.facts.values())


def test_modifiers_and_initialisations_are_there():
    text = document()
    assert all(f"- `{entry.example}+…`: {entry.title}" in text for entry in MODIFIERS.values())
    assert all(f"- `{name}`" in text for name in SCHEMES)
    assert all(f"- `{name}" in text for name in INIT_MODIFIERS)


def test_command_prints_the_document(capsys):
    assert main(["placements", "document"]) == 0
    assert capsys.readouterr().out == document()
