"""Chooses the text on which models are measured, so that no model was trained on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace

from mixln.data.documents import path_of
from mixln.data.settings import CorpusSettings, NamedText
from mixln.errors import SettingsError
from mixln.hosts.sources import Source

log = logging.getLogger(__name__)


def corpus_of(trials: Sequence[Source], named: NamedText) -> tuple[CorpusSettings, Source | None]:
    """The text for all models, and the trial whose comparison held out the part to use; `None` if no trial used the text.

    By default it is the text of the first trial.

    :raises SettingsError: if two trials held out different parts of it, or a trial held out another part than the one named.
    """
    names = [item.name for item in fields(CorpusSettings)]
    texts = [CorpusSettings(**{name: (trial.trial or {})[name] for name in names}) for trial in trials]
    if not texts:
        return named.over(CorpusSettings()), None
    wanted = named.over(texts[0] if named.data is None else CorpusSettings())
    same = [(text, trial) for text, trial in zip(texts, trials, strict=True) if _place(text) == _place(wanted)]
    for text, trial in zip(texts, trials, strict=True):
        if _place(text) != _place(wanted):
            log.info(
                f"{trial.title} was trained on {text.data}; if {wanted.data} contains the same text, the model has seen the evaluation text"
            )
    if not same:
        return wanted, None
    text, trial = same[0]
    for name in ("held_out", "text_column"):
        if getattr(named, name) not in (None, getattr(text, name)):
            raise SettingsError(
                f"{name.replace('_', '-')} must be {getattr(text, name)}, as in the training of {trial.title}, which has seen other parts "
                f"of {text.data}; got {getattr(named, name)}; omit it"
            )
    for other, second in same:
        if (other.held_out, other.text_column) != (text.held_out, text.text_column):
            raise SettingsError(
                f"models {trial.title} and {second.title} held out different parts of {text.data} ({text.held_out} and {other.held_out}): "
                "diagnose them separately, or name a text with --data on which neither was trained"
            )
    return replace(text, data=wanted.data), trial


def _place(text: CorpusSettings) -> str:
    """Identity of a text: its path, or the name of a hub data set."""
    path = path_of(text.data)
    return str(path.resolve()) if path.exists() else text.data
