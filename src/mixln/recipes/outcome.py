"""The outcome of a recipe: our numbers beside the published ones, and whether the paper's order held."""

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
"""All that was found."""


def measured(recipe: Recipe, evidence: EvidenceByPlace) -> tuple[MeasuredQuantity, ...]:
    """Every quantity of the recipe in every place where something is published or known of it."""
    asked = dict.fromkeys([*recipe.published, *(ordering.quantity for ordering in recipe.stated_orderings)])
    found = []
    for name in asked:
        quantity, numbers = QUANTITIES[name], recipe.published.get(name, {})
        for place in dict.fromkeys([*numbers, *evidence]):
            seeds = evidence.get(place, {})
            values = _values(quantity, seeds)
            if not values and numbers.get(place) is None:
                continue
            mean, low, high = t_interval([*values.values()]) if values else (None, None, None)
            found.append(
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
    return tuple(found)


def ordering_result(ordering: Ordering, recipe: Recipe, evidence: EvidenceByPlace) -> OrderingResult:
    """Whether an ordering of the paper held."""
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
    """What becomes of an ordering as the authors' code has it, and by how much that is another than as the paper says."""
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
        # Those that survived must not stand for all; and one seed that did not train decides nothing.
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
    """The number of seeds for which both sides must have the number."""
    if quantity.seeds == "survival":
        return min(len(ahead), len(behind))
    return len(_counted(quantity, ahead).keys() & _counted(quantity, behind).keys())


def _at_chance(quantity: Quantity, seeds: Seeds) -> bool:
    mean, low, _ = t_interval([*_values(quantity, seeds).values()])
    chance = next((chance for each in seeds.values() if (chance := quantity.chance(each)) is not None), None)
    return chance is not None and at_chance(mean, low, chance)


def _values(quantity: Quantity, seeds: Seeds) -> dict[int, float]:
    found = {seed: quantity.metric.value(each) for seed, each in _counted(quantity, seeds).items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _counted(quantity: Quantity, seeds: Seeds) -> Seeds:
    """The seeds that a mean is taken over: never some that trained and some that did not."""
    if quantity.seeds == "start" or (quantity.seeds != "trained" and not _mixed(seeds)):
        return seeds
    return {seed: each for seed, each in seeds.items() if each.trained}


def _mixed(seeds: Seeds) -> bool:
    return 0 < _trained(seeds) < len(seeds)


def _failed(seeds: Seeds) -> bool:
    """Whether a training ended with an error, which is no result."""
    return any(each.result is not None and each.result.status == "failed" for each in seeds.values())


def _trained(seeds: Seeds) -> int:
    """Seeds that did not diverge or stall; of a model that exists, all."""
    return sum(each.trained for each in seeds.values())
