"""Every override of a method of another library can be called like the original: names, order and defaults of the arguments."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter
from typing import Any

import pytest
from packaging.version import Version
from transformers import AutoModel, Trainer, ViTConfig, masking_utils

import mixln
from mixln.hosts.factory import PlacedModel
from mixln.hosts.families import TESTED
from mixln.training import private_methods
from tests.tiny import logits, placed, tokens

THEIRS = ("transformers.", "trl.", "peft.", "accelerate.", "datasets.", "lm_eval.")


def functions() -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """Name, ours and theirs, of every method that a class of mixln overrides."""
    seen = set()
    modules = [found.name for found in pkgutil.walk_packages(mixln.__path__, "mixln.")]
    # Modules of families are made when they are imported.
    modules += [f"mixln.hosts.families.{family}" for family in TESTED]
    for module in modules:
        if module.endswith("__main__"):
            continue
        for made in vars(import_module(module)).values():
            if isinstance(made, type) and made.__module__.startswith("mixln") and made not in seen:
                seen.add(made)
                yield from _overridden(made)


def _overridden(made: type) -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    # The methods that placed classes share stand beside the stock class, not on it.
    for owner in (made, PlacedModel) if issubclass(made, PlacedModel) and made is not PlacedModel else (made,):
        for name, ours in vars(owner).items():
            theirs = next(
                (
                    vars(base)[name]
                    for base in made.__mro__
                    if name in vars(base) and base.__module__.startswith(THEIRS)
                ),
                None,
            )
            ours, theirs = (getattr(method, "__func__", method) for method in (ours, theirs))
            if (
                inspect.isfunction(ours)
                and inspect.isfunction(theirs)
                and (name != "__init__" or issubclass(made, PlacedModel))
            ):
                yield f"{made.__name__}.{name}", ours, theirs


def differences(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Iterator[str]:
    """Calls that the one takes and the other does not."""
    own = list(inspect.signature(ours).parameters.values())
    kinds = {parameter.kind for parameter in own}
    named = {parameter.name: parameter for parameter in own}
    expected = inspect.signature(theirs).parameters
    for parameter in own:
        required = parameter.default is Parameter.empty and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
        if required and parameter.name not in expected:
            yield f"asks for {parameter.name}"
    for place, parameter in enumerate(expected.values()):
        match = named.get(parameter.name)
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            if parameter.kind not in kinds:
                yield f"does not take {parameter}"
        elif match is None:
            if Parameter.VAR_KEYWORD not in kinds:
                yield f"does not take {parameter.name}= by name"
            if parameter.kind is not Parameter.KEYWORD_ONLY and Parameter.VAR_POSITIONAL not in kinds:
                yield f"does not take {parameter.name} by place"
        else:
            if match.default != parameter.default:
                yield f"takes {match} where {parameter} is the default"
            if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD and own[place] is not match:
                yield f"takes {parameter.name} at another place"


OVERRIDDEN = list(functions())


def test_the_search_finds_what_is_overridden():
    names = {name for name, _, _ in OVERRIDDEN}
    assert {
        "PlacedLlamaForCausalLM.from_pretrained", "PlacedViTModel.__init__", "PlacedGPT2Config.from_dict", "FairTrainer.evaluate",
    } <= names  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "theirs"), OVERRIDDEN, ids=[name for name, _, _ in OVERRIDDEN])
def test_what_is_overridden_takes_the_arguments_of_what_it_replaces(name, ours, theirs):
    assert list(differences(ours, theirs)) == []


def test_private_methods_of_trainers_are_overridden_in_one_file_and_are_there():
    private = {name: ours.__module__ for name, ours, _ in OVERRIDDEN if re.search(r"\._[a-z]", name)}
    of_trainers = {name for name, module in private.items() if module.startswith("mixln.training")}
    assert {private[name] for name in of_trainers} == {private_methods.__name__}
    ours = {name for each in (private_methods.HookedTrainer, private_methods.ResumableTrainer) for name in vars(each)}
    missing = {name for name in ours if name.startswith("_") and name[1] != "_" and not hasattr(Trainer, name)}
    assert missing <= {"_defer_fsdp_gradient_reduction"}, "transformers has no such method any more"
    assert not missing or Version(version("transformers")) < Version("5.23")
    assert callable(masking_utils.find_packed_sequence_indices)


def test_from_pretrained_takes_the_folder_by_name(tmp_path):
    model, ids = placed("mix(0.5)"), tokens()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(pretrained_model_name_or_path=str(tmp_path))
    assert logits(again, ids).equal(logits(model, ids))
    again = AutoModel.from_pretrained(pretrained_model_name_or_path=str(tmp_path))
    assert type(again).__name__ == "PlacedLlamaModel"


def test_config_and_model_are_opened_by_name(tmp_path):
    model = placed("mix(0.5)")
    model.save_pretrained(tmp_path)
    config = type(model.config).from_pretrained(pretrained_model_name_or_path=str(tmp_path))
    assert config.placement == model.config.placement
    assert type(config).from_dict(config_dict=config.to_dict()).placement == config.placement


def test_a_base_model_takes_its_arguments_by_place():
    small = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=12, patch_size=4
    )
    config = mixln.placed_config(small, "pre")
    assert AutoModel.from_config(config).pooler is not None
    assert type(AutoModel.from_config(config))(config, False).pooler is None
