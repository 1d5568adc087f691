"""The residual sublayer and the layer, both built from records. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mixln.errors import SettingsError
from mixln.nn.mixing import AnchorMix, FirstValues, Packing
from mixln.nn.ramp import RampedScale
from mixln.nn.sphere import RateGate
from mixln.placement import Balance, Gain, Layer, Norm, Placement, Sublayer

MakeSlot = Callable[[Norm | None], nn.Module | None]
"""Builds the module of a norm slot over D features; `None` for an empty slot."""


BRANCH_ENDS = ("stochastic_depth", "ramp", "balanced", "output_scale", "branch_gain", "branch_out", "dropout", "output")
"""Submodules of a residual sublayer that change its branch, the last that does first."""


class BranchFunction(Protocol):
    """The host's code of a branch, which can be pickled."""

    @property
    def function(self) -> Callable[..., Any]: ...


class LearnedGain(nn.Module):
    """x ⊙ w, with one learnable factor per feature or one for all (Admin's ω, LayerScale's λ, ReZero's a)."""

    def __init__(self, record: Gain, size: int) -> None:
        super().__init__()
        self.start = record.initial
        self.profiled = record.profiled
        # A scalar gain has shape (1,), because FSDP2 refuses parameters without an axis to shard.
        self.weight = nn.Parameter(torch.full((size if record.width == "features" else 1,), record.initial))

    def starting_values(self) -> dict[str, float]:
        return {"weight": self.start}

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.weight * x_BTD

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, initial={self.start:g}"


