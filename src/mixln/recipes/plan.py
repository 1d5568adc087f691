"""What a recipe trains and what that takes, before it is begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mixln.compare.settings import CompareSettings, GridSettings, VisionCompareSettings
from mixln.errors import SettingsError
from mixln.planning.settings import DEVICES, PlanSettings
from mixln.recipes.deviations import Variant, changed
from mixln.recipes.records import Recipe, Run, Scale
from mixln.training.settings import Parallel

if TYPE_CHECKING:
    from mixln.planning.plan import Plan

IMAGENET_SIZE = (1_281_167, 1000)
"""Training images and classes of ImageNet-1K (arXiv:1409.0575)."""
UTILISATION = 0.3
"""Of a GPU's peak, that a time in a plan is reckoned with."""


def settings_of(run: Run) -> str:
    """What one run trains, in a line."""
    settings = run.settings
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    micro = settings.training.micro_batch_size
    length = f"{_length(settings)}{f', {micro} at a time' if micro else ''}"
    return (
        f"{run.name}: {settings.model}; {', '.join(settings.placements)}; learning rate{'s' if ',' in rates else ''} {rates}; "
        f"seeds {', '.join(map(str, settings.seeds))}; {length}; init {settings.init or 'as each placement has it'}"
    )


def _length(settings: GridSettings) -> str:
    training = settings.training
    if isinstance(settings, CompareSettings):
        length = settings.text.sequence_length
        return f"{settings.steps:,} steps of {training.batch_size} × {length} tokens"
    assert isinstance(settings, VisionCompareSettings)
    return f"{settings.training.epochs:g} epochs, {training.batch_size} images a step"


def check_machine(runs: tuple[Run, ...], *, processes: int = 1, parallel: Parallel = "ddp") -> None:
    """Whether runs at the paper's scale can go on here.

    :param processes: that train one model together; `parallel` is what each holds of it.
    :raises SettingsError: if not: it says what is needed and what is there.
    """
    import torch

    if any(run.settings.executor == "ray" for run in runs):
        if not all(run.settings.gpus_per_trial for run in runs):
            raise SettingsError("scale paper needs a GPU for each training; add --gpus-per-trial 1")
        return
    if torch.cuda.is_available():
        have = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
        for run in runs:
            if isinstance(run.settings, CompareSettings):  # models of images are small
                made = planned(run, processes=processes, parallel=parallel, memory=have)
                if not made.fits:
                    without = ["leave it out with --only"] if len(runs) > 1 else []
                    remedies = [*_remedies(run, made), *without, "run --scale cpu"]
                    raise SettingsError(
                        f"scale paper needs {made.memory.total / 1e9:.0f} GB of a GPU for {run.name}, and 1 GB for its driver, and this "
                        f"machine's have {have / 1e9:.0f} GB; {', or '.join(remedies)}"
                    )
        return
    cores = torch.get_num_threads()
    models = ", ".join(dict.fromkeys(run.settings.model for run in runs))
    raise SettingsError(
        f"scale paper needs a GPU for each training ({models}), and this machine has none and "
        f"{cores} cores; see it with --plan, or run --scale cpu"
    )


def _remedies(run: Run, made: Plan) -> Iterator[str]:
    """What to do with a model that does not fit a GPU; nothing where nothing helps.

    :param made: its plan.
    """
    asked = made.settings
    if made.remedy is not None:
        yield f"add {made.remedy_options}"
    alone = asked.devices == 1 and not _followed(run)
    if alone and planned(run, processes=8, parallel="fsdp", memory=asked.memory).fits:
        yield "start it with torchrun on eight GPUs and --parallel fsdp"


