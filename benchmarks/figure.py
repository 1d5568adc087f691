"""Draws what `scaling.py` found: speed and memory against size, sequence and batch, and what each placement costs.

python benchmarks/figure.py FOUND.json FIGURE.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

AXES = {"model": "model", "length": "sequence, tokens", "batch": "batch, sequences"}
COLOURS = {"Trainer": "#7f7f7f", "plain, compiled": "#bcbd22", "pre": "#1f77b4", "pre, compiled": "#d62728"}
NAMES = {
    "Trainer": "stock Llama in stock Trainer",
    "plain, compiled": "plain PyTorch, compiled",
    "pre": "mixln pre",
    "pre, compiled": "mixln pre, compiled",
}


def main(found: str, figure: str) -> None:
    points: dict[str, list[dict[str, Any]]] = json.loads(Path(found).read_text("utf-8"))
    drawn, rows = plt.subplots(2, 4, figsize=(17, 7.5), layout="constrained")
    for column, (axis, label) in enumerate(AXES.items()):
        curves(rows[0, column], axis, points[axis], "tokens_per_second", 1, "tokens/s")
        curves(rows[1, column], axis, points[axis], "peak_memory", 1e6, "peak memory, MB")
        rows[1, column].set_xlabel(label)
        settings = points[axis][0]["settings"]
        fixed = {
            "model": f"{settings['batch']} × {settings['length']} tokens",
            "length": f"{settings['model']}, {settings['batch'] * settings['length']:,} tokens a step",
            "batch": f"{settings['model']}, {settings['length']} tokens a sequence",
        }
        rows[0, column].set_title(fixed[axis])
    rows[0, 0].legend(frameon=False)
    placements = points["placement"][0]["found"]
    for row, (figure_name, title) in enumerate(
        {"tokens_per_second": "time of a step, relative to pre", "peak_memory": "peak memory, relative to pre"}.items()
    ):
        costs(rows[row, 3], {name: values[figure_name] for name, values in placements.items()}, title, inverse=row == 0)
    drawn.savefig(figure, dpi=110)


def curves(panel: Axes, axis: str, points: list[dict[str, Any]], name: str, unit: float, label: str) -> None:
    places = [str(point["settings"][axis]) for point in points]
    for contestant, colour in COLOURS.items():
        values = [point["found"][contestant][name] / unit for point in points]
        panel.plot(places, values, color=colour, marker="o", label=NAMES.get(contestant, contestant))
        if name == "tokens_per_second":
            low, high = ([point["found"][contestant][end] for point in points] for end in ("low", "high"))
            panel.fill_between(places, low, high, color=colour, alpha=0.15)
    panel.set_ylabel(label)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(alpha=0.3)


def costs(panel: Axes, values: dict[str, float], title: str, *, inverse: bool) -> None:
    ratios = {name: values["pre"] / value if inverse else value / values["pre"] for name, value in values.items()}
    names = sorted(ratios, key=lambda name: -ratios[name])
    bars = panel.barh(names, [ratios[name] for name in names], color="#1f77b4")
    panel.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.tick_params(axis="y", labelsize=8)
    panel.set_xlim(0, 1.12 * max(ratios.values()))
    panel.set_title(title)


if __name__ == "__main__":
    main(*sys.argv[1:])