class GpasGate(nn.Module):
    """Gradient-preserving activation scaling: x − SiLU(g)·stopgrad(x), with a learnable scalar g, initially 0 (arXiv:2506.22049)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def starting_values(self) -> dict[str, float]:
        return {"weight": 0.0}

    def forward(self, x_BTD: Tensor) -> Tensor:
        # detach: values are scaled by 1 − SiLU(g), gradients with respect to x are not.
        return x_BTD - nn.functional.silu(self.weight) * x_BTD.detach()


class BalanceGate(nn.Module):
    """The factors of skip and branch, α = √(1 − β²) and β = σ(g / temperature), with one learnable g per feature.

    The sum of two independent unit-variance streams keeps its variance (Muse Spark's residual gate, transformers 5.23).

    :param size: D.
    """

    def __init__(self, record: Balance, size: int) -> None:
        super().__init__()
        self.temperature = record.temperature
        self.start = record.initial
        self.weight = nn.Parameter(torch.full((size,), record.initial))

    def starting_values(self) -> dict[str, float]:
        return {"weight": self.start}

    def forward(self) -> tuple[Tensor, Tensor]:
        """(α, β), each (D,); α² is at least 1e-3, so that the root has a finite slope."""
        gate = self.weight / self.temperature
        beta = torch.sigmoid(gate)
        # 1 − β² = (1 − β)(1 + β), and 1 − σ(g) = σ(−g) without cancellation.
        return torch.sqrt((torch.sigmoid(-gate) * (1 + beta)).clamp(min=1e-3)), beta

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, temperature={self.temperature:g}, initial={self.start:g}"


class ConstantScale(nn.Module):
    """c · x. A module, so that the scaled branch can be seen; c is a Python float, which survives the meta device."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.factor * x_BTD

    def extra_repr(self) -> str:
        return f"{self.factor:.6g}"


class StochasticDepth(nn.Module):
    """Drops a branch for whole samples in training: x · m / (1 − p), with m = 0 with probability p, else 1 (arXiv:1603.09382).

    :param probability: p.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not self.training:
            return x_BTD
        kept = 1 - self.probability
        # One draw per sample, shape (B, 1, 1); dividing by the kept share keeps the expected value.
        return x_BTD * x_BTD.new_empty(len(x_BTD), *[1] * (x_BTD.ndim - 1)).bernoulli_(kept).div_(kept)

    def extra_repr(self) -> str:
        return f"probability={self.probability:.6g}"


class Residual(nn.Module):
    """One residual sublayer around a function f:

    s = stream_in(x)
    y = stream_out( skip_scale · skip_gain ⊙ s + output_scale · branch_gain ⊙ branch_out( f( branch_scale · branch_in(s) ) ) )

    Absent norms and gains are `None` and add no parameters. The scales are Python floats: a buffer would lose its value on the
    meta device.

    :param size: D.
    :param dropout: probability of the host's dropout on the output of f; 0 if the host has it inside f, or has none.
    :param plain: whether f is one module.
    :param stochastic_depth: probability that the branch, after all of the above, is dropped for a sample in training.
    """

    packed: bool = False
    """Whether its input and output are several states, packed along the features."""

    def __init__(
        self,
        record: Sublayer,
        norm: MakeSlot,
        size: int,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        plain: bool = True,
    ) -> None:
        super().__init__()
        self.size = size
        self.stream_in = norm(record.stream_in)
        self.branch_in = norm(record.branch_in)
        self.branch_out = norm(record.branch_out)
        self.stream_out = norm(record.stream_out)
        self.branch_scale = record.branch_scale
        self.skip_scale = record.skip_scale
        self.branch_gain = LearnedGain(record.branch_gain, size) if record.branch_gain is not None else None
        self.skip_gain = LearnedGain(record.skip_gain, size) if record.skip_gain is not None else None
        self.output_scale = ConstantScale(record.output_scale) if record.output_scale != 1.0 else None
        self.balance: BalanceGate | RateGate | None = None
        if record.balance is not None:
            self.balance = BalanceGate(record.balance, size)
        elif record.rate is not None:
            self.balance = RateGate(record.rate, size)
        # Where the branch of a balanced sum can be seen.
        self.balanced = None if self.balance is None else nn.Identity()
        self.ramp = RampedScale(record.ramp) if record.ramp is not None else None
        self.skip_gate = GpasGate() if record.gpas == "skip" else None
        self.stream_gate = GpasGate() if record.gpas == "stream" else None
        # Where f is more than one module, this is where its output can be seen.
        self.output = None if plain else nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.stochastic_depth = StochasticDepth(stochastic_depth) if stochastic_depth else None

    def entry(self, stream_BTD: Tensor) -> Tensor:
        """The normalized input of the branch."""
        return stream_BTD if self.branch_in is None else self.branch_in(stream_BTD)

    def branch(self, stream_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The branch, which is added to the skip."""
        return self.function(self.entry(stream_BTD), function, *args, **kwargs)

    def function(self, entry_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The branch from its normalized input.

        :param function: f; if it returns a tuple, as attention does, the first entry is its output.
        """
        branch = entry_BTD
        if self.branch_scale != 1.0:
            branch = self.branch_scale * branch
        branch = function(branch, *args, **kwargs)
        if isinstance(branch, tuple):
            branch = branch[0]
        if self.output is not None:
            branch = self.output(branch)
        # Directly after f, like the stock layer.
        if self.dropout is not None:
            branch = self.dropout(branch)
        if self.branch_out is not None:
            branch = self.branch_out(branch)
        for scale in (self.branch_gain, self.output_scale):
            if scale is not None:
                branch = scale(branch)
        if self.balance is not None and self.balanced is not None:
            branch = self.balanced(self.balance()[1] * branch)
        if self.ramp is not None:
            branch = self.ramp(branch)
        return branch if self.stochastic_depth is None else self.stochastic_depth(branch)

    def skip(self, stream_BTD: Tensor) -> Tensor:
        """The skip, to which the branch is added."""
        skip = stream_BTD if self.skip_scale == 1.0 else self.skip_scale * stream_BTD
        if self.skip_gain is not None:
            skip = self.skip_gain(skip)
        if self.balance is not None:
            skip = self.balance()[0] * skip
        return skip if self.skip_gate is None else self.skip_gate(skip)

    def end(self, sum_BTD: Tensor) -> Tensor:
        """The output stream, from the sum of skip and branch."""
        if self.stream_gate is not None:
            sum_BTD = self.stream_gate(sum_BTD)
        return sum_BTD if self.stream_out is None else self.stream_out(sum_BTD)

    def forward(
        self,
        x_BTD: Tensor,
        function: Callable[..., Any],
        *args: Any,
        also: Tensor | None = None,
        start: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """:param also: (B, T, D), a third summand; `start`: where the skip starts, by default s."""
        stream = x_BTD if self.stream_in is None else self.stream_in(x_BTD)
        branch = self.branch(stream, function, *args, **kwargs)
        skip = self.skip(stream if start is None else start)
        if also is not None:
            skip = skip + also
        return self.end(skip + branch)

    @property
    def branch_end(self) -> str | None:
        """Name of the submodule whose output is added to the skip; `None` if that is the output of f itself."""
        return next((name for name in BRANCH_ENDS if getattr(self, name) is not None), None)

    def extra_repr(self) -> str:
        return f"branch_scale={self.branch_scale:.6g}, skip_scale={self.skip_scale:.6g}"


class PlacedLayer(GradientCheckpointingLayer):
    """A host's attention, cross-attention if it has one, and feed-forward inside the residual sublayers of a record.

    They are the host's own code with its own modules. The modules keep their names from the host's layer, so weights, adapters and
    parallel plans find them. Norms on projections
    are siblings of the projections (:mod:`mixln.nn.projections`).

    :param stock: the host's layer. Its modules and attributes move here under their names, except those in `replaced`.
    :param replaced: paths of its norms that the record's slots replace.
    :param modules: for each sublayer, as in `record.sublayers`, the paths of its modules: the largest is first.
    :param branches: the host's code of each branch, which has a `function` of this layer, the branch's input, and the other
        arguments of the host's layer.
    :param plain: for each, whether the output of the largest module is the whole branch.
    :param returns: for each entry beside the stream in the tuple that the host's layer returns, the index of the sublayer whose branch
        returns it after its output; `None` for attention weights, which are not kept. `None` if it returns no tuple.
    :param norm: builds the module of a norm slot over D features; `None` for an empty slot.
    :param size: D.
    :param dropout: of each; see :class:`Residual`, likewise `stochastic_depth`.
    :param index: layer index from 0.
    :param placement: placement of the whole model; the first layer also holds its norm on the embeddings, if any.
    :param end: norm on the output, for the last layer of a host whose model has no final norm.
    :param values: path of the value projection and its width K, if v₁ goes along with the states.
    """

    sublayer: type[Residual] = Residual
    grows: bool = False
    """Whether the tensor passed from layer to layer grows by the outputs of the layers."""
    first_states: int = 1
    """Number of states that the first layer makes of the embeddings, if that is not the placement's number of streams."""

    def __init__(
        self,
        record: Layer,
        *,
        stock: nn.Module,
        replaced: Collection[str],
        modules: tuple[tuple[str, ...], ...],
        branches: tuple[BranchFunction, ...],
        plain: tuple[bool, ...] = (True, True),
        returns: tuple[int | None, ...] | None = None,
        norm: MakeSlot,
        size: int,
        dropout: tuple[float, ...] = (0.0, 0.0),
        stochastic_depth: float = 0.0,
        index: int,
        placement: Placement,
        end: Norm | None = None,
        values: tuple[str, int] = ("", 0),
    ) -> None:
        super().__init__()
        self.record = record
        self.branch_modules = modules
        self.code = branches
        self.returns = returns
        # Held by the first layer and not by the model, whose forward is the host's own code.
        self.stream_in = norm(placement.embedding_norm) if index == 0 else None
        states = max(placement.stream_count, self.first_states)
        self.copies = states if index == 0 else 1
        self.value_projection, width = values
        self.packing = Packing(values=width, states=states * size)
        mixed = record.projections.first_value
        self.value_mix = AnchorMix(mixed) if mixed is not None else None
        residuals = [
            self.sublayer(sub, norm, size, p, stochastic_depth, whole)
            for sub, p, whole in zip(record.sublayers, dropout, plain, strict=True)
        ]
        self.attention_residual, *cross, self.feed_forward_residual = residuals
        self.cross_attention_residual = cross[0] if cross else None
        self.final_norm = norm(end)
        self._adopt(stock, replaced)

    def _adopt(self, stock: nn.Module, replaced: Collection[str]) -> None:
        """Moves what the host's code may use from its layer: modules, parameters, buffers and plain attributes."""
        for path in replaced:
            owner, _, name = path.rpartition(".")
            delattr(stock.get_submodule(owner), name)
        for name, module in stock.named_children():
            self.add_module(name, module)
        self.adopted = frozenset(stock._modules)
        """Names of the host's modules."""
        for name, parameter in stock.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in stock.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name not in stock._non_persistent_buffers_set)
        for name, value in vars(stock).items():
            if not name.startswith("_") and not hasattr(self, name):
                setattr(self, name, value)

    @property
    def own(self) -> frozenset[str]:
        """Names of the modules that are not the host's."""
        return frozenset(self._modules) - self.adopted

    @property
    def names(self) -> tuple[str, ...]:
        """Path of the largest module of each branch: the host's attention, cross-attention if it has one, and feed-forward."""
        return tuple(largest for largest, *_ in self.branch_modules)

    @property
    def functions(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The host's modules of each branch."""
        # Looked up at every call, because adapters and quantizers replace modules.
        return tuple(tuple(map(self.get_submodule, names)) for names in self.branch_modules)

    @property
    def calls(self) -> tuple[Callable[..., Any], ...]:
        """The host's branches as functions of the stream and of the layer's other arguments.

        Functions and not modules: accelerate's offloading moves the arguments of a call between devices, and would move a module too.
        Each takes `beside`, a list into which it puts what the host's layer returns beside the stream.
        """
        return tuple([self._call(side) for side in range(len(self.code))])

    def _call(self, side: int) -> Callable[..., Any]:
        def call(
            stream_BTD: Tensor,
            *args: Any,
            beside: list[Any] | None = None,
            first: FirstValues | None = None,
            **kwargs: Any,
        ) -> Any:
            entry_BTD = stream_BTD if first is None or side else self._with_values(stream_BTD, first)
            output = self.code[side].function(self, entry_BTD, *args, **kwargs)
            places = [place for place, maker in enumerate(self.returns or ()) if maker == side]
            if places:
                output, *others = output
                for place, value in zip(places, others, strict=True):
                    if beside is not None:
                        beside[place] = value
            return output

        return call

    def _with_values(self, entry_BTD: Tensor, first: FirstValues) -> Tensor:
        """The attention's input with its values beside it, (B, T, D + K), which it takes apart: `add_norms` of the projections."""
        try:
            projection = self.get_submodule(self.value_projection)
        except AttributeError as error:
            raise SettingsError(
                f"{self.value_projection} is no longer in its place: adaption prompts wrap the attention, and vres+ computes the values "
                "before it; use LoRA, or a placement without vres+"
            ) from error
        values = projection(entry_BTD)
        if first.values is None:
            first.values = values
        if self.value_mix is not None:
            values = self.value_mix(values, first.values)
        return torch.cat((entry_BTD, values), dim=-1)

    def called_outside(self) -> tuple[nn.Module, ...]:
        """Modules that the model also calls outside this layer's forward pass, when FSDP has not gathered the layer's parameters."""
        return ()

    @property
    def sublayers(self) -> tuple[tuple[str, Residual], ...]:
        """(name, residual sublayer) of attention, of the cross-attention if there is one, and of feed-forward."""
        cross = self.cross_attention_residual
        return (
            ("attention_residual", self.attention_residual),
            *(() if cross is None else (("cross_attention_residual", cross),)),
            ("feed_forward_residual", self.feed_forward_residual),
        )

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the submodules whose outputs are added to the stream, one for each sublayer."""
        return tuple(
            f"{residual}.{sub.branch_end}" if sub.branch_end else name
            for (residual, sub), name in zip(self.sublayers, self.names, strict=True)
        )

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """:param hidden_states: (B, T, D); all other arguments are those of the host's layer."""
        beside: list[Any] = [None] * len(self.returns or ())
        if any(side is not None for side in self.returns or ()):
            kwargs = {**kwargs, "beside": beside}
        if self.packing.values:
            values, states = self.packing.split(hidden_states)
            # An argument of this call, and not an attribute: a layer may run for two forward passes at once.
            first = FirstValues(values)
            states = self.run(states, *args, first=first, **kwargs)
            assert first.values is not None
            output = torch.cat((first.values, states), dim=-1)
        else:
            output = self.run(hidden_states, *args, **kwargs)
        if self.final_norm is not None:
            output = self.final_norm(output)
        # A host whose layers return a tuple reads the stream from it; attention weights are not kept.
        return output if self.returns is None else (output, *beside)

    def enter(self, hidden_states: Tensor) -> Tensor:
        """The state that enters the sublayers, from the layer's input; they differ in the first layer only.

        It holds the norm on the embeddings, and makes them the first state of every stream.
        """
        stream = hidden_states if self.stream_in is None else self.stream_in(hidden_states)
        return stream if self.copies == 1 else stream.repeat(1, 1, self.copies)

    def run(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The output stream."""
        return self.through(self.bottom(self.enter(hidden_states)), *args, **kwargs)

    def bottom(self, states: Tensor) -> Tensor:
        """The stream (B, T, D) that the first sublayer reads and B2T adds again, if the sublayers have one; from :meth:`enter`."""
        return states

    def through(self, bottom: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The sublayers from the layer's input."""
        attention, *cross, feed_forward = self.calls
        if self.record.parallel is not None:
            return self._side_by_side(bottom, *args, **kwargs)
        stream = self.attention_residual(bottom, attention, *args, **kwargs)
        if self.cross_attention_residual is not None:
            stream = self.cross_attention_residual(stream, *cross, *args, **kwargs)
        more = {"also": bottom} if self.record.bottom_to_top else {}
        if self.record.span:
            more["start"] = bottom
        return self.feed_forward_residual(stream, feed_forward, *args, **more, **kwargs)

    def _side_by_side(self, x_BTD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x + (A(N(x)) + F(N'(x))), with N' = N where the norm is shared."""
        attention, feed_forward = self.calls
        entry = self.attention_residual.entry(x_BTD)
        other = entry if self.record.parallel == "shared" else self.feed_forward_residual.entry(x_BTD)
        attended = self.attention_residual.function(entry, attention, *args, **kwargs)
        return x_BTD + (attended + self.feed_forward_residual.function(other, feed_forward, *args, **kwargs))


def placed_layers(model: nn.Module) -> Iterator[PlacedLayer]:
    """Iterates over the placed layers of a model, first layer first."""
    return (module for module in model.modules() if isinstance(module, PlacedLayer))
