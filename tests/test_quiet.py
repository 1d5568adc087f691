"""What other libraries say is kept from the terminal, and everything is as it was afterwards."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress

import datasets
import transformers

from mixln.quiet import quiet


def state() -> tuple:
    return (
        {name: logging.getLogger(name).level for name in ("", "mixln", "trl", "transformers", "datasets")},
        transformers.utils.logging.get_verbosity(),
        transformers.utils.logging.is_progress_bar_enabled(),
        datasets.are_progress_bars_disabled(),
        list(warnings.filters),
    )


def test_nothing_is_said_within_and_all_is_as_before_after(capfd, caplog):
    datasets.enable_progress_bars()
    transformers.utils.logging.enable_progress_bar()
    before = state()
    with suppress(RuntimeError), quiet(), quiet():
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("trl").warning("a log")
        logging.getLogger("created.later").warning("a log")
        transformers.utils.logging.get_logger("transformers").warning("another")
        list(datasets.Dataset.from_list([{"a": 1}]).map(lambda row: row))
        assert state() != before
        raise RuntimeError
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_what_mixln_logs_is_heard(news):
    with quiet():
        logging.getLogger("mixln.data").info("news")
    assert news.messages == ["news"]
