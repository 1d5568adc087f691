"""The small text, packed once, and what a training of it fed to the model.

Nothing of Hugging Face is imported before a test runs: pytest may load this file before it has gone offline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

if TYPE_CHECKING:
    from mixln.data.text import Text


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    from tests import small

    return small.prepared(tmp_path_factory.mktemp("small"))


@pytest.fixture
def fed() -> Iterator[list[Tensor]]:
    """The token ids of every forward pass in training mode, in order."""
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Embedding) and module.training and torch.is_grad_enabled():
            seen.append(inputs[0].clone())

    handle = register_module_forward_pre_hook(note)
    yield seen
    handle.remove()
