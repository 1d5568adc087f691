"""Enters the placed models into the tables by which other libraries decide: by class name or by model type.

transformers, PEFT and accelerate keep static tables of the models they know. A model that is missing from one is rarely
refused; it is treated as another kind of model, silently: labels are not shifted, experts get no adapters. Each table is
completed once its library and our classes are both imported. Nothing is imported for it.

A table keyed by model type gets `placed_llama` beside `llama`; one of class names `PlacedLlamaForCausalLM` beside
`LlamaForCausalLM`. `tests/libraries/test_tables.py` searches the installed libraries for tables that are not listed here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from mixln._register import when_all_imported
from mixln.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

    from mixln.hosts.family import Host


def register() -> None:
    """Arranges for every table in :data:`LIBRARIES` to be completed."""
    for name, enter in LIBRARIES.items():
        when_all_imported(("mixln.hosts", name), partial(_enter, name, enter))


def _enter(name: str, enter: Callable[[Any], None]) -> None:
    enter(sys.modules[name])


def _types() -> dict[str, str]:
    """Model type of a family → that of its placed models."""
    from mixln.hosts.families import HOSTS

    return {name: f"placed_{name}" for name in HOSTS}


def _classes() -> list[Any]:
    """The placed classes, all heads and the models without one."""
    from mixln.hosts.factory import PlacedModel

    return PlacedModel.__subclasses__()


def _copy(table: MutableMapping[str, Any]) -> None:
    """Gives every placed model type the entry of its family, where that has one."""
    for stock, placed in _types().items():
        if stock in table:
            table.setdefault(placed, table[stock])


def _namespace(transformers: Any) -> None:
    """TRL, pipelines and `transformers serve` look `config.architectures[0]` up as an attribute of transformers."""
    for placed in _classes():
        setattr(transformers, placed.__name__, placed)


def _models(modeling_auto: Any) -> None:
    """Every `Auto*` class that knows a family's class, and the tables of names by which Trainer and lm-eval decide."""
    from transformers.models.auto.auto_factory import _LazyAutoMapping

    for mapping in vars(modeling_auto).values():
        if not isinstance(mapping, _LazyAutoMapping):
            continue
        for placed in _classes():
            if mapping._model_mapping.get(placed.host.model_type) == placed.stock.__name__:
                mapping.register(placed.config_class, placed, exist_ok=True)
            if mapping._extra_content.get(placed.config_class) is placed:
                mapping._model_mapping.setdefault(placed.config_class.model_type, placed.__name__)


def _modules(auto_mappings: Any) -> None:
    """Names of classes are looked up in `transformers.models.<module of the model type>`."""
    special = auto_mappings.SPECIAL_MODEL_TYPE_TO_MODULE_NAME
    for stock, placed in _types().items():
        special.setdefault(placed, special.get(stock, stock))


def _preprocessors(auto: Any) -> None:
    """The tokenizer or image processor of a placed model is its family's."""
    from transformers.models.auto.auto_factory import _LazyAutoMapping

    from mixln.hosts.families import HOSTS

    for mapping in list(vars(auto).values()):
        if isinstance(mapping, _LazyAutoMapping):
            _copy(mapping._model_mapping)
            for host in HOSTS.values():
                # By the name of its config, so that the class is imported when it is used, and not here.
                mapping._reverse_config_mapping.setdefault(f"Placed{host.config.__name__}", host.model_type)


def _tokenizers(tokenization_auto: Any) -> None:
    _preprocessors(tokenization_auto)
    wrong = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    wrong.update(placed for stock, placed in _types().items() if stock in wrong)


def _conversions(conversion_mapping: Any) -> None:
    """Conversions that fuse the weights of experts; PEFT applies them to adapters on single experts, transformers to files."""
    names = _types() | {placed.stock.__name__: placed.__name__ for placed in _classes()}
    for stock, placed in names.items():
        known, own = map(conversion_mapping.get_checkpoint_conversion_mapping, (stock, placed))
        if known:
            conversion_mapping.register_checkpoint_conversion_mapping(placed, [*(own or ()), *known], overwrite=True)


