"""Small decoders on the disk with a tokenizer that reads any text: what the commands that take a model are tried on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

import mixln
from mixln.data.tokenizer import trained_tokenizer
from tests import small, tiny


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE of 300 tokens."""
    return trained_tokenizer(small.documents(), 300)


def save(folder: Path, placement: str | None = "pre", *, seed: int = 0, **changes: Any) -> Path:
    """Writes a model of three layers with its tokenizer.

    :param placement: `None` for the stock class.
    """
    config = tiny.tiny_config(**{"vocab_size": 300, "max_position_embeddings": 256, "eos_token_id": 0, **changes})
    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(config) if placement is None else mixln.from_config(config, placement=placement)
    tiny.randomise_gains(model)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
