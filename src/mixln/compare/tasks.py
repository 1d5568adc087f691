"""What the trials of a comparison learn, language or images: all that differs between the two while one runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mixln.compare.pretraining import Classification, Pretraining, Training
from mixln.compare.results import Floor, Task
from mixln.compare.settings import CompareSettings, VisionCompareSettings
from mixln.data.augmentation import check_augmentation
from mixln.data.pictures import prepare_images
from mixln.data.preparation import prepare
from mixln.errors import DataError
from mixln.presets import model_config, vision_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mixln.data.pictures import Images
    from mixln.data.text import Text

Say = Callable[[str], None]
LONG = 1000
"""Steps that a training of so many epochs is taken to have before its images are counted."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known once the data are prepared.

    :param config: the stock config that fits them.
    :param shared: what `experiment.json` keeps of them.
    :param steps: optimizer steps of one trial.
    :param given: what one trial sees in them, in words.
    :param floor: what a model gets that learnt frequencies only.
    :param facts: about the data, label → value.
    :param job: makes a trial's job of `trial`, `folder`, `config` and `together`.
    :param text: of language models, what they learn from; `images` of classifiers.
    """

    config: PreTrainedConfig
    shared: dict[str, Any]
    steps: int
    given: str
    floor: Floor
    facts: dict[str, str]
    job: Callable[..., Training]
    text: Text | None = None
    images: Images | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One task.

    :param head: of its models, see :func:`mixln.from_config`.
    :param config: settings → stock config, before the data are known.
    :param warms_up: whether the settings have a warm-up.
    :param prepare: settings, config and what takes a line of news → the prepared data.
    """

    head: str
    config: Callable[[Any], PreTrainedConfig]
    warms_up: Callable[[Any], bool]
    prepare: Callable[[Any, PreTrainedConfig, Say], Prepared]


def _language_config(settings: CompareSettings, vocabulary_size: int | None = None) -> PreTrainedConfig:
    return model_config(
        settings.model,
        layers=settings.layers,
        vocabulary_size=vocabulary_size,
        sequence_length=settings.text.sequence_length,
    )


def _language(settings: CompareSettings, config: PreTrainedConfig, say: Say) -> Prepared:
    say(f"text: preparing {settings.text.data}")
    text = prepare(settings.text, vocabulary_size=config.vocab_size, tokens=settings.tokens, cache=settings.cache)
    info = text.info
    if info.stream is not None:
        say(f"text: {info.words}, {info.held_out_tokens:,} tokens held out")
    else:
        length, batch = settings.text.sequence_length, settings.training.batch_size
        sequences = info.train_tokens // length
        if sequences < batch:
            raise DataError(
                f"data {info.description}: {sequences} training sequences are fewer than one batch of {batch}; "
                "give more text, or a smaller --batch-size or --sequence-length"
            )
        passes = settings.tokens / (sequences // batch * batch * length)
        say(
            f"text: {info.description}; {info.train_tokens:,} training tokens ({passes:.2g} passes will be seen), "
            f"{info.held_out_tokens:,} held out in {info.held_out_documents} documents{info.equal_words}"
        )
    given = f"{settings.tokens:,} tokens"
    return Prepared(
        config=_language_config(settings, info.vocabulary_size),
        shared={"text": {"fingerprint": info.fingerprint}},
        steps=settings.steps,
        given=given,
        floor=Floor(loss=info.unigram_loss, bits_per_byte=info.bits_per_byte(info.unigram_loss)),
        facts={
            "text": info.words,
            "held out": f"{info.held_out_tokens:,} tokens, {info.held_out_bytes:,} bytes; every token counts the same",
            "vocabulary": f"{info.vocabulary_size:,} tokens",
        },
        job=partial(Pretraining, text=text.folder, training=settings.training, engine=settings.engine),
        text=text,
    )


def _vision_config(settings: VisionCompareSettings) -> PreTrainedConfig:
    check_augmentation(settings.augment)
    return vision_config(settings.model, **settings.sizes)


def _vision(settings: VisionCompareSettings, config: PreTrainedConfig, say: Say) -> Prepared:
    say(f"images: preparing {settings.images.data}")
    images = prepare_images(
        settings.images, size=config.image_size, channels=config.num_channels, cache=settings.cache, say=say
    )
    info, batch = images.info, settings.training.batch_size
    if info.train_images < batch:
        raise DataError(
            f"data {info.description}: {info.train_images} training images are fewer than one batch of {batch}; "
            "give more images, or a smaller --batch-size"
        )
    steps = settings.training.total_steps(info.train_images)
    passes = steps / (info.train_images // batch)
    say(f"images: {info.words} ({passes:.3g} passes will be seen)")
    return Prepared(
        config=config,
        shared={"images": {"fingerprint": info.fingerprint}},
        steps=steps,
        given=f"{steps * batch:,} images ({passes:.3g} passes)",
        floor=Floor(loss=info.frequency_loss, figures={"accuracy": info.majority}),
        facts={
            "images": info.words,
            "classes": ", ".join(info.classes[:20]) + (" …" if len(info.classes) > 20 else ""),
            "size": f"{info.size} × {info.size} pixels, {info.channels} channels",
            "left out": f"{info.unreadable:,} that cannot be read; {info.converted:,} were converted",
        },
        job=partial(
            Classification,
            images=images.folder,
            augment=settings.augment,
            training=settings.training,
            engine=settings.engine,
            stochastic_depth=settings.stochastic_depth,
        ),
        images=images,
    )


KINDS: dict[Task, Kind] = {
    "language": Kind(
        head="causal-lm",
        config=_language_config,
        warms_up=lambda settings: settings.training.warmup_steps(settings.text.sequence_length) > 0,
        prepare=_language,
    ),
    "vision": Kind(
        head="image-classification",
        config=_vision_config,
        warms_up=lambda settings: round(settings.training.warmup * (settings.training.steps or LONG)) > 0,
        prepare=_vision,
    ),
}
