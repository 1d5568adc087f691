"""Suppresses progress bars, load reports and warnings of other libraries."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which other libraries print only errors, and no progress bars; datasets only if it is already imported.

    The level of mixln's own loggers stays the same.

    The settings are global to the process, so two threads must not use it at the same time.
    """
    from transformers.utils import logging as transformers

    with ExitStack() as stack:
        for logger, level in _louder_than(logging.ERROR):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
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


def _louder_than(level: int) -> Iterator[tuple[logging.Logger, int]]:
    """Loggers whose level must change, each with its new level. Loggers created later inherit that of the root."""
    mixln = logging.getLogger("mixln")
    yield mixln, mixln.getEffectiveLevel()
    yield logging.root, max(level, logging.root.level)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and 0 < logger.level < level and not f"{name}.".startswith("mixln."):
            yield logger, level
