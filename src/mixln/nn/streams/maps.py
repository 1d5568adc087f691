"""N residual streams that three small maps read, write and carry from sublayer to sublayer.

    x = Σ_i r_i X_i;   X_i ← Σ_j C_ji X_j + w_i f(N(x))

The kinds differ only in how r, w and C follow from X. Shapes: B batch, T tokens, N streams, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixln.nn.initialisation import Normal, Start
from mixln.nn.norms import GroupRMSNorm
from mixln.nn.residual import MakeSlot, PlacedLayer, Residual
from mixln.nn.streams.fold import Fold
from mixln.placement import Placement
from mixln.placement.records import STREAM_EPS

EPS = 1e-6
"""ε of the gates, which it keeps above 0, and of the gated streams' norm."""
SINKHORN = 20
"""Normalizations of the rows and of the columns of a carry map; the number of the mHC paper and of DeepSeek-V4."""
SPREAD = Normal(std=0.02)
"""Start of the matrices of the maps: the initializer_range of DeepSeek-V4, Hunyuan 4 and Qwen4-Exp, whatever the model's own is."""
RANK = 320 / 2048
"""Rank of the gates of gated streams, as a share of D: that of Qwen4-Exp."""


def uncast(x: Tensor) -> AbstractContextManager[Any]:
    """Context without autocast, which would run products of matrices in bfloat16; every residual stream stays in float32."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor, eps: float = STREAM_EPS) -> Tensor:
    """RMSNorm over the last axis without gain; ε is added to the mean square."""
    return x * inverse_rms(x, eps)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class Maps(NamedTuple):
    """What a sublayer needs of the streams X: the input of its branch and the other two maps.

    :param stream: x (B, T, D).
    :param write: w (B, T, N); `None` at the end of the model.
    :param carry: C (B, T, N, N), from the first index to the second; `None` if every stream keeps itself.
    """

    stream: Tensor
    write: Tensor | None = None
    carry: Tensor | None = None


class Connection(nn.Module):
    """Computes the maps of one sublayer, or the reading at the end of the model, in float32.

    :param placement: of the whole model.
    :param norm: builds the module of a norm slot over D features.
    :param size: D.
    :param index: number of the sublayer, from 0.
    :param last: for the end of the model, which only reads.
    """

    def __init__(self, placement: Placement, norm: MakeSlot, size: int, *, index: int = 0, last: bool = False) -> None:
        super().__init__()
        self.count = placement.stream_count
        self.size = size
        self.last = last

    def forward(self, states_BTND: Tensor) -> Maps:
        """:param states_BTND: X, in float32 at least."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"streams={self.count}"


class Logits(Connection):
    """Connections whose maps are functions of u = s · (W N°(X)) + b, with N° over all N·D features and one gate s for each map.

    `weight` W (outputs, N·D), `bias` b (outputs,), `scale` s (maps,). Decay the matrix; b and s are vectors, which are not decayed.
    """

    outputs: Callable[[int], tuple[int, ...]]
    """N → number of outputs of each map, the reading first."""

    def __init__(self, placement: Placement, norm: MakeSlot, size: int, *, index: int = 0, last: bool = False) -> None:
        super().__init__(placement, norm, size, index=index, last=last)
        self.eps = placement.stream_eps
        outputs = type(self).outputs(self.count)
        self.widths = outputs[:1] if last else outputs
        self.weight = nn.Parameter(torch.empty(sum(self.widths), self.count * size))
        self.bias = nn.Parameter(torch.empty(sum(self.widths)))
        self.scale = nn.Parameter(torch.empty(len(self.widths)))

    def starting_values(self) -> Mapping[str, Start]:
        return {"weight": SPREAD, "bias": 0.0, "scale": 0.01}

    def logits(self, states_BTND: Tensor) -> list[Tensor]:
        """u of every map, each (B, T, its outputs)."""
        u = self.mixed(states_BTND.flatten(-2), self.weight.to(states_BTND.dtype)).split(self.widths, dim=-1)
        return [part * s + b for part, s, b in zip(u, self.scale, self.bias.split(self.widths), strict=True)]

    def mixed(self, flat_BTD: Tensor, weight: Tensor) -> Tensor:
        """W N°(X)."""
        return F.linear(unit(flat_BTD, self.eps), weight)


