"""Every family of the installed transformers that can be placed: `pytest -m slow tests/hosts/test_all_families.py`."""

from __future__ import annotations

import pytest

from mixln.errors import PlacementError
from mixln.hosts.families import host_of
from mixln.hosts.survey import families, survey
from mixln.hosts.verify import verified
from tests.hosts.counted import counts, section
from tests.hosts.derived import check_family
from tests.hosts.matrix import DOCUMENT

LEAST = {
    "causal-lm": 105, "masked-lm": 20, "image-classification": 6, "image-features": 8, "seq2seq-lm": 12, "speech-seq2seq": 1
}  # fmt: skip
"""Families of each kind that are placed and verified, at least, in the oldest version of transformers that is admitted."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The configs of all families take seconds to import, also where these tests are not run.
    if "name" in metafunc.fixturenames:
        wanted = "not slow" not in metafunc.config.option.markexpr
        metafunc.parametrize("name", sorted(families()) if wanted else ())


@pytest.mark.slow
def test_family(name: str, tmp_path):
    try:
        host = host_of(name)
    except PlacementError as error:
        pytest.skip(str(error))
    if failure := verified(host).failure:
        pytest.skip(f"{name} cannot be placed: {failure}")
    check_family(host, tmp_path)


@pytest.mark.slow
def test_document_lists_the_families_of_this_version():
    found = list(survey())
    number = counts(found)
    assert {kind: number[kind] for kind, least in LEAST.items() if number[kind] < least} == {}
    heading, *_ = made = section(found).splitlines()
    text = DOCUMENT.read_text("utf-8")
    if heading in text:
        assert "\n".join(made) in text
