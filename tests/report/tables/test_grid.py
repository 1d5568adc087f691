"""A grid loses nothing in a narrow terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mixln.report.tables.grid import TableGrid, terminal

GRID = TableGrid(
    title="Scores",
    head=("task", "guessing", "pre, seed 0", "post, seed 1", "mix(0.25), seed 0", "hybrid*, seed 0"),
    rows=(
        (("arc_easy",), ("25.00",), ("20.01 ±5.71",), ("16.02 ±5.24",), ("14.03 ±4.96",), ("18.04 ±5.20",)),
        (("perplexity",), ("—",), ("4499",), ("1400",), ("1446",), ("1501",)),
    ),
)


WORDY = TableGrid(
    head=("the paper has", "ahead of", "outcome", "measured, 95% interval", "published"),
    rows=(
        (("hybrid (Megatron)",), ("hybrid (Normal)",), ("these seeds do not tell",), ("−84.0%", "[−85.1, −82.9]"), ("−2.2%",)),
        (("pre (Normal)",), ("pre (Depth-scaled)",), ("held",), ("−0.4%", "[−10.4, +10.7]", "of seeds that trained"), ("—",)),
    ),
    words=3,
)  # fmt: skip
SHORT = TableGrid(
    head=("the paper has", "ahead of", "outcome", "measured, 95% interval", "seeds", "published"),
    rows=(
        (("mix(0.25)",), ("pre",), ("these seeds do not tell",), ("+0.003", "[−0.060, +0.065]"), ("3",), ("+0.570",)),
    ),
    words=3,
)


@pytest.mark.parametrize("width", [60, *range(70, 100), 200])
@pytest.mark.parametrize("grid", [WORDY, SHORT])
def test_numbers_stay_whole_where_names_are_long(grid, width):
    file = io.StringIO()
    Console(file=file, width=width).print(terminal(grid))
    for row in grid.rows:
        for cell in row[3:]:
            assert all(piece in file.getvalue() for piece in cell)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_every_number_is_whole_at_any_width(width):
    file = io.StringIO()
    Console(file=file, width=width).print(terminal(GRID))
    lines = file.getvalue().splitlines()
    assert lines[0].strip() == "Scores"
    assert max(map(len, lines)) <= width
    for row in GRID.rows:
        assert all(sum(cell in line for line in lines) >= 1 for (cell,) in row)
    tables = sum(line.lstrip().startswith("task ") for line in lines)
    assert tables == 1 if width == 200 else tables >= 1
