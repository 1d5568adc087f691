"""A host family as data: which of its classes can be placed, and what its submodules are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixln.errors import PlacementError, SettingsError
from mixln.nn.norms import make_norm
from mixln.nn.projections import FUSED, Site, add_norms
from mixln.nn.residual import PlacedLayer
from mixln.nn.streams import STREAMS, Fold
from mixln.placement import Layer, Norm, Placement, ProjectionNorm
from mixln.placement.zoo import PRE

Role = str | tuple[str, ...]

SHARED = "replicated_with_grad_allreduce"
WHOLE = {"colwise": "colwise_gather_output", "rowwise": "rowwise_split_input", SHARED: "replicate"}
"""Style of tensor parallelism → that of the same module where every process computes all features."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One family of Hugging Face transformers.

    :param config: its config class.
    :param base: the model without a head.
    :param heads: head name → (model with that head, the `Auto*` class that builds it); the first is what is built if none is asked for.
    :param auto_base: the `Auto*` class that builds the model without a head.
    :param pooler: attribute of the model without a head that belongs to one nevertheless, and that other heads do without
        (`add_pooling_layer=False`); empty where there is none.
    :param layers: attribute of `base` that holds the list of layers; `final_norm` the norm after them.
    :param attention: attribute of a layer that holds the attention; likewise `feed_forward`.
    :param attention_input: name under which a layer gives the attention its input, which PEFT's adaption prompts go by; empty
        where it does so by position.
    :param projections: slot of :class:`~mixln.placement.Projections` → attribute of the attention. Where q, k and v share one,
        it is taken apart after the projection.
    :param down: attribute of the feed-forward that holds its output projection; empty where there is no such module.
    :param own_norms: slot → attribute of the attention that holds the family's own norm of that projection.
    :param roles: end of a weight's name → role for the initialisation; where several lie side by side in one weight, all of them.
    :param norm: (config, size) → the family's own norm module.
    :param eps: config → ε of that norm.
    :param stock: what the family does by itself, as a record. Its norms on projections belong to the family: a placement
        keeps them where it does not set its own.
    :param stock_names: slot of a stock layer's norm → its attribute there.
    :param body: families with the same one differ in their norms alone, so that a checkpoint can go from one to the other.
    :param dropout: config → probability of the dropout that the stock layer itself puts on its branches.
    :param stock_init: the initialisation of the stock model, by its name here.
    :param cannot: (config, placement) → why the two do not go together, or `None`.
    """

    config: type[PreTrainedConfig]
    base: type[PreTrainedModel]
    heads: Mapping[str, tuple[type[PreTrainedModel], Any]]
    auto_base: Any = AutoModel
    pooler: str = ""
    layers: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    feed_forward: str = "mlp"
    attention_input: str = "hidden_states"
    projections: Mapping[str, str]
    down: str = ""
    own_norms: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, Role]
    norm: Callable[[Any, int], nn.Module]
    eps: Callable[[Any], float] = lambda config: config.rms_norm_eps
    stock: Layer = PRE
    stock_names: Mapping[str, str]
    body: str = ""
    dropout: Callable[[Any], float] = lambda config: 0.0
    stock_init: str = "normal"
    cannot: Callable[[Any, Placement], str | None] = lambda config, placement: None

    @property
    def model_type(self) -> str:
        return self.config.model_type

    def place(self, layer: nn.Module, config: Any, placement: Placement, index: int) -> PlacedLayer:
        """Puts the modules of one stock layer into a layer that follows the placement's record at `index`, counted from 0."""
        record = placement.layers[index]
        attention, feed_forward = layer.get_submodule(self.attention), layer.get_submodule(self.feed_forward)
        self._norm_projections(attention, record, config)
        if record.projections.down is not None:
            self._norm_down(feed_forward, record.projections.down, config)
        return STREAMS[placement.streams].layer(
            record,
            attention=(self.attention, attention),
            feed_forward=(self.feed_forward, feed_forward),
            attention_input=self.attention_input,
            norm=self._slots(config),
            size=config.hidden_size,
            dropout=self.dropout(config),
            stochastic_depth=config.stochastic_depth * index / max(1, len(placement.layers) - 1),
            index=index,
            placement=placement,
        )

    def fold(self, layers: Sequence[PlacedLayer], config: Any, placement: Placement) -> Fold | None:
        """Makes one residual stream of several, before the final norm; `None` where there is but one."""
        cls = STREAMS[placement.streams].fold
        return cls(placement, layers, self._slots(config), config.hidden_size) if cls else None

    def _slots(self, config: Any) -> Callable[[Norm | None], nn.Module | None]:
        return lambda slot: self.make_norm(slot, config.hidden_size, config)

    def make_norm(self, record: Norm | None, size: int, config: Any) -> nn.Module | None:
        """The module for a norm over `size` features, `None` for an empty slot."""
        return make_norm(record, size, host_norm=lambda size: self.norm(config, size), eps=self.eps(config))

    def _norm_projections(self, attention: nn.Module, record: Layer, config: Any) -> None:
        """Puts the norms that the record names on the projections. The family's own norms there go: the record says all."""
        sites: list[tuple[Site, nn.Module]] = []
        for slot, own in self.own_norms.items():
            if not self._is_own(slot, record):
                setattr(attention, own, nn.Identity())
        for slot, name in self.projections.items():
            wanted: ProjectionNorm | None = getattr(record.projections, slot)
            if wanted is None:
                continue
            norm, size = self._projection_norm(attention.get_submodule(name), wanted, slot, config)
            if self._is_own(slot, record):
                setattr(attention, self.own_norms[slot], norm)
            else:
                part = FUSED.index(slot) if self._is_fused(name) else None
                site = Site(projection=name, norm=f"{slot}_norm", before=slot == "context", size=size, part=part)
                sites.append((site, norm))
        if sites:
            add_norms(attention, sites)

    def _is_own(self, slot: str, record: Layer) -> bool:
        """True if the family's own code calls a norm where the record wants one, over the same width."""
        wanted, stock = getattr(record.projections, slot), getattr(self.stock.projections, slot)
        return slot in self.own_norms and wanted is not None and stock is not None and wanted.width == stock.width

    def _projection_norm(
        self, projection: nn.Module, wanted: ProjectionNorm, slot: str, config: Any
    ) -> tuple[nn.Module, int | None]:
        """The norm of one projection, and the features that it works on; `None` for the full width.

        :raises SettingsError: if the projection is not as wide as the config's heads make it.
        """
        name = self.projections[slot]
        heads = attention_heads(config)[slot in ("key", "value")]
        inputs, outputs = _widths(projection)
        size = inputs if slot == "context" else outputs // (len(FUSED) if self._is_fused(name) else 1)
        if size != heads * head_size(config):
            raise SettingsError(
                f"{name} of {self.model_type} has {size} features for {slot}, but {heads} heads of head_dim "
                f"{head_size(config)} make {heads * head_size(config)}; correct head_dim or the number of heads"
            )
        width = size // heads if wanted.width == "head" else None
        norm = self.make_norm(wanted.norm, width or size, config)
        assert norm is not None
        return norm, width

    def _is_fused(self, name: str) -> bool:
        return list(self.projections.values()).count(name) > 1

    def _norm_down(self, feed_forward: nn.Module, record: Norm, config: Any) -> None:
        """Puts a norm in front of the feed-forward's output projection (Sub-LN).

        :raises PlacementError: where the feed-forward has no such module, as experts whose weights are one tensor.
        """
        projection = dict(feed_forward.named_children()).get(self.down) if self.down else None
        if projection is None:
            raise PlacementError(
                f"a norm inside the feed-forward cannot be placed in {self.model_type}: its {type(feed_forward).__name__} holds "
                "the output projections of all experts in one tensor, so there is nothing to put a norm in front of; "
                "choose a placement without one, for example norm(c)+pre"
            )
        norm = self.make_norm(record, _widths(projection)[0], config)
        assert norm is not None
        add_norms(feed_forward, [(Site(projection=self.down, norm="down_norm", before=True), norm)])

    def role(self, parameter: str) -> Role:
        """The role of a parameter of a placed or stock model, by its name; `other` where the family has none for it."""
        name = "." + self.canonical(parameter).removesuffix(".weight")
        return next((role for end, role in self.roles.items() if name.endswith("." + end)), "other")

    def canonical(self, parameter: str) -> str:
        """The name of a weight in the stock model without a head: `layers.0.self_attn.q_proj.weight` and so on.

        Norms are named as in the stock model where it has them.
        """
        name = parameter.removeprefix(self.base.base_model_prefix + ".")
        for slot, own in self.own_norms.items():
            name = name.replace(f".{slot}_norm.", f".{own}.")
        name = name.replace(".projection.", ".")  # ViT's patch embedding: the name seeds its start, and must not change
        for slot, stock in self.stock_names.items():
            name = name.replace(f".{slot}.", f".{stock}.")
        return name

    def tensor_parallel_plan(self, placement: Placement) -> dict[str, str] | None:
        """The family's plan for transformers' tensor parallelism, with what the placement's norms need.

        A norm over the full width needs the features of all processes: its side of the layer is computed whole, as in OLMo 2's
        own plan. A norm per head works on the heads of its process; only the gradient of its gain is summed over processes.

        :returns: module of the model without a head, `*` for the number of a layer → style; `None` where the family has no plan.
        """
        if self.config.base_model_tp_plan is None:
            return None
        plan = dict(self.config.base_model_tp_plan)
        wanted = [layer.projections for layer in placement.layers]
        slots = [(slot, norm) for each in wanted for slot in self.projections if (norm := getattr(each, slot))]
        attention, feed_forward = (f"{self.layers}.*.{side}." for side in (self.attention, self.feed_forward))
        whole = [attention] if any(norm.width == "full" for _, norm in slots) else []
        whole += [feed_forward] if any(each.down for each in wanted) else []
        for name, style in self.config.base_model_tp_plan.items():
            if name.startswith(tuple(whole)):
                plan[name] = WHOLE.get(style, style)
        if plan.get(attention + self.projections["context"]) == "rowwise":
            plan |= {f"{attention}{slot}_norm": SHARED for slot, _ in slots}
        return plan

    def former_names(self, model: nn.Module) -> dict[str, str]:
        """Parameter → its name in what mixln wrote while a norm stood around its projection, not beside it.

        :param model: a placed model, perhaps with adapters on it and around it.
        """
        moved: dict[str, str] = {}
        layers = [(path, module) for path, module in model.named_modules() if isinstance(module, PlacedLayer)]
        for path, layer in layers:
            wanted = layer.record.projections
            for slot, projection in self.projections.items():
                if getattr(wanted, slot) is not None:
                    name, norm = f"{path}.{self.attention}.{projection}", self.own_norms.get(slot, "")
                    own = norm if self._is_own(slot, layer.record) else f"{slot}_norm"
                    moved[name] = f"{name}.projection"
                    moved[f"{path}.{self.attention}.{own}"] = (
                        f"{name}.norms.{slot}" if self._is_fused(projection) else f"{name}.norm"
                    )
            if wanted.down is not None:
                name = f"{path}.{self.feed_forward}"
                moved[f"{name}.{self.down}"] = f"{name}.{self.down}.projection"
                moved[f"{name}.down_norm"] = f"{name}.{self.down}.norm"
        for path, module in model.named_modules():
            if isinstance(module, Fold):
                moved |= {f"{path}.{name}": f"{layers[-1][0]}.{name}" for name, _ in module.named_children()}
        former: dict[str, str] = {}
        for name, _ in model.named_parameters():
            module = name.rpartition(".")[0]
            while module and module not in moved:  # an adapter's parameters lie within the projection
                module = module.rpartition(".")[0]
            if module:
                former[name] = moved[module] + name.removeprefix(module)
        return former


