"""Placements with several residual streams on three families: a training step, saving and loading, and generation with a cache."""

from __future__ import annotations

import pytest

from mixln.hosts import HOSTS
from tests.hosts.derived import check_cache, check_saved, trained

PLACEMENTS = ("mhc",)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["llama", "qwen3", "olmoe"])
def test_several_streams_work_on_dense_normed_and_routed_families(name, placement, tmp_path):
    model = trained(HOSTS[name], placement)
    check_saved(model, tmp_path)
    check_cache(model)
