"""Every family of the installed transformers that can be placed: `pytest -m slow tests/hosts/test_all_families.py`."""

from __future__ import annotations

import pytest

from mixln.errors import PlacementError
from mixln.hosts.families import host_of
from mixln.hosts.survey import families, survey
from tests.hosts.derived import check_family

LEAST = {"causal-lm": 100}
"""Families of each kind that are placed and verified, at least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(families()))
def test_family(name: str, tmp_path):
    try:
        host = host_of(name)
    except PlacementError as error:
        pytest.skip(str(error))
    check_family(host, tmp_path)


@pytest.mark.slow
def test_as_many_families_as_the_documents_say():
    found = list(survey())
    for kind, least in LEAST.items():
        assert sum(one.host is not None and kind in one.kinds for one in found) >= least
