"""The memory that a program's tensors take, counted as they come and go. Works on fake tensors, which hold no data."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHT_COPIES, GRADIENTS, ACTIVATIONS, LOGITS = "weight copies", "gradients", "activations", "logits and loss"


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of every storage from the operation that makes it until nothing holds it.

    torch's own `torch.distributed._tools.mem_tracker.MemTracker` counts the same (a test compares the two), but takes ten times as
    long for it and cannot say what the head and the loss need.

    :param model: its parameters and buffers are not counted; a cast of a parameter is a weight copy.
    :param gradient_scale: what share of a gradient's bytes stays once it is complete: less than 1 where the devices share it out.

    `peak` is the breakdown, bytes by kind, at the moment when the sum was largest; `highest` is the most of each kind at any moment.
    """

    def __init__(self, model: nn.Module, gradient_scale: float = 1.0) -> None:
        super().__init__()
        self.kind = ACTIVATIONS
        self.gradient_scale = gradient_scale
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.highest: Counter[str] = Counter()
        self.most = self.total = 0
        self.weights = {_key(tensor) for tensor in model.parameters()}
        self.known: dict[int, tuple[str, int]] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self.known[_key(tensor)] = ("", 0)
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self.complete)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        grouped = func is torch.ops.aten._grouped_mm.default and isinstance(args[0], FakeTensor)
        result = _grouped_mm(*args) if grouped else func(*args, **(kwargs or {}))
        kind = self.kind
        if func is torch.ops.aten._to_copy.default and _key(args[0]) in self.weights:
            kind = WEIGHT_COPIES
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf, kind)
        return result

    def _add(self, tensor: Tensor, kind: str) -> None:
        key = _key(tensor)
        if key in self.known:
            return
        storage = tensor.untyped_storage()
        self.known[key] = (kind, 0)
        self._resize(key, kind, storage.nbytes())
        weakref.finalize(storage, self._gone, key)

    def complete(self, parameter: Tensor) -> None:
        """A weight has its gradient, of which this device keeps its share."""
        gradient = parameter.grad
        assert gradient is not None
        self._resize(_key(gradient), GRADIENTS, round(gradient.untyped_storage().nbytes() * self.gradient_scale))

    def _gone(self, key: int) -> None:
        if key in self.known:
            self._resize(key, "", 0)
            del self.known[key]

    def _resize(self, key: int, kind: str, size: int) -> None:
        before, had = self.known[key]
        self.known[key] = (kind, size)
        self.now[before] -= had
        self.now[kind] += size
        self.total += size - had
        self.highest[kind] = max(self.highest[kind], self.now[kind])
        if self.total > self.most:
            self.most, self.peak = self.total, Counter(self.now)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _grouped_mm(left: Tensor, right: Tensor, offsets: Tensor | None = None, *_: Any) -> Tensor:
    """The shape of the experts' product: fake tensors know it for bfloat16 only, while processors and GPUs have it for float32 too.

    (S, K) × (E, K, N) → (S, N); where both are matrices, as for the gradient of the weights, (M, S) × (S, N) → (E, M, N).
    """
    if left.ndim == right.ndim == 2:
        assert offsets is not None
        return left.new_empty(offsets.shape[0], left.shape[0], right.shape[1])
    return left.new_empty(left.shape[0], right.shape[-1])
