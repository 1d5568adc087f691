"""Adds the placed models to the tables in which other libraries list the models they support, by class name or model type.

A library rarely refuses a model that is missing from such a table; it silently treats it as another kind of model: labels are not
shifted, experts get no adapters. Each table is extended once its library and the placed classes are both imported. Nothing is
imported for this purpose.

A table of model types gets `placed_llama` for `llama`, a table of class names `PlacedLlamaForCausalLM` for `LlamaForCausalLM`.
`tests/libraries/test_tables.py` searches the installed libraries for tables that are missing here.

Four functions have no table and are wrapped, for models that are trained without mixln's own trainers. Checked on transformers 5.23
and peft 0.21; no option or registration was found that does the same without renaming the weights of stored checkpoints:

    Trainer.get_decay_parameter_names   decides by names and `nn.LayerNorm` alone which weights are norms
    peft's two adapter conversions       are chosen by model type, and adapters of an earlier mixln have names of their own
    peft's compute_query_states         calls a projection without the norm that a placement puts on it
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from mixln._register import when_all_imported, when_imported
from mixln.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

    from mixln.hosts.family import Host

    Hosts = Sequence[Host]


def register() -> None:
    """Schedules the extension of every table in :data:`TABLES`, and every wrapper in :data:`WRAPPERS`.

    A family that is derived later is entered when it is.
    """
    for name in TABLES:
        when_all_imported(("mixln.hosts", name), partial(_enter_loaded, name))
    for name, wrap in WRAPPERS.items():
        when_all_imported(("mixln.hosts", name), partial(_wrap, name, wrap))
    when_imported("mixln.hosts", _enter_later_ones)


def _enter_loaded(name: str) -> None:
    from mixln.hosts.families import LOADED

    TABLES[name](sys.modules[name], list(LOADED.values()))


def _wrap(name: str, wrap: Callable[[Any], None]) -> None:
    wrap(sys.modules[name])


def _enter_later_ones() -> None:
    from mixln.hosts.families import LISTENERS

    LISTENERS.append(_enter)


def _enter(host: Host) -> None:
    """Enters a family in the tables of all libraries that are imported."""
    for name, enter in TABLES.items():
        if name in sys.modules:
            enter(sys.modules[name], [host])


def _types(hosts: Hosts) -> dict[str, str]:
    """Model type of a family → model type of its placed models."""
    return {host.model_type: f"placed_{host.model_type}" for host in hosts}


def _classes(hosts: Hosts) -> list[Any]:
    """The placed classes of some families, with and without heads."""
    from mixln.hosts.factory import PlacedModel

    return [cls for cls in PlacedModel.__subclasses__() if any(cls.host is host for host in hosts)]


def _copy(table: MutableMapping[str, Any], hosts: Hosts) -> None:
    """Copies the entry of each family to its placed model type."""
    for stock, placed in _types(hosts).items():
        if stock in table:
            table.setdefault(placed, table[stock])


def _namespace(transformers: Any, hosts: Hosts) -> None:
    """TRL, pipelines and `transformers serve` look up `config.architectures[0]` as an attribute of transformers."""
    for placed in _classes(hosts):
        setattr(transformers, placed.__name__, placed)


def _models(modeling_auto: Any, hosts: Hosts) -> None:
    """Every `Auto*` class that knows a family's class, and the tables of class names that Trainer and lm-eval read."""
    from transformers.models.auto.auto_factory import _LazyAutoMapping

    for mapping in vars(modeling_auto).values():
        if not isinstance(mapping, _LazyAutoMapping):
            continue
        for placed in _classes(hosts):
            if mapping._model_mapping.get(placed.host.model_type) == placed.stock.__name__:
                mapping.register(placed.config_class, placed, exist_ok=True)
            # Trainer and lm-eval read class names, without registered classes.
            if mapping._extra_content.get(placed.config_class) is placed:
                mapping._model_mapping.setdefault(placed.config_class.model_type, placed.__name__)


def _modules(auto_mappings: Any, hosts: Hosts) -> None:
    """The module `transformers.models.<name>` in which transformers looks up the classes of a model type."""
    special = auto_mappings.SPECIAL_MODEL_TYPE_TO_MODULE_NAME
    for stock, placed in _types(hosts).items():
        special.setdefault(placed, special.get(stock, stock))


def _preprocessors(auto: Any, hosts: Hosts) -> None:
    """A placed model has the tokenizer or image processor of its family, unless its files name another class.

    Of some families (Qwen2) transformers does not believe the files, because many checkpoints name a wrong class. The files of placed
    models were read back when they were written, and may hold a tokenizer of another kind.
    """
    from transformers.models.auto.auto_factory import _LazyAutoMapping

    for mapping in list(vars(auto).values()):
        if isinstance(mapping, _LazyAutoMapping):
            _copy(mapping._model_mapping, hosts)
            for host in hosts:
                # By name, so that the config class is imported only when it is used.
                mapping._reverse_config_mapping.setdefault(f"Placed{host.config.__name__}", host.model_type)