def described(
    recipe: Recipe,
    runs: tuple[Run, ...],
    scale: Scale,
    variants: tuple[Variant, ...] = (),
    *,
    done: Callable[[Run], int],
) -> Iterator[str]:
    """What a recipe is, what it trains and what that takes, line by line.

    :param variants: what is tried beside it.
    :param done: run → how many of its trials have ended before.
    """
    yield f"{recipe.title} ({recipe.source})"
    yield recipe.whole_reading
    beside = {
        variant: [made for run in runs if (made := _beside(run, changed(run, variant))) is not None]
        for variant in variants
    }
    every = [*runs, *(run for new in beside.values() for run in new)]
    if scale == "cpu":
        longer = sum(run.trials for run in every) / sum(run.trials for run in runs) if runs else 1
        minutes = round(recipe.minutes * longer)
        yield (
            f"Made smaller: {recipe.scaled}. About {minutes} minute{'s' * (minutes != 1)} on two cores in all, less where some of it is "
            "done."
        )
    hours = left = 0.0
    for variant, new in {None: runs, **beside}.items():
        if variant is not None:
            yield f"As published, {variant.name}: {variant.what}"
        for run in new:
            count = done(run)
            ended = f", {count} of them {'pre-trained' if run.diagnosed or _followed(run) else 'done'}" if count else ""
            yield f"{settings_of(run)}: {run.trials} trial{'s' * (run.trials > 1)}{ended}"
            if scale == "paper":
                text, own = _needs(run)
                hours += own
                left += own * (1 - count / run.trials)
                yield f"  {text}"
        if not new and variant is not None:
            yield "no training: what the others found is counted as the authors' code counts"
    if scale == "paper" and (len(every) > 1 or left < hours):
        still = f", {left:,.0f} of them still to do" if left < hours else ""
        yield f"All of it: {hours:,.0f} hours of one {DEVICES['h100'].title}{still}."
    if scale == "paper" and any(run.diagnosed or _followed(run) for run in every):
        yield "Not counted: what follows the pre-training."
    for name, model in recipe.models(scale).items():
        held = f"the checkpoint in the package {model.removeprefix('package:').partition('/')[0].replace('_', '-')}"
        yield f"{name}: a diagnosis of {held if model.startswith('package:') else model}"


def _beside(run: Run, made: Run) -> Run | None:
    """What of a changed run is to be trained beside the run as it is."""
    own = run.settings.placements if made.settings.shared() == run.settings.shared() else ()
    placements = tuple(name for name in made.settings.placements if name not in own)
    return replace(made, settings=replace(made.settings, placements=placements, baseline=None)) if placements else None


def _followed(run: Run) -> bool:
    """Whether its models are trained further or asked tasks."""
    return isinstance(run.settings, CompareSettings) and bool(run.settings.after.chain)


def _needs(run: Run) -> tuple[str, float]:
    """What one run takes at the paper's scale, and its hours of one device."""
    device, settings, trials = DEVICES["h100"], run.settings, run.trials
    if isinstance(settings, VisionCompareSettings):
        from mixln.planning.vision import plan_vision
        from mixln.presets import vision_config

        images, classes = IMAGENET_SIZE
        config = vision_config(settings.model, **settings.sizes)
        plan = plan_vision(config, settings.training, trials=trials, images=images, classes=classes)
        hours = plan.flops / (UTILISATION * device.bfloat16 * 1e12) / 3600
        text = (
            f"{plan.parameters / 1e6:.1f} million parameters, {plan.steps:,} steps of {settings.training.batch_size:,} images each; "
            f"{plan.per_image / 1e9:.1f} GFLOPs an image, {plan.flops:.1e} in all: {hours:,.0f} hours of one {device.title} at "
            f"{UTILISATION:.0%} of its peak, if the images come fast enough; one trial a GPU"
        )
        return text, hours
    made = planned(run)
    hours = trials * made.seconds / 3600
    memory = made.memory.total / 1e9
    fit = f"{memory:.0f} GB of a device's {made.settings.memory / 1e9:.0f}"
    if not made.fits:
        fit += f", which do not fit: {', or '.join(_remedies(run, made)) or 'not on eight either'}"
    else:
        fit += ", one trial a GPU"
    text = (
        f"{made.parameters / 1e6:,.0f} million parameters, {made.tokens / 1e9:,.1f} billion tokens each; {trials * made.model_flops:.1e} "
        f"FLOPs in all: {hours:,.0f} hours of one {device.title} at {UTILISATION:.0%} of its peak; {fit}"
    )
    return text, hours


def planned(run: Run, *, processes: int = 1, parallel: Parallel = "ddp", memory: float | None = None) -> Plan:
    """The plan of a run of language models.

    :param processes: devices that train one model together; `parallel` is what each holds of it.
    :param memory: of a device, bytes; left out, that of the one which times are reckoned with.
    """
    from mixln.planning.plan import make_plan

    settings = run.settings
    assert isinstance(settings, CompareSettings)
    training = settings.training
    micro = training.micro_batch_size
    return make_plan(
        PlanSettings(
            model=settings.model,
            sequence_length=settings.text.sequence_length,
            batch_size=training.batch_size,
            micro_batch_size=None if micro is None else min(micro, training.batch_size // processes),
            activation_checkpointing=settings.engine.activation_checkpointing,
            steps=settings.steps,
            trials=run.trials,
            devices=processes,
            parallel=parallel,
            utilisation=UTILISATION,
            memory_per_device=None if memory is None else memory / 1e9,
        )
    )
