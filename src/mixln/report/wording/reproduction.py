"""The words around the outcome of a recipe: names of quantities, verdicts, tables, figures and the document of all recipes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mixln.recipes import RECIPES
from mixln.recipes.curves import Curve
from mixln.recipes.deviations import DEVIATIONS
from mixln.recipes.quantities import TASKS
from mixln.recipes.records import Recipe
from mixln.recipes.results import DeviationStudy, Line, Reproduction, TrainedRun, VariantResult, Verdict
from mixln.report.wording.charts import GRADIENT_NORM, LAYER, STEPS, ChartText, bent
from mixln.report.wording.phrases import capitalised, listed, plural

QUANTITIES = {
    "perplexity": "perplexity",
    "perplexity-over-course": "perplexity over the course of training",
    "accuracy": "accuracy",
    "mean-task-accuracy": "mean task accuracy",
    **{f"accuracy-{task}": f"accuracy on {task}" for task in TASKS},
    "final-reward": "final reward",
    "deep-angle": "angular distance of the deeper layers except the last two",
    "angle-contrast": "angular distance, deeper half over earlier half",
    "deep-drop": "performance drop of the deeper layers, nats",
    "drop-contrast": "performance drop, deeper half over earlier half",
    "gradient-contrast": "gradient norm at the first step, deeper half over earlier half",
    "gradient-unevenness": "unevenness of the gradient norms at the first step",
    "parameters": "parameters, millions",
}
"""Quantity → its name."""
VERDICTS: dict[Verdict, tuple[str, str]] = {
    "held": ("held", "held"),
    "reversed": ("reversed", "reversed"),
    "undecided": ("not significant over these seeds", "undecided"),
    "at-chance": ("both at chance level", "at chance level"),
    "single-seed": ("no seeds to estimate noise from", "without seeds to estimate noise from"),
    "failed": ("a training failed", "failed"),
    "not-measured": ("not measured at this scale", ""),
}
"""Verdict → the outcome of one ordering, and of several."""
CURVES = {
    "drops": "performance drop",
    "gradients": "gradient norm at the first step",
    "course": "perplexity over the course of training",
}
"""Curve → its name."""
_CURVE_CAPTIONS = {
    "drops": "Performance lost without each layer, of models that trained: at zero the model does as well without it.",
    "gradients": "L2 norm of the gradient of each layer's weights at the first step, attention and feed-forward together, on a logarithmic "
    "axis.",
    "course": "Held-out perplexity at each evaluation, on a logarithmic axis; lower is better.",
}
MODEL, PLACEMENT, QUANTITY, PUBLISHED, HERE = "model", "placement", "quantity", "published", "here"
MEASURED, TRAINED, OUTCOME, SEEDS = "measured, 95% interval", "trained", "outcome", "seeds"
PAPER_AHEAD, AHEAD_OF, BY = "the paper has", "ahead of", "by"
PAPER = "as the paper says"
OURS = " (our question)"
DIVERGED = "diverged"
COUNTED_TITLE = "Published, and found here"
NUMBERS_CAPTION = (
    "At the small scale sizes and data differ from the paper's: orderings can be compared, numbers cannot. Trained: seeds that neither "
    "diverged nor stalled. If only some trained, the mean is over those; if none did, over those that stalled."
)
ORDERS_CAPTION = (
    "Measured, published: the difference of the first from the second; ours is paired by seed. Seeds: those at which both are known. By "
    "perplexity and accuracy, a placement that trained at all seeds is ahead of one that trained at none, and if only "
    "some seeds trained, the "
    "ordering is undecided; what layers contribute is measured on models that trained."
)
BESIDE_TITLE = "Measured, as the paper says and as the authors' code does"
DIFFERENCES_CAPTION = (
    "Differences of the first from the second, paired by seed, with 95% intervals, and the outcome of the paper's "
    "ordering; if not all seeds "
    "trained, how many did."
)
CHANGES_CAPTION = (
    "The difference minus that of the recipe as the paper says, paired by seed, with 95% intervals. For perplexities "
    "both are differences of "
    "logarithms, so that from −50% to −20% is +60%: 0.8 is 1.6 times 0.5. None if some seeds did not train."
)
SWEEP_CAPTION = (
    "Perplexity is e to the power of the mean held-out loss over the seeds that trained; in brackets how many did, if "
    "not all. If none did, "
    "the mean is over those that stalled. Above, each placement is at its best learning rate."
)
NO_ORDERING = "The paper claims no ordering here."
SMALL_MODELS = (
    "Models this small, trained this briefly, prove nothing about those of the paper: only the ordering is compared."
)
SWEEP_AXIS = "placement; for Mix-LN its share α"
INTRODUCTION = """# Published results, and what was reproduced

