"""Continued pre-training of a checkpoint as an idempotent step: checks, text in the model's own tokens, training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from mixln.compare.settings import PretrainSettings
from mixln.compare.tasks.language import prepared_text
from mixln.data.documents import is_prepared, path_of
from mixln.data.text import Text
from mixln.errors import DataError, SettingsError
from mixln.files import cache_folder, check_writable
from mixln.hosts.configs import is_placed, positions
from mixln.hosts.sources import Source, refuse_pickle, tokenizer_of
from mixln.runs.checkpoints import clear
from mixln.runs.folder import RunFolder
from mixln.runs.outcome import Outcome
from mixln.training.continuation import CONTINUATION_RUN, ContinuationConfig, ContinuationRun
from mixln.training.language_modelling import LanguageObjective
from mixln.training.post_training import check_decoder
from mixln.training.post_training_run import CHECKPOINTS

log = logging.getLogger(__name__)


def continue_training(
    source: Source, settings: PretrainSettings, lead: Callable[[ContinuationRun], Outcome] = ContinuationRun.train
) -> Outcome:
    """Trains a checkpoint further on text, unless `settings.out` holds the result.

    :param settings: the checkpoint decides `model`, `placement`, `layers`, `init` and the tokenizer; theirs are not used.
    :param lead: runs the training, on all processes.
    :raises SettingsError: if the model or its class does not allow the training; :class:`DataError` for its tokenizer or the text;
        :class:`CheckpointError` for its weights; :class:`StoreError` for the folder.
    """
    check_continuable(source, settings)
    tokenizer = tokenizer_of(source)
    folder = RunFolder(settings.out, CONTINUATION_RUN)
    check_writable(settings.out)
    folder.request()  # refuses a folder of something else before the text is tokenized
    text = _text(source, settings, tokenizer)
    training = ContinuationRun(
        objective=LanguageObjective(text, tokenizer=tokenizer),
        config=ContinuationConfig(
            source=source,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            settings=settings.training,
            engine=settings.engine,
            parallel=settings.parallel,
        ),
        folder=settings.out / CHECKPOINTS,
        out=settings.out,
    )
    result, existed = folder.once(training.asked(), partial(lead, training), training.leaves)
    if existed:
        log.info("already complete: nothing to train; to train again, change a setting and --out")
    clear(training.folder)  # the result is final; nothing resumes from them
    return result


def check_continuable(source: Source, settings: PretrainSettings) -> None:
    """Checks everything about the model that its config tells.

    :raises SettingsError: if it is not a language model of text alone, or the settings do not fit it.
    """
    check_decoder(source)
    refuse_pickle(source)
    if getattr(source.config, "quantization_config", None) is not None:
        raise SettingsError(
            f"model {source.name} is quantized, and quantized weights cannot be trained; name the model that it was made from"
        )
    length, most = settings.text.sequence_length, positions(source.config)
    if most is not None and length > most:
        raise SettingsError(
            f"sequence-length must be at most {most:,}, the positions of model {source.name}, got {length:,}"
        )
    if is_placed(source.config):
        return
    stock = f"only for placed models, and {source.name} is a stock model"
    if settings.parallel == "fsdp":
        raise SettingsError(f"parallel fsdp is {stock}; use --parallel ddp")
    if settings.engine.compile == "on":
        raise SettingsError(f"compile on is {stock}; use --compile auto")


def _text(source: Source, settings: PretrainSettings, tokenizer: Any) -> Text:
    """The text in the model's own tokens.

    :raises DataError: if it was tokenized before with another tokenizer.
    """
    name = None if is_prepared(path_of(settings.text.data)) else source.path
    chosen = replace(settings.text, tokenizer=name, vocabulary_size=None)
    comparison = replace(settings.comparison(), text=chosen, cache=cache_folder(settings.cache))
    text = prepared_text(comparison, len(tokenizer))
    if text.tokenizer().get_vocab() != tokenizer.get_vocab():
        raise DataError(
            f"data {settings.text.data} is tokenized with another tokenizer than that of model {source.name}; prepare it with "
            f"mixln data prepare --tokenizer {source.path}, or give the text itself"
        )
    return text
