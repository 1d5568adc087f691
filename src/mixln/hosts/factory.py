"""Generates the placed classes of a host family and registers them with transformers' `Auto*` classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, wraps
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from mixln.errors import CheckpointError, PlacementError
from mixln.hosts.family import Host
from mixln.hosts.syntax import Substitute, Unreadable
from mixln.nn.initialisation import initialise
from mixln.nn.projections import CallRewriter, rewrite
from mixln.nn.ramp import Stepped
from mixln.nn.residual import PlacedLayer
from mixln.nn.sphere import ScaledHead, to_unit
from mixln.nn.streams import STREAMS
from mixln.placement import Placement

# Part of the file format: config.json of existing checkpoints holds this text.
REFUSAL = "one per entry of placement.layers: this checkpoint opens with `import mixln` only"
"""Value of the number of layers in `config.json`; the placement gives the actual number.

Without mixln, the `Auto*` classes refuse the unknown model type. A stock class named explicitly would only warn about unused norms
and load the rest; this string makes it fail.
"""


LAYER_TYPES = "placed_layer_types"
"""Name of `layer_types` in `config.json`. transformers' Trainer reads the file as a generic config, which would compare the length
of the list with :data:`REFUSAL`.
"""


STD = 0.02
"""Standard deviation of the initial weights where a config has none; the default of nearly every family."""


def placed_classes(host: Host, module: str) -> dict[str, type]:
    """Generates the family's placed config, base model and heads, and registers them with the `Auto*` classes.

    :param module: name of the module that will hold the classes, so that they can be pickled.
    :returns: class name → class, for example `PlacedLlamaForCausalLM`.
    """
    config = _config_class(host, module)
    base = _base_class(host, config, module)
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, base)
    classes: dict[str, type] = {config.__name__: config, base.__name__: base}
    # Once each: BART has one class for two heads.
    stocks = dict.fromkeys(stock for stock, _ in host.heads.values())
    heads = {stock: _head_class(stock, base, config, module) for stock in stocks}
    for stock, auto in host.heads.values():
        auto.register(config, heads[stock])
    classes |= {head.__name__: head for head in heads.values()}
    return classes


def _config_class(host: Host, module: str) -> type[PreTrainedConfig]:
    # Number of layers → entry of the placement with their records.
    depths = {stack.depth: "layers" if stack is host else "encoder" for stack in host.stacks}

    def __post_init__(self: Any, **kwargs: Any) -> None:
        host.config.__post_init__(self, **kwargs)
        if self.placement is not None and (plan := host.tensor_parallel_plan(check(host, self))) is not None:
            # transformers 5.17 has entered tied embeddings in the config's own plan.
            self.base_model_tp_plan = {**self.base_model_tp_plan, **plan}

    def to_diff_dict(self: Any) -> dict[str, Any]:
        entries = {**host.config.to_diff_dict(self), **dict.fromkeys(depths, REFUSAL)}
        if "layer_types" in entries:
            entries[LAYER_TYPES] = entries.pop("layer_types")
        return entries

    def from_dict(cls: Any, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        if config_dict.get(host.depth) == REFUSAL:
            records = config_dict.get("placement") or {}
            config_dict = {**config_dict, **{depth: len(records.get(entry, ())) for depth, entry in depths.items()}}
            if LAYER_TYPES in config_dict:
                config_dict["layer_types"] = config_dict.pop(LAYER_TYPES)
        # `config` is the class made below: zero-argument super() needs a class body around it.
        return super(config, cls).from_dict(config_dict, **kwargs)  # type: ignore[misc]

    namespace = {
        "__module__": module,
        "__doc__": f"Config of a placed {host.config.__name__}: `placement` holds one record per layer, `init` the initialisation, "
        "`stochastic_depth` the probability of dropping a branch of the last layer; it rises linearly from 0 in the first.",
        "__annotations__": {"placement": "dict | None", "init": "str", "stochastic_depth": "float"},
        "model_type": f"placed_{host.model_type}",
        "placement": None,
        "init": "normal",
        "stochastic_depth": 0.0,
        "auto_map": MappingProxyType({}),  # no remote code; TRL fails if the attribute is missing
        "__post_init__": __post_init__,
        "to_diff_dict": to_diff_dict,
        "from_dict": classmethod(from_dict),
    }
    config = type(f"Placed{host.config.__name__}", (host.config,), namespace)
    return config


def check(host: Host, config: Any) -> Placement:
    """Returns the placement of a placed config, checked against its number of layers.

    :raises PlacementError: if the placement is missing or malformed, or its number of layers differs.
    """
    if config.placement is None:
        raise PlacementError(
            f"config of type {config.model_type!r} has no placement; build it with mixln.from_config(config, placement=...)"
        )
    placement = Placement.from_json(config.placement)
    depth = host.seen(config).num_hidden_layers
    if len(placement.layers) != depth:
        name = host.entries.get("num_hidden_layers", "num_hidden_layers")
        raise PlacementError(f"placement {placement.name!r} has {len(placement.layers)} layers, but {name} is {depth}")
    host.check(config, placement)
    return placement


class PlacedModel(Stepped):
    """Mixin of every placed class: initialisation, strict loading, and unit matrices where the placement asks for them."""

    host: Host
    stock: type[PreTrainedModel]
    config_class: type[PreTrainedConfig]

    _weight_conversions: Sequence[Any] = ()
    """Conversions that transformers reverts when it saves a model. Empty unless the loaded file needed some, so that the weights of
    experts stay fused in our files: Trainer resumes without conversions, and expects the names in the file to be those of the model.
    """

    unit: tuple[tuple[bool, ...], ...] = ()
    """For each stack, :attr:`Placement.unit`."""
    constants: frozenset[str] = frozenset()
    """Names of parameters that the family's code does not train; transformers forgets that of those which a checkpoint lacks."""

    def post_init(self) -> None:
        """Called by transformers at the end of the construction."""
        parameters = self.named_parameters()  # type: ignore[attr-defined]
        self.constants = frozenset(name for name, parameter in parameters if not parameter.requires_grad)
        super().post_init()  # type: ignore[misc]

    # transformers searches the source of the class's module to find out; the relevant source is the family's.
    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return cls.host.base._can_set_experts_implementation()

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return cls.host.base._can_set_attn_implementation()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Whether transformers must expect code that ignores its marks of initialised weights: the family's code does not.

        For such code transformers leaves out modules without parameters, and with them buffers that the family sets there.
        """
        return False

    def to_step(self, step: int) -> None:
        """Makes unit vectors of the matrices of layers that have rates; a head leaves those of its model to that."""
        if not any(map(any, self.unit)):
            return
        inner = next((child for child in self.children() if isinstance(child, PlacedModel)), None)  # type: ignore[attr-defined]
        of_inner = {id(parameter) for parameter in inner.parameters()} if inner is not None else set()  # type: ignore[attr-defined]
        for path, module in self.named_modules():  # type: ignore[attr-defined]
            for local, weight in module.named_parameters(recurse=False):
                # PEFT trains a copy of a whole module within a wrapper.
                own = re.sub(r"\.modules_to_save\.\w+$", "", path)
                name = f"{own}.{local}".removeprefix(self.base_model_prefix + ".")  # type: ignore[attr-defined]
                if weight.ndim < 2 or not weight.requires_grad or id(weight) in of_inner:
                    continue
                if (axis := self._unit_axis(name, weight, module)) is not None:
                    to_unit(weight, axis)

    def _unit_axis(self, name: str, weight: Tensor, module: nn.Module) -> int | None:
        """The axis of a matrix along which it is to hold unit vectors, if any; embeddings and head belong to the layers beside them."""
        size: int = self.config.hidden_size  # type: ignore[attr-defined]
        stack = self.host.stack_of(name)
        inside = re.match(rf"{re.escape(stack.layers)}\.(\d+)\.", name)
        layer = int(inside[1]) if inside else -1 if self.host.role(name) == "head" else 0
        wanted = self.unit[self.host.stacks.index(stack)][layer]
        return self.host.hidden_axis(name, weight, module, size) if wanted else None

    def _get_resized_lm_head(self, old_lm_head: nn.Linear, *args: Any, **kwargs: Any) -> nn.Linear:
        resized: nn.Linear = super()._get_resized_lm_head(old_lm_head, *args, **kwargs)  # type: ignore[misc]
        if not isinstance(old_lm_head, ScaledHead):
            return resized
        # Where the weight is tied, it has been resized with the embeddings, and this is the old head.
        old = old_lm_head.logit_scale.data
        scaled, kept = ScaledHead.of(resized), min(len(old), resized.out_features)
        scaled.logit_scale.data[:kept] = old[:kept]
        return scaled

    def initialize_weights(self) -> None:
        """Initialises the model; called by transformers once on the outermost model, and again for weights missing from a checkpoint.

        Matrices are drawn first and marked as initialised; the family's own rules then set the vectors.
        """
        config = self.config  # type: ignore[attr-defined]
        initialise(
            self,  # type: ignore[arg-type]
            config.init,
            role=self.host.role,
            canonical=self.host.canonical,
            hidden_size=config.hidden_size,
            layers=lambda name: self.host.stack_of(name).seen(config).num_hidden_layers,
            initializer_range=getattr(config, "initializer_range", None) or getattr(config, "init_std", None) or STD,
            constants=self.constants,
        )
        super().initialize_weights()  # type: ignore[misc]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loads a model like transformers, but strictly: a missing, extra or misshapen weight is an error.

        Weights of the head may differ if the checkpoint was saved with another head. With `ignore_mismatched_sizes`, a head of the
        same class may have other shapes, for example for another number of labels.

        :raises CheckpointError: with the name of the first such weight.
        """
        kwargs = {**kwargs, "ignore_mismatched_sizes": True}  # reported instead of raised, and checked below
        where = (pretrained_model_name_or_path, *model_args)
        model, info = super().from_pretrained(*where, output_loading_info=True, **kwargs)  # type: ignore[misc]
        if renamed := cls._renamed(model, info["unexpected_keys"]):
            kwargs["key_mapping"] = {**(kwargs.get("key_mapping") or {}), **renamed}
            model, info = super().from_pretrained(*where, output_loading_info=True, **kwargs)  # type: ignore[misc]
            # transformers would revert these renames on saving; new files get the current names.
            conversions = [rule for rule in model._weight_conversions if rule.source_patterns[0] not in renamed]
            model._weight_conversions = conversions
        same_head = cls.__name__ in (model.config.architectures or (cls.__name__,))
        misshapen = (key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])
        problems = {"missing": info["missing_keys"], "extra": info["unexpected_keys"], "misshapen": misshapen}
        for what, keys in problems.items():
            for key in sorted(keys):
                strict = same_head and not (what == "misshapen" and ignore_mismatched_sizes)
                if strict or cls._in_body(key, of_model=what != "extra"):
                    raise CheckpointError(
                        f"checkpoint {pretrained_model_name_or_path} does not fit the placement in its config: weight {key} is {what}; "
                        "it was written with another placement, or is corrupt"
                    )
        return (model, info) if output_loading_info else model

    @classmethod
    def _renamed(cls, model: Any, unexpected: Iterable[str]) -> dict[str, str]:
        """Pattern of an unexpected weight name of an earlier mixln version → its current name."""
        prefix = cls.base_model_prefix + "."  # type: ignore[attr-defined]
        former = {
            old.removeprefix(prefix): new.removeprefix(prefix) for new, old in cls.host.former_names(model).items()
        }
        present = {key.removeprefix(prefix) for key in unexpected} & former.keys()
        return {f"{re.escape(old)}$": former[old] for old in sorted(present)}

    @classmethod
    def _in_body(cls, key: str, *, of_model: bool) -> bool:
        """Whether a weight belongs to the model without its head.

        :param of_model: the weight exists in this model, not only in the checkpoint.
        """
        prefix = cls.base_model_prefix + "."  # type: ignore[attr-defined]
        name = key.removeprefix(prefix)
        if cls.host.pooler and name.startswith(cls.host.pooler + "."):
            return False
        if name != key or any(key.startswith(f"{stack.layers}.") for stack in cls.host.stacks):
            return True
        return of_model and issubclass(cls, cls.host.base)


