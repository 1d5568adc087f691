"""Wording of recipe outcomes: quantities, verdicts, tables, figures, and the document on all recipes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mixln.evaluation.settings import TABLE_2
from mixln.recipes import RECIPES
from mixln.recipes.curves import Curve
from mixln.recipes.deviations import DEVIATIONS
from mixln.recipes.records import Recipe
from mixln.recipes.results import DeviationStudy, Line, Reproduction, TrainedRun, VariantResult, Verdict
from mixln.report.wording.charts import GRADIENT_NORM, LAYER, STEPS, ChartText, bent
from mixln.report.wording.phrases import NOT_SIGNIFICANT, capitalised, listed, plural

QUANTITIES = {
    "perplexity": "perplexity",
    "perplexity-over-course": "perplexity over the course of training",
    "accuracy": "accuracy",
    "mean-task-accuracy": "mean task accuracy",
    **{f"accuracy-{task}": f"accuracy on {task}" for task in TABLE_2},
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
    "undecided": (NOT_SIGNIFICANT, "undecided"),
    "at-chance": ("both at chance level", "at chance level"),
    "single-seed": ("no interval over seeds", "without an interval over seeds"),
    "failed": ("a trial failed", "failed"),
    "not-measured": ("not measured at this scale", ""),
}
"""Verdict → outcome of one ordering, and its name in a count of outcomes."""
CURVES = {
    "drops": "performance drop",
    "gradients": "gradient norm at the first step",
    "course": "perplexity over the course of training",
}
"""Curve → its name."""
_CURVE_CAPTIONS = {
    "drops": "Performance drop without each layer, for models that trained; at zero, the model performs equally well without the layer.",
    "gradients": "L2 norm of the gradient of each layer's weights at the first step, attention and feed-forward together, on a logarithmic "
    "axis.",
    "course": "Held-out perplexity at each evaluation, on a logarithmic axis; lower is better.",
}
MODEL, PLACEMENT, QUANTITY, PUBLISHED, HERE = "model", "placement", "quantity", "published", "here"
MEASURED, TRAINED, OUTCOME, SEEDS = "measured, 95% interval", "trained", "outcome", "seeds"
PAPER_AHEAD, AHEAD_OF, BY = "the paper has", "ahead of", "by"
PAPER = "as in the paper"
OURS = " (not claimed by the paper)"
DIVERGED = "diverged"
COUNTED_TITLE = "Published and measured here"
NUMBERS_CAPTION = (
    "At the small scale, model sizes and data differ from the paper's, so that orderings can be compared but numbers cannot. Trained: "
    "seeds that neither diverged nor stalled. The mean is over the seeds that trained, or over the stalled ones if none trained."
)
ORDERS_CAPTION = (
    "Measured, published: difference between the first and the second; the measured one is paired by seed. Seeds: those at which both "
    "have a value. By perplexity and accuracy, a placement that trained at all seeds is ahead of one that trained at none, and the "
    "ordering is undecided if only some seeds trained. Contributions of layers are measured on models that trained."
)
BESIDE_TITLE = "Measured: as in the paper, and with the authors' code"
DIFFERENCES_CAPTION = (
    "Differences between the first and the second, paired by seed, with 95% intervals, and the outcome of the paper's ordering; if not "
    "all seeds trained, the number that did."
)
CHANGES_CAPTION = (
    "The difference minus that of the recipe as in the paper, paired by seed, with 95% intervals. For perplexities both are differences "
    "of logarithms: from −50% to −20% is +60%, because 0.8 is 1.6 times 0.5. Omitted if some seeds did not train."
)
SWEEP_CAPTION = (
    "Perplexity is e to the power of the mean held-out loss over the seeds that trained, with their number in brackets if not all did; "
    "if none trained, the mean is over those that stalled. In the tables above, each placement is at its best learning rate."
)
NO_ORDERING = "The paper claims no ordering here."
SMALL_MODELS = "Models this small, trained this briefly, are no evidence about the models of the paper: only orderings are compared."
SWEEP_AXIS = "placement; for Mix-LN its share α"
INTRODUCTION = """# Published and reproduced results

