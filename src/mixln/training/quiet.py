"""Keeping the libraries' own progress bars and warnings from the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within it, transformers, TRL and datasets say nothing but errors."""
    import datasets
    import transformers

    bars, level, disabled = (
        datasets.are_progress_bars_disabled(),
        transformers.utils.logging.get_verbosity(),
        logging.root.manager.disable,
    )
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        transformers.utils.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
