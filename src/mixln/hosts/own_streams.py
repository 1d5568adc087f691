"""Families whose own code keeps several residual streams: which of ours they are, and the same code on a single stream.

Everything else about such a family is derived from its code on a single stream, as it is for any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixln.placement import Placement

FOLD = "stream_fold."
"""Start of the name of a weight that belongs to the end of the streams, and not to a layer."""


@dataclass(frozen=True, kw_only=True)
class OwnStreams:
    """The residual streams that a family's own code keeps.

    :param kind: their form, as in :attr:`~mixln.placement.Placement.streams`.
    :param numbers: entry of the family's own :class:`~mixln.placement.Placement` → entry of the config that has its value.
    :param constants: entry of the config → the value that our form has.
    :param layer: code of a layer's `forward`, as `ast.unparse` writes it → code in its place, on a single stream. `model`: likewise of
        the model without a head; the fold is put before its final norm.
    :param weights: our weight in a layer, or at the end of the streams → the family's.
    """

    kind: str = "single"
    numbers: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    layer: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    def entries(self, config: Any) -> dict[str, Any]:
        """Entries of the family's own placement outside its layers."""
        return {"streams": self.kind, **{ours: getattr(config, theirs) for ours, theirs in self.numbers.items()}}

    @property
    def layer_modules(self) -> tuple[str, ...]:
        """Modules of a stock layer that hold its maps."""
        return tuple(
            {theirs.partition(".")[0]: 0 for ours, theirs in self.weights.items() if not ours.startswith(FOLD)}
        )

    @property
    def model_modules(self) -> tuple[str, ...]:
        """Modules of the stock model that hold the maps at the end of the streams."""
        return tuple({theirs.partition(".")[0]: 0 for ours, theirs in self.weights.items() if ours.startswith(FOLD)})

    def cannot(self, config: Any, placement: Placement) -> str | None:
        """Why a placement does not compute what the config says; `None` if it does, or has other streams."""
        if placement.streams != self.kind:
            return None
        differing = ((name, value) for name, value in self.constants.items() if getattr(config, name) != value)
        name, value = next(differing, ("", 0.0))
        if not name:
            return None
        return f"{name} is {getattr(config, name):g}, but {self.kind} has {value:g}; set it to that, or choose other streams"


SINGLE = OwnStreams()
"""The stream of nearly every family."""


# What DeepSeek-V4 and Hunyuan 4 have in common.
NUMBERS = {"stream_count": "hc_mult", "stream_eps": "rms_norm_eps"}
MODEL = {
    "inputs_embeds.unsqueeze(2).expand(-1, -1, self.config.hc_mult, -1).contiguous()": "inputs_embeds",
    "self.hc_head(hidden_states)": "hidden_states",
}
WEIGHTS = {
    **{
        f"{ours}.maps.{mine}": f"{theirs}.{name}"
        for ours, theirs in {"attention_residual": "attn_hc", "feed_forward_residual": "ffn_hc"}.items()
        for mine, name in {"weight": "fn", "bias": "base", "scale": "scale"}.items()
    },
    **{
        f"{FOLD}maps.{mine}": f"hc_head.hc_{name}"
        for mine, name in {"weight": "fn", "bias": "base", "scale": "scale"}.items()
    },
}
HUNYUAN = OwnStreams(
    kind="ihc",
    numbers=NUMBERS,
    constants={"hc_eps": 1e-6, "hc_magnitude": 2.0},
    layer={
        "post, hidden_states = self.attn_hc(hidden_states)": "hidden_states = residual",
        "post, hidden_states = self.ffn_hc(hidden_states)": "hidden_states = residual",
        "(post.float().unsqueeze(-1) * hidden_states.float().unsqueeze(-2) + residual.float()).to(dtype)": "residual + hidden_states",
    },
    model=MODEL,
    weights=WEIGHTS,
)
OWN_STREAMS: dict[str, OwnStreams] = {
    "deepseek_v4": OwnStreams(
        kind="mhc",
        numbers=NUMBERS,
        constants={"hc_eps": 1e-6, "hc_sinkhorn_iters": 20},
        layer={
            "post, comb, collapsed = self.attn_hc(hidden_states)": "collapsed = hidden_states",
            "post, comb, collapsed = self.ffn_hc(hidden_states)": "collapsed = hidden_states",
            "post.to(dtype).unsqueeze(-1) * attn_output.unsqueeze(-2)"
            " + torch.matmul(comb.to(dtype).transpose(-1, -2), hidden_states)": "hidden_states + attn_output",
            "post.to(dtype).unsqueeze(-1) * mlp_output.unsqueeze(-2)"
            " + torch.matmul(comb.to(dtype).transpose(-1, -2), hidden_states)": "hidden_states + mlp_output",
        },
        model=MODEL,
        weights=WEIGHTS,
    ),
    "hy_v4": HUNYUAN,
    "hy_v4_vl_text": HUNYUAN,
}
"""Model type → its streams, of every family that has not one."""