Written by `mixln reproduce --document docs/papers` from the files that `mixln reproduce NAME` writes (`reproduction.json`). Every recipe
has two scales: `--scale paper` has the paper's sizes, data and steps, prints what it will take, and needs GPUs; `--scale cpu`, the
default, is smaller by the stated factors, and was run on two cores. Models that small, trained that briefly, say nothing certain about
large ones: what is compared is the ordering of placements, with 95% confidence intervals over seeds. Two trainings ran in parallel, so
that a recipe took about half of the time of its trainings, and less if another recipe had made some of them before. A recipe without an
outcome has not been run yet. Not included: the Mix-LN paper's Figure 1, which is a drawing, and of HybridNorm its figures and all tables
but the five that are named. `mixln reproduce --list` names all recipes; `--as-published` repeats them with what the authors' code does
differently, one deviation at a time, and shows how much of a difference each accounts for (`as-published.json`).
"""
OVERVIEW = (
    "recipe",
    "what it is",
    "orderings of the paper that held",
    "reversed",
    "undecided",
    "all trainings, one after the other",
)
OVERVIEW_CAPTION = (
    "Undecided: the 95% interval includes zero, some seeds did not train, both sides are at chance level, or there are "
    "no seeds to estimate "
    "noise from."
)
NOT_RUN, NOTHING_TRAINED = "not run yet", "nothing is trained"
COMMON = "What several recipes have in common"


def recipe_of(found: Reproduction | DeviationStudy) -> Recipe:
    """The recipe of an outcome, restricted as it was.

    :raises KeyError: if it is not known to this mixln.
    """
    recipe = RECIPES[found.recipe]
    return recipe.only(found.only, found.scale) if found.only else recipe


def trained(run: TrainedRun) -> str:
    """One comparison in a line."""
    rates = f"learning rate{'s' * (len(run.learning_rates) > 1)} {listed(f'{rate:g}' for rate in run.learning_rates)}"
    micro = f", {run.micro_batch_size} at a time" if run.micro_batch_size else ""
    if run.sequence_length is not None:
        length = f"{run.steps:,} steps of {run.batch_size} × {run.sequence_length} tokens"
    else:
        length = f"{run.epochs:g} epochs, {run.batch_size} images a step"
    init = run.init or "as recommended for each placement"
    return f"{run.run}: {run.model}; {listed(run.placements)}; {rates}; seeds {listed(run.seeds)}; {length}{micro}; init {init}"


def smaller(recipe: Recipe) -> str:
    """The factors of the small scale."""
    return f"Made smaller: {recipe.scaled}."


def deviations(varied: VariantResult) -> str:
    """What the authors' code does differently."""
    return "; ".join(DEVIATIONS[name].what for name in varied.name.split("+"))


def outcome(verdict: Verdict, *, all_trained: bool) -> str:
    """The outcome of one ordering.

    :param all_trained: whether all seeds of both sides did, so that there is a difference to judge.
    """
    return VERDICTS[verdict][0] if all_trained else verdict


