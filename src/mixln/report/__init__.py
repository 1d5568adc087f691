"""Shows what a comparison found: tables, figures and one HTML page. It reads a summary and computes no statistics."""

from __future__ import annotations

import json
from pathlib import Path

from mixln.compare.results import Summary, to_json
from mixln.files import write_atomic
from mixln.report.charts import prepare
from mixln.report.figures import png
from mixln.report.page import render
from mixln.report.tables import markdown_table, terminal_table

__all__ = ["markdown_table", "terminal_table", "write"]


def write(summary: Summary, folder: Path) -> list[Path]:
    """Writes `results.json`, `table.md`, four PNG figures and `report.html` into a folder, which is made if it is missing.

    Each file is replaced as a whole or not at all; a later call replaces them.

    :returns: the paths, in that order.
    """
    results = json.dumps(to_json(summary), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    contents: dict[str, str | bytes] = {"results.json": results, "table.md": markdown_table(summary)}
    contents |= {f"{chart.name}.png": png(chart) for chart in prepare(summary)}
    contents["report.html"] = render(summary)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths
