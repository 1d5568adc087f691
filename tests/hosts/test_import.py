"""What importing mixln does: the Auto classes know the placed models, and nothing heavy is loaded before its use."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

import mixln
from mixln._register import when_all_imported, when_imported

BUILD = """
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
sizes = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
model = mixln.from_config(LlamaConfig(**sizes), placement="mix(0.5)")
model.save_pretrained(sys.argv[1])
assert AutoConfig.for_model("placed_llama", **sizes).model_type == "placed_llama"
print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__name__)
"""


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", f"import sys\n{code}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.long
@pytest.mark.parametrize(
    "first", ["import mixln\nimport transformers", "import transformers\nimport mixln"], ids=["mixln", "transformers"]
)
def test_auto_classes_know_the_placed_models_whichever_package_comes_first(first, tmp_path):
    assert python(first + BUILD, str(tmp_path)) == "PlacedLlamaForCausalLM"


TABLES = """
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as adapters
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN as experts
from transformers import Trainer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names
print(adapters["placed_llama"], experts["placed_olmoe"], names["placed_gpt2"], hasattr(Trainer.get_decay_parameter_names, "__wrapped__"))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "first",
    [
        "import mixln.hosts",
        "import mixln\nimport peft",
        "import peft, transformers.trainer, peft.utils.transformers_weight_conversion\nimport mixln",
    ],
    ids=["hosts", "mixln", "peft"],
)
def test_tables_of_other_libraries_know_the_placed_models_whichever_comes_first(first):
    assert python(first + TABLES) == "['q_proj', 'v_proj'] qwen2_moe PlacedGPT2LMHeadModel True"


HEAVY = "print(sorted({'torch', 'transformers', 'peft', 'accelerate', 'numpy', 'datasets', 'matplotlib'} & set(sys.modules)))"


def test_import_loads_neither_torch_nor_transformers():
    assert python(f"import mixln\n{HEAVY}") == "[]"


def test_placements_and_errors_need_neither_torch_nor_transformers():
    code = "import mixln\nfrom mixln.placement import draw, preflight\ndraw(mixln.placement('mix(0.25)', 12))\n"
    assert python(code + HEAVY) == "[]"


class Target:
    """A module that a test may import, and what was done when it was."""

    def __init__(self, folder: Path) -> None:
        self.name = f"imported_by_{folder.name}"
        (folder / f"{self.name}.py").write_text("value = 1")
        self.calls: list[bool] = []

    def watch(self) -> None:
        """Notes at each call whether the module had been executed by then."""
        when_imported(self.name, lambda: self.calls.append(hasattr(sys.modules[self.name], "value")))

    def load(self) -> ModuleType:
        return importlib.import_module(self.name)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    made = Target(tmp_path)
    yield made
    sys.modules.pop(made.name, None)


def test_action_runs_once_after_the_module_is_there(target):
    target.watch()
    assert target.calls == []
    target.load()
    target.load()
    assert target.calls == [True]


def test_action_runs_at_once_if_the_module_is_there_already(target):
    target.load()
    target.watch()
    assert target.calls == [True]


def test_import_hook_leaves_no_trace(target):
    before = list(sys.meta_path)
    target.watch()
    module = target.load()
    assert sys.meta_path == before
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
    assert importlib.reload(module).value == 1
    assert target.calls == [True]


def test_two_actions_both_run(target):
    target.watch()
    target.watch()
    target.load()
    assert target.calls == [True, True]


def test_action_waits_for_the_last_of_several_modules(target):
    calls = []
    when_all_imported((target.name, "sys"), lambda: calls.append(target.name in sys.modules))
    assert calls == []
    target.load()
    assert calls == [True]
    when_all_imported((target.name, "sys"), lambda: calls.append(True))
    assert calls == [True, True]


def test_asking_whether_the_module_is_installed_does_not_use_up_the_action(target):
    target.watch()
    assert importlib.util.find_spec(target.name) is not None
    target.load()
    assert target.calls == [True]


def test_every_public_name_is_there():
    assert [name for name in mixln.__all__ if not hasattr(mixln, name)] == []


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mixln' has no attribute 'from_scratch'"):
        mixln.from_scratch  # noqa: B018
