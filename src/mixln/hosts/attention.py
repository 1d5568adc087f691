"""The projections of a family's attention, and its own norms on them, read from its modules and code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from mixln.hosts.family import attention_heads, head_size, widths
from mixln.hosts.syntax import parsed
from mixln.placement import ProjectionNorm

PROJECTION_NAMES = {
    "query": ("q_proj", "query", "q_lin", "q"),
    "key": ("k_proj", "key", "k_lin", "k"),
    "value": ("v_proj", "value", "v_lin", "v"),
    "context": ("o_proj", "out_proj", "dense", "out_lin", "c_proj", "wo", "o"),
}
"""Slot → names that families give the projection, as an attribute of their attention."""
OWN_NORM_NAMES = {
    "query": ("q_norm", "query_layernorm", "q_layernorm"),
    "key": ("k_norm", "key_layernorm", "k_layernorm"),
}


def projections_of(attentions: list[nn.Module], config: Any) -> dict[str, str]:
    """Slot → projection, where every layer has it, as wide as the heads say."""
    found: dict[str, str] = {}
    queries, keys = attention_heads(config)
    for slot, names in PROJECTION_NAMES.items():
        width = (keys if slot in ("key", "value") else queries) * head_size(config)
        side = 0 if slot == "context" else 1
        for name in names:
            modules = [getattr(attention, name, None) for attention in attentions]
            if all(isinstance(m, nn.Linear | Conv1D) and widths(m)[side] == width for m in modules):
                found[slot] = name
                break
    return found


def own_norms_of(
    attentions: list[nn.Module], projections: Mapping[str, str], norm: nn.Module, config: Any
) -> dict[str, tuple[str, ProjectionNorm]]:
    """Slot → (the family's own norm directly after that projection, its record)."""
    found: dict[str, tuple[str, ProjectionNorm]] = {}
    for slot, names in OWN_NORM_NAMES.items():
        name = next((name for name in names if isinstance(getattr(attentions[0], name, None), type(norm))), None)
        if name is None or slot not in projections:
            continue
        modules = [getattr(attention, name, None) for attention in attentions]
        if not all(isinstance(module, type(norm)) for module in modules):
            continue
        if not _directly_after(type(attentions[0]), projections[slot], name):
            continue
        full = widths(getattr(attentions[0], projections[slot]))[1]
        sizes = {sum(p.numel() for p in module.parameters()) for module in modules if module is not None}
        if sizes == {head_size(config)}:
            found[slot] = name, ProjectionNorm(width="head")
        elif sizes == {full}:
            found[slot] = name, ProjectionNorm(width="full")
    return found


def _directly_after(attention: type[nn.Module], projection: str, norm: str) -> bool:
    """Whether the code of an attention normalizes a projection's output before it does anything else with it than reshape it."""
    tree, _ = parsed(attention.forward)
    held: dict[str, str] = {}
    for node in ast.walk(tree):
        for part in ast.walk(node.value) if isinstance(node, ast.Assign) else ():
            if isinstance(part, ast.Call) and ast.unparse(part.func) == f"self.{norm}" and len(part.args) == 1:
                return _source(part.args[0], held) == f"self.{projection}"
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            held[node.targets[0].id] = _source(node.value, held)
    return False


def _source(node: ast.expr, held: Mapping[str, str]) -> str:
    """The code that a value was reshaped from."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr not in ("view", "reshape", "transpose", "unflatten", "contiguous"):
            return ast.unparse(node.func)
        node = node.func.value
    return held.get(node.id, node.id) if isinstance(node, ast.Name) else ast.unparse(node)
