"""Layer by layer, torch.compile takes a placed model whole. Without a cache: with one, stock layers recompile as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

import mixln
from mixln.hosts import HOSTS
from tests.hosts.families import config_of, inputs_of
from tests.tiny import EVERY, gradients, logits, placed, tokens

pytestmark = [
    pytest.mark.slow,
    # torch's compiler imports what torch itself has deprecated, and looks at the gradients of all inputs of a graph.
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(autouse=True)
def no_silent_fallback():
    """Too many recompilations end in an error, not in uncompiled code."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


# This one is so ill-conditioned with weights this large that changing them by 1e-7 moves its gradients by 1%.
WELL_BEHAVED = [name for name in EVERY if name != "gpas+mix(0.5)"]


@pytest.mark.parametrize("placement", [*WELL_BEHAVED, "gpas+post"])
def test_compiled_layers_give_equal_logits_and_gradients(placement):
    model = placed(placement)
    expected = logits(model, tokens(), use_cache=False), gradients(model, tokens(), use_cache=False)
    for layer in model.model.layers:
        layer.compile(fullgraph=True)
    compiled = logits(model, tokens(), use_cache=False), gradients(model, tokens(), use_cache=False)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("name", ["gpt2", "gemma3_text", "olmoe", "vit"])
def test_layers_of_other_families_are_taken_whole(name):
    torch.manual_seed(0)
    model = mixln.from_config(config_of(name), placement="hybrid*").eval()
    given = {
        key: value for key, value in inputs_of(name).items() if key in ("input_ids", "attention_mask", "pixel_values")
    }
    with torch.no_grad():
        expected = model(**given).logits
        for layer in model.base_model.get_submodule(HOSTS[name].layers):
            layer.compile(fullgraph=True)
        torch.testing.assert_close(model(**given).logits, expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(
    ("placement", "kinds"), [("pre", 1), ("mix(0.25)", 2), ("hybrid*", 2), ("deepnorm", 1), ("lns", 2)]
)
def test_layers_of_one_kind_share_one_compiled_graph(placement, kinds):
    """So compiling costs the same at 32 layers. The scales of LayerNorm Scaling become inputs of the graph."""
    graphs: list[GraphModule] = []
    calls: list[int] = []

    def backend(graph: GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)

        def run(*inputs: object) -> object:
            calls.append(len(graphs))
            return graph(*inputs)

        return run

    model = placed(placement, num_hidden_layers=12)
    expected = logits(model, tokens(), use_cache=False)
    for layer in model.model.layers:
        layer.compile(backend=backend, fullgraph=True)
    assert torch.equal(logits(model, tokens(), use_cache=False), expected)
    assert len(calls) == 12
    assert len(graphs) == kinds