class ConstrainedConnection(Logits):
    """mHC (arXiv:2512.24880), as in DeepSeek-V4: r = σ(u₁) + ε, w = 2σ(u₂), C = Sinkhorn(softmax(u₃) + ε), which is doubly stochastic."""

    outputs = staticmethod(lambda count: (count, count, count**2))

    def forward(self, states_BTND: Tensor) -> Maps:
        read, *rest = self.logits(states_BTND)
        stream = weighted(states_BTND, read.sigmoid() + EPS)
        if self.last:
            return Maps(stream)
        write, carry = rest
        return Maps(stream, 2 * write.sigmoid(), self.sinkhorn(carry))

    def sinkhorn(self, logits: Tensor) -> Tensor:
        """(B, T, N²) → (B, T, N, N) with rows and columns that sum to 1."""
        carry = logits.unflatten(-1, (self.count, self.count)).softmax(dim=-1) + EPS
        carry = carry / (carry.sum(dim=-2, keepdim=True) + EPS)
        for _ in range(SINKHORN - 1):
            carry = carry / (carry.sum(dim=-1, keepdim=True) + EPS)
            carry = carry / (carry.sum(dim=-2, keepdim=True) + EPS)
        return carry


class IndependentConnection(Logits):
    """Independent hyper-connections, as in Hunyuan 4: r = σ(u₁) + ε, w = 2σ(u₂) + ε, and every stream keeps itself.

    The biases of r start at −ln(N − 1), so that its sum starts at about 1.
    """

    outputs = staticmethod(lambda count: (count, count))

    def starting_values(self) -> Mapping[str, Start]:
        bias = torch.zeros(sum(self.widths))
        bias[: self.count] = -math.log(self.count - 1)
        return {**super().starting_values(), "bias": bias}

    def forward(self, states_BTND: Tensor) -> Maps:
        read, *write = self.logits(states_BTND)
        stream = weighted(states_BTND, read.sigmoid() + EPS)
        return Maps(stream, *(2 * u.sigmoid() + EPS for u in write))

    def mixed(self, flat_BTD: Tensor, weight: Tensor) -> Tensor:
        # In Hunyuan 4's order, so that the rounding is the same.
        return F.linear(flat_BTD, weight) * inverse_rms(flat_BTD, self.eps)


class GatedConnection(Connection):
    """Gated residual streams, as in Qwen4-Exp: with H the RMSNorm of each stream, x = mean_i g_i ⊙ H_i and w = 2σ(W H/N), where

        g = σ(W_up silu(W_down H/N)) has one entry for each of the N·D features; every stream keeps itself.

    `norm` has one gain for each of the N·D features. All three matrices decay.
    """

    def __init__(self, placement: Placement, norm: MakeSlot, size: int, *, index: int = 0, last: bool = False) -> None:
        super().__init__(placement, norm, size, index=index, last=last)
        features, rank = self.count * size, max(1, round(RANK * size))
        self.norm = GroupRMSNorm(features, self.count, EPS)
        self.down = nn.Parameter(torch.empty(rank, features))
        self.up = nn.Parameter(torch.empty(features, rank))
        self.write = None if last else nn.Parameter(torch.empty(self.count, features))

    def starting_values(self) -> Mapping[str, Start]:
        return dict.fromkeys(("down", "up") if self.last else ("down", "up", "write"), SPREAD)

    def forward(self, states_BTND: Tensor) -> Maps:
        normed = self.norm(states_BTND.flatten(-2))
        kind = normed.dtype
        hidden = F.silu(F.linear(normed, self.down.to(kind)) / self.count)
        gate = F.linear(hidden, self.up.to(kind)).sigmoid()
        stream = (gate * normed).unflatten(-1, (self.count, -1)).mean(-2)
        if self.write is None:
            return Maps(stream)
        return Maps(stream, 2 * (F.linear(normed, self.write.to(kind)) / self.count).sigmoid())


