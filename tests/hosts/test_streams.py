"""Placements with several residual streams on three families: a training step, saving and loading, and generation with a cache."""

from __future__ import annotations

import pytest
import torch

import mixln
from mixln.hosts import HOSTS
from tests.hosts.derived import check_cache, outputs_of, trained

PLACEMENTS = (
    "mhc",
    "ihc",
    "gated-streams",
    "hc",
    "hc(2,static)",
    "siamese",
    "attnres",
    "attnres(1,normed)",
    "denseformer",
)


@pytest.mark.long
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["llama", "qwen3", "olmoe"])
def test_several_streams_work_on_dense_normed_and_routed_families(name, placement, tmp_path):
    # The dynamic part of HC's maps starts as s·tanh(0): only its matrix has a gradient then.
    model = trained(HOSTS[name], placement, resting=r"maps\.(scale|norm\.weight)$" if placement == "hc" else "$^")
    check_cache(model)
    model.save_pretrained(tmp_path)
    again = mixln.from_pretrained(tmp_path).eval()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    # Not to the bit: a product of matrices may round by where its weights lie in memory.
    torch.testing.assert_close(outputs_of(again), outputs_of(model), rtol=1e-5, atol=1e-6)
