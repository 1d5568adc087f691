"""Tracks the memory of live tensors. Works on fake tensors, which hold no data."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHT_COPIES, GRADIENTS, ACTIVATIONS, LOGITS = "weight copies", "gradients", "activations", "logits and loss"
IN_FLIGHT = "FSDP layers in flight"
"""All-gathered weights, gradients before the reduce-scatter, and the buffers for both."""


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of every storage from the operation that allocates it until it is freed.

    `torch.distributed._tools.mem_tracker.MemTracker` gives the same counts (a test compares the two), but is ten times slower and
    cannot report the head and the loss separately.

    :param model: may be sharded by FSDP2. Its parameters and buffers are not counted. A cast of a parameter counts as a weight copy.

    `peak`: kind → bytes at the moment of the largest sum. `highest`: kind → largest number of bytes at any moment.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.kind = ACTIVATIONS
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
        for module in model.modules() if isinstance(model, FSDPModule) else ():
            module.register_forward_pre_hook(self._gathered)

    def __enter__(self) -> Self:
        resize = self.resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            """FSDP2 reuses the storages of gathered weights and resizes them to 0 bytes in between."""
            if storage._cdata in self.known:
                self._resize(storage._cdata, self.known[storage._cdata][0], size)
            return resize(storage, size)

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self.resize  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        grouped = func is torch.ops.aten._grouped_mm.default and isinstance(args[0], FakeTensor)
        result = _grouped_mm(*args) if grouped else func(*args, **(kwargs or {}))
        kind = self.kind
        if func is torch.ops.aten._to_copy.default and _key(args[0]) in self.weights:
            kind = WEIGHT_COPIES
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf, kind)
        if func.namespace in ("fsdp", "c10d"):
            for leaf in tree_leaves((args, kwargs, result)):
                if isinstance(leaf, Tensor):
                    self._fly(leaf)
        return result

    def _add(self, tensor: Tensor, kind: str) -> None:
        key = _key(tensor)
        if key in self.known:
            return
        storage = _storage(tensor)
        self.known[key] = (kind, 0)
        self._resize(key, kind, storage.nbytes())
        weakref.finalize(storage, self._gone, key)

    def complete(self, parameter: Tensor) -> None:
        """Counts the gradient of a weight, or of this device's shard of it, as a gradient from now on."""
        gradient = parameter.grad
        assert gradient is not None
        self._rename(_key(gradient), GRADIENTS)

    def _gathered(self, module: nn.Module, _: Any) -> None:
        """Counts the all-gathered weights of a module, and their unsharded gradients, as in flight."""
        for parameter in module.parameters(recurse=False):
            if _key(parameter) not in self.weights:
                self.weights.add(_key(parameter))
                self._fly(parameter)
                parameter.register_post_accumulate_grad_hook(lambda whole: self._fly(whole.grad))

    def _fly(self, tensor: Tensor | None) -> None:
        assert tensor is not None
        if self.known.get(key := _key(tensor), ("", 0))[0]:
            self._rename(key, IN_FLIGHT)

    def _rename(self, key: int, kind: str) -> None:
        self._resize(key, kind, self.known[key][1])

    def _gone(self, key: int) -> None:
        if key in self.known:
            self._resize(key, "", 0)
            del self.known[key]
            self.weights.discard(key)

    def _resize(self, key: int, kind: str, size: int) -> None:
        before, had = self.known[key]
        self.known[key] = (kind, size)
        self.now[before] -= had
        self.now[kind] += size
        self.total += size - had
        self.highest[kind] = max(self.highest[kind], self.now[kind])
        if self.total > self.most:
            self.most, self.peak = self.total, Counter(self.now)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return (tensor._local_tensor if isinstance(tensor, DTensor) else tensor).untyped_storage()


def _key(tensor: Tensor) -> int:
    return _storage(tensor)._cdata


def _grouped_mm(left: Tensor, right: Tensor, offsets: Tensor | None = None, *_: Any) -> Tensor:
    """The result of the experts' grouped product without data. Fake tensors support it in bfloat16 only; CPUs and GPUs in float32 too.

    (S, K) × (E, K, N) → (S, N). Of two matrices, as for the gradient of the weights: (M, S) × (S, N) → (E, M, N).
    """
    if left.ndim == right.ndim == 2:
        assert offsets is not None
        return left.new_empty(offsets.shape[0], left.shape[0], right.shape[1])
    return left.new_empty(left.shape[0], right.shape[-1])
