"""Families whose own code keeps several residual streams: their own placement is exact, and any other replaces the streams."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import mixln
from mixln.errors import PlacementError
from mixln.hosts import Host, placement_for
from mixln.hosts.families import host_of
from mixln.hosts.own_streams import OWN_STREAMS
from mixln.hosts.reading import read_layer
from mixln.hosts.shrunken import shrunken
from mixln.hosts.syntax import Unreadable
from mixln.hosts.verify import verify
from tests.hosts.derived import check_cache, check_family, outputs_of, trained

PRESENT = [name for name in OWN_STREAMS if name in CONFIG_MAPPING]
WHOLE = [name for name in PRESENT if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
"""Those that are not a part of a multimodal model."""
STREAMS = {"deepseek_v4": "mhc(4)", "hy_v4": "ihc(4)", "hy_v4_vl_text": "ihc(4)"}
"""Family → the placement of ours with the same streams, in its shrunken config."""
WRONG = {
    "deepseek_v4": ("hc_sinkhorn_iters", 10),
    "hy_v4": ("hc_magnitude", 1.5),
    "hy_v4_vl_text": ("hc_magnitude", 1.5),
}
"""Family → an entry of its config with a value that the maps of ours do not have."""

ALL_TOKENS = {"hy_v4": {"index_topk": 64}}
"""Family → entries of its config with which its attention chooses every token. Scores of its indexer tie at 0, and the token that is then
chosen differs with a cache and without one, in the stock class too."""


def stock_model(host: Host) -> nn.Module:
    torch.manual_seed(1)
    model = next(iter(host.heads.values()))[0](shrunken(host.config)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_every_family_is_tested():
    assert STREAMS.keys() == WRONG.keys() == OWN_STREAMS.keys()


@pytest.mark.parametrize("name", PRESENT)
def test_family_is_placed_trained_saved_and_generated_with(name: str, tmp_path):
    check_family(host_of(name), tmp_path)


@pytest.mark.parametrize("name", PRESENT)
def test_own_placement_has_the_streams_of_ours(name: str):
    config = shrunken(host_of(name).config)
    own, ours = (placement_for(config, text) for text in ("stock", STREAMS[name]))
    assert (own.streams, own.stream_count, own.stream_period) == (ours.streams, ours.stream_count, ours.stream_period)
    assert own.layers == ours.layers


@pytest.mark.parametrize("name", PRESENT)
def test_a_wrong_weight_of_the_streams_shows(name: str, monkeypatch):
    """The comparison sees every weight of the maps: with two of them exchanged, it fails."""
    host = host_of(name)
    sides = [ours for ours in host.own.weights if ours.endswith("maps.weight") and "residual" in ours]
    first, second = sides
    exchanged = {**host.stock_names, first: host.stock_names[second], second: host.stock_names[first]}
    monkeypatch.setitem(vars(host), "stock_names", exchanged)
    assert verify(host).failure.startswith("the logits of the placed model differ by")


@pytest.mark.parametrize("name", WHOLE)
def test_placing_and_unplacing_keep_the_weights(name: str):
    host = host_of(name)
    stock = stock_model(host)
    placed = mixln.place(stock)
    gone = {*host.own.layer_modules, *host.own.model_modules}
    assert not [key for key in placed.state_dict() if gone.intersection(key.split("."))]
    with torch.no_grad():
        torch.testing.assert_close(outputs_of(placed), outputs_of(stock), rtol=1e-5, atol=1e-5)
    again = mixln.unplace(placed)
    assert type(again) is type(stock)
    state = again.state_dict()
    assert state.keys() == stock.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in stock.state_dict().items())


@pytest.mark.parametrize("placement", ["pre", "sandwich", "mhc(2)", "attnres(2)", "resi-dual"])
@pytest.mark.parametrize("name", WHOLE)
def test_another_placement_replaces_the_streams(name: str, placement: str):
    host = host_of(name)
    model = trained(host, placement, **ALL_TOKENS.get(name, {}))
    gone = {*host.own.layer_modules, *host.own.model_modules}
    assert not [path for path, _ in model.named_modules() if gone.intersection(path.split("."))]
    check_cache(model)


@pytest.mark.parametrize("name", PRESENT)
def test_streams_are_one_in_the_hidden_states(name: str):
    model = mixln.from_config(shrunken(host_of(name).config), placement="stock").eval()
    ids = torch.arange(2, 10)[None]
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert {tuple(state.shape) for state in states} == {(1, 8, model.config.hidden_size)}


@pytest.mark.parametrize("name", WHOLE)
def test_weights_are_not_converted_to_other_streams(name: str):
    stock = stock_model(host_of(name))
    with pytest.raises(PlacementError, match=f"on the streams of {OWN_STREAMS[name].kind}, but pre has other norms or"):
        mixln.place(stock, "pre")
    other = mixln.from_config(stock.config, placement="pre")
    with pytest.raises(PlacementError, match="pre has no stock layout"):
        mixln.unplace(other)


@pytest.mark.parametrize("name", PRESENT)
def test_config_that_the_maps_do_not_follow_is_refused(name: str):
    entry, value = WRONG[name]
    kind = OWN_STREAMS[name].kind
    config = shrunken(host_of(name).config, **{entry: value})
    with pytest.raises(PlacementError, match=f"{entry} is {value}, but {kind} has .*; set it to that, or choose other"):
        mixln.from_config(config, placement="stock")
    mixln.from_config(config, placement="pre")


@pytest.mark.skipif("hy_v4" not in PRESENT, reason="transformers of this version has no hy_v4")
def test_activation_checkpointing_keeps_what_an_attention_passes_on():
    """In the shrunken Hunyuan 4 every second attention takes the tokens that the one before it chose."""
    model = mixln.from_config(shrunken(host_of("hy_v4").config), placement="stock").train()
    assert "shared" in model.config.indexer_types
    assert {layer.returns for layer in model.model.layers} == {(0,)}
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
        model.zero_grad()
        outputs_of(model).square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())


def test_changed_code_of_a_layer_is_refused():
    class Changed(nn.Module):
        def forward(self, hidden_states):
            return hidden_states + 1

    with pytest.raises(Unreadable, match=r"Changed does not have the code post, comb, .*test_own_streams.py:\d+"):
        read_layer(Changed(), OWN_STREAMS["deepseek_v4"].layer)