class HyperConnection(Connection):
    """Hyper-connections (arXiv:2409.19606, equations 2 to 14): r = a + s₁ tanh(H v), C = A + s₁ tanh(H V), w = b + s₂ tanh(H u).

    H is the norm of each stream. r reads one stream at the start, k mod N in sublayer k, A is the identity and b is 1; v, V and u
    are 0. That is Pre-LN. The streams end as their sum. `bias` holds a, b and A, which do not decay, as its authors have it;
    `weight` (N + 2, D) holds v, u and V, which do; `scale` s.
    """

    dynamic = True

    def __init__(self, placement: Placement, norm: MakeSlot, size: int, *, index: int = 0, last: bool = False) -> None:
        super().__init__(placement, norm, size, index=index, last=last)
        self.first = index % self.count
        self.bias = None if last else nn.Parameter(torch.empty(self.count * (self.count + 2)))
        moving = self.dynamic and not last
        self.norm = norm(placement.history_norm) if moving else None
        self.weight = nn.Parameter(torch.empty(self.count + 2, size)) if moving else None
        self.scale = nn.Parameter(torch.empty(2)) if moving else None

    def starting_values(self) -> Mapping[str, Start]:
        read = F.one_hot(torch.tensor(self.first), self.count).float()
        values = {"bias": torch.cat((read, torch.ones(self.count), torch.eye(self.count).flatten()))}
        return {
            name: start
            for name, start in {**values, "weight": 0.0, "scale": 0.01}.items()
            if getattr(self, name) is not None
        }

    def forward(self, states_BTND: Tensor) -> Maps:
        if self.bias is None:
            return Maps(states_BTND.sum(-2))
        bias = self.bias.to(states_BTND.dtype)
        read, write, carry = bias.split((self.count, self.count, self.count**2))
        carry = carry.unflatten(-1, (self.count, self.count))
        if self.norm is not None and self.weight is not None and self.scale is not None:
            # In the model's own dtype, because some families' norms take no other.
            normed = self.norm(states_BTND.to(self.weight.dtype)).to(states_BTND.dtype)
            moved = F.linear(normed, self.weight.to(states_BTND.dtype)).tanh()
            read = read + self.scale[0] * moved[..., 0]
            write = write + self.scale[1] * moved[..., 1]
            carry = carry + self.scale[0] * moved[..., 2:]
        return Maps(weighted(states_BTND, read), write, carry)


class StaticHyperConnection(HyperConnection):
    """Hyper-connections that do not depend on the token: a, A and b alone."""

    dynamic = False


def weighted(states_BTND: Tensor, weights_BTN: Tensor) -> Tensor:
    """Σ_i weights_i X_i."""
    return (weights_BTN.unsqueeze(-1) * states_BTND).sum(-2)


CONNECTIONS: dict[str, type[Connection]] = {
    "mhc": ConstrainedConnection,
    "ihc": IndependentConnection,
    "gated-streams": GatedConnection,
    "hc": HyperConnection,
    "hc-static": StaticHyperConnection,
}
"""`Placement.streams` → the maps of that form."""


class ConnectedResidual(Residual):
    """X_i ← Σ_j C_ji X_j + w_i f(N(x)) on the packed streams X (B, T, N·D)."""

    packed = True
    maps: Connection
    """Set by the layer, which knows the placement."""

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param x_BTD: (B, T, N·D)."""
        states = exact(x_BTD.unflatten(-1, (-1, self.size)))
        with uncast(states):
            stream, write, carry = self.maps(states)
        assert write is not None
        branch = self.branch(stream.to(x_BTD.dtype), function, *args, **kwargs)
        with uncast(states):
            kept = states if carry is None else carry.mT @ states
            return (kept + write.unsqueeze(-1) * branch.unsqueeze(-2)).to(x_BTD.dtype).flatten(-2)


class ConnectedLayer(PlacedLayer):
    """A layer between N streams, which all start as the embeddings."""

    sublayer = ConnectedResidual

    def __init__(self, *args: Any, norm: MakeSlot, size: int, index: int, placement: Placement, **kwargs: Any) -> None:
        super().__init__(*args, norm=norm, size=size, index=index, placement=placement, **kwargs)
        connection = CONNECTIONS[placement.streams]
        for side, (_, residual) in enumerate(self.sublayers):
            residual.maps = connection(placement, norm, size, index=2 * index + side)


class ConnectedFold(Fold):
    """The reading at the end of the model."""

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.maps = CONNECTIONS[placement.streams](placement, norm, size, last=True)

    def fold(self, states_BTD: Tensor) -> Tensor:
        states = exact(states_BTD.unflatten(-1, (-1, self.size)))
        with uncast(states):
            return self.maps(states).stream.to(states_BTD.dtype)
