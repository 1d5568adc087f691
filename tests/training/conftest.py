"""The small text, packed once, and what a training of it fed to the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from mixln.data.text import Text
from tests import small


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
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