def _conversions(conversion_mapping: Any, hosts: Hosts) -> None:
    """Conversions that fuse the weights of experts. transformers applies them to files, PEFT to adapters on single experts.

    Not those that rename what a placement adds: `attention.key`, a former name in ViT's files, is also in `attention.key_norm`.
    """
    norms = [f"{host.attention}.{slot}_norm" for host in hosts for slot in host.projections]
    names = _types(hosts) | {placed.stock.__name__: placed.__name__ for placed in _classes(hosts)}
    for stock, placed in names.items():
        known, own = map(conversion_mapping.get_checkpoint_conversion_mapping, (stock, placed))
        known = [rule for rule in known or () if not any(map(re.compile("|".join(rule.source_patterns)).search, norms))]
        if known:
            conversion_mapping.register_checkpoint_conversion_mapping(placed, [*(own or ()), *known], overwrite=True)


def _gains(pytorch_utils: Any) -> None:
    """Classes whose weights get no weight decay, for LoRA+. The family's own norms are the family's to list."""
    from mixln.nn.mixing import AnchorMix
    from mixln.nn.norms import BoundedTanh, Derf, DyT, GroupRMSNorm
    from mixln.nn.projections import HeadGain
    from mixln.nn.residual import BalanceGate, GpasGate, LearnedGain
    from mixln.nn.sphere import FeatureScale, RateGate
    from mixln.nn.streams import Combination

    ours = [
        GroupRMSNorm,
        DyT,
        Derf,
        BoundedTanh,
        LearnedGain,
        GpasGate,
        BalanceGate,
        RateGate,
        HeadGain,
        FeatureScale,
        AnchorMix,
        Combination,
    ]
    pytorch_utils.ALL_LAYERNORM_LAYERS.extend(ours)


def _decay(trainer: Any) -> None:
    """Exempts norms in slots, gates and stream weights from decay: Trainer only exempts `nn.LayerNorm` and names with `norm`."""
    stock = trainer.Trainer.get_decay_parameter_names

    @wraps(stock)
    def get_decay_parameter_names(self: Any, model: nn.Module) -> list[str]:
        # Vectors only: authors of maps between streams let the matrices decay.
        ours = {id(p) for module in _between(model) for p in module.parameters() if p.ndim < 2}
        exempt = {name for name, parameter in model.named_parameters() if id(parameter) in ours}
        return [name for name in stock(self, model) if name not in exempt]

    trainer.Trainer.get_decay_parameter_names = get_decay_parameter_names