def former_names(model: nn.Module) -> dict[str, str]:
    """See :meth:`Host.former_names`; empty for a model without a placement. Adapters may wrap the placed model."""
    placed = next((module for module in model.modules() if isinstance(module, PlacedModel)), None)
    return placed.host.former_names(model) if placed else {}


def _base_class(host: Host, config_class: type, module: str) -> type[PreTrainedModel]:
    stock = host.base

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        placement = check(host, config)
        # Weights are drawn only in post_init, once all placed layers exist.
        with no_init_weights():
            stock.__init__(self, config, *args, **kwargs)
            _install(host, self, config, placement)
            layers: Any = self.get_submodule(host.layers)
            for name in host.own.model_modules:
                delattr(self, name)
            self.stream_fold = host.fold(list(layers), config, placement)
            self.packing = layers[0].packing
            self.unit = tuple(part.unit for part in placement.stacks)
        if getattr(config, "is_causal", True) is False:
            _see_both_ways(self)
        self.post_init()

    # transformers collects hidden states by the class of the layers.
    stock_recorded: dict[str, Any] = stock._can_record_outputs or {}
    recorded = {**stock_recorded, "hidden_states": PlacedLayer}
    # accelerate must keep a placed layer on one device, as it does with the stock layer that it replaces.
    replaced = stock_recorded.get("hidden_states", ())
    names = {
        cls.__name__
        for cls in (replaced if isinstance(replaced, list | tuple) else (replaced,))
        if isinstance(cls, type)
    }
    whole = [name for name in stock._no_split_modules or () if name not in names]
    namespace = {
        "__init__": __init__,
        **_folding(host),
        "__module__": module,
        "__doc__": f"{stock.__name__} with a placement.",
        "host": host,
        "stock": stock,
        "config_class": config_class,
        "_can_record_outputs": recorded,
        "_no_split_modules": list(dict.fromkeys([*whole, *(streams.layer.__name__ for streams in STREAMS.values())])),
    }
    return type(f"Placed{stock.__name__}", (PlacedModel, stock), namespace)


