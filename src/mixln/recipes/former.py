"""Outcomes of version 1, which held texts where there are records now, in the form of today."""

from __future__ import annotations

import re
from typing import Any

from mixln.records import to_json
from mixln.runs.provenance import Provenance, former_provenance

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
"""End of the title of a recipe that was restricted to some models."""
TRAINED = re.compile(
    r"(?P<run>.+?): (?P<model>[^;]+); (?P<placements>[^;]+); learning rates? (?P<rates>[^;]+); seeds (?P<seeds>[^;]+); "
    r"(?:(?P<steps>[\d,]+) steps of (?P<batch>\d+) × (?P<length>\d+) tokens|(?P<epochs>[\d.e+]+) epochs, (?P<images>\d+) images a step)"
    r"(?:, (?P<micro>\d+) at a time)?; init (?P<init>.+)"
)
OWN_INIT = "as each placement has it"


def reproduction(entries: dict[str, Any]) -> dict[str, Any]:
    """A recipe that was run."""
    return {
        **_shared(entries),
        **_trained(entries),
        "seconds": entries["seconds"],
        "swept": entries.get("swept", []),
        "lines": [_line(each) for each in entries.get("lines", ())],
        "turned": entries.get("turned", []),
    }


def as_published(entries: dict[str, Any]) -> dict[str, Any]:
    """A recipe as the paper says, and as the authors' code does."""
    return {**_shared(entries), "varied": [_varied(each) for each in entries["varied"]]}


def _shared(data: dict[str, Any]) -> dict[str, Any]:
    """The recipe, and the numbers and orderings, which both kinds of outcomes have."""
    alone = ALONE.search(data["title"])
    return {
        "recipe": data["recipe"],
        "scale": data["scale"],
        "only": alone["names"].split(", ") if alone else [],
        "command": data["command"],
        "measured": [_measured(each) for each in data["measured"]],
        "orderings": [_ordering(each) for each in data["orderings"]],
    }


def _varied(each: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": each["name"],
        "seconds": each["seconds"],
        "measured": [_measured(number) for number in each["measured"]],
        "effects": [{**effect, "ordering": _ordering(effect["ordering"])} for effect in each["effects"]],
        **_trained(each),
    }


def _trained(data: dict[str, Any]) -> dict[str, Any]:
    """What was trained, and what trained it."""
    provenance = former_provenance(data.get("facts") or {})
    return {
        "trained": [_run(line) for line in data["settings"]],
        "provenance": [] if provenance == Provenance() else [to_json(provenance)],
    }


def _measured(each: dict[str, Any]) -> dict[str, Any]:
    return {"scale": "itself", **each, "quantity": _quantity(each["quantity"])}


def _ordering(each: dict[str, Any]) -> dict[str, Any]:
    verdict = VERDICTS.get(each["verdict"], each["verdict"])
    return {"ours": False, **each, "quantity": _quantity(each["quantity"]), "verdict": verdict}


def _quantity(name: str) -> str:
    return QUANTITIES.get(name, name.replace("accuracy of ", "accuracy-"))


def _line(each: dict[str, Any]) -> dict[str, Any]:
    curve = CURVES[each["curve"]]
    measure, _, unit = each["label"].partition(", ") if curve == "drops" else ("", "", "")
    kept = {name: value for name, value in each.items() if name != "label"}
    return {**kept, "curve": curve, "measure": measure, "unit": unit}


def _run(line: str) -> dict[str, Any]:
    """:raises ValueError: if the line is none that version 1 had."""
    found = TRAINED.fullmatch(line)
    if found is None:
        raise ValueError(f"settings {line!r} cannot be read")
    return {
        "run": found["run"],
        "model": found["model"],
        "placements": found["placements"].split(", "),
        "learning_rates": list(map(float, found["rates"].split(", "))),
        "seeds": list(map(int, found["seeds"].split(", "))),
        "init": None if found["init"] == OWN_INIT else found["init"],
        "batch_size": int(found["batch"] or found["images"]),
        "micro_batch_size": int(found["micro"]) if found["micro"] else None,
        "steps": int(found["steps"].replace(",", "")) if found["steps"] else None,
        "sequence_length": int(found["length"]) if found["length"] else None,
        "epochs": float(found["epochs"]) if found["epochs"] else None,
    }