def _between(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that a placement adds to a host: norms, gains, gates, and maps between streams."""
    from mixln.nn.norms import BoundedTanh, GroupRMSNorm, Squash
    from mixln.nn.projections import HeadGain
    from mixln.nn.residual import PlacedLayer
    from mixln.nn.sphere import FeatureScale, ScaledHead
    from mixln.nn.streams import Fold

    for module in model.modules():
        if isinstance(module, PlacedLayer):
            yield from (child for name, child in module.named_children() if name in module.own)
        # Outside a layer: as the final norm, on a projection, or after the last layer.
        elif isinstance(module, GroupRMSNorm | Squash | BoundedTanh | HeadGain | FeatureScale | ScaledHead | Fold):
            yield module


def _adapters(constants: Any, hosts: Hosts) -> None:
    """Default target modules of PEFT's methods."""
    norms = constants.TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING
    for host in hosts:
        if host.model_type in norms:
            norms.setdefault(f"placed_{host.model_type}", _norm_pattern(host, norms[host.model_type]))
    for name, table in vars(constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_"):
            _copy(table, hosts)


def _norm_pattern(host: Host, stock: Iterable[str]) -> str:
    """Regular expression for the full names of the norms that replace a family's norms.

    :param stock: names of the family's norms. Each stands for all norms of its residual sublayer.
    """
    slots = {name: slot.partition(".")[0] for slot, name in host.stock_names.items()}
    sublayers = "|".join(sorted({slots[name] for name in stock if name in slots}))
    layer = rf"(.*\.)?{host.layers}\.\d+"
    patterns = [
        rf"{layer}\.({sublayers})\.(\w+_(in|out)|maps\.norm)",
        rf"{layer}\.(stream_in|\w+_norm)",
        r"(.*\.)?stream_fold\.(\w+_norm|maps\.norm)",
    ]
    if host.final_norm in stock:
        patterns.append(rf"({re.escape(host.base.base_model_prefix)}\.)?{host.final_norm}")
    return "|".join(f"({pattern})" for pattern in patterns)


def _adapter_files(transformers_weight_conversion: Any, hosts: Hosts) -> None:
    """PEFT's own table of families with fused experts."""
    _copy(transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN, hosts)


def _rename_adapters(conversion: Any) -> None:
    """Renames modules in adapters of earlier mixln versions, in which a norm wrapped its projection: `q_proj.projection`.

    PEFT silently ignores such a target if it finds other targets.
    """
    convert_config = conversion.convert_peft_config_for_transformers
    convert_weights = conversion.convert_peft_adapter_state_dict_for_transformers

    @wraps(convert_config)
    def config(peft_config: Any, model: Any, conversions: Any) -> None:
        targets = getattr(peft_config, "target_modules", None)
        if isinstance(targets, set | list) and (names := _former_projections(model)):
            current = [f".{name}" for name, _ in model.named_modules()]
            for target in [target for target in targets if not any(name.endswith(f".{target}") for name in current)]:
                renamed = {new for new, old in names.items() if f".{old}".endswith(f".{target}")}
                peft_config.target_modules = {*peft_config.target_modules, *renamed} - ({target} if renamed else set())
        convert_config(peft_config, model, conversions)

    @wraps(convert_weights)
    def weights(model: Any, peft_config: Any, adapter_state_dict: dict[str, Any], adapter_name: str = "default") -> Any:
        if names := {f"{old}.": f"{new}." for new, old in _former_projections(model).items()}:
            former = re.compile("|".join(map(re.escape, names)))
            adapter_state_dict = {
                former.sub(lambda match: names[match[0]], key): value for key, value in adapter_state_dict.items()
            }
        return convert_weights(model, peft_config, adapter_state_dict, adapter_name)

    conversion.convert_peft_config_for_transformers = config
    conversion.convert_peft_adapter_state_dict_for_transformers = weights


def _former_projections(model: nn.Module) -> dict[str, str]:
    """Projection of a placed model → its name in earlier mixln versions; empty for other models."""
    from mixln.hosts.factory import former_names

    parts = [(new, old.rpartition(".projection.")) for new, old in former_names(model).items()]
    return {new.removesuffix(f".{end}"): f"{path}.projection" for new, (path, separator, end) in parts if separator}


def _prompts(adaption_prompt: Any, hosts: Hosts) -> None:
    """The attention modules that adaption prompts wrap. Without GPT-2, for which PEFT checks `model_type == "gpt2"` and refuses ours."""
    table = adaption_prompt.TRANSFORMERS_MODEL_CONFIG
    stock = set(table)
    _copy(table, hosts)
    table.pop("placed_gpt2", None)
    for name in table.keys() - stock:
        table[name] = table[name]._replace(compute_query_states=_without_norms(table[name].compute_query_states))


def _without_norms(query_states: Callable[..., Any]) -> Callable[..., Any]:
    """Refuses adaption prompts where a placement has norms on projections, because PEFT calls the projections without the norms."""

    @wraps(query_states)
    def compute_query_states(model: Any, **kwargs: Any) -> Any:
        from mixln.nn.projections import NormedProjections

        if isinstance(model, NormedProjections):
            names = ", ".join(sorted({site.projection for site in model.projection_sites}))
            raise SettingsError(
                f"adaption prompts would attend without the norms that this placement puts on {names}; use LoRA, "
                "prefix tuning, or a placement without such norms"
            )
        return query_states(model=model, **kwargs)

    return compute_query_states


def _megatron(dataclasses: Any) -> None:
    """Refuses Megatron-LM: accelerate would match `llama` in `placed_llama` and build a Llama without the placement."""
    parsers = dataclasses.MODEL_CONFIGS_TO_MEGATRON_PARSERS
    others = dict(parsers)
    parsers.clear()
    parsers.update({"placed_": _refuse_megatron, **others})  # the first key contained in the model type wins


def _refuse_megatron(plugin: Any, model: Any, batch_data: Any) -> None:
    raise SettingsError(
        f"Megatron-LM builds its own layers and would train {model.config.model_type} without its placement; "
        "use accelerate's FSDP or DeepSpeed"
    )


TABLES: dict[str, Callable[[Any, Hosts], None]] = {
    "transformers": _namespace,
    "transformers.models.auto.modeling_auto": _models,
    "transformers.models.auto.auto_mappings": _modules,
    "transformers.models.auto.tokenization_auto": _preprocessors,
    "transformers.models.auto.image_processing_auto": _preprocessors,
    "transformers.models.auto.feature_extraction_auto": _preprocessors,
    "transformers.models.auto.video_processing_auto": _preprocessors,
    "transformers.models.auto.processing_auto": _preprocessors,
    "transformers.conversion_mapping": _conversions,
    "peft.utils.constants": _adapters,
    "peft.utils.transformers_weight_conversion": _adapter_files,
    "peft.tuners.adaption_prompt.config": _prompts,
}
"""Module of a library → function that adds the placed models of some families to it, given the module."""
WRAPPERS: dict[str, Callable[[Any], None]] = {
    "transformers.pytorch_utils": _gains,
    "transformers.trainer": _decay,
    "peft.utils.transformers_weight_conversion": _rename_adapters,
    "accelerate.utils.dataclasses": _megatron,
}
"""Module of a library → function that changes it once, for all families."""
