"""Upgrade of results of version 1, which stored texts in place of records."""

from __future__ import annotations

import re
from typing import Any

from mixln.records import to_json
from mixln.runs.former import former_provenance
from mixln.runs.provenance import Provenance

QUANTITIES = {
    "perplexity over the course": "perplexity-over-course",
    "mean accuracy of the tasks": "mean-task-accuracy",
    "final reward": "final-reward",
    "angular distance of the deeper layers but the last two": "deep-angle",
    "angular distance, deeper half over earlier half": "angle-contrast",
    "performance drop of the deeper layers, nats": "deep-drop",
    "performance drop, deeper half over earlier half": "drop-contrast",
    "gradient norm at the start, deeper half over earlier half": "gradient-contrast",
    "unevenness of the gradient norms at the start": "gradient-unevenness",
    "parameters, millions": "parameters",
}
VERDICTS = {
    "did not hold": "reversed",
    "guesses": "at-chance",
    "one of a kind": "single-seed",
    "not measured": "not-measured",
}
CURVES = {
    "performance drop": "drops",
    "gradient norm at the start": "gradients",
    "perplexity over the course": "course",
}
ALONE = re.compile(r"; (?P<names>[^;]+) alone$")
"""Suffix of the title of a recipe that was restricted to some models."""
TRAINED = re.compile(
    r"(?P<run>.+?): (?P<model>[^;]+); (?P<placements>[^;]+); learning rates? (?P<rates>[^;]+); seeds (?P<seeds>[^;]+); "
    r"(?:(?P<steps>[\d,]+) steps of (?P<batch>\d+) × (?P<length>\d+) tokens|(?P<epochs>[\d.e+]+) epochs, (?P<images>\d+) images a step)"
    r"(?:, (?P<micro>\d+) at a time)?; init (?P<init>.+)"
)
OWN_INIT = "as each placement has it"


def reproduction(entries: dict[str, Any]) -> dict[str, Any]:
    """A reproduction of version 1."""
    return {
        **_shared(entries),
        **_trained(entries),
        "seconds": entries["seconds"],
        "swept": entries.get("swept", []),
        "lines": [_line(line) for line in entries.get("lines", ())],
        "turned": entries.get("turned", []),
    }


def as_published(entries: dict[str, Any]) -> dict[str, Any]:
    """A deviation study of version 1."""
    return {**_shared(entries), "varied": [_varied(variant) for variant in entries["varied"]]}


def _shared(data: dict[str, Any]) -> dict[str, Any]:
    """Recipe, numbers and orderings, common to both kinds of results."""
    restricted = ALONE.search(data["title"])
    return {
        "recipe": data["recipe"],
        "scale": data["scale"],
        "only": restricted["names"].split(", ") if restricted else [],
        "command": data["command"],
        "measured": [_measured(number) for number in data["measured"]],
        "orderings": [_ordering(ordering) for ordering in data["orderings"]],
    }


def _varied(variant: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": variant["name"],
        "seconds": variant["seconds"],
        "measured": [_measured(number) for number in variant["measured"]],
        "effects": [{**effect, "ordering": _ordering(effect["ordering"])} for effect in variant["effects"]],
        **_trained(variant),
    }


def _trained(data: dict[str, Any]) -> dict[str, Any]:
    """The trained runs and their provenance."""
    provenance = former_provenance(data.get("facts") or {})
    return {
        "trained": [_run(line) for line in data["settings"]],
        "provenance": [] if provenance == Provenance() else [to_json(provenance)],
    }


def _measured(number: dict[str, Any]) -> dict[str, Any]:
    return {"scale": "itself", **number, "quantity": _quantity(number["quantity"])}


def _ordering(ordering: dict[str, Any]) -> dict[str, Any]:
    verdict = VERDICTS.get(ordering["verdict"], ordering["verdict"])
    return {"ours": False, **ordering, "quantity": _quantity(ordering["quantity"]), "verdict": verdict}


def _quantity(name: str) -> str:
    return QUANTITIES.get(name, name.replace("accuracy of ", "accuracy-"))


def _line(line: dict[str, Any]) -> dict[str, Any]:
    curve = CURVES[line["curve"]]
    measure, _, unit = line["label"].partition(", ") if curve == "drops" else ("", "", "")
    kept = {name: value for name, value in line.items() if name != "label"}
    return {**kept, "curve": curve, "measure": measure, "unit": unit}


def _run(line: str) -> dict[str, Any]:
    """:raises ValueError: if the line does not have the format of version 1."""
    match = TRAINED.fullmatch(line)
    if match is None:
        raise ValueError(f"settings {line!r} cannot be read")
    return {
        "run": match["run"],
        "model": match["model"],
        "placements": match["placements"].split(", "),
        "learning_rates": list(map(float, match["rates"].split(", "))),
        "seeds": list(map(int, match["seeds"].split(", "))),
        "init": None if match["init"] == OWN_INIT else match["init"],
        "batch_size": int(match["batch"] or match["images"]),
        "micro_batch_size": int(match["micro"]) if match["micro"] else None,
        "steps": int(match["steps"].replace(",", "")) if match["steps"] else None,
        "sequence_length": int(match["length"]) if match["length"] else None,
        "epochs": float(match["epochs"]) if match["epochs"] else None,
    }
