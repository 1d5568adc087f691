"""Finds the layers of any Hugging Face model and runs some of them. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

from mixln.diagnostics.branches import Branches, branches_of
from mixln.errors import CheckpointError, SettingsError, first_line
from mixln.hosts.configs import text_part
from mixln.hosts.probe import probe
from mixln.nn.residual import PlacedLayer
from mixln.nn.streams import Fold

Batch = Mapping[str, Tensor]
OutputForm = tuple[None, ...] | None
"""The form of a layer's output: `None` for a tensor, else a tuple of the same length."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a model that can be removed: a layer, or the branch of one.

    :param layer: counted from 0.
    :param side: 0 for the attention of the layer, 1 for its feed-forward; `None` for the whole layer, its norms included.
    """

    layer: int
    side: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """A model and the list of its layers.

    :param layers: the layers in the order in which the residual stream passes through them.
    :param branches: the two branches of each layer; `None` if the code of a layer cannot be read.
    :param head: the output layer, if logits = head(last hidden state); `None` for models that scale or cap their logits.
    :param fold: reads the stream (B, T, D) that the model would end with out of several packed ones; `None` for a single stream.
    """

    model: PreTrainedModel
    layers: nn.ModuleList
    branches: tuple[Branches, ...] | None
    head: nn.Module | None = None
    fold: Fold | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def run(self, batch: Batch) -> Tensor:
        """Runs the model without its head and returns the last hidden state (B, T, D). Labels are ignored."""
        return _without_cache(_body(self.model), batch)[0]

    def logits(self, batch: Batch) -> Tensor:
        """Runs the model with its head and returns the logits. Labels are ignored."""
        return _without_cache(self.model, batch).logits

    @property
    def probe(self) -> dict[str, Tensor]:
        """A small, fixed input for the model."""
        return probe(self.model, length=4)

    def state_bytes(self, batch: Batch) -> int:
        """Bytes of one hidden state (B, T, D) of a batch. Images are assumed to have 1,024 patches; few models use more."""
        shape = next(iter(batch.values())).shape
        tokens = shape[0] * (shape[1] if len(shape) == 2 else 1024)
        return tokens * self.states * text_part(self.model.config).hidden_size * self.model.dtype.itemsize

    @property
    def states(self) -> int:
        """Largest number of states (B, T, D) in the tensor that one layer passes to the next."""
        first = self.layers[0]
        if not isinstance(first, PlacedLayer):
            return 1
        values = math.ceil(first.packing.values / first.attention_residual.size)
        return values + (len(self) + 1 if self.grows else first.copies)

    @property
    def grows(self) -> bool:
        """Whether later layers read the outputs of earlier ones by their number, so that none can be skipped."""
        return any(isinstance(layer, PlacedLayer) and layer.grows for layer in self.layers)

    def check_skipping(self) -> None:
        """:raises SettingsError: if the model without one of its layers is not defined."""
        if self.grows:
            raise SettingsError(
                f"the layers of this model ({type(self.layers[0]).__name__}) can be neither skipped nor removed: later layers read the "
                "outputs of earlier ones by their number, and without one they would read others; mixln diagnose measures them with "
                "their branches at zero"
            )

    def entry(self, x_BTD: Tensor) -> Tensor:
        """Maps the input of the first layer to the state that enters its sublayers.

        They differ in a placed model with an embedding norm, which is a submodule of the first layer, or with several streams.
        """
        first = self.layers[0]
        return first.enter(x_BTD) if isinstance(first, PlacedLayer) else x_BTD

    def split(self, packed: Tensor) -> tuple[Tensor | None, Tensor]:
        """The first layer's values where they go along with the states between two layers, and the states."""
        first = self.layers[0]
        return first.packing.split(packed) if isinstance(first, PlacedLayer) else (None, packed)

    def read(self, states: Tensor) -> Tensor:
        """The stream (B, T, D) that the next layer, or the end of the model, reads of the states between two layers (B, T, S·D)."""
        return states if self.fold is None else self.fold.fold(states)

    @contextmanager
    def past_entry(self) -> Iterator[None]:
        """Makes the first layer accept the output of :meth:`entry`, so that the embedding norm is not applied twice."""
        first = self.layers[0]
        with ExitStack() as stack:
            if isinstance(first, PlacedLayer):
                stack.enter_context(_replaced(first, lambda states: states, method="enter"))
            yield

    @contextmanager
    def skipping(self, layers: Iterable[int]) -> Iterator[None]:
        """Makes these layers, counted from 0, return their input. They still run, so that a key-value cache is complete.

        :raises SettingsError: see :meth:`check_skipping`.
        """
        self.check_skipping()

        def passing(index: int) -> Callable[..., Any]:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
                x_BTD, _, _ = split_call(args, kwargs)
                return _in_place_of(output, self.entry(x_BTD) if index == 0 else x_BTD)

            return hook

        with hooks() as add:
            for index in layers:
                add(self.layers[index].register_forward_hook(passing(index), with_kwargs=True))
            yield

    @contextmanager
    def zeroing(self, index: int, sides: Iterable[int] = (0, 1)) -> Iterator[None]:
        """Sets the output of branches of one layer, counted from 0, to zero; its norms on the stream stay.

        :param sides: 0 for the attention, 1 for the feed-forward.
        """
        assert self.branches is not None

        def zero(module: nn.Module, inputs: Any, output: Any) -> Any:
            return _in_place_of(output, torch.zeros_like(first_of(output)))

        with hooks() as add:
            for branch in map(self.branches[index].__getitem__, sides):
                add(self.layers[index].get_submodule(branch.output).register_forward_hook(zero))
            yield

    @contextmanager
    def removing(self, parts: Iterable[Part], outputs: Sequence[OutputForm]) -> Iterator[None]:
        """Runs without these parts: layers are skipped and not computed, branches are set to zero.

        :param outputs: the form of each layer's output, see :class:`Recording`.
        """

        def passing(index: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                x_BTD, _, _ = split_call(args, kwargs)
                return _in_place_of(outputs[index], self.entry(x_BTD) if index == 0 else x_BTD)

            return forward

        with ExitStack() as stack:
            for part in parts:
                if part.side is None:
                    stack.enter_context(_replaced(self.layers[part.layer], passing(part.layer)))
                else:
                    stack.enter_context(self.zeroing(part.layer, (part.side,)))
            yield


def find_stack(model: PreTrainedModel, layers: str | None = None) -> Stack:
    """Finds the list of a model's layers: the outermost `ModuleList` with `num_hidden_layers` entries.

    In a multimodal model it is that of the language model.

    :param layers: name of the list in the model, for example `model.layers`; skips the search.
    :raises SettingsError: if there is no such list, or more than one.
    """
    if layers is not None:
        return _stack(model, _named(model, layers))
    text = text_part(model.config)
    depth = getattr(text, "num_hidden_layers", None)
    candidates: dict[str, nn.ModuleList] = {}
    within = next((name for name, module in model.named_modules() if getattr(module, "config", None) is text), "")
    for name, module in model.get_submodule(within).named_modules(prefix=within):
        nested = any(name.startswith(f"{outer}.") for outer in candidates)
        if isinstance(module, nn.ModuleList) and len(module) == depth and not nested:
            candidates[name] = module
    if len(candidates) != 1:
        lists = [f"{n} ({len(m)})" for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
        raise SettingsError(
            f"the layers of a {model.config.model_type!r} model cannot be found: it has {len(candidates) or 'no'} lists of "
            f"{depth} modules; choose one with --layer-list, of: {', '.join(lists[:8]) or 'none'}"
        )
    return _stack(model, next(iter(candidates.values())))


def _named(model: PreTrainedModel, name: str) -> nn.ModuleList:
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    if name not in lists:
        raise SettingsError(
            f"layer-list {name!r} is not a list of modules in this model; it has: {', '.join(lists) or 'none'}"
        )
    return lists[name]


def _stack(model: PreTrainedModel, layers: nn.ModuleList) -> Stack:
    found = [branches_of(layer) for layer in layers]
    branches = tuple(pair for pair in found if pair is not None)
    known = branches if len(branches) == len(layers) else None
    fold = next((module for module in model.modules() if isinstance(module, Fold)), None)
    stack = Stack(model=model, layers=layers, branches=known, fold=fold)
    return replace(stack, head=_head(stack))


def _body(model: PreTrainedModel) -> nn.Module:
    """The model without its head."""
    # A model without a head may still have a submodule named like the body of its siblings, which base_model would return.
    classes: Any = MODEL_MAPPING.get(type(model.config), ())
    return model if isinstance(model, classes) else model.base_model


@torch.no_grad()
def _head(stack: Stack) -> nn.Module | None:
    """The output layer, if applying it to the last hidden state gives exactly the model's logits."""
    head = stack.model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return None
    with evaluating(stack.model):
        try:
            last_BTD = stack.run(stack.probe)
        except Exception as error:  # a family's code may raise anything
            raise SettingsError(
                f"this {stack.model.config.model_type!r} model cannot be run on a plain input, so it can be neither diagnosed nor "
                f"pruned: {first_line(error)}; choose another model"
            ) from error
        if head.in_features != last_BTD.shape[-1]:
            return None
        return head if torch.equal(head(last_BTD), stack.logits(stack.probe)) else None


def fresh(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the same class, dtype and device with re-initialised weights."""
    # Built in its dtype, as from_pretrained does: .to(dtype) would also round the rotary frequencies.
    return type(model)._from_config(config, dtype=model.dtype).to(model.device)  # type: ignore[call-arg]


@dataclass(eq=False)
class Recording:
    """A forward pass of one batch, recorded so that it can be continued from any layer.

    :param states: layer, counted from 0 → its input (B, T, D), or packed (B, T, S·D); L → the output of the last layer. Holds every
        n-th layer only.
    :param calls: the other arguments of each layer's call.
    :param outputs: the form of each layer's output.
    """

    stack: Stack
    batch: Batch
    states: dict[int, Tensor] = field(default_factory=dict)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    outputs: list[OutputForm] = field(default_factory=list)

    def entered(self, index: int) -> Tensor:
        """The state that enters the sublayers of layer `index`, counted from 0; for L, the output of the last layer."""
        return self.stack.entry(self.states[0]) if index == 0 else self.stack.split(self.states[index])[1]

    def read(self, index: int) -> Tensor:
        """The stream (B, T, D) in :meth:`entered`, which is that itself unless there are several."""
        return self.stack.read(self.entered(index))

    def advance(self, index: int, x_BTD: Tensor) -> Tensor:
        """Runs layer `index`, counted from 0, on another input."""
        args, kwargs = self.calls[index]
        return first_of(self.stack.layers[index](x_BTD, *args, **kwargs))

    def inputs(self) -> Iterator[Tensor]:
        """The input of each layer, first layer first; those that were not kept are recomputed from the previous one."""
        x_BTD = self.states[0]
        for index in range(len(self.stack)):
            x_BTD = self.states[index] if index in self.states else self.advance(index - 1, x_BTD)
            yield x_BTD

    @contextmanager
    def starting(self, index: int, x_BTD: Tensor) -> Iterator[None]:
        """Replaces the layers before `index` by the constant `x_BTD`, so that running the batch costs only the layers from there on."""

        def jump(output: OutputForm) -> Callable[..., Any]:
            return lambda *args, **kwargs: _in_place_of(output, x_BTD)

        with ExitStack() as stack:
            for layer, output in zip(self.stack.layers[:index], self.outputs, strict=False):
                stack.enter_context(_replaced(layer, jump(output)))
            yield


@contextmanager
def recording(stack: Stack, batch: Batch, *, every: int = 1) -> Iterator[Recording]:
    """Records the forward pass of the batch that the caller runs inside the `with` block.

    :param every: keeps the input of every `every`-th layer.
    :raises SettingsError: if a layer's input is not the previous layer's output.
    :raises CheckpointError: if a state is not finite; names the first such layer.
    """
    record = Recording(stack, batch)
    depth = len(stack)
    last: Tensor | None = None  # output of the layer that ran last

    def keep(index: int, x_BTD: Tensor) -> None:
        # Padding may be NaN where attention masks whole rows, so only real tokens count.
        if not torch.isfinite(x_BTD).all() and not torch.isfinite(x_BTD[real_tokens(batch, x_BTD)]).all():
            raise CheckpointError(
                f"the activations {f'after layer {index}' if index else 'before layer 1'} are not finite"
                f"{', and all earlier ones are' if index else ''}: the weights are corrupt, or need another --precision"
            )
        if index % every == 0 or index == depth:
            record.states[index] = x_BTD

    def before(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x_BTD, args, kwargs = split_call(args, kwargs)
            if x_BTD.dim() != 3 or len(x_BTD) != len(next(iter(batch.values()))):
                raise SettingsError(
                    f"the input of layer {index + 1} must have the shape (sequences, tokens, hidden size), got {tuple(x_BTD.shape)}; "
                    "such a model cannot be diagnosed"
                )
            if last is not None and x_BTD is not last and not torch.equal(x_BTD, last):
                raise SettingsError(
                    f"the input of layer {index + 1} is not the output of layer {index}, so removing a layer is not defined here; "
                    "choose another list with --layer-list"
                )
            keep(index, x_BTD)
            record.calls.append((args, kwargs))

        return hook

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal last
        last = first_of(output)
        record.outputs.append((None,) * len(output) if isinstance(output, tuple | list) else None)

    with hooks() as add:
        for index, layer in enumerate(stack.layers):
            add(layer.register_forward_pre_hook(before(index), with_kwargs=True))
            add(layer.register_forward_hook(after))
        yield record
    if last is None or len(record.calls) != depth:
        raise SettingsError(
            f"{len(record.calls)} of {depth} layers ran in a forward pass; choose another list with --layer-list"
        )
    keep(depth, last)


@contextmanager
def hooks() -> Iterator[Callable[[Any], None]]:
    """Yields a function that registers handles of hooks; all are removed on exit."""
    with ExitStack() as stack:

        def add(handle: Any) -> None:
            stack.callback(handle.remove)

        yield add


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Sets the model to evaluation mode, and restores the mode of every module on exit."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def first_of(output: Any) -> Tensor:
    """The hidden state in the output of a layer or branch: the tensor, or the first entry of the tuple."""
    return output[0] if _is_tuple(output) else output


def _in_place_of(output: Any, x_BTD: Tensor) -> Any:
    """Replaces the hidden state in the output of a layer or branch."""
    return (x_BTD, *output[1:]) if _is_tuple(output) else x_BTD


def _is_tuple(output: Any) -> bool:
    """:raises SettingsError: for a named tuple: such layers have more than one stream, as in Reformer."""
    if hasattr(output, "_fields"):
        raise SettingsError(
            f"the layers of this model return {', '.join(output._fields)}; such a model can be neither diagnosed nor pruned"
        )
    return isinstance(output, tuple | list)


def real_tokens(batch: Batch, x_BTD: Tensor) -> Tensor:
    """Mask (B, T) of the positions that are not padding; all of them if the batch has no attention mask."""
    mask_BT = batch.get("attention_mask")
    return torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device) if mask_BT is None else mask_BT.bool()


def _without_cache(model: nn.Module, batch: Batch) -> Any:
    """Calls the model without labels and without a key-value cache."""
    # With a cache, the keys of a second run would be appended to those of the first.
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    return model(**inputs)


def split_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Splits the call of a layer or one of its modules: the hidden state, passed by position or by name, and the other arguments."""
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest


@contextmanager
def _replaced(module: nn.Module, function: Callable[..., Any], method: str = "forward") -> Iterator[None]:
    """Replaces a method of the module and restores it on exit."""
    # An instance attribute takes precedence over the class's method; accelerate may have set one already.
    before = module.__dict__.get(method)
    setattr(module, method, function)
    try:
        yield
    finally:
        delattr(module, method)
        if before is not None:
            setattr(module, method, before)
