"""Recipe of Table 4 of the Mix-LN paper: vision transformers on ImageNet-1K."""

from __future__ import annotations

from mixln.compare.settings import VisionCompareSettings
from mixln.data.settings import AugmentSettings, ImageSettings
from mixln.recipes.records import Recipe, Run, Scale, row
from mixln.training.settings import VisionTrainSettings

PLACEMENTS = ("pre", "mix(0.25)")
IMAGENET = "ILSVRC/imagenet-1k"
EPOCHS, WARMUP_EPOCHS = 120, 20
PUBLISHED = {
    "ViT-Tiny": {"pre": 67.30, "mix(0.25)": 67.34},
    "ViT-Small": {"pre": 75.99, "mix(0.25)": 76.40},
}
CONVNEXT = AugmentSettings(
    crop=0.08, flip=0.5, rand_augment=9, mixup=0.8, cutmix=1.0, erasing=0.25, label_smoothing=0.1
)
"""Augmentation of ConvNeXt (arXiv:2201.03545), Table 5, pre-training on ImageNet-1K; `TRAINING` is from the same table."""
TRAINING = VisionTrainSettings(
    epochs=EPOCHS,
    batch_size=4096,
    micro_batch_size=512,
    warmup=WARMUP_EPOCHS / EPOCHS,
    final_learning_rate=0.0,
    beta1=0.9,
    beta2=0.999,
    weight_decay=0.05,
    max_gradient_norm=0.0,
    average=0.9999,
    evaluations=12,
)


def _runs(scale: Scale, data: str | None) -> tuple[Run, ...]:
    if scale == "paper":
        return tuple(
            Run(
                name=name,
                settings=VisionCompareSettings(
                    model=name.lower(),
                    placements=PLACEMENTS,
                    learning_rates=(4e-3,),
                    seeds=(0, 1, 2),
                    init="normal",
                    stochastic_depth=0.1,
                    images=ImageSettings(data=data or IMAGENET),
                    augment=CONVNEXT,
                    training=TRAINING,
                ),
            )
            for name in PUBLISHED
        )
    settings = VisionCompareSettings(
        placements=PLACEMENTS, seeds=(0, 1, 2), init="normal", images=ImageSettings(data=data or ImageSettings().data)
    )
    return (Run(name="ViT-Tiny", settings=settings),)


TABLE_4 = Recipe(
    title="Table 4: top-1 accuracy of ViT-Tiny and ViT-Small on ImageNet-1K",
    source="Mix-LN, arXiv:2412.13795, Table 4 and section 4.5; ConvNeXt, arXiv:2201.03545, Table 5",
    reading=(
        "The paper states only 120 epochs, α = 0.25 and “the ConvNeXt configurations”. At the paper's scale, all pre-training settings "
        "of ConvNeXt are used except its 300 epochs, including its 20 epochs of warm-up. The paper has one seed or does not state the "
        "number. Omitted are layer scale, which a ViT does not have, and RandAugment's random magnitude (standard deviation 0.5)."
    ),
    scaled=(
        "vit-micro (1.3 million parameters instead of 5.7 and 22 million), Fashion-MNIST (60,000 images of 28 × 28 instead of 1.28 "
        "million of 224 × 224), 7 epochs instead of 120, 10% of them warm-up, batch 128, learning rate 1e-3, flips only, gradients clipped "
        "to norm 1, neither stochastic depth nor EMA of the weights"
    ),
    minutes=50,
    runs=_runs,
    published={
        "accuracy": {place: value for name, numbers in PUBLISHED.items() for place, value in row(name, numbers).items()}
    },
)
