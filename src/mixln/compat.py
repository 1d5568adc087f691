"""Differences between the releases of transformers that mixln supports: 5.9 and later, below 6.

A difference is found by the name that is there, never by the version number, so that a release that nobody has tried behaves like its
neighbours. The overrides of private methods are in `training/private_methods.py`, and the tables of model names in `_libraries.py`.
Four differences need no code:

    `past_key_values`, in 5.24 `cache`     nothing here passes either
    `_defer_fsdp_gradient_reduction`       not in 5.17 and before, whose Trainer never calls the override
    `base_model_tp_plan`                   an attribute of each config in 5.17, of the class otherwise: placed configs set their own
    `_can_set_experts_implementation`      reads the source in 5.9, has a cache later: a class outside transformers overrides it
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers import PreTrainedModel


def checkpointing_argument(enabled: bool) -> dict[str, bool]:
    """The argument of `TrainingArguments` that turns activation checkpointing on or off: `gradient_checkpointing` in 5.17 and before."""
    from transformers import TrainingArguments

    current = any(field.name == "activation_checkpointing" for field in fields(TrainingArguments))
    return {"activation_checkpointing" if current else "gradient_checkpointing": enabled}


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Turns activation checkpointing on: the backward pass computes each layer again. Named after gradients in 5.17 and before."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()


def dequantized() -> dict[str, Any]:
    """Arguments of `from_pretrained` that unpack the weights of a GGUF file. Releases without `GgufConfig` always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