Written by `mixln reproduce --document docs/papers` from the files that `mixln reproduce NAME` writes (`reproduction.json`). Every recipe
has two scales. `--scale paper` has the paper's sizes, data and steps, prints an estimate of the compute, and needs GPUs. `--scale cpu`,
the default, is scaled down by the stated factors; the results below are from two cores. Models that small, trained that briefly, are no
evidence about large ones: only the ordering of placements is compared, with 95% confidence intervals over seeds. Two trials ran in
parallel, so that a recipe took about half of its total training time, and less if it shared trials with an earlier recipe. A recipe
without an outcome has not been run yet. Not included: Figure 1 of the Mix-LN paper, which is a drawing, and the figures of HybridNorm
and all its tables except the five named below. `mixln reproduce --list` names all recipes. `--as-published` repeats them with the
deviations of the authors' code, one at a time, and shows the share of each in every difference (`as-published.json`).
"""
OVERVIEW = (
    "recipe",
    "description",
    "orderings of the paper that held",
    "reversed",
    "undecided",
    "total training time",
)
OVERVIEW_CAPTION = (
    "Undecided: the 95% interval includes zero, some seeds did not train, both sides are at chance level, or there is no interval over "
    "seeds."
)
NOT_RUN, NOTHING_TRAINED = "not run yet", "no training"
COMMON = "Notes common to several recipes"


def recipe_of(result: Reproduction | DeviationStudy) -> Recipe:
    """The recipe of an outcome, restricted to the models that were run.

    :raises KeyError: if this version of mixln does not have it.
    """
    recipe = RECIPES[result.recipe]
    return recipe.only(result.only, result.scale) if result.only else recipe


def trained(run: TrainedRun) -> str:
    """One comparison in a line."""
    rates = f"learning rate{'s' * (len(run.learning_rates) > 1)} {listed(f'{rate:g}' for rate in run.learning_rates)}"
    micro = f", micro batch {run.micro_batch_size}" if run.micro_batch_size else ""
    if run.sequence_length is not None:
        length = f"{run.steps:,} steps of {run.batch_size} × {run.sequence_length} tokens"
    else:
        length = f"{run.epochs:g} epochs, {run.batch_size} images per step"
    init = run.init or "as recommended for each placement"
    return f"{run.run}: {run.model}; {listed(run.placements)}; {rates}; seeds {listed(run.seeds)}; {length}{micro}; init {init}"


def smaller(recipe: Recipe) -> str:
    """The factors of the small scale."""
    return f"Scaled down: {recipe.scaled}."


def deviations(varied: VariantResult) -> str:
    """The deviations of the authors' code."""
    return "; ".join(DEVIATIONS[name].what for name in varied.name.split("+"))


def outcome(verdict: Verdict, *, all_trained: bool) -> str:
    """The outcome of one ordering.

    :param all_trained: whether all seeds of both sides trained; only then is their difference tested.
    """
    decided, counted = VERDICTS[verdict]
    return decided if all_trained else counted or decided


def tally(result: Reproduction) -> str:
    """The sentence that counts the outcomes of all orderings."""
    counted = [
        ordering.verdict for ordering in result.orderings if ordering.verdict != "not-measured" and not ordering.ours
    ]
    if not counted:
        return NO_ORDERING
    parts = (f"{counted.count(verdict)} {text}" for verdict, (_, text) in VERDICTS.items() if verdict in counted)
    return f"{plural(len(counted), 'ordering')} of the paper: {listed(parts)}."


def numbers_title(quantity: str) -> str:
    """Title of the numbers.

    :param quantity: empty if there are several.
    """
    return f"{capitalised(QUANTITIES[quantity])}: published and measured" if quantity else "Published and measured"


def by(quantity: str) -> str:
    """Suffix of a title: the quantity of all orderings; empty if there are several."""
    return f", by {QUANTITIES[quantity]}" if quantity else ""


def orders_title(quantity: str) -> str:
    """Title of the orderings."""
    return f"Did the paper's order hold{by(quantity)}?"


def differences_title(quantity: str) -> str:
    """Title of the differences with the authors' code."""
    return f"Differences with the authors' code{by(quantity)}"


def changes_title(quantity: str) -> str:
    """Title of the changes due to the authors' code."""
    return f"Change of the differences{by(quantity)}"


def beside_caption(study: DeviationStudy) -> str:
    """Caption that explains the columns of the authors' code."""
    variants = "; ".join(f"{variant.name}: {deviations(variant)}" for variant in study.varied)
    return f"{variants}. 95% intervals; in brackets the number of seeds that trained, if not all did."


def sweep_title(run: str) -> str:
    """Title of a table by learning rate."""
    return f"{run}: perplexity by learning rate"


def survived(sides: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """Number of seeds that trained on each side of an ordering."""
    (first, seeds), (second, others) = sides
    return f"{first} of {seeds} trained", f"against {second} of {others}"


def all_trainings(time: str) -> str:
    """Sentence on the total training time."""
    return f" Total training time: {time}."


def cost_beside(time: str, *, any_trained: bool) -> str:
    """Sentence on the additional training time with the authors' code."""
    return f"Additional training time: {time}." if any_trained else "No additional training."


def beside_heading(title: str, name: str) -> str:
    """Heading of an outcome with the authors' code."""
    return f"### `{name}` with the authors' code: {title}" if name else f"## With the authors' code: {title}"


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
    """Label of the horizontal axis of a curve."""
    return LAYER if made.along == "layer" else STEPS


def curve_label(line: Line) -> str:
    """Label of the vertical axis of a curve."""
    if line.curve == "drops":
        return f"{line.measure}, {line.unit}"
    return GRADIENT_NORM if line.curve == "gradients" else "held-out perplexity"


def sweep(result: Reproduction) -> ChartText:
    """Perplexity by placement and learning rate."""
    return ChartText(
        title="Perplexity by placement and learning rate",
        caption=(
            "Held-out perplexity on a logarithmic axis; lower is better. Dots: seeds. Lines: mean of the loss over the seeds that trained, "
            "or over all if none did."
        ),
        description=tally(result),
    )


def made_smaller(title: str) -> str:
    """Title of a figure of scaled-down models."""
    return f"{title} (scaled-down models)"


def a_seed(rate: str) -> str:
    """Label of the dots of a learning rate."""
    return f"{rate}, single seed"


def in_common(names: Iterable[str], terms: str) -> str:
    """Terms common to several recipes, as a list item."""
    return f"- {listed(names)}: {terms}"
