"""What is known of single families and cannot be read from their layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformers import AutoModelForSequenceClassification
from transformers.modeling_layers import GenericForSequenceClassification

from mixln.hosts.family import Host
from mixln.placement import Placement


def overridden(host: Host) -> Host:
    """The derived record of a family with what is known of it."""
    change = CHANGES.get(host.model_type)
    return change(host) if change else host


def _llama(host: Host) -> Host:
    """Layers that differ from Llama's only in their norms."""
    return replace(host, body="llama")


def _gpt2(host: Host) -> Host:
    return replace(
        host,
        # One fused projection for q, k and v, in this order.
        projections={"query": "c_attn", "key": "c_attn", "value": "c_attn", **host.projections},
        roles={**host.roles, "attn.c_attn": ("query", "key", "value")},
        # transformers divides the output projections of GPT-2 by √(2L).
        stock_init="scaled",
        cannot=_cross_attention,
    )


def _cross_attention(config: Any, placement: Placement) -> str | None:
    if config.add_cross_attention:
        return "add_cross_attention is true, and placements do not define norms for cross-attention; set it to false"
    return None


def _mixtral(host: Host) -> Host:
    return replace(host, cannot=_jitter)


def _jitter(config: Any, placement: Placement) -> str | None:
    """The experts multiply their input by the jitter in place; without a norm before them, that is the residual stream itself."""
    bare = any(layer.feed_forward.branch_in is None for layer in placement.layers)
    if config.router_jitter_noise and bare:
        return (
            f"router_jitter_noise is {config.router_jitter_noise}, which Mixtral multiplies into the residual stream itself "
            f"if no norm precedes the experts, as in {placement.name}; set it to 0"
        )
    return None


def _olmoe(host: Host) -> Host:
    """Adds the sequence-classification head, which transformers lacks for OLMoE."""
    namespace = {
        "__module__": __name__,
        "__doc__": _olmoe.__doc__,
        # transformers would search the source of this module.
        "_can_set_experts_implementation": classmethod(lambda cls: host.base._can_set_experts_implementation()),
    }
    name = "OlmoeForSequenceClassification"
    # The base class of the model without a head is that of all classes of the family.
    head = globals()[name] = type(name, (GenericForSequenceClassification, *host.base.__bases__), namespace)
    return replace(host, heads={**host.heads, "sequence-classification": (head, AutoModelForSequenceClassification)})


CHANGES: dict[str, Callable[[Host], Host]] = {
    "llama": _llama,
    "olmo2": _llama,
    "qwen3": _llama,
    "gpt2": _gpt2,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
}
