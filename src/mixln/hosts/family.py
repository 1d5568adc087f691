"""A host family as data: the classes that can be placed, and the names of their submodules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from mixln.errors import PlacementError, SettingsError
from mixln.hosts.own_streams import SINGLE, OwnStreams
from mixln.hosts.reading import read_layer
from mixln.nn.norms import make_norm
from mixln.nn.projections import FUSED, HeadGain, Site, add_norms
from mixln.nn.residual import PlacedLayer
from mixln.nn.schemes import BRANCH_OUTPUTS
from mixln.nn.sphere import FeatureScale
from mixln.nn.streams import STREAMS, Fold
from mixln.placement import Layer, Norm, Placement, ProjectionNorm, Projections
from mixln.placement import placement as build_placement
from mixln.placement.entry import PRE
from mixln.placement.language import check_depth

Role = str | tuple[str, ...]

OWN_ROLES: Mapping[str, Role] = {"output_gate": "query"}
"""End of the name of a matrix of our own → its role: a gate is as wide as the queries, and like them only decides what is passed on."""
ATTENTION_SLOTS = ("query", "key", "value", "context")
"""Slots of :class:`~mixln.placement.Projections` in the attention."""
# Styles of transformers' tensor parallelism.
SHARED = "replicated_with_grad_allreduce"
WHOLE = {"colwise": "colwise_gather_output", "rowwise": "rowwise_split_input", SHARED: "replicate"}
"""Tensor-parallel style → style of the same module if every process computes all features."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A family of Hugging Face transformers models.

    :param config: config class.
    :param base: class of the model without a head.
    :param heads: head name → (class with that head, `Auto*` class that builds it); the first is the default.
    :param pooler: attribute of the model without a head that holds a pooler, which other heads omit (`add_pooling_layer=False`);
        empty if there is none.
    :param layers: attribute of `base` that holds the list of layers; `final_norm`: the norm after them; empty if there is none.
        Then a placement whose last layer does not end in a norm gets its final norm in that layer.
    :param attention: attribute of a layer that holds the attention; likewise `feed_forward`.
    :param projections: slot of :class:`~mixln.placement.Projections` → attribute of the attention. A fused q, k and v
        projection has three slots; its output is split.
    :param down: attribute of the feed-forward that holds its output projection; empty if there is no such module.
    :param own_norms: slot → attribute of the attention that holds the family's own norm on that projection.
    :param roles: end of a weight's name → role for the initialisation; for a fused weight, the roles of its parts.
    :param norm: (config, size) → the family's own norm module.
    :param eps: config → ε of that norm.
    :param stock: record of a stock layer. Its norms on projections belong to the family: a placement keeps them where it does
        not set its own.
    :param kinds: all records of stock layers, where layers of a family differ, as in ModernBERT, whose first layer has no norm before
        its attention; :attr:`stock` is the most frequent one. Empty if all are alike.
    :param stock_names: slot of a norm → its attribute in a stock layer; likewise the weights of the family's own streams.
    :param body: families with the same body differ only in their norms, so a checkpoint can be converted between them.
    :param stock_init: name of the initialisation that corresponds to the stock model's.
    :param own: the streams that the family's own code keeps.
    :param cannot: (config, placement) → reason why the family does not support the placement, or `None`.
    :param encoder: in an encoder-decoder, the record of the encoder's layers; all else here is of the decoder's.
    :param entries: entries of a config that these layers have under another name, as a decoder has `num_hidden_layers` under
        `decoder_layers`.
    """

    config: type[PreTrainedConfig]
    base: type[PreTrainedModel]
    heads: Mapping[str, tuple[type[PreTrainedModel], Any]]
    pooler: str = ""
    layers: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    feed_forward: str = "mlp"
    projections: Mapping[str, str]
    down: str = ""
    own_norms: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, Role]
    norm: Callable[[Any, int], nn.Module]
    eps: Callable[[Any], float] = lambda config: config.rms_norm_eps
    stock: Layer = PRE
    kinds: tuple[Layer, ...] = ()
    stock_names: Mapping[str, str]
    body: str = ""
    stock_init: str = "normal"
    own: OwnStreams = SINGLE
    cannot: Callable[[Any, Placement], str | None] = lambda config, placement: None
    encoder: Host | None = None
    entries: Mapping[str, str] = field(default_factory=dict)

    @property
    def stacks(self) -> tuple[Host, ...]:
        """The record of each stack of layers, in the order of :attr:`Placement.stacks`."""
        return (self,) if self.encoder is None else (self.encoder, self)

    def stack_of(self, parameter: str) -> Host:
        """The record of the layers that a parameter is in, by its name; of one outside the layers, this record."""
        name = parameter.removeprefix(self.base.base_model_prefix + ".")
        inside = self.encoder is not None and name.startswith(f"{self.encoder.layers}.")
        return self.encoder if inside and self.encoder is not None else self

    @property
    def depth(self) -> str:
        """The family's name for the number of layers, for example `n_layer` in GPT-2."""
        name = self.entries.get("num_hidden_layers", "num_hidden_layers")
        return self.config.attribute_map.get(name, name)

    @property
    def crosses(self) -> bool:
        """Whether the layers have cross-attention."""
        return self.stock.cross_attention is not None

    @property
    def model_type(self) -> str:
        return self.config.model_type

    @property
    def formula(self) -> str:
        """The stock layers as equations."""
        layers = " and ".join(kind.formula for host in self.stacks for kind in host.kinds or (host.stock,))
        return f"{layers} on the streams of {self.own.kind}" if self.own.weights else layers

    @property
    def folds(self) -> bool:
        """Whether several streams can be joined: the model without a head itself calls its final norm."""
        return bool(self.final_norm) and "." not in self.layers

    def stock_layers(self, config: Any) -> tuple[Layer, ...]:
        """The record of each stock layer of a config.

        :raises PlacementError: if the number of layers is out of bounds.
        """
        depth = self.seen(config).num_hidden_layers
        check_depth(depth)
        if not self.kinds:
            return (self.stock,) * depth
        with torch.device("meta"), no_init_weights():
            layers = self.base(config).get_submodule(self.layers)
        own = self.stock.projections
        return tuple(
            replace(read_layer(layer, self.own.layer, cross=self.crosses).record, projections=own)
            for layer in layers.children()
        )

    def seen(self, config: Any) -> Any:
        """A config as these layers see it, with :attr:`entries` under their usual names."""
        return StackConfig(config, self.entries) if self.entries else config

    def placement(self, config: Any, text: str | Placement) -> Placement:
        """The placement named by `text` for a stock or placed config; see :func:`mixln.placement.placement`."""
        built = build_placement(
            text,
            self.seen(config).num_hidden_layers,
            stock=self.stock_layers(config),
            stock_init=self.stock_init,
            stock_streams=self.own.entries(config),
        )
        if self.encoder is not None and isinstance(text, str):
            built = replace(built, encoder=self.encoder.placement(config, text).layers)
        self.check(config, built)
        return built

    def check(self, config: Any, placement: Placement) -> None:
        """Checks that a placement has a record for every layer of a config.

        :raises PlacementError: if a stack has another number of layers, or layers with cross-attention where the family has none.
        """
        name, encoder = placement.name, placement.encoder
        if self.encoder is None and encoder:
            raise PlacementError(f"placement {name!r} has an encoder, and {self.model_type} has none; omit it")
        depth = 0 if self.encoder is None else self.encoder.seen(config).num_hidden_layers
        if len(encoder) != depth:
            raise PlacementError(
                f"placement {name!r} has {len(encoder)} encoder layers, but {self.model_type} has {depth}"
            )
        for layers, crosses in ((encoder, False), (placement.layers, self.crosses)):
            for number, layer in enumerate(layers, start=1):
                if (layer.cross_attention is not None) != crosses:
                    must = "must be present in the decoder" if crosses else "must be absent where there is none"
                    raise PlacementError(
                        f"placement {name!r}: cross_attention of layer {number} {must} of {self.model_type}"
                    )

    def has_stacks(self, model: nn.Module) -> bool:
        """Whether both stacks are direct parts of the model, as in T5 with a head; BART with a head keeps them in its base model."""
        return self.encoder is not None and {self.layers, self.encoder.layers} <= dict(model.named_modules()).keys()

    def install(self, model: PreTrainedModel, config: Any, placement: Placement) -> None:
        """Replaces the stock layers of a model by placed layers, and the norm after them if the placement has another."""
        for stack, part in zip(self.stacks, placement.stacks, strict=True):
            layers: Any = model.get_submodule(stack.layers)
            for index in range(len(part.layers)):
                layers[index] = stack.place(layers[index], stack.seen(config), part, index)
            if stack.final_norm and part.final_norm != Norm():
                norm = stack.make_norm(part.final_norm, config.hidden_size, config)
                assert norm is not None
                model.set_submodule(stack.final_norm, norm)

    def place(self, layer: nn.Module, config: Any, placement: Placement, index: int) -> PlacedLayer:
        """Turns a stock layer into a placed layer, built from the placement's record at `index`, counted from 0.

        :raises PlacementError: if the layer's norms are not where :attr:`stock` has them, or its code cannot be read.
        """
        record = placement.layers[index]
        reading = read_layer(layer, self.own.layer, cross=self.crosses)
        known = {replace(kind, projections=Projections()) for kind in self.kinds or (self.stock,)}
        if reading.record not in known or not reading.norms.items() <= self.stock_names.items():
            raise PlacementError(
                f"this {self.model_type} cannot be placed: layer {index + 1} is {reading.record.formula} in its config, "
                f"but layers of {self.model_type} are placed from {self.formula}"
            )
        attention, *cross, feed_forward = reading.sublayers
        values = self._values(layer.get_submodule(attention.module), config) if placement.carries_values else 0
        for one in (attention, *cross):
            self._norm_projections(layer.get_submodule(one.module), record, config, carries_values=values > 0)
        self._norm_feed_forward(layer.get_submodule(feed_forward.module), record.projections, config)
        last = index == len(placement.layers) - 1 and record.feed_forward.stream_out is None
        return STREAMS[placement.streams].layer(
            record,
            stock=layer,
            replaced=(*reading.norms.values(), *self.own.layer_modules),
            modules=tuple(read.largest_first for read in reading.sublayers),
            branches=tuple(read.branch for read in reading.sublayers),
            plain=tuple(read.plain for read in reading.sublayers),
            returns=reading.returns,
            norm=self._slots(config),
            size=config.hidden_size,
            dropout=tuple(read.dropout for read in reading.sublayers),
            # Linear in depth; max() because a model of one layer has no depth to divide by.
            stochastic_depth=config.stochastic_depth * index / max(1, len(placement.layers) - 1),
            index=index,
            placement=placement,
            end=placement.final_norm if last and not self.final_norm else None,
            values=(f"{attention.module}.{self.projections['value']}", values) if values else ("", 0),
        )

    def fold(self, layers: Sequence[PlacedLayer], config: Any, placement: Placement) -> Fold | None:
        """Builds the fold from several states to one, before the final norm; `None` if there is only one."""
        if placement.streams == "single" and not placement.carries_values:
            return None
        return STREAMS[placement.streams].fold(placement, layers, self._slots(config), config.hidden_size)

    def _slots(self, config: Any) -> Callable[[Norm | None], nn.Module | None]:
        return lambda slot: self.make_norm(slot, config.hidden_size, config)

    def make_norm(self, record: Norm | None, size: int, config: Any) -> nn.Module | None:
        """Builds the module of a norm over `size` features; `None` for an empty slot."""
        return make_norm(record, size, host_norm=lambda size: self.norm(config, size), eps=lambda: self.eps(config))

    def _values(self, attention: nn.Module, config: Any) -> int:
        """K, the width of the values of every layer.

        :raises PlacementError: if the family has no value projection of its own in every layer, of the same width.
        """
        name = self.projections.get("value", "")
        if not name or self._is_fused(name):
            raise PlacementError(
                f"a value residual cannot be placed in {self.model_type}: not every layer has a value projection of its own that is as "
                f"wide as its heads ({type(attention).__name__}); choose a placement without one"
            )
        return self._projection_width(attention.get_submodule(name), "value", config)

    def _norm_projections(self, attention: nn.Module, record: Layer, config: Any, *, carries_values: bool) -> None:
        """Puts the record's norms on the projections. The family's own norms that are not in the record are removed."""
        for slot in ATTENTION_SLOTS:
            if getattr(record.projections, slot) is not None and slot not in self.projections:
                raise PlacementError(
                    f"a norm on the {slot} projection cannot be placed in {self.model_type}: not every layer has one of "
                    f"its own that is as wide as its heads ({type(attention).__name__}); choose a placement without norms on projections, "
                    "for example pre, post or sandwich"
                )
        for name, present in (("gain per head", record.projections.heads), ("gate", record.projections.gate)):
            if present and "context" not in self.projections:
                raise PlacementError(
                    f"a {name} cannot be placed in {self.model_type}: not every layer has an output projection of its own that is as wide "
                    "as its heads; choose a placement without one"
                )
        sites: list[tuple[Site, nn.Module]] = []
        for slot, own in self.own_norms.items():
            if not self._is_own(slot, record):
                # Not deleted, because the family's code calls it.
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
        if record.projections.unit_scale:
            sites.append(self._query_scale(attention, config))
        if record.projections.heads:
            site = Site(projection=self.projections["context"], norm="head_gain", before=True, size=head_size(config))
            sites.append((site, HeadGain(attention_heads(config)[0])))
        if record.projections.gate is not None:
            sites.append(self._gate(attention, record.projections.gate, config))
        if sites or carries_values:
            given = self.projections["value"] if carries_values else ""
            add_norms(attention, sites, given=given, entry_size=config.hidden_size)

    def _is_own(self, slot: str, record: Layer) -> bool:
        """Whether the family's own code already applies the norm that the record requires, over the same width."""
        wanted, stock = getattr(record.projections, slot), getattr(self.stock.projections, slot)
        if slot not in self.own_norms or wanted is None or stock is None:
            return False
        # A norm without a gain is followed by a scale, which the family's code has no place for.
        return wanted.width == stock.width and wanted.norm.kind != "unit"

    def _projection_norm(
        self, projection: nn.Module, wanted: ProjectionNorm, slot: str, config: Any
    ) -> tuple[nn.Module, int | None]:
        """Builds the norm of one projection, with the features per normalized vector; `None` for the full width.

        :raises SettingsError: if the width of the projection is not that of the config's heads.
        """
        size = self._projection_width(projection, slot, config)
        width = head_size(config) if wanted.width == "head" else None
        norm = self.make_norm(wanted.norm, width or size, config)
        assert norm is not None
        return norm, width

    def _projection_width(self, projection: nn.Module, slot: str, config: Any) -> int:
        """Features of one projection.

        :raises SettingsError: if they are not those of the config's heads.
        """
        name = self.projections[slot]
        # With grouped-query attention, k and v have fewer heads than q.
        heads = attention_heads(config)[slot in ("key", "value")]
        inputs, outputs = widths(projection)
        size = inputs if slot == "context" else outputs // (len(FUSED) if self._is_fused(name) else 1)
        if size != heads * head_size(config):
            raise SettingsError(
                f"{name} of {self.model_type} has {size} features for {slot}, but {heads} heads of head_dim "
                f"{head_size(config)} make {heads * head_size(config)}; correct head_dim or the number of heads"
            )
        return size

    def _gate(self, attention: nn.Module, width: str, config: Any) -> tuple[Site, nn.Module]:
        name = self.projections["context"]
        heads = attention_heads(config)[0]
        outputs = heads if width == "head" else widths(attention.get_submodule(name))[0]
        size = head_size(config) if width == "head" else None
        site = Site(projection=name, norm="output_gate", before=True, size=size, gates=True)
        return site, nn.Linear(config.hidden_size, outputs, bias=False)

    def _query_scale(self, attention: nn.Module, config: Any) -> tuple[Site, nn.Module]:
        """E·s² on q, one s per head and feature, in place of the authors' s on q and k and softmax scale √E = E/√E."""
        name = self.projections["query"]
        width, size = self._projection_width(attention.get_submodule(name), "query", config), config.hidden_size
        part = FUSED.index("query") if self._is_fused(name) else None
        scale = FeatureScale(width, factor=head_size(config), power=2, start=size**-0.5)
        return Site(projection=name, norm="query_scale", part=part), scale

    def _is_fused(self, name: str) -> bool:
        return list(self.projections.values()).count(name) > 1

    def _norm_feed_forward(self, feed_forward: nn.Module, record: Projections, config: Any) -> None:
        """Puts a norm before the feed-forward's output projection (Sub-LN), and after each of its input projections (SimpleNorm).

        :raises PlacementError: if the feed-forward has no such module, as with experts whose weights are one tensor.
        """
        children = dict(feed_forward.named_children())
        down = [self.down] if self.down in children else []
        slots = (
            (record.inner, self.inputs(children), False, "input projections of its own to place norms after"),
            (record.down, down, True, "output projection of its own to place a norm before"),
        )
        sites: list[tuple[Site, nn.Module]] = []
        for wanted, names, before, missing in slots:
            if wanted is None:
                continue
            if not names:
                raise PlacementError(
                    f"a norm inside the feed-forward cannot be placed in {self.model_type}: its {type(feed_forward).__name__} has no "
                    f"{missing}; choose a placement without such a norm, for example norm(c)+pre"
                )
            for name in names:
                inner, outer = widths(children[name])
                norm = self.make_norm(wanted, inner if before else outer, config)
                assert norm is not None
                sites.append(
                    (Site(projection=name, norm="down_norm" if before else f"{name}_norm", before=before), norm)
                )
        for name in self.inputs(children) if record.unit_scale else ():
            scale = FeatureScale(widths(children[name])[1], factor=math.sqrt(config.hidden_size))
            sites.append((Site(projection=name, norm=f"{name}_scale"), scale))
        if sites:
            add_norms(feed_forward, sites)

    def inputs(self, children: Mapping[str, nn.Module]) -> list[str]:
        """The input projections among the submodules of a feed-forward; a fused one is none."""
        roles = {end.rpartition(".")[2]: role for end, role in self.roles.items()}
        return [name for name in children if name != self.down and roles.get(name) == "feed_forward_in"]

    def role(self, parameter: str) -> Role:
        """The role of a parameter of a placed or stock model, by its name; `other` if the family defines none."""
        name = "." + self.canonical(parameter).removesuffix(".weight")
        return next((role for end, role in {**self.roles, **OWN_ROLES}.items() if name.endswith("." + end)), "other")

    def canonical(self, parameter: str) -> str:
        """The name of a weight in the stock model without a head, for example `layers.0.self_attn.q_proj.weight`.

        A norm gets its name in the stock model, if the stock model has it.
        """
        name = parameter.removeprefix(self.base.base_model_prefix + ".")
        stack = self.stack_of(name)
        for slot, own in stack.own_norms.items():
            name = name.replace(f".{slot}_norm.", f".{own}.")
        # ViT's patch embedding. Its name without this part seeds its initial values, so it must stay that way.
        name = name.replace(".projection.", ".")
        name = f".{name}."
        for slot, stock in stack.stock_names.items():
            name = name.replace(f".{slot}.", f".{stock}.")
        return name[1:-1]

    def tensor_parallel_plan(self, placement: Placement) -> dict[str, str] | None:
        """The family's plan for transformers' tensor parallelism, extended for the placement's norms.

        A norm over the full width needs the features of all processes, so its side of the layer is computed in full by each, as in
        OLMo 2's own plan. A per-head norm needs only the heads of its process; the gradient of its gain is summed over processes.

        :returns: module of the model without a head, `*` for the layer index → style; `None` if the family has no plan.
        """
        if self.config.base_model_tp_plan is None:
            return None
        plan = dict(self.config.base_model_tp_plan)
        records = [layer.projections for layer in placement.layers]
        slots = [(slot, norm) for record in records for slot in self.projections if (norm := getattr(record, slot))]
        attention, feed_forward = (f"{self.layers}.*.{side}." for side in (self.attention, self.feed_forward))
        whole = [attention] if any(norm.width == "full" for _, norm in slots) else []
        whole += (
            [attention] if any(record.heads or record.first_value or record.unit_scale for record in records) else []
        )
        whole += [feed_forward] if any(record.down or record.inner or record.unit_scale for record in records) else []
        if (
            any(record.gate for record in records)
            and plan.get(attention + self.projections.get("context", "")) == "rowwise"
        ):
            plan[attention + "output_gate"] = "colwise"
        for name, style in list(plan.items()):
            if name.startswith(tuple(whole)):
                plan[name] = WHOLE.get(style, style)
        # Still split by heads: every process holds all gains of a per-head norm, and sees the gradients of its own heads only.
        if plan.get(attention + self.projections.get("context", "")) == "rowwise":
            plan |= {f"{attention}{slot}_norm": SHARED for slot, _ in slots}
        return plan

    def hidden_axis(self, parameter: str, weight: Tensor, module: nn.Module, size: int) -> int | None:
        """The axis of a matrix that is as long as the hidden size: the inputs of what reads the stream, the outputs of what feeds it.

        :param parameter: name in the model; `module`: holds the weight; `size`: D.
        :returns: `None` for other weights, such as those of routers and positions.
        """
        role = self.role(parameter)
        first = role if isinstance(role, str) else role[0]
        if first == "other" or parameter.endswith(tuple(f".{end}.weight" for end in OWN_ROLES)):
            return None
        # (outputs, inputs), after an axis of experts where they are fused; the other way round in Conv1D and in some experts.
        order = (-2, -1) if isinstance(module, Conv1D) else (-1, -2)
        axes = order[::-1] if first in BRANCH_OUTPUTS else order
        return next((axis for axis in axes if weight.shape[axis] == size), None)

    def former_names(self, model: nn.Module) -> dict[str, str]:
        """Parameter → its name in checkpoints of earlier mixln versions, in which a norm wrapped its projection.

        :param model: a placed model, possibly with adapters in it and around it.
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
        # The modules of the fold belonged to the last layer.
        for path, module in model.named_modules():
            if isinstance(module, Fold):
                moved |= {f"{path}.{name}": f"{layers[-1][0]}.{name}" for name, _ in module.named_children()}
        former: dict[str, str] = {}
        for name, _ in model.named_parameters():
            module = name.rpartition(".")[0]
            while module and module not in moved:  # parameters of an adapter are inside the projection
                module = module.rpartition(".")[0]
            if module:
                former[name] = moved[module] + name.removeprefix(module)
        return former


class StackConfig:
    """A config with some of its entries under other names.

    :param names: name → name in the config.
    """

    def __init__(self, config: Any, names: Mapping[str, str]) -> None:
        self._config, self._names = config, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, self._names.get(name, name))


def attention_heads(config: Any) -> tuple[int, int]:
    """(query heads, key/value heads) of a config; equal without grouped-query attention."""
    heads = config.num_attention_heads
    return heads, getattr(config, "num_key_value_heads", None) or heads


def head_size(config: Any) -> int:
    """head_dim of a config, by default the hidden size divided by the number of heads."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def check_shape(config: Any) -> None:
    """Checks the numbers of heads and experts, which fail in some families only during a forward pass.

    :raises SettingsError: if the number of heads does not divide the hidden size (in a config without `head_dim`), the number of
        key/value heads does not divide the number of heads, or there are fewer experts than a token is routed to.
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
    # Mixtral calls it num_local_experts, the other families num_experts.
    chosen = getattr(config, "num_experts_per_tok", None)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if chosen and experts and chosen > experts:
        raise SettingsError(f"num_experts_per_tok must be at most the number of experts, got {chosen} of {experts}")


def widths(projection: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer. The weight of transformers' Conv1D, as in GPT-2, is (inputs, outputs)."""
    if isinstance(projection, nn.Linear):
        return projection.in_features, projection.out_features
    assert isinstance(projection, Conv1D)
    inputs, outputs = projection.weight.shape
    return inputs, outputs


def copy_weights(source: PreTrainedModel, target: PreTrainedModel, canonical: Callable[[str], str]) -> None:
    """Copies every weight from one layout of a model to the other.

    :param canonical: parameter name → name shared by both layouts; see :meth:`Host.canonical`.
    :raises PlacementError: if a weight of one layout has no counterpart in the other.
    """
    values = {canonical(name): value for name, value in source.state_dict().items()}
    names = {canonical(name): name for name in target.state_dict()}
    if difference := sorted(values.keys() ^ names.keys()):
        raise PlacementError(
            f"the two models do not have the same weights: {difference[0]} has no counterpart "
            f"in the {'second' if difference[0] in values else 'first'}"
        )
    target.load_state_dict({names[name]: value for name, value in values.items()})