def _gains(pytorch_utils: Any) -> None:
    """Classes of ours whose weights are not decayed, as LoRA+ asks for them; norms of the family are for it to list."""
    from mixln.nn.norms import DyT, GroupRMSNorm
    from mixln.nn.residual import GpasGate, LearnedGain
    from mixln.nn.streams import Combination

    pytorch_utils.ALL_LAYERNORM_LAYERS.extend([GroupRMSNorm, DyT, LearnedGain, GpasGate, Combination])


def _decay(trainer: Any) -> None:
    """Trainer decays what is neither called a norm nor an `nn.LayerNorm`, and asks nobody: norms in slots, gates, weights of streams."""
    stock = trainer.Trainer.get_decay_parameter_names

    @wraps(stock)
    def get_decay_parameter_names(self: Any, model: nn.Module) -> list[str]:
        ours = {id(parameter) for module in _between(model) for parameter in module.parameters()}
        spared = {name for name, parameter in model.named_parameters() if id(parameter) in ours}
        return [name for name in stock(self, model) if name not in spared]

    trainer.Trainer.get_decay_parameter_names = get_decay_parameter_names


def _between(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that a placement adds to a host: norms, gains and gates. None of them holds a matrix."""
    from mixln.nn.norms import DyT, GroupRMSNorm
    from mixln.nn.residual import PlacedLayer
    from mixln.nn.streams import Fold

    for module in model.modules():
        if isinstance(module, PlacedLayer):
            yield from (child for name, child in module.named_children() if name not in module.names)
        elif isinstance(module, GroupRMSNorm | DyT | Fold):  # also a final norm, or one on a projection
            yield module


def _adapters(constants: Any) -> None:
    """Which weights each method of PEFT adapts when it is not told."""
    from mixln.hosts.families import HOSTS

    norms = constants.TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING
    for host in HOSTS.values():
        if host.model_type in norms:
            norms.setdefault(f"placed_{host.model_type}", _norm_pattern(host, norms[host.model_type]))
    for name, table in vars(constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_"):
            _copy(table)


def _norm_pattern(host: Host, stock: Iterable[str]) -> str:
    """A regular expression of the norms that stand in the place of a family's, by their full names.

    :param stock: names of the family's norms. Each stands for all norms of the residual sublayer that it belongs to.
    """
    slots = {name: slot.partition(".")[0] for slot, name in host.stock_names.items()}
    sublayers = "|".join(sorted({slots[name] for name in stock if name in slots}))
    layer = rf"(.*\.)?{host.layers}\.\d+"
    patterns = [
        rf"{layer}\.({sublayers})\.\w+_(in|out)",
        rf"{layer}\.(stream_in|\w+_norm)",
        r"(.*\.)?stream_fold\.\w+_norm",
    ]
    if host.final_norm in stock:
        patterns.append(rf"({re.escape(host.base.base_model_prefix)}\.)?{host.final_norm}")
    return "|".join(f"({pattern})" for pattern in patterns)


def _adapter_files(transformers_weight_conversion: Any) -> None:
    """PEFT's own copy of which families fuse their experts, and in which way; and the names in adapters of an earlier mixln."""
    _copy(transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN)
    _rename_adapters(transformers_weight_conversion)


def _rename_adapters(conversion: Any) -> None:
    """Adapters that were trained while norms stood around projections name these `q_proj.projection`. Where other targets are
    found, PEFT passes over such a one without a word."""
    convert_config = conversion.convert_peft_config_for_transformers
    convert_weights = conversion.convert_peft_adapter_state_dict_for_transformers

    @wraps(convert_config)
    def config(peft_config: Any, model: Any, conversions: Any) -> None:
        targets = getattr(peft_config, "target_modules", None)
        if isinstance(targets, set | list) and (names := _former_projections(model)):
            today = [f".{name}" for name, _ in model.named_modules()]
            for target in [target for target in targets if not any(name.endswith(f".{target}") for name in today)]:
                found = {new for new, old in names.items() if f".{old}".endswith(f".{target}")}
                peft_config.target_modules = {*peft_config.target_modules, *found} - ({target} if found else set())
        convert_config(peft_config, model, conversions)

    @wraps(convert_weights)
    def weights(model: Any, peft_config: Any, adapter_state_dict: dict[str, Any], adapter_name: str = "default") -> Any:
        if names := {f"{old}.": f"{new}." for new, old in _former_projections(model).items()}:
            former = re.compile("|".join(map(re.escape, names)))
            adapter_state_dict = {
                former.sub(lambda found: names[found[0]], key): value for key, value in adapter_state_dict.items()
            }
        return convert_weights(model, peft_config, adapter_state_dict, adapter_name)

    conversion.convert_peft_config_for_transformers = config
    conversion.convert_peft_adapter_state_dict_for_transformers = weights


def _former_projections(model: nn.Module) -> dict[str, str]:
    """Projection of a placed model → its name while a norm stood around it; empty for other models."""
    from mixln.hosts.factory import former_names

    parts = [(new, old.rpartition(".projection.")) for new, old in former_names(model).items()]
    return {new.removesuffix(f".{end}"): f"{path}.projection" for new, (path, found, end) in parts if found}


def _prompts(adaption_prompt: Any) -> None:
    """The attention that adaption prompts are put into. Not GPT-2's: PEFT tells it by `model_type == "gpt2"`, and refuses ours."""
    table = adaption_prompt.TRANSFORMERS_MODEL_CONFIG
    stock = set(table)
    _copy(table)
    table.pop("placed_gpt2", None)
    for name in table.keys() - stock:
        table[name] = table[name]._replace(compute_query_states=_without_norms(table[name].compute_query_states))


def _without_norms(query_states: Callable[..., Any]) -> Callable[..., Any]:
    """PEFT's queries for the prompts, refused where a placement norms projections: PEFT calls these alone, without the norms."""

    @wraps(query_states)
    def compute_query_states(model: Any, **kwargs: Any) -> Any:
        from mixln.nn.projections import NormedProjections

        if isinstance(model, NormedProjections):
            names = ", ".join(sorted({site.projection for site in model.projection_sites}))
            raise SettingsError(
                f"adaption prompts would attend without the norms that this placement puts on {names}; use LoRA, "
                "prefix tuning, or a placement without them"
            )
        return query_states(model=model, **kwargs)

    return compute_query_states


def _megatron(dataclasses: Any) -> None:
    """accelerate finds `llama` in `placed_llama`, and Megatron-LM would build a Llama of its own from it, without the placement."""
    parsers = dataclasses.MODEL_CONFIGS_TO_MEGATRON_PARSERS
    others = dict(parsers)
    parsers.clear()
    parsers.update({"placed_": _refuse_megatron, **others})  # the first that is found in the model type counts


def _refuse_megatron(plugin: Any, model: Any, batch_data: Any) -> None:
    raise SettingsError(
        f"Megatron-LM builds layers of its own and would train {model.config.model_type} without its placement; "
        "train it with accelerate's FSDP or DeepSpeed"
    )


LIBRARIES: dict[str, Callable[[Any], None]] = {
    "transformers": _namespace,
    "transformers.models.auto.modeling_auto": _models,
    "transformers.models.auto.auto_mappings": _modules,
    "transformers.models.auto.tokenization_auto": _tokenizers,
    "transformers.models.auto.image_processing_auto": _preprocessors,
    "transformers.models.auto.feature_extraction_auto": _preprocessors,
    "transformers.models.auto.video_processing_auto": _preprocessors,
    "transformers.models.auto.processing_auto": _preprocessors,
    "transformers.conversion_mapping": _conversions,
    "transformers.pytorch_utils": _gains,
    "transformers.trainer": _decay,
    "peft.utils.constants": _adapters,
    "peft.utils.transformers_weight_conversion": _adapter_files,
    "peft.tuners.adaption_prompt.config": _prompts,
    "accelerate.utils.dataclasses": _megatron,
}
"""Module of a library → what enters our models there, given the module."""
