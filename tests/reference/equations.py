# ruff: noqa: E741 - l is the layer index in every one of these papers
"""Every placement's equations, written out for a Llama decoder in plain torch. Nothing of mixln is used here.

`w` maps the names of a placed model's state_dict to tensors, `l` counts layers from 0.
Shapes: B batch, T tokens, D hidden size, H heads, K key/value heads, E head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

EPS = 1e-6
ROPE_BASE = 10_000
HEADS, KEY_VALUE_HEADS = 4, 2

A_IN, A_OUT, A_STREAM = (f"attention_residual.{slot}" for slot in ("branch_in", "branch_out", "stream_out"))
F_IN, F_OUT, F_STREAM = (f"feed_forward_residual.{slot}" for slot in ("branch_in", "branch_out", "stream_out"))


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def norm(w: Weights, l: int, slot: str, x: Tensor) -> Tensor:
    return w[f"model.layers.{l}.{slot}.weight"] * rms(x)


def group_norm(w: Weights, l: int, slot: str, x: Tensor, groups: int) -> Tensor:
    size = x.shape[-1] // groups
    parts = [rms(x[..., group * size : (group + 1) * size]) for group in range(groups)]
    return w[f"model.layers.{l}.{slot}.weight"] * torch.cat(parts, dim=-1)


def rotate(x_BTHE: Tensor) -> Tensor:
    """Feature i and feature i + E/2 turn together by position · base^(−2i/E)."""
    tokens, features = x_BTHE.shape[1], x_BTHE.shape[3]
    out = torch.empty_like(x_BTHE)
    for i in range(features // 2):
        angle = torch.arange(tokens, dtype=x_BTHE.dtype)[None, :, None] * ROPE_BASE ** (-2 * i / features)
        a, b = x_BTHE[..., i], x_BTHE[..., i + features // 2]
        out[..., i] = a * angle.cos() - b * angle.sin()
        out[..., i + features // 2] = b * angle.cos() + a * angle.sin()
    return out


def linear(w: Weights, l: int, name: str, x: Tensor) -> Tensor:
    return x @ w[f"model.layers.{l}.{name}.weight"].T


def heads(x_BTD: Tensor, count: int) -> Tensor:
    return x_BTD.reshape(*x_BTD.shape[:2], count, -1)


def attend(
    w: Weights, l: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, out: Callable[..., Tensor] | None = None
) -> Tensor:
    """Softmax over the past with rotary positions; H / K query heads in a row share one key/value head; then `out`, W_o if left out."""
    out = out or W_o
    q, k = rotate(q_BTHE), rotate(k_BTKE)
    tokens = q.shape[1]
    future = torch.arange(tokens)[None, :] > torch.arange(tokens)[:, None]
    contexts = []
    for head in range(HEADS):
        shared = head // (HEADS // KEY_VALUE_HEADS)
        scores = q[:, :, head] @ k[:, :, shared].transpose(1, 2) / math.sqrt(q.shape[-1])
        contexts.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v_BTKE[:, :, shared])
    return out(w, l, torch.cat(contexts, dim=-1))


def W_o(w: Weights, l: int, context: Tensor) -> Tensor:
    return linear(w, l, "self_attn.o_proj", context)


def W_o_of_normed(w: Weights, l: int, context: Tensor) -> Tensor:
    """Sub-LN: normalized over the full width."""
    return linear(w, l, "self_attn.o_proj", norm(w, l, "self_attn.context_norm", context))


def W_o_of_normed_heads(w: Weights, l: int, context: Tensor) -> Tensor:
    normed = norm(w, l, "self_attn.context_norm", heads(context, HEADS))
    return linear(w, l, "self_attn.o_proj", normed.flatten(2))


def A(w: Weights, l: int, x: Tensor, out: Callable[..., Tensor] | None = None) -> Tensor:
    q = heads(linear(w, l, "self_attn.q_proj", x), HEADS)
    k = heads(linear(w, l, "self_attn.k_proj", x), KEY_VALUE_HEADS)
    v = heads(linear(w, l, "self_attn.v_proj", x), KEY_VALUE_HEADS)
    return attend(w, l, q, k, v, out)


def A_qk(w: Weights, l: int, x: Tensor) -> Tensor:
    """One gain of shape (E,) for all heads of q, one for all heads of k; before the rotation."""
    q = norm(w, l, "self_attn.query_norm", heads(linear(w, l, "self_attn.q_proj", x), HEADS))
    k = norm(w, l, "self_attn.key_norm", heads(linear(w, l, "self_attn.k_proj", x), KEY_VALUE_HEADS))
    v = heads(linear(w, l, "self_attn.v_proj", x), KEY_VALUE_HEADS)
    return attend(w, l, q, k, v)


def A_qkv(w: Weights, l: int, x: Tensor, out: Callable[..., Tensor] | None = None) -> Tensor:
    q = norm(w, l, "self_attn.query_norm", heads(linear(w, l, "self_attn.q_proj", x), HEADS))
    k = norm(w, l, "self_attn.key_norm", heads(linear(w, l, "self_attn.k_proj", x), KEY_VALUE_HEADS))
    v = norm(w, l, "self_attn.value_norm", heads(linear(w, l, "self_attn.v_proj", x), KEY_VALUE_HEADS))
    return attend(w, l, q, k, v, out)


def A_qk_full(w: Weights, l: int, x: Tensor) -> Tensor:
    """As OLMo 2: normalized over all heads at once."""
    q = norm(w, l, "self_attn.query_norm", linear(w, l, "self_attn.q_proj", x))
    k = norm(w, l, "self_attn.key_norm", linear(w, l, "self_attn.k_proj", x))
    v = linear(w, l, "self_attn.v_proj", x)
    return attend(w, l, heads(q, HEADS), heads(k, KEY_VALUE_HEADS), heads(v, KEY_VALUE_HEADS))


def F(w: Weights, l: int, x: Tensor) -> Tensor:
    gate, up = linear(w, l, "mlp.gate_proj", x), linear(w, l, "mlp.up_proj", x)
    return linear(w, l, "mlp.down_proj", gate * torch.sigmoid(gate) * up)


def F_n(w: Weights, l: int, x: Tensor) -> Tensor:
    """Sub-LN: a norm before the last projection."""
    gate, up = linear(w, l, "mlp.gate_proj", x), linear(w, l, "mlp.up_proj", x)
    inner = norm(w, l, "mlp.down_norm", gate * torch.sigmoid(gate) * up)
    return linear(w, l, "mlp.down_proj", inner)


def A_kv_full(w: Weights, l: int, x: Tensor) -> Tensor:
    q = linear(w, l, "self_attn.q_proj", x)
    k = norm(w, l, "self_attn.key_norm", linear(w, l, "self_attn.k_proj", x))
    v = norm(w, l, "self_attn.value_norm", linear(w, l, "self_attn.v_proj", x))
    return attend(w, l, heads(q, HEADS), heads(k, KEY_VALUE_HEADS), heads(v, KEY_VALUE_HEADS))


def gain(w: Weights, l: int, name: str) -> Tensor:
    return w[f"model.layers.{l}.{name}.weight"]


def dyt(w: Weights, name: str, x: Tensor) -> Tensor:
    return w[f"{name}.weight"] * torch.tanh(w[f"{name}.alpha"] * x) + w[f"{name}.bias"]


def derf(w: Weights, name: str, x: Tensor) -> Tensor:
    return w[f"{name}.weight"] * torch.erf(w[f"{name}.alpha"] * x + w[f"{name}.shift"]) + w[f"{name}.bias"]


def bhyt(w: Weights, name: str, x: Tensor) -> Tensor:
    """κ = 10."""
    return w[f"{name}.weight"] * torch.tanh(w[f"{name}.alpha"] * rms(x) / 10)


def gpas(w: Weights, l: int, name: str, x: Tensor) -> Tensor:
    g = gain(w, l, name)
    return x - g * torch.sigmoid(g) * x.detach()


def pre_layer(w: Weights, l: int, x: Tensor) -> Tensor:
    x = x + A(w, l, norm(w, l, A_IN, x))
    return x + F(w, l, norm(w, l, F_IN, x))


def post_layer(w: Weights, l: int, x: Tensor) -> Tensor:
    x = norm(w, l, A_STREAM, x + A(w, l, x))
    return norm(w, l, F_STREAM, x + F(w, l, x))


def hybrid_layer(w: Weights, l: int, x: Tensor) -> Tensor:
    y = x + A_qkv(w, l, x)
    n = norm(w, l, A_STREAM, y)
    return n + F(w, l, n)


def hybrid_star_first_layer(w: Weights, l: int, x: Tensor) -> Tensor:
    x = x + A_qkv(w, l, norm(w, l, A_IN, x))
    return x + F(w, l, norm(w, l, F_IN, x))


def sandwich_layer(w: Weights, l: int, x: Tensor) -> Tensor:
    x = x + norm(w, l, A_OUT, A(w, l, norm(w, l, A_IN, x)))
    return x + norm(w, l, F_OUT, F(w, l, norm(w, l, F_IN, x)))


def pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = pre_layer(w, l, x)
    return x


def post(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = post_layer(w, l, x)
    return x


def mix_two_thirds(w: Weights, x: Tensor, L: int) -> Tensor:
    """Mix-LN with α = 2/3: the first ⌊2L/3⌋ layers are Post-LN."""
    for l in range(L):
        x = post_layer(w, l, x) if l < 2 * L // 3 else pre_layer(w, l, x)
    return x


def hybrid(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = hybrid_layer(w, l, x)
    return x


def hybrid_star(w: Weights, x: Tensor, L: int) -> Tensor:
    x = hybrid_star_first_layer(w, 0, x)
    for l in range(1, L):
        x = hybrid_layer(w, l, x)
    return x


def deepnorm(w: Weights, x: Tensor, L: int) -> Tensor:
    alpha = math.sqrt(math.sqrt(2 * L))
    for l in range(L):
        x = norm(w, l, A_STREAM, alpha * x + A(w, l, x))
        x = norm(w, l, F_STREAM, alpha * x + F(w, l, x))
    return x


def sandwich(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = sandwich_layer(w, l, x)
    return x


def peri(w: Weights, x: Tensor, L: int) -> Tensor:
    x = norm(w, 0, "stream_in", x)
    for l in range(L):
        x = sandwich_layer(w, l, x)
    return x


def res_post(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + norm(w, l, A_OUT, A_qk_full(w, l, x))
        x = x + norm(w, l, F_OUT, F(w, l, x))
    return x


def lns(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + A(w, l, norm(w, l, A_IN, x) / math.sqrt(l + 1))
        x = x + F(w, l, norm(w, l, F_IN, x) / math.sqrt(l + 1))
    return x


def group_4(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + A(w, l, group_norm(w, l, A_IN, x, groups=4))
        x = x + F(w, l, group_norm(w, l, F_IN, x, groups=4))
    return x


def qknorm_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + A_qk(w, l, norm(w, l, A_IN, x))
        x = x + F(w, l, norm(w, l, F_IN, x))
    return x


def post_then_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    x = post_layer(w, 0, x)
    for l in range(1, L):
        x = pre_layer(w, l, x)
    return x


def admin(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = norm(w, l, A_STREAM, gain(w, l, "attention_residual.skip_gain") * x + A(w, l, x))
        x = norm(w, l, F_STREAM, gain(w, l, "feed_forward_residual.skip_gain") * x + F(w, l, x))
    return x


def b2t(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        y = norm(w, l, A_STREAM, x + A(w, l, x))
        x = norm(w, l, F_STREAM, x + y + F(w, l, y))
    return x


def sub_ln(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + A(w, l, norm(w, l, A_IN, x), W_o_of_normed)
        x = x + F_n(w, l, norm(w, l, F_IN, x))
    return x


def keel(w: Weights, x: Tensor, L: int) -> Tensor:
    x = pre_layer(w, 0, x)
    for l in range(1, L):
        x = norm(w, l, A_STREAM, 2 * L * x + A(w, l, norm(w, l, A_IN, x)))
        x = norm(w, l, F_STREAM, 2 * L * x + F(w, l, norm(w, l, F_IN, x)))
    return x


def rezero(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + gain(w, l, "attention_residual.branch_gain") * A(w, l, x)
        x = x + gain(w, l, "feed_forward_residual.branch_gain") * F(w, l, x)
    return x


def layerscale_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + gain(w, l, "attention_residual.branch_gain") * A(w, l, norm(w, l, A_IN, x))
        x = x + gain(w, l, "feed_forward_residual.branch_gain") * F(w, l, norm(w, l, F_IN, x))
    return x


def gpas_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = gpas(w, l, "attention_residual.stream_gate", x + A(w, l, norm(w, l, A_IN, x)))
        x = gpas(w, l, "feed_forward_residual.stream_gate", x + F(w, l, norm(w, l, F_IN, x)))
    return x


def gpas_deepnorm(w: Weights, x: Tensor, L: int) -> Tensor:
    alpha = math.sqrt(math.sqrt(2 * L))
    for l in range(L):
        x = norm(w, l, A_STREAM, alpha * gpas(w, l, "attention_residual.skip_gate", x) + A(w, l, x))
        x = norm(w, l, F_STREAM, alpha * gpas(w, l, "feed_forward_residual.skip_gate", x) + F(w, l, x))
    return x


def hybrid_pre_kv_post(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        n = norm(w, l, A_IN, x)
        q = heads(linear(w, l, "self_attn.q_proj", n), HEADS)
        k = norm(w, l, "self_attn.key_norm", heads(linear(w, l, "self_attn.k_proj", n), KEY_VALUE_HEADS))
        v = norm(w, l, "self_attn.value_norm", heads(linear(w, l, "self_attn.v_proj", n), KEY_VALUE_HEADS))
        m = norm(w, l, A_STREAM, x + attend(w, l, q, k, v))
        x = m + F(w, l, m)
    return x


def hybrid_qkvc_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + A_qkv(w, l, x, W_o_of_normed_heads)
        x = x + F(w, l, norm(w, l, F_IN, x))
    return x


def hybrid_post_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        n = norm(w, l, "attention_residual.stream_in", x)
        x = n + A(w, l, n)
        x = x + F(w, l, norm(w, l, F_IN, x))
    return x


def kv_full_post(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = norm(w, l, A_STREAM, x + A_kv_full(w, l, x))
        x = norm(w, l, F_STREAM, x + F(w, l, x))
    return x


def resi_dual(w: Weights, x: Tensor, L: int) -> Tensor:
    y = x
    for l in range(L):
        a = A(w, l, x)
        x, y = norm(w, l, A_STREAM, x + a), y + a
        f = F(w, l, x)
        x, y = norm(w, l, F_STREAM, x + f), y + f
    return x + w["model.stream_fold.dual_norm.weight"] * rms(y)


def dlcl(w: Weights, x: Tensor, L: int) -> Tensor:
    history = [norm(w, 0, "embedding_history_norm", x)]
    for l in range(L):
        x = sum(gain(w, l, "combination")[k] * history[k] for k in range(l + 1))
        history.append(norm(w, l, "history_norm", pre_layer(w, l, x)))
    return sum(w["model.stream_fold.last_combination.weight"][k] * history[k] for k in range(L + 1))


def beam(w: Weights, x: Tensor, L: int) -> Tensor:
    k = 2
    for l in range(L):
        x = math.sqrt((k - 1) / k) * x + norm(w, l, A_OUT, A(w, l, norm(w, l, A_IN, x))) / math.sqrt(k)
        x = math.sqrt(k / (k + 1)) * x + norm(w, l, F_OUT, F(w, l, norm(w, l, F_IN, x))) / math.sqrt(k + 1)
        k += 2
    return x


def minimax(w: Weights, x: Tensor, L: int) -> Tensor:
    """α = 2.5, β = 0.5."""
    for l in range(L):
        n = norm(w, l, "attention_residual.stream_in", x)
        x = 2.5 * n + 0.5 * A(w, l, n)
        n = norm(w, l, "feed_forward_residual.stream_in", x)
        x = 2.5 * n + 0.5 * F(w, l, n)
    return x


def muse(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        beta = torch.sigmoid(gain(w, l, "attention_residual.balance") / 0.3)
        x = (1 - beta**2).clamp(min=1e-3).sqrt() * x + beta * norm(w, l, A_OUT, A(w, l, norm(w, l, A_IN, x)))
        beta = torch.sigmoid(gain(w, l, "feed_forward_residual.balance") / 0.3)
        x = (1 - beta**2).clamp(min=1e-3).sqrt() * x + beta * norm(w, l, F_OUT, F(w, l, norm(w, l, F_IN, x)))
    return x


def hybrid_scaled(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        n = norm(w, l, A_STREAM, x + A_qkv(w, l, x) / math.sqrt(l + 1))
        x = n + F(w, l, n) / math.sqrt(l + 1)
    return x


def span(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        y = norm(w, l, A_STREAM, x + A(w, l, norm(w, l, A_IN, x) if l == 0 else x))
        x = norm(w, l, F_STREAM, x + F(w, l, y))
    return x


def W_o_of_scaled_heads(w: Weights, l: int, context: Tensor) -> Tensor:
    scaled = heads(context, HEADS) * gain(w, l, "self_attn.head_gain")[..., None]
    return linear(w, l, "self_attn.o_proj", scaled.flatten(2))


def normformer(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        x = x + norm(w, l, A_OUT, A(w, l, norm(w, l, A_IN, x), W_o_of_scaled_heads))
        x = x + F_n(w, l, norm(w, l, F_IN, x))
    return x


def W_o_of_gated(x: Tensor) -> Callable[[Weights, int, Tensor], Tensor]:
    """One number per feature or per head; x is the attention's input."""

    def out(w: Weights, l: int, context: Tensor) -> Tensor:
        gate = torch.sigmoid(linear(w, l, "self_attn.output_gate", x))
        if gate.shape[-1] == HEADS:
            gate = gate.repeat_interleave(context.shape[-1] // HEADS, dim=-1)
        return linear(w, l, "self_attn.o_proj", gate * context)

    return out


def gated_pre(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        n = norm(w, l, A_IN, x)
        x = x + A(w, l, n, W_o_of_gated(n))
        x = x + F(w, l, norm(w, l, F_IN, x))
    return x


def gated_head_hybrid(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        n = norm(w, l, A_STREAM, x + A_qkv(w, l, x, W_o_of_gated(x)))
        x = n + F(w, l, n)
    return x


def gated_sub_ln(w: Weights, x: Tensor, L: int) -> Tensor:
    """Norm, then gate."""
    for l in range(L):
        n = norm(w, l, A_IN, x)

        def normed_and_gated(w: Weights, l: int, context: Tensor, n: Tensor = n) -> Tensor:
            return W_o_of_gated(n)(w, l, norm(w, l, "self_attn.context_norm", context))

        x = x + A(w, l, n, normed_and_gated)
        x = x + F_n(w, l, norm(w, l, F_IN, x))
    return x


def prores_sandwich(w: Weights, x: Tensor, L: int) -> Tensor:
    """T = 1000, at step 1500."""
    for l in range(L):
        alpha = min(1500 / (1000 * (l + 1)), 1)
        x = x + alpha * norm(w, l, A_OUT, A(w, l, norm(w, l, A_IN, x)))
        x = x + alpha * norm(w, l, F_OUT, F(w, l, norm(w, l, F_IN, x)))
    return x


def prores_post(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        alpha = min(1500 / (1000 * (l + 1)), 1)
        x = norm(w, l, A_STREAM, x + alpha * A(w, l, x))
        x = norm(w, l, F_STREAM, x + alpha * F(w, l, x))
    return x


def anchored(layer: Callable[[Weights, int, Tensor], Tensor]) -> Callable[[Weights, Tensor, int], Tensor]:
    """nanochat: each layer reads λ·x + μ·e, with e the normalized embeddings."""

    def run(w: Weights, x: Tensor, L: int) -> Tensor:
        e = x = norm(w, 0, "stream_in", x)
        for l in range(L):
            x = layer(w, l, w[f"model.layers.{l}.anchor.keep"] * x + w[f"model.layers.{l}.anchor.add"] * e)
        return x

    return run


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(-1, keepdim=True).sqrt()


def A_on_sphere(w: Weights, l: int, x: Tensor) -> Tensor:
    """q and k are unit vectors, q times s², and the softmax's scale is √E: that of `attend` is 1/√E."""
    q = unit(heads(linear(w, l, "self_attn.q_proj", x), HEADS))
    k = unit(heads(linear(w, l, "self_attn.k_proj", x), KEY_VALUE_HEADS))
    v = heads(linear(w, l, "self_attn.v_proj", x), KEY_VALUE_HEADS)
    s = math.sqrt(x.shape[-1]) * w[f"model.layers.{l}.self_attn.query_scale.weight"]
    s = s.reshape(HEADS, -1) if s.ndim else s
    return attend(w, l, q * s * s * q.shape[-1], k, v)


def F_on_sphere(w: Weights, l: int, x: Tensor) -> Tensor:
    d = math.sqrt(x.shape[-1])
    gate = linear(w, l, "mlp.gate_proj", x) * d * w[f"model.layers.{l}.mlp.gate_proj_scale.weight"]
    up = linear(w, l, "mlp.up_proj", x) * d * w[f"model.layers.{l}.mlp.up_proj_scale.weight"]
    return linear(w, l, "mlp.down_proj", gate * torch.sigmoid(gate) * up)


def on_sphere(w: Weights, x: Tensor, L: int, feed_forward: Callable[..., Tensor] = F_on_sphere) -> Tensor:
    """nGPT: h ← U(h + η⊙(U(f(h)) − h)) with η = |λ · 0.05/(1/√D)|."""
    h = unit(x)
    for l in range(L):
        for f, residual in ((A_on_sphere, "attention_residual"), (feed_forward, "feed_forward_residual")):
            eta = (w[f"model.layers.{l}.{residual}.balance.weight"] * 0.05 * math.sqrt(x.shape[-1])).abs()
            h = unit(h + eta * (unit(f(w, l, h)) - h))
    return h


class FirstValues:
    """ResFormer: v_l ← λ·v_l + μ·v_1, v the output of the value projection."""

    def __init__(self) -> None:
        self.v1: Tensor | None = None

    def __call__(self, w: Weights, l: int, v_BTD: Tensor) -> Tensor:
        if self.v1 is None:
            self.v1 = v_BTD
        if l == 0:
            return v_BTD
        return w[f"model.layers.{l}.value_mix.keep"] * v_BTD + w[f"model.layers.{l}.value_mix.add"] * self.v1


def A_of_values(w: Weights, l: int, x: Tensor, first: FirstValues, qkv: bool = False) -> Tensor:
    projected = {name: linear(w, l, f"self_attn.{name[0]}_proj", x) for name in ("query", "key", "value")}
    projected["value"] = first(w, l, projected["value"])
    split = {n: heads(p, HEADS if n == "query" else KEY_VALUE_HEADS) for n, p in projected.items()}
    if qkv:
        split = {n: norm(w, l, f"self_attn.{n}_norm", p) for n, p in split.items()}
    return attend(w, l, *split.values())


def vres_post(w: Weights, x: Tensor, L: int) -> Tensor:
    first = FirstValues()
    for l in range(L):
        x = norm(w, l, A_STREAM, x + A_of_values(w, l, x, first))
        x = norm(w, l, F_STREAM, x + F(w, l, x))
    return x


def vres_qkvnorm_post(w: Weights, x: Tensor, L: int) -> Tensor:
    """The values are mixed before their norm."""
    first = FirstValues()
    for l in range(L):
        x = norm(w, l, A_STREAM, x + A_of_values(w, l, x, first, qkv=True))
        x = norm(w, l, F_STREAM, x + F(w, l, x))
    return x


def vres_denseformer(w: Weights, x: Tensor, L: int) -> Tensor:
    first = FirstValues()
    history = [x]
    for l in range(L):
        x = x + A_of_values(w, l, norm(w, l, A_IN, x), first)
        x = x + F(w, l, norm(w, l, F_IN, x))
        history.append(x)
        name = f"model.layers.{l + 1}.combination.weight" if l < L - 1 else "model.stream_fold.last_combination.weight"
        x = sum(w[name][k] * history[k] for k in range(l + 2))
    return x


def b2t_layer(w: Weights, l: int, x: Tensor) -> Tensor:
    y = norm(w, l, A_STREAM, x + A(w, l, x))
    return norm(w, l, F_STREAM, x + y + F(w, l, y))


def normed_linear(w: Weights, l: int, projection: str, slot: str, x: Tensor) -> Tensor:
    return norm(w, l, slot, linear(w, l, projection, x))


def simple(w: Weights, x: Tensor, L: int) -> Tensor:
    for l in range(L):
        q = normed_linear(w, l, "self_attn.q_proj", "self_attn.query_norm", x)
        k = normed_linear(w, l, "self_attn.k_proj", "self_attn.key_norm", x)
        v = normed_linear(w, l, "self_attn.v_proj", "self_attn.value_norm", x)
        o = attend(w, l, heads(q, HEADS), heads(k, KEY_VALUE_HEADS), heads(v, KEY_VALUE_HEADS))
        x = x + norm(w, l, A_OUT, o)
        gate = normed_linear(w, l, "mlp.gate_proj", "mlp.gate_proj_norm", x)
        up = normed_linear(w, l, "mlp.up_proj", "mlp.up_proj_norm", x)
        x = x + normed_linear(w, l, "mlp.down_proj", F_OUT, gate * torch.sigmoid(gate) * up)
    return x


def multiplier(w: Weights, x: Tensor, L: int) -> Tensor:
    """MiniCPM: 1.4/√L."""
    for l in range(L):
        x = x + 1.4 * A(w, l, norm(w, l, A_IN, x)) / math.sqrt(L)
        x = x + 1.4 * F(w, l, norm(w, l, F_IN, x)) / math.sqrt(L)
    return x


def with_pre_slots(squash: Callable[[Weights, str, Tensor], Tensor]) -> Callable[[Weights, Tensor, int], Tensor]:
    def pre(w: Weights, x: Tensor, L: int) -> Tensor:
        for l in range(L):
            x = x + A(w, l, squash(w, f"model.layers.{l}.{A_IN}", x))
            x = x + F(w, l, squash(w, f"model.layers.{l}.{F_IN}", x))
        return x

    return pre


SQUASHES = {"dyt": dyt, "derf": derf, "bhyt": bhyt}


def connected(
    maps: Callable[..., tuple[list[Tensor], list[Tensor], list[list[Tensor]]]], end: Callable[..., Tensor], N: int
):
    """N streams: x = Σ_i r_i X_i, then X_k ← Σ_j C_jk X_j + w_k f(N(x)); `maps` gives r, w and C of a sublayer."""

    def run(w: Weights, x: Tensor, L: int) -> Tensor:
        X = [x] * N
        for l in range(L):
            for f, residual, entry in ((A, "attention_residual", A_IN), (F, "feed_forward_residual", F_IN)):
                r, write, C = maps(w, f"model.layers.{l}.{residual}.maps", X)
                x = sum(r[i] * X[i] for i in range(N))
                x = f(w, l, norm(w, l, entry, x))
                X = [sum(C[j][k] * X[j] for j in range(N)) + write[k] * x for k in range(N)]
        return end(w, X)

    return run


def mhc_maps(w: Weights, name: str, X: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    N = len(X)
    u = rms(torch.cat(X, dim=-1)) @ w[f"{name}.weight"].T
    s, b = w[f"{name}.scale"], w[f"{name}.bias"]
    r = [torch.sigmoid(s[0] * u[..., i, None] + b[i]) + EPS for i in range(N)]
    write = [2 * torch.sigmoid(s[1] * u[..., N + i, None] + b[N + i]) for i in range(N)]
    C = [[torch.exp(s[2] * u[..., (k := 2 * N + N * i + j), None] + b[k]) for j in range(N)] for i in range(N)]
    C = [[C[i][j] / sum(C[i]) + EPS for j in range(N)] for i in range(N)]
    for step in range(2 * 20 - 1):  # columns first, then rows and columns in turn
        sums = [sum(C[i][j] for i in range(N)) if step % 2 == 0 else sum(C[j]) for j in range(N)]
        C = [[C[i][j] / (sums[j if step % 2 == 0 else i] + EPS) for j in range(N)] for i in range(N)]
    return r, write, C


def mhc_end(w: Weights, X: list[Tensor]) -> Tensor:
    u = rms(torch.cat(X, dim=-1)) @ w["model.stream_fold.maps.weight"].T
    s, b = w["model.stream_fold.maps.scale"], w["model.stream_fold.maps.bias"]
    return sum((torch.sigmoid(s[0] * u[..., i, None] + b[i]) + EPS) * X[i] for i in range(len(X)))


def ihc_maps(w: Weights, name: str, X: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    N = len(X)
    u = rms(torch.cat(X, dim=-1)) @ w[f"{name}.weight"].T
    s, b = w[f"{name}.scale"], w[f"{name}.bias"]
    r = [torch.sigmoid(s[0] * u[..., i, None] + b[i]) + EPS for i in range(N)]
    write = [2 * torch.sigmoid(s[1] * u[..., N + i, None] + b[N + i]) + EPS for i in range(N)]
    return r, write, [[float(i == j) for j in range(N)] for i in range(N)]


def gated_reading(w: Weights, name: str, X: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(x, all streams normalized, side by side)."""
    N, D = len(X), X[0].shape[-1]
    H = w[f"{name}.norm.weight"] * torch.cat([rms(X[i]) for i in range(N)], dim=-1)
    low = H @ w[f"{name}.down"].T / N
    g = torch.sigmoid((low * torch.sigmoid(low)) @ w[f"{name}.up"].T)
    return sum((g * H)[..., i * D : (i + 1) * D] for i in range(N)) / N, H


def gated_streams(w: Weights, x: Tensor, L: int) -> Tensor:
    X = [x] * 4
    for l in range(L):
        for f, residual in ((A, "attention_residual"), (F, "feed_forward_residual")):
            name = f"model.layers.{l}.{residual}.maps"
            x, H = gated_reading(w, name, X)
            write = 2 * torch.sigmoid(H @ w[f"{name}.write"].T / 4)
            x = f(w, l, x)
            X = [X[i] + write[..., i, None] * x for i in range(4)]
    return gated_reading(w, "model.stream_fold.maps", X)[0]


def hc_maps(w: Weights, name: str, X: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    N = len(X)
    r, write, C = hc_static_maps(w, name, X)
    v, u, *V = w[f"{name}.weight"]
    s = w[f"{name}.scale"]
    H = [w[f"{name}.norm.weight"] * rms(X[i]) for i in range(N)]
    r = [r[i] + s[0] * torch.tanh(H[i] @ v)[..., None] for i in range(N)]
    write = [write[i] + s[1] * torch.tanh(H[i] @ u)[..., None] for i in range(N)]
    C = [[C[i][j] + s[0] * torch.tanh(H[i] @ V[j])[..., None] for j in range(N)] for i in range(N)]
    return r, write, C


def hc_static_maps(w: Weights, name: str, X: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    N, b = len(X), w[f"{name}.bias"]
    return list(b[:N]), list(b[N : 2 * N]), [list(b[N * (2 + i) : N * (3 + i)]) for i in range(N)]


def hc_end(w: Weights, X: list[Tensor]) -> Tensor:
    return sum(X)


def siamese(w: Weights, x: Tensor, L: int) -> Tensor:
    y = x
    for l in range(L):
        for f, residual in ((A, "attention_residual"), (F, "feed_forward_residual")):
            x = norm(w, l, f"{residual}.stream_in", x)
            inner = x + norm(w, l, f"{residual}.second_in", y)
            out = f(w, l, norm(w, l, f"{residual}.branch_in", inner))
            x, y = x + out / math.sqrt(2 * (l + 1)), y + out
    end = "model.stream_fold"
    return w[f"{end}.stream_norm.weight"] * rms(x) + w[f"{end}.dual_norm.weight"] * rms(y)


def depth_mean(query: Tensor, sources: list[Tensor], normed: bool) -> Tensor:
    keys = [rms(v) for v in sources]
    scores = [(query * key).sum(-1, keepdim=True) / (math.sqrt(key.shape[-1]) if normed else 1) for key in keys]
    total = sum(score.exp() for score in scores)
    return sum(score.exp() / total * v for score, v in zip(scores, keys if normed else sources, strict=True))


def attnres(block: int, normed: bool) -> Callable[[Weights, Tensor, int], Tensor]:
    def run(w: Weights, x: Tensor, L: int) -> Tensor:
        finished: list[Tensor] = []
        partial = x
        for l in range(L):
            for f, residual, entry in ((A, "attention_residual", A_IN), (F, "feed_forward_residual", F_IN)):
                first = l == 0 and f is A
                sources = [*finished, partial]
                query = None if first else w[f"model.layers.{l}.{residual}.depth.query"]
                read = partial if query is None else depth_mean(query, sources, normed)
                out = f(w, l, norm(w, l, entry, read))
                if f is A and l % block == 0:
                    finished, partial = sources, out
                else:
                    partial = partial + out
        return depth_mean(w["model.stream_fold.depth.query"], [*finished, partial], normed)

    return run


def denseformer(period: int) -> Callable[[Weights, Tensor, int], Tensor]:
    def run(w: Weights, x: Tensor, L: int) -> Tensor:
        history = [x]
        for l in range(L):
            x = pre_layer(w, l, x)
            history.append(x)
            if (l + 1) % period == 0:
                last = "model.stream_fold.last_combination.weight"
                weights = w[last if l == L - 1 else f"model.layers.{l + 1}.combination.weight"]
                x = sum(weights[k] * history[k] for k in range(l + 2))
        return x

    return run


REFERENCES: dict[str, Callable[[Weights, Tensor, int], Tensor]] = {
    "pre": pre,
    "post": post,
    "mix(2/3)": mix_two_thirds,
    "hybrid": hybrid,
    "hybrid*": hybrid_star,
    "deepnorm": deepnorm,
    "sandwich": sandwich,
    "peri": peri,
    "res-post": res_post,
    "lns": lns,
    "group(4)": group_4,
    "qknorm+pre": qknorm_pre,
    "post*1,pre*2": post_then_pre,
    "admin": admin,
    "b2t": b2t,
    "sub-ln": sub_ln,
    "keel": keel,
    "rezero": rezero,
    "layerscale+pre": layerscale_pre,
    "gpas+pre": gpas_pre,
    "gpas+deepnorm": gpas_deepnorm,
    "dyt+pre": with_pre_slots(dyt),
    "derf+pre": with_pre_slots(derf),
    "bhyt+pre": with_pre_slots(bhyt),
    "hybrid(pre-kv-post)": hybrid_pre_kv_post,
    "hybrid(qkvc-pre)": hybrid_qkvc_pre,
    "hybrid(post-pre)": hybrid_post_pre,
    "norm(kv,full)+post": kv_full_post,
    "resi-dual": resi_dual,
    "dlcl": dlcl,
    "beam": beam,
    "minimax(2.5,0.5)": minimax,
    "muse": muse,
    "hybrid-scaled": hybrid_scaled,
    "span": span,
    "normformer": normformer,
    "simple": simple,
    "multiplier+pre": multiplier,
    "gated+pre": gated_pre,
    "x0+pre": anchored(pre_layer),
    "x0+b2t": anchored(b2t_layer),
    "x0+sandwich": anchored(sandwich_layer),
    "prores+sandwich": prores_sandwich,
    "prores+post": prores_post,
    "gated(head)+hybrid": gated_head_hybrid,
    "gated+sub-ln": gated_sub_ln,
    "mhc": connected(mhc_maps, mhc_end, 4),
    "ihc(3)": connected(ihc_maps, mhc_end, 3),
    "gated-streams": gated_streams,
    "hc(3)": connected(hc_maps, hc_end, 3),
    "hc(2,static)": connected(hc_static_maps, hc_end, 2),
    "siamese": siamese,
    "attnres(1)": attnres(1, normed=False),
    "attnres(3,normed)": attnres(3, normed=True),
    "denseformer": denseformer(1),
    "denseformer(2)": denseformer(2),
    "ngpt": on_sphere,
    "vres+post": vres_post,
    "vres+qkvnorm+post": vres_qkvnorm_post,
    "vres+denseformer": vres_denseformer,
}


def on_sphere_logits(w: Weights, h: Tensor) -> Tensor:
    """A factor s_z per token, and no norm before: h is a unit vector, and the final norm leaves it."""
    return (unit(h) @ w["lm_head.weight"].T) * math.sqrt(h.shape[-1]) * w["lm_head.logit_scale"]


def decoder(name: str, w: Weights, ids_BT: Tensor, L: int) -> Tensor:
    """Logits: embedding, the layers, the final norm that every placement keeps, the head."""
    x = REFERENCES[name](w, w["model.embed_tokens.weight"][ids_BT], L)
    if name == "ngpt":
        return on_sphere_logits(w, x)
    squash = SQUASHES.get(name.split("+")[0])
    x = squash(w, "model.norm", x) if squash else w["model.norm.weight"] * rms(x)
    return x @ w["lm_head.weight"].T
