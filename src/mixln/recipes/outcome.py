"""The outcome of a recipe: measured numbers beside the published ones, and whether the paper's orderings held."""

from __future__ import annotations

from collections.abc import Mapping

from mixln.compare.chain_statistics import at_chance
from mixln.compare.results import Interval
from mixln.compare.statistics import paired_difference, t_interval
from mixln.recipes.quantities import QUANTITIES, Evidence, Quantity
from mixln.recipes.records import Ordering, Place, Recipe
from mixln.recipes.results import Effect, MeasuredQuantity, OrderingResult, Verdict

Seeds = Mapping[int, Evidence]
EvidenceByPlace = Mapping[Place, Seeds]
"""All evidence of a recipe."""


def measured(recipe: Recipe, evidence: EvidenceByPlace) -> tuple[MeasuredQuantity, ...]:
    """Every quantity of the recipe in every place with a published or measured number."""
    names = dict.fromkeys([*recipe.published, *(ordering.quantity for ordering in recipe.stated_orderings)])
    rows = []
    for name in names:
        quantity, numbers = QUANTITIES[name], recipe.published.get(name, {})
        for place in dict.fromkeys([*numbers, *evidence]):
            seeds = evidence.get(place, {})
            values = _values(quantity, seeds)
            if not values and numbers.get(place) is None:
                continue
            mean, low, high = t_interval([*values.values()]) if values else (None, None, None)
            rows.append(
                MeasuredQuantity(
                    quantity=name,
                    run=place[0],
                    placement=place[1],
                    published=numbers.get(place),
                    value=mean,
                    low=low,
                    high=high,
                    seeds=len(seeds),
                    trained=_trained(seeds),
                    scale=quantity.metric.transform.name,
                )
            )
    return tuple(rows)


def ordering_result(ordering: Ordering, recipe: Recipe, evidence: EvidenceByPlace) -> OrderingResult:
    """The verdict on an ordering of the paper."""
    quantity = QUANTITIES[ordering.quantity]
    ahead, behind = (evidence.get(place, {}) for place in (ordering.ahead, ordering.behind))
    values, others = _values(quantity, ahead), _values(quantity, behind)
    difference = paired_difference(values, others)
    numbers = recipe.published.get(ordering.quantity, {})
    return OrderingResult(
        quantity=ordering.quantity,
        ahead=ordering.ahead,
        behind=ordering.behind,
        published=(numbers.get(ordering.ahead), numbers.get(ordering.behind)),
        difference=difference,
        verdict=_verdict(quantity, ahead, behind, difference),
        ours=ordering.ours,
    )


def effect(ordering: Ordering, recipe: Recipe, plain: EvidenceByPlace, varied: EvidenceByPlace) -> Effect:
    """An ordering with the deviations of the authors' code, and the change of the difference relative to the paper's settings."""
    quantity = QUANTITIES[ordering.quantity]

    def differences(evidence: EvidenceByPlace) -> dict[int, float]:
        ahead, behind = (_values(quantity, evidence.get(place, {})) for place in (ordering.ahead, ordering.behind))
        return {seed: ahead[seed] - behind[seed] for seed in ahead.keys() & behind.keys()}

    return Effect(
        ordering=ordering_result(ordering, recipe, varied),
        change=paired_difference(differences(varied), differences(plain)),
    )


def _verdict(quantity: Quantity, ahead: Seeds, behind: Seeds, difference: Interval | None) -> Verdict:
    if not ahead or not behind:
        return "not-measured"
    if _failed(ahead) or _failed(behind):
        return "failed"
    counts = [(_trained(seeds), len(seeds)) for seeds in (ahead, behind)]
    if quantity.seeds == "survival" and any(trained < seeds for trained, seeds in counts):
        # A mean over surviving seeds would be biased; and a single seed that did not train is no evidence.
        (first, seeds), (second, others) = counts
        if (first, second) == (seeds, 0) and seeds > 1:
            return "held"
        return "reversed" if (first, second) == (0, others) and others > 1 else "undecided"
    if difference is None or difference.pairs < _known(quantity, ahead, behind):
        return "undecided"
    if _at_chance(quantity, ahead) and _at_chance(quantity, behind):
        return "at-chance"
    if quantity.seeds == "known" and (_mixed(ahead) or _mixed(behind)):
        return "undecided"
    better = (difference.mean < 0) == quantity.metric.lower_is_better
    if difference.low is None:
        return "single-seed"
    if not difference.excludes_zero:
        return "undecided"
    return "held" if better else "reversed"


def _known(quantity: Quantity, ahead: Seeds, behind: Seeds) -> int:
    """The number of seeds for which both sides must have a value."""
    if quantity.seeds == "survival":
        return min(len(ahead), len(behind))
    return len(_counted(quantity, ahead).keys() & _counted(quantity, behind).keys())


def _at_chance(quantity: Quantity, seeds: Seeds) -> bool:
    mean, low, _ = t_interval([*_values(quantity, seeds).values()])
    chance = next((chance for seed in seeds.values() if (chance := quantity.chance(seed)) is not None), None)
    return chance is not None and at_chance(mean, low, chance)


def _values(quantity: Quantity, seeds: Seeds) -> dict[int, float]:
    values = {seed: quantity.metric.value(evidence) for seed, evidence in _counted(quantity, seeds).items()}
    return {seed: value for seed, value in values.items() if value is not None}


def _counted(quantity: Quantity, seeds: Seeds) -> Seeds:
    """The seeds to average over. Except for quantities at the start, trained and untrained seeds are never mixed."""
    if quantity.seeds == "start" or (quantity.seeds != "trained" and not _mixed(seeds)):
        return seeds
    return {seed: evidence for seed, evidence in seeds.items() if evidence.trained}


def _mixed(seeds: Seeds) -> bool:
    return 0 < _trained(seeds) < len(seeds)


def _failed(seeds: Seeds) -> bool:
    """Whether a training ended with an error."""
    return any(seed.result is not None and seed.result.status == "failed" for seed in seeds.values())


def _trained(seeds: Seeds) -> int:
    """Number of seeds that neither diverged nor stalled; all for existing models."""
    return sum(seed.trained for seed in seeds.values())
