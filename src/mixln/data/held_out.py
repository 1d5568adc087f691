"""Which text several models are measured on, so that none has been trained on it."""

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
    """The text for all models, and the trial whose comparison held out the part of it that is to be used.

    Where no text is named, it is the first trial's.

    :raises SettingsError: if two trials were trained on different parts of it, or another part of it is named than a trial's.
    """
    names = [item.name for item in fields(CorpusSettings)]
    own = [CorpusSettings(**{name: (trial.trial or {})[name] for name in names}) for trial in trials]
    if not own:
        return named.over(CorpusSettings()), None
    wanted = named.over(own[0] if named.data is None else CorpusSettings())
    same = [(text, trial) for text, trial in zip(own, trials, strict=True) if _place(text) == _place(wanted)]
    for text, trial in zip(own, trials, strict=True):
        if _place(text) != _place(wanted):
            log.info(
                f"{trial.title} was trained on {text.data}: if {wanted.data} holds the same text, it has seen what is measured here"
            )
    if not same:
        return wanted, None
    text, trial = same[0]
    for name in ("held_out", "text_column"):
        if getattr(named, name) not in (None, getattr(text, name)):
            raise SettingsError(
                f"{name.replace('_', '-')} was {getattr(text, name)} where {trial.title} was trained, and other parts of {text.data} "
                f"it has seen: got {getattr(named, name)}; leave it out"
            )
    for other, second in same:
        if (other.held_out, other.text_column) != (text.held_out, text.text_column):
            raise SettingsError(
                f"models {trial.title} and {second.title} held out different parts of {text.data} ({text.held_out} and {other.held_out}): "
                "diagnose them apart, or give --data a text that neither was trained on"
            )
    return replace(text, data=wanted.data), trial


def _place(text: CorpusSettings) -> str:
    """Identity of a text: its path, or the name of a hub data set."""
    path = path_of(text.data)
    return str(path.resolve()) if path.exists() else text.data
