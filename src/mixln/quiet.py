"""Suppresses progress bars, load reports and warnings of other libraries."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which transformers, TRL and datasets print only errors; datasets only if it is already imported.

    The settings are global to the process, so two threads must not use it at the same time.
    """
    from transformers.utils import logging as transformers

    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        stack.callback(transformers.set_verbosity, transformers.get_verbosity())
        transformers.set_verbosity_error()
        if transformers.is_progress_bar_enabled():
            stack.callback(transformers.enable_progress_bar)
            transformers.disable_progress_bar()
        datasets = sys.modules.get("datasets")
        if datasets is not None and not datasets.are_progress_bars_disabled():
            stack.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
