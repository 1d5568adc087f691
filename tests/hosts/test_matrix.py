"""Every cell of docs/hosts.md is what happens."""

from __future__ import annotations

import re

import pytest

from mixln.hosts import HOSTS
from tests.hosts.families import CONFIGS
from tests.hosts.matrix import DOCUMENT, INTRODUCTION, SECTIONS, YES, exercise
from tests.tiny import EVERY

TEXT, *COUNTED = re.split(SECTIONS, DOCUMENT.read_text("utf-8"))
ROWS = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
CELLS = {(host, row[0]): cell for row in ROWS[2:] for host, cell in zip(ROWS[0][1:], row[1:], strict=True)}
REASONS = dict(re.findall(r"^(\d+)\. (.*)$", TEXT, re.MULTILINE))


def test_document_is_about_every_pair_and_says_how_it_is_made():
    assert TEXT.startswith(INTRODUCTION)
    assert HOSTS.keys() == CONFIGS.keys()
    assert CELLS.keys() == {(host, placement) for host in HOSTS for placement in EVERY}


@pytest.mark.long
@pytest.mark.parametrize(("host", "placement"), CELLS)
def test_pair_does_what_the_document_says(host, placement):
    cell = CELLS[host, placement]
    assert exercise(host, placement) == (YES if cell == YES else REASONS[cell.strip("[]")])
