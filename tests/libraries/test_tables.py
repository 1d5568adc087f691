"""Every place in the installed libraries that names a family by class or model type knows the placed one, or was looked at.

A new version of a library with a new table fails here: enter it in `mixln._libraries`, or say below why it is none of ours.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from transformers import AutoTokenizer, LlamaConfig, PreTrainedModel
from transformers.models.auto import image_processing_auto, tokenization_auto
from transformers.quantizers.base import get_keys_to_not_convert

import mixln
from mixln._libraries import TABLES, WRAPPERS
from mixln.errors import SettingsError
from mixln.hosts import HOSTS
from mixln.hosts.factory import PlacedModel
from tests.hosts.families import config_of
from tests.tiny import SIZES, placed

SEARCHED = ("transformers", "peft", "trl", "accelerate", "lm_eval")
STOCK = {made.stock.__name__ for made in PlacedModel.__subclasses__()}
"""Names of the classes that have a placed one."""
NAMES = {*HOSTS, *STOCK, *(host.config.__name__ for host in HOSTS.values())}
QUOTED = re.compile(f"[\"']({'|'.join(map(re.escape, sorted(NAMES)))})[\"']")

REVIEWED = {
    # of model types
    "transformers.models.auto.auto_mappings.CONFIG_MAPPING_NAMES": "AutoConfig.register enters ours beside it",
    "transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES": "AutoConfig.register enters ours beside it",
    "transformers.models.auto.configuration_auto.AutoConfig": "hub models that call themselves mistral and are ministral",
    "transformers.models.auto.tokenization_auto.tokenizer_class_from_name": "compares names of modules",
    "transformers.conversion_mapping._MODEL_TO_CONVERSION_PATTERN": "read once; ours are registered when it has been",
    "transformers.conversion_mapping._build_checkpoint_conversion_mapping": "ours are registered in what it builds",
    "transformers.tokenization_utils_tokenizers.TokenizersBackend": "files written before transformers 5, none of ours",
    "transformers.tokenization_mistral_common.MistralCommonBackend": "a name of a file format",
    "transformers.integrations.ggml.GGUF_CONFIG_MAPPING": "GGUF files hold stock models",
    "transformers.integrations.ggml.GGUF_CONFIG_DEFAULTS_MAPPING": "GGUF files hold stock models",
    "transformers.integrations.gguf.gguf_tokenizer_mapping.GGUF_TOKENIZER_TYPES": "GGUF files hold stock models",
    "transformers.integrations.gguf.gguf_tokenizer_mapping.get_gguf_tokenizer": "GGUF files hold stock models",
    "transformers.integrations.gguf.gguf_tokenizer_mapping.add_gguf_special_tokens": "GGUF files hold stock models",
    "transformers.integrations.gguf.gguf_tokenizer_mapping.select_tokenizer_builder": "GGUF files hold stock models",
    "transformers.modeling_gguf_pytorch_utils.TENSOR_PROCESSORS": "GGUF files hold stock models",
    "transformers.modeling_gguf_pytorch_utils.get_gguf_hf_weights_map": "GGUF files hold stock models",
    "transformers.modeling_gguf_pytorch_utils.load_gguf_checkpoint": "GGUF files hold stock models",
    "transformers.cli.chat.DEFAULT_EXAMPLES": "an example's name",
    "transformers.cli.serving.utils._RESPONSE_TEMPLATE_FALLBACKS": "a process of its own, which does not import mixln",
    "peft.peft_model.PeftModel": "looks for gemma3_text within the model type",
    "peft.peft_model.PeftModelForCausalLM": "only for versions of transformers before 4.38",
    "peft.tuners.adaption_prompt.config.TRANSFORMERS_MODEL_CONFIG": "all but GPT-2: test_peft holds that",
    "peft.tuners.adaption_prompt.model.AdaptionPromptModel": "tells GPT-2 by its type; ours is refused",
    "peft.tuners.tuners_utils.replicate_layers": "a name for a layout, which it finds by attributes",
    "peft.utils.transformers_weight_conversion._MOE_TARGET_MODULE_MAPPING": "of patterns, not of model types",
    "peft.utils.transformers_weight_conversion._MOE_FUSED_TARGETS": "of patterns, not of model types",
    "accelerate.utils.dataclasses.parse_gpt2_config": "Megatron-LM, which is refused",
    "accelerate.utils.dataclasses.parse_llama_config": "Megatron-LM, which is refused",
}
"""Where a family is named → why ours need not be there."""
reviewed = pytest.mark.skipif(
    Version(version("transformers")) < Version("5.23"),
    reason="the tables were reviewed in transformers 5.23; earlier ones differ",
)


def _symbols(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Top-level definitions of a module, with their statements."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, statement
            case (
                ast.Assign(targets=[target, *_]) | ast.AnnAssign(target=target) | ast.Expr(value=ast.Call(func=target))
            ):
                while isinstance(target, ast.Subscript | ast.Attribute):
                    target = target.value
                yield getattr(target, "id", "?"), statement
            case ast.If() | ast.For() | ast.Try() | ast.With():
                yield from _symbols(statement.body)
                yield from _symbols(getattr(statement, "orelse", []))
            case _:
                yield "?", statement


@cache
def mentions() -> dict[tuple[str, str], set[str]]:
    """(module, what it defines) → the names of families that stand there as a string."""
    found: dict[tuple[str, str], set[str]] = {}
    for library in SEARCHED:
        spec = find_spec(library)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for path in root.rglob("*.py"):
            parts = (library, *path.relative_to(root).with_suffix("").parts)
            own = parts[:2] == ("transformers", "models") and parts[2] != "auto"  # a family's own code
            if own or "test_utils" in parts or not QUOTED.search(text := path.read_text("utf-8")):
                continue
            for symbol, statement in _symbols(ast.parse(text).body):
                quoted = {node.value for node in ast.walk(statement) if isinstance(node, ast.Constant)} & NAMES
                if quoted:
                    found.setdefault((".".join(parts).removesuffix(".__init__"), symbol), set()).update(quoted)
    return found


def _flat(entries: Any) -> Iterator[Any]:
    for entry in entries:
        yield from entry if isinstance(entry, tuple) else (entry,)


def missing(table: Any, *, classes_only: bool) -> set[str]:
    """Names of families in a table without their placed ones.

    :param classes_only: it names the class of every model type; types without a placed class do not count.
    """
    keys, values = set(_flat(table)), set()
    types = keys & HOSTS.keys()
    if classes_only:
        values = set(_flat(table.values()))
        types = {name for name in types if STOCK & set(_flat([table[name]]))}
    return {name for name in types if f"placed_{name}" not in keys} | {
        name for name in STOCK for names in (keys, values) if name in names and f"Placed{name}" not in names
    }


@reviewed
def test_every_table_of_the_installed_libraries_knows_the_placed_models_or_was_looked_at():
    unknown = {}
    for (module, symbol), names in mentions().items():
        if (place := f"{module}.{symbol}") not in REVIEWED:
            table = getattr(import_module(module), symbol, None)
            if not isinstance(table, Mapping | set | frozenset | list | tuple):
                unknown[place] = f"names {sorted(names)}"
            elif lacks := missing(table, classes_only=symbol.startswith("MODEL_") and symbol.endswith("_NAMES")):
                unknown[place] = f"has no placed {sorted(lacks)}"
    assert unknown == {}, "enter them in mixln._libraries, or say in REVIEWED why not"


@reviewed
def test_no_reviewed_place_has_gone():
    assert sorted(REVIEWED.keys() - {f"{module}.{symbol}" for module, symbol in mentions()}) == []


def test_the_search_finds_the_tables():
    found = mentions()
    assert found["transformers.models.auto.modeling_auto", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"] >= {"llama", "gpt2"}
    assert "llama" in found["peft.utils.constants", "TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING"]


def test_every_module_that_is_listed_exists():
    assert [name for name in (*TABLES, *WRAPPERS) if find_spec(name) is None] == []


@pytest.mark.parametrize("made", PlacedModel.__subclasses__(), ids=lambda made: made.__name__)
def test_auto_classes_build_the_placed_class_wherever_they_build_the_stock_one(made):
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.auto_factory import _LazyAutoMapping

    for name, mapping in vars(modeling_auto).items():
        if isinstance(mapping, _LazyAutoMapping):
            stock = mapping.get(made.host.config, None)
            ours = mapping.get(made.config_class, None)
            if stock is made.stock:
                assert ours is made, name
            else:
                assert ours is not made or stock is None, name
            assert ours is None or issubclass(ours, PlacedModel), name


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_tokenizers_and_image_processors_are_those_of_the_family(host):
    ours = type(mixln.placed_config(config_of(host.model_type), "stock"))
    for mapping in (tokenization_auto.TOKENIZER_MAPPING, image_processing_auto.IMAGE_PROCESSOR_MAPPING):
        assert (ours in mapping) == (host.config in mapping)
        assert mapping.get(ours, None) == mapping.get(host.config, None)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "olmoe", "qwen3"])
def test_a_tokenizer_file_is_read_by_the_same_class_beside_a_placed_config(name, tmp_path):
    from tests.decoders import tokenizer

    read = []
    for folder, config in (("stock", config_of(name)), ("placed", mixln.placed_config(config_of(name), "stock"))):
        config.save_pretrained(tmp_path / folder)
        tokenizer().save_pretrained(tmp_path / folder)
        (tmp_path / folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
        read.append(AutoTokenizer.from_pretrained(tmp_path / folder))
    stock, ours = read
    assert type(ours) is type(stock)
    assert ours("one two three").input_ids == stock("one two three").input_ids


def test_placed_classes_are_found_by_the_name_in_a_config():
    import transformers

    assert transformers.PlacedLlamaForCausalLM is type(placed("pre"))  # type: ignore[attr-defined]


def test_trl_opens_a_folder_with_the_head_that_it_was_saved_with(tmp_path):
    from trl.trainer.utils import create_model_from_path

    model = mixln.from_config(LlamaConfig(**SIZES, pad_token_id=0), placement="pre", head="sequence-classification")
    model.save_pretrained(tmp_path)
    assert type(create_model_from_path(str(tmp_path))) is type(model)


def test_lm_eval_takes_a_placed_model_for_a_causal_one():
    from lm_eval.models.huggingface import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert {f"placed_{name}" for name, host in HOSTS.items() if "causal-lm" in host.heads} <= set(
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )


@pytest.mark.parametrize("name", HOSTS)
def test_quantizers_leave_the_same_modules_as_they_are(name):
    config = config_of(name)
    stock: PreTrainedModel = next(iter(HOSTS[name].heads.values()))[0](config)
    ours = mixln.from_config(config, placement="stock")
    assert sorted(get_keys_to_not_convert(ours)) == sorted(get_keys_to_not_convert(stock))


def test_megatron_which_would_drop_the_placement_is_refused():
    from accelerate.utils.dataclasses import MegatronLMPlugin

    plugin = MegatronLMPlugin.__new__(MegatronLMPlugin)
    with pytest.raises(SettingsError, match="would train placed_llama without its placement"):
        plugin.set_network_size_args(placed("mix(0.25)"))