def attention_heads(config: Any) -> tuple[int, int]:
    """(query heads, key/value heads) of a config."""
    heads = config.num_attention_heads
    return heads, getattr(config, "num_key_value_heads", None) or heads


def head_size(config: Any) -> int:
    """head_dim of a config: its own, or the hidden size over the heads."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def check_shape(config: Any) -> None:
    """Checks the numbers of heads and experts, which some families only find out about in the middle of a forward pass.

    :raises SettingsError: if the heads do not divide the hidden size (where the config has no `head_dim` of its own), the
        key/value heads do not divide the heads, or a token is to be given more experts than there are.
    """
    heads, key_value_heads = attention_heads(config)
    if config.hidden_size % heads and not getattr(config, "head_dim", None):
        raise SettingsError(
            f"num_attention_heads must divide hidden_size, got {heads} heads for hidden_size {config.hidden_size}"
        )
    if heads % key_value_heads:
        raise SettingsError(
            f"num_key_value_heads must divide num_attention_heads, got {key_value_heads} for {heads} heads"
        )
    chosen = getattr(config, "num_experts_per_tok", None)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if chosen and experts and chosen > experts:
        raise SettingsError(f"num_experts_per_tok must be at most the number of experts, got {chosen} of {experts}")


def _widths(projection: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear map; transformers' Conv1D, as in GPT-2, keeps its weight the other way round."""
    if isinstance(projection, nn.Linear):
        return projection.in_features, projection.out_features
    assert isinstance(projection, Conv1D)
    inputs, outputs = projection.weight.shape
    return inputs, outputs


def copy_weights(source: PreTrainedModel, target: PreTrainedModel, canonical: Callable[[str], str]) -> None:
    """Copies every weight of one layout of a model into the other.

    :param canonical: parameter name → a name that both layouts share; see :meth:`Host.canonical`.
    :raises PlacementError: if either has a weight without a counterpart in the other.
    """
    values = {canonical(name): value for name, value in source.state_dict().items()}
    names = {canonical(name): name for name in target.state_dict()}
    if difference := sorted(values.keys() ^ names.keys()):
        raise PlacementError(
            f"the two models do not have the same weights: {difference[0]} has no counterpart "
            f"in the {'second' if difference[0] in values else 'first'}"
        )
    target.load_state_dict({names[name]: value for name, value in values.items()})
