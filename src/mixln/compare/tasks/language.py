"""Language modelling: predict the next token of a text."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mixln.compare.metrics import LANGUAGE
from mixln.compare.results import FrequencyBaseline, TrialLength
from mixln.compare.settings import CompareSettings
from mixln.compare.tasks.task import Estimate, Task, TaskData, TrainingLength
from mixln.data.preparation import prepare
from mixln.data.settings import TextSettings
from mixln.data.text import Text
from mixln.errors import DataError
from mixln.planning.settings import UTILISATION, PlanSettings
from mixln.presets import model_config
from mixln.records import from_json, to_json
from mixln.training.settings import Parallel, TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from mixln.hosts.sources import Source
    from mixln.planning.plan import Plan
    from mixln.training.language_modelling import LanguageObjective

log = logging.getLogger(__name__)


L = TypeVar("L", bound=CompareSettings)


class LanguageTask(Task[L, Text], Generic[L]):
    """Predict every token from the tokens before it."""

    name, entry, head = "language", "text", "causal-lm"
    settings, metrics = CompareSettings, LANGUAGE

    def config(self, settings: L) -> PreTrainedConfig:
        return config_of(settings)

    def warms_up(self, settings: L) -> bool:
        return settings.training.warmup_steps(settings.text.sequence_length) > 0

    def prepare(self, settings: L, config: PreTrainedConfig) -> TaskData[Text]:
        text = prepared_text(settings, config.vocab_size)
        info = text.info
        return TaskData(
            source=text,
            folder=text.folder,
            fingerprint=info.fingerprint,
            config=config_of(settings, info.vocabulary_size),
            length=TrialLength(steps=settings.steps, amount=settings.tokens),
            floor=FrequencyBaseline(loss=info.unigram_loss, bits_per_byte=info.bits_per_byte(info.unigram_loss)),
            text=info,
        )

    def objective(self, settings: L, folder: Path) -> LanguageObjective:
        from mixln.training.language_modelling import LanguageObjective

        return LanguageObjective(Text.load(folder))

    def trained_on(self, experiment: dict[str, Any], source: Source) -> Source:
        settings = experiment["settings"]
        text = from_json(TextSettings, settings["text"], "settings.text")
        training = from_json(TrainSettings, settings["training"], "settings.training")
        tokens = training.total_steps(text.sequence_length) * training.batch_size * text.sequence_length
        return replace(source, trial=to_json(text), trial_tokens=tokens)

    def schedule(self, settings: L) -> TrainingLength:
        return TrainingLength(steps=settings.steps, sequence_length=settings.text.sequence_length)

    def plan(
        self,
        settings: L,
        trials: int,
        *,
        processes: int = 1,
        parallel: Parallel = "ddp",
        memory: float | None = None,
    ) -> Plan:
        from mixln.planning.plan import make_plan

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
                trials=trials,
                devices=processes,
                parallel=parallel,
                utilisation=UTILISATION,
                memory_per_device=None if memory is None else memory / 1e9,
            )
        )

    def estimate(self, settings: L, trials: int) -> Estimate:
        made = self.plan(settings, trials)
        return Estimate(
            parameters=made.parameters,
            tokens=made.tokens,
            flops=trials * made.model_flops,
            hours=trials * made.seconds / 3600,
        )

    def tokenizer(self, data: TaskData[Text]) -> PreTrainedTokenizerBase:
        return data.source.tokenizer()


def prepared_text(settings: CompareSettings, vocabulary_size: int) -> Text:
    """Prepares the text of a comparison.

    :param vocabulary_size: tokens of the BPE to train, if the settings give neither a tokenizer nor a size.
    :raises DataError: if the text has fewer sequences than one batch.
    """
    log.info(f"text: preparing {settings.text.data}")
    text = prepare(settings.text, vocabulary_size=vocabulary_size, tokens=settings.tokens, cache=settings.cache)
    info = text.info
    if info.stream is not None:
        log.info(f"text: {info.words}, {info.held_out_tokens:,} tokens held out")
        return text
    length, batch = settings.text.sequence_length, settings.training.batch_size
    sequences = info.train_tokens // length
    if sequences < batch:
        raise DataError(
            f"data {info.description}: {sequences} training sequences are fewer than one batch of {batch}; "
            "give more text, or lower --batch-size or --sequence-length"
        )
    passes = settings.tokens / (sequences // batch * batch * length)
    log.info(
        f"text: {info.description}; {info.train_tokens:,} training tokens ({passes:.2g} epochs), "
        f"{info.held_out_tokens:,} held out in {info.held_out_documents} documents{info.equal_words}"
    )
    return text


def config_of(settings: CompareSettings, vocabulary_size: int | None = None) -> PreTrainedConfig:
    """The stock config of a comparison of language models.

    :param vocabulary_size: vocabulary size of the tokenizer; `None` while it is not known.
    """
    return model_config(
        settings.model,
        layers=settings.layers,
        vocabulary_size=vocabulary_size,
        sequence_length=settings.text.sequence_length,
    )


TASK: LanguageTask[CompareSettings] = LanguageTask()
