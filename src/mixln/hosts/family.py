"""A host family as data: which of its classes can be placed, and what its submodules are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from mixln.errors import PlacementError
from mixln.nn.norms import make_norm, normed_projection
from mixln.nn.residual import PlacedLayer
from mixln.placement import Layer, Norm


@dataclass(frozen=True, kw_only=True)
class Host:
    """One family of Hugging Face transformers.

    :param config: its config class.
    :param base: the model without a head.
    :param heads: head name → (model with that head, the `Auto*` class that builds it).
    :param auto_base: the `Auto*` class that builds the model without a head.
    :param layers: attribute of `base` that holds the list of layers.
    :param attention: attribute of a layer that holds the attention; likewise `feed_forward`.
    :param projections: slot of :class:`~mixln.placement.Projections` → attribute of the attention.
    :param roles: last part of a module's name → role for the initialisation.
    :param norm: (config, size) → the family's own norm module.
    :param eps: config → ε of that norm.
    :param stock: slot of a stock layer's norm → its attribute there: what a Pre-LN model calls the same norms.
    """

    config: type[PreTrainedConfig]
    base: type[PreTrainedModel]
    heads: Mapping[str, tuple[type[PreTrainedModel], Any]]
    auto_base: Any
    layers: str
    attention: str
    feed_forward: str
    projections: Mapping[str, str]
    roles: Mapping[str, str]
    norm: Callable[[Any, int], nn.Module]
    eps: Callable[[Any], float]
    stock: Mapping[str, str]

    @property
    def model_type(self) -> str:
        return self.config.model_type

    def place(self, layer: nn.Module, record: Layer, config: Any, stream_in: Norm | None) -> PlacedLayer:
        """Puts the modules of one stock layer into a :class:`PlacedLayer` that follows `record`."""

        def host_norm(size: int) -> nn.Module:
            return self.norm(config, size)

        def norm(slot: Norm | None) -> nn.Module | None:
            return make_norm(slot, config.hidden_size, host_norm=host_norm, eps=self.eps(config))

        attention = layer.get_submodule(self.attention)
        for slot, name in self.projections.items():
            wanted = getattr(record.projections, slot)
            if wanted is None:
                continue
            heads = config.num_key_value_heads if slot in ("key", "value") else config.num_attention_heads
            wrapped = normed_projection(
                attention.get_submodule(name),
                wanted,
                size=heads * config.head_dim,
                heads=heads,
                host_norm=host_norm,
                eps=self.eps(config),
                before=slot == "context",
            )
            setattr(attention, name, wrapped)
        return PlacedLayer(
            record,
            attention=(self.attention, attention),
            feed_forward=(self.feed_forward, layer.get_submodule(self.feed_forward)),
            norm=norm,
            stream_in=stream_in,
        )

    def role(self, parameter: str) -> str:
        """The role of a parameter of a placed or stock model, by its name; `other` where the family has none for it."""
        return self.roles.get(self.canonical(parameter).split(".")[-2], "other")

    def canonical(self, parameter: str) -> str:
        """The name of a weight in the stock model without a head: `model.layers.0.self_attn.q_proj.weight` and so on.

        Norms are named as in the stock Pre-LN model where it has them.
        """
        name = parameter.removeprefix(self.base.base_model_prefix + ".").replace(".projection.", ".")
        for slot, stock in self.stock.items():
            name = name.replace(f".{slot}.", f".{stock}.")
        return name


def stock_weights(host: Host, stock: PreTrainedModel, placed: PreTrainedModel) -> None:
    """Copies every weight of a stock model into a placed one of the same head and config.

    :raises PlacementError: if the placed model has a parameter without a counterpart, or the reverse.
    """
    source = {host.canonical(name): value for name, value in stock.state_dict().items()}
    target = {host.canonical(name): name for name in placed.state_dict()}
    if difference := sorted(source.keys() ^ target.keys()):
        raise PlacementError(
            f"the stock model and the placed one do not have the same weights: {difference[0]} has no counterpart"
        )
    placed.load_state_dict({target[name]: value for name, value in source.items()})
