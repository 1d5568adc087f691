"""Plain-text drawings of placements."""

from __future__ import annotations

from itertools import groupby

from mixln.placement.records import Placement

BESIDE = {
    "single": "",
    "anchored": "  each layer first reads  x ← λ_l·x + μ_l·e,  e the embedding as the first layer reads it",
    "resi-dual": "  second stream  y ← y + A(x);  y ← y + F(x);  at the end x ← x + N(y)",
    "dlcl": "  layer l+1 reads  x ← Σ_{k≤l} w_k N_k(y_k),  y_0 the embedding, y_k the output of layer k",
    "mhc": "  N streams X  for x + f:  x ← Σ_i r_i X_i;  X_i ← Σ_j C_ji X_j + w_i f;  C doubly stochastic;  at the end x ← Σ_i r_i X_i",
    "ihc": "  N streams X  for x + f:  x ← Σ_i r_i X_i;  X_i ← X_i + w_i f;  at the end x ← Σ_i r_i X_i",
    "gated-streams": "  N streams X  for x + f:  x ← mean_i g_i⊙N(X_i);  X_i ← X_i + w_i f;  at the end x ← mean_i g_i⊙N(X_i)",
    "hc": "  N streams X  for x + f:  x ← Σ_i r_i X_i;  X_i ← Σ_j C_ji X_j + w_i f;  at the end x ← Σ_i X_i",
    "hc-static": "  N streams X  for x + f:  x ← Σ_i r_i X_i;  X_i ← Σ_j C_ji X_j + w_i f;  at the end x ← Σ_i X_i",
    "siamese": "  second stream y  each branch f reads N(N(x) + N(y));  x ← N(x) + f/√(2l);  y ← y + f;  at the end x ← N(x) + N(y)",
    "attnres": "  for x + f:  f reads Σ_i α_i v_i over the sums v_i of earlier blocks and of this one;  so does the end",
    "attnres-normed": "  for x + f:  f reads Σ_i α_i N(v_i) over the sums v_i of earlier blocks and of this one;  so does the end",
    "denseformer": "  layer l+1 reads  x ← Σ_{k≤l} w_k y_k,  y_0 the embedding, y_k the output of layer k",
}
"""`Placement.streams` → what happens outside the layers."""


def draw(placement: Placement) -> str:
    """Lists the layers from the embedding to the head, each with its two equations.

    A bar on the left joins neighbouring layers with the same record, which shows where the placement changes.
    """
    width = len(str(len(placement.layers)))
    lines = ["      embedding" + (f";  x ← {placement.embedding_norm.call('x')}" if placement.embedding_norm else "")]
    index = 0
    for _, group in groupby(placement.layers):
        run = list(group)
        for position, layer in enumerate(run):
            index += 1
            bar = "─" if len(run) == 1 else "┌" if position == 0 else "└" if position == len(run) - 1 else "│"
            lines.append(f"  {bar} layer {index:>{width}}   {layer.formula}")
    final = "final norm" if placement.final_norm.kind == "host" else f"x ← {placement.final_norm.call('x')}"
    lines.append(f"      {final}, head")
    values = "  A_1 attends with  v ← λ_l·v + μ_l·v₁,  v₁ the values of layer 1" if placement.carries_values else ""
    return "\n".join(lines + [line for line in [BESIDE[placement.streams], values] if line])
