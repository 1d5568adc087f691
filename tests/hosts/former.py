"""Names that the weights of a placed model had while norms stood around their projections, written down by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.tiny import SIZES

MOVED = (
    (r"\.(q|query)_norm\.", ".q_proj.norm."),
    (r"\.(k|key)_norm\.", ".k_proj.norm."),
    (r"\.value_norm\.", ".v_proj.norm."),
    (r"\.context_norm\.", ".o_proj.norm."),
    (r"\.down_norm\.", ".down_proj.norm."),
    (r"\.attn\.(q|k|v)_proj\.norm\.", r".attn.c_attn.norms.\1."),
    (r"\.norms\.q\.", ".norms.query."),
    (r"\.norms\.k\.", ".norms.key."),
    (r"\.norms\.v\.", ".norms.value."),
)


def former_names(names: Iterable[str], layers: int = SIZES["num_hidden_layers"]) -> dict[str, str]:
    """Name of a weight today → its former name."""
    found = {}
    for name in names:
        old = re.sub(r"\.stream_fold\.(\w+)\.", rf".layers.{layers - 1}.\1.", name)
        for pattern, replacement in MOVED:
            old = re.sub(pattern, replacement, old)
        found[name] = old
    normed = {old.rpartition(".norm")[0] for old in found.values() if re.search(r"_(proj|attn)\.norms?\.", old)}
    return {
        name: re.sub(r"\.(\w+)$", r".projection.\1", old) if old.rpartition(".")[0] in normed else old
        for name, old in found.items()
    }


def rename(file: Path, layers: int = SIZES["num_hidden_layers"]) -> None:
    """Rewrites a file of weights, or of an optimizer's moments of them, with the former names."""
    tensors = load_file(file)
    parts = {name: re.fullmatch(r"(state\.)?(.*?)(\.exp_avg|\.exp_avg_sq|\.step)?", name) for name in tensors}
    old = former_names({part[2] for part in parts.values() if part}, layers)
    renamed = {f"{part[1] or ''}{old[part[2]]}{part[3] or ''}": tensors[name] for name, part in parts.items() if part}
    save_file(renamed, file, metadata={"format": "pt"})
