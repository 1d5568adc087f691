"""Roles of weights for the initialisation, read from a family's code: what reads the stream, and what feeds it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixln.hosts.family import Role
from mixln.hosts.reading import Read, Reading
from mixln.hosts.syntax import Unreadable, parsed

HEADS = {"lm_head": "head", "score": "head", "classifier": "head"}
ATTENTION = {"query": "query", "key": "key", "value": "value", "context": "attention_out"}
EXPERTS = {
    # Gate and up projections of all experts, fused in one weight.
    "experts.gate_up_proj": ("feed_forward_in", "feed_forward_in"),
    "experts.down_proj": "feed_forward_out",
}
"""transformers stores the weights of all experts of a layer in two tensors."""


def roles(
    model: PreTrainedModel,
    layers: Iterable[tuple[nn.Module, Reading]],
    projections: Mapping[str, str],
) -> dict[str, Role]:
    """End of a weight's name → its role.

    :param model: model of the family without a head.
    :param layers: its layers, as they were read.
    """
    found: dict[str, Role] = dict(HEADS)
    embedding = model.get_input_embeddings() if model.main_input_name == "input_ids" else None
    found |= {name.rpartition(".")[2]: "embedding" for name, module in model.named_modules() if module is embedding}
    for layer, reading in layers:
        *attentions, feed = reading.sublayers
        for attention in attentions:
            children = dict(layer.get_submodule(attention.module).named_children())
            found |= {
                f"{attention.module}.{child}": ATTENTION[slot]
                for slot, child in projections.items()
                if child in children
            }
            if _ends_in_linear(layer, attention):
                found[attention.modules[-1]] = ATTENTION["context"]
        found |= _of_feed_forward(layer, feed)
    return found


def _ends_in_linear(layer: nn.Module, read: Read) -> bool:
    """Whether a branch calls several modules, as in BERT, and last its output projection."""
    return len(read.modules) > 1 and isinstance(layer.get_submodule(read.modules[-1]), nn.Linear | Conv1D)


def _of_feed_forward(layer: nn.Module, read: Read) -> dict[str, Role]:
    found: dict[str, Role] = {}
    if _ends_in_linear(layer, read):
        for name in read.modules:
            for path, module in layer.get_submodule(name).named_modules(prefix=name):
                if isinstance(module, nn.Linear | Conv1D):
                    found[path] = "feed_forward_in"
        return found | {read.modules[-1]: "feed_forward_out"}
    for path, module in layer.get_submodule(read.module).named_modules(prefix=read.module):
        if isinstance(getattr(module, "gate_up_proj", None), nn.Parameter):
            found |= EXPERTS
        found |= {f"{path}.{child}": role for child, role in _linears(module)}
    return found


def _linears(module: nn.Module) -> list[tuple[str, str]]:
    """(child, role) of the linear layers of a feed-forward: what reads its input, and what makes its output."""
    linear = {name for name, child in module.named_children() if isinstance(child, nn.Linear | Conv1D)}
    if len(linear) < 2:
        return []
    try:
        definition, _ = parsed(type(module).forward)
    except Unreadable:
        return []
    last = [node for node in ast.walk(definition) if isinstance(node, ast.Call) and _name(node) in linear]
    outermost = max(last, key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0), default=None)
    if outermost is None:
        return []
    out = _name(outermost)
    return [(name, "feed_forward_out" if name == out else "feed_forward_in") for name in sorted(linear)]


def _name(node: ast.Call) -> str:
    return ast.unparse(node.func).removeprefix("self.")