def _install(host: Host, model: PreTrainedModel, config: Any, placement: Placement) -> None:
    """Puts placed layers into a model, and lets a stack that is a model by itself, as BART's encoder is, collect their outputs."""
    host.install(model, config, placement)
    for stack in host.stacks:
        owner = model.get_submodule(stack.layers.rpartition(".")[0])
        if owner is not model and isinstance(owner, PreTrainedModel):
            # Changing the class keeps the object, as in mixln.nn.projections.
            owner.__class__ = _stack_class(type(owner))
            _register(type(owner), owner.config)


class PlacedStack:
    """Mixin of the class of a stack of layers that is a model by itself."""

    stock: type[PreTrainedModel]

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is generated at run time and cannot be imported.
        return _empty_stack, (self.stock, self.config), self.__dict__  # type: ignore[attr-defined]


def _empty_stack(stock: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    cls = _stack_class(stock)
    _register(cls, config)
    return cls.__new__(cls)


@cache
def _stack_class(stock: type[PreTrainedModel]) -> type[PreTrainedModel]:
    recorded = {**(stock._can_record_outputs or {}), "hidden_states": PlacedLayer}
    namespace = {
        "__module__": stock.__module__,
        "__doc__": stock.__doc__,
        "stock": stock,
        "_can_record_outputs": recorded,
    }
    return type(f"Placed{stock.__name__}", (PlacedStack, stock), namespace)


REGISTERED: set[type] = set()
"""Classes of which transformers knows what they collect: it enters a class when a model of it is built."""


def _register(cls: type[PreTrainedModel], config: Any) -> None:
    if cls not in REGISTERED:
        REGISTERED.add(cls)
        with torch.device("meta"), no_init_weights():
            cls(config)


def _folding(host: Host) -> dict[str, Any]:
    """Methods of a placed base class that fold several residual streams into one before the final norm and in `hidden_states`."""
    stock = host.base
    # The stock forward with self.final_norm(x) replaced by self.final_norm(self.folded("…", x)): several streams become one there.
    calls, single = CallRewriter("folded", before=[host.final_norm]), Substitute(host.own.model)
    folding = rewrite(stock.forward, calls, single) if host.folds else None
    if single.missing:
        raise Unreadable(f"{stock.__name__}.forward does not have the code {min(single.missing)}")

    def folded(self: Any, final_norm: str, states_BTD: Tensor) -> Tensor:
        states = self.packing.split(states_BTD)[1]
        return states if self.stream_fold is None else self.stream_fold(states)

    @wraps(stock.forward)  # Trainer reads the signature to decide which columns the model takes
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if folding is None or (self.stream_fold is None and not host.own.model):
            return stock.forward(self, *args, **kwargs)
        # Hidden states can only be replaced in an output object; a tuple is made of it at the end.
        wanted = kwargs.pop("return_dict", None)
        outputs = folding(self, *args, return_dict=True, **kwargs)
        if outputs.hidden_states is not None:
            outputs.hidden_states = tuple(
                None if state is None else self.folded("", state) for state in outputs.hidden_states
            )
        return outputs if (self.config.return_dict if wanted is None else wanted) else outputs.to_tuple()

    return {"forward": forward, "folded": folded}


def _see_both_ways(model: nn.Module) -> None:
    """Lets every attention see what comes after a token too, as `is_causal: false` in a decoder's config asks for.

    transformers then makes no causal mask, and none at all where nothing is padded; but its attention takes "no mask" for a causal one
    where the module says so, and the modules of decoders always do (transformers 5).
    """
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False  # type: ignore[assignment]


def _head_class(stock: type[PreTrainedModel], base: type, config_class: type, module: str) -> type[PreTrainedModel]:
    host: Host = base.host  # type: ignore[attr-defined]

    def __init__(self: Any, config: Any) -> None:
        placement = check(host, config)
        # No weights are drawn until post_init: the stock base model is built only to be replaced.
        with no_init_weights():
            stock.__init__(self, config)
            self.unit = tuple(part.unit for part in placement.stacks)
            if host.has_stacks(self):
                _install(host, self, config, placement)
            else:
                name, inner = next((n, child) for n, child in self.named_children() if isinstance(child, host.base))
                pooled = host.pooler and getattr(inner, host.pooler, None) is not None
                setattr(
                    self, name, base(config, **({"add_pooling_layer": False} if host.pooler and not pooled else {}))
                )
            output = self.get_output_embeddings()
            if placement.unit[-1] and type(output) is nn.Linear:
                ScaledHead.of(output)
        self.post_init()

    namespace = {
        "__init__": __init__,
        "__module__": module,
        "__doc__": f"{stock.__name__} with a placement.",
        "host": host,
        "stock": stock,
        "config_class": config_class,
        "_can_record_outputs": base._can_record_outputs,  # type: ignore[attr-defined]
        "_no_split_modules": base._no_split_modules,  # type: ignore[attr-defined]
    }
    return type(f"Placed{stock.__name__}", (PlacedModel, stock), namespace)