def tally(found: Reproduction) -> str:
    """How many orderings held, in one sentence."""
    counted = [each.verdict for each in found.orderings if each.verdict != "not-measured" and not each.ours]
    if not counted:
        return NO_ORDERING
    parts = (f"{counted.count(verdict)} {text}" for verdict, (_, text) in VERDICTS.items() if verdict in counted)
    return f"{plural(len(counted), 'ordering')} of the paper: {listed(parts)}."


def numbers_title(quantity: str) -> str:
    """The title of the numbers; of several quantities, without one."""
    return f"{capitalised(QUANTITIES[quantity])}: published and measured" if quantity else "Published and measured"


def by(quantity: str) -> str:
    """What all orderings are by, after a title."""
    return f", by {QUANTITIES[quantity]}" if quantity else ""


def orders_title(quantity: str) -> str:
    """The title of the orderings."""
    return f"Did the paper's order hold{by(quantity)}?"


def differences_title(quantity: str) -> str:
    """The title of the differences with the authors' code."""
    return f"Differences with the authors' code{by(quantity)}"


def changes_title(quantity: str) -> str:
    """The title of what the authors' code changes."""
    return f"Change of the differences{by(quantity)}"


def beside_caption(found: DeviationStudy) -> str:
    """What the columns of the authors' code are."""
    what = "; ".join(f"{each.name}: {deviations(each)}" for each in found.varied)
    return f"{what}. 95% intervals; in brackets how many seeds neither diverged nor stalled, if not all."


def sweep_title(run: str) -> str:
    """The title of a table by learning rate."""
    return f"{run}: perplexity by learning rate"


def survived(sides: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """How many seeds trained of either side of an ordering."""
    (first, seeds), (second, others) = sides
    return f"{first} of {seeds} trained", f"against {second} of {others}"


def all_trainings(time: str) -> str:
    """The time of all trainings."""
    return f" All trainings, one after the other: {time}."


def cost_beside(time: str, *, any_trained: bool) -> str:
    """The time of the trainings with the authors' code."""
    return f"Its own trainings took {time}." if any_trained else "It needed no training of its own."


def beside_heading(title: str, name: str) -> str:
    """The heading of an outcome with the authors' code."""
    return f"### `{name}` as published: {title}" if name else f"## As published: {title}"


def curve(made: Curve, bends: Sequence[tuple[str, float]]) -> ChartText:
    """One of the paper's curves."""
    name = CURVES[made.name]
    along = curve_axis(made)
    return ChartText(
        title=f"{capitalised(name)} by {along}",
        caption=f"{_CURVE_CAPTIONS[made.name]} Thick lines: mean over seeds; thin lines: single seeds.{bent(bends)}",
        description=f"Line chart of the {name} against the {along}. The numbers are in reproduction.json.",
    )


def curve_axis(made: Curve) -> str:
    """The horizontal axis of a curve."""
    return LAYER if made.along == "layer" else STEPS


def curve_label(line: Line) -> str:
    """The vertical axis of a curve."""
    if line.curve == "drops":
        return f"{line.measure}, {line.unit}"
    return GRADIENT_NORM if line.curve == "gradients" else "held-out perplexity"


def sweep(found: Reproduction) -> ChartText:
    """Perplexity by placement and learning rate."""
    return ChartText(
        title="Perplexity by placement and learning rate",
        caption=(
            "Held-out perplexity on a logarithmic axis; lower is better. Dots: seeds. Lines: mean of the loss over the "
            "seeds that trained, or "
            "over all if none did."
        ),
        description=tally(found),
    )


def made_smaller(title: str) -> str:
    """The title of a figure of smaller models."""
    return f"{title} (models made smaller)"


def a_seed(rate: str) -> str:
    """The dots of a learning rate."""
    return f"{rate}, a seed"


def in_common(names: Iterable[str], terms: str) -> str:
    """Terms that several recipes share."""
    return f"- {listed(names)}: {terms}"
