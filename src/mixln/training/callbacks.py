"""Callbacks for any `transformers.Trainer`. Measurements are passed to a function that takes one row (a dict)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixln.diagnostics.residual import residual_variance
from mixln.diagnostics.stack import find_stack
from mixln.errors import SettingsError
from mixln.nn.residual import placed_layers
from mixln.training import ranks
from mixln.training.compiling import eagerly
from mixln.training.stopping import asked, stopped

log = logging.getLogger(__name__)

Record = Callable[[dict[str, Any]], None]

TRAINED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "reward": "reward",
    "kl": "kl",
    "completions/mean_length": "length",
    "accuracy": "accuracy",
}
"""Name in the Trainer's logs → name in a row."""


class Metrics(TrainerCallback):
    """Records the Trainer's logs and the training speed.

    Rows: {step, loss, learning_rate, gradient_norm, …, tokens_per_second} and {step, eval_loss, …} with all figures of an evaluation.

    `first_step` is the duration in seconds of this process's first step, which includes compilation and warm-up of the libraries.

    :param tokens_per_step: training tokens per optimizer step.
    """

    def __init__(self, record: Record, tokens_per_step: float) -> None:
        self.record = record
        self.tokens_per_step = tokens_per_step
        self.window: tuple[float, int] | None = None
        self.seconds, self.steps = 0.0, 0
        self.first_step: float | None = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # A timing window ends when the Trainer logs: reading the loss waits for the asynchronous device.
        if self.window is None:
            self.window = time.perf_counter(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.first_step is None and self.window is not None:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            self.first_step = time.perf_counter() - self.window[0]
            self.window = None

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.window = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.window = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" in logs:
            if self.window is not None:
                began, first = self.window
                self.seconds += time.perf_counter() - began
                self.steps += state.global_step - first
                self.window = None
            row = {name: logs[logged] for logged, name in TRAINED.items() if logged in logs}
            self.record({"step": state.global_step, **row, "tokens_per_second": self.tokens_per_second})
        elif evaluated := {name: value for name, value in logs.items() if name.startswith("eval_")}:
            self.record({"step": state.global_step, **evaluated})

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens per second in this process, excluding evaluations, checkpoints and the first step."""
        return self.steps * self.tokens_per_step / self.seconds if self.seconds else None


class GradientNorms(TrainerCallback):
    """L2 norm of the gradient of every sublayer's weights before clipping, at every step that the Trainer logs.

    Row: {step, gradient_norms: {attention: [L], feed_forward: [L]}}. A sublayer's norms count among its weights; frozen weights
    have no gradient. There are no rows for a stock model whose branches are unknown.
    The Trainer clips all gradients by one factor before callbacks see them; the total norm that it logs serves to undo that.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.weights: dict[str, list[list[nn.Parameter]]] = {}
        self.norms: dict[str, list[Tensor]] | None = None
        self.total: Tensor | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        self.weights = sublayer_weights(model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        step = state.global_step + 1
        if step % state.logging_steps and not (args.logging_first_step and step == 1):
            return
        if self.weights:
            self.norms = {name: [_norm(part) for part in parts] for name, parts in self.weights.items()}
            self.total = _norm(model.parameters())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: dict[str, Any], **_: Any
    ) -> None:
        if self.norms is None or self.total is None or "grad_norm" not in logs:
            return
        # One transfer from the device for all norms. Weights without gradients have a norm of 0 on the CPU, hence `to`.
        norms = [norm.to(self.total.device) for norm in (self.total, *chain(*self.norms.values()))]
        total, *clipped = torch.stack(norms).tolist()
        unclip = logs["grad_norm"] / total if total > 0 else 1.0
        remaining = iter(clipped)
        row = {name: [next(remaining) * unclip for _ in parts] for name, parts in self.norms.items()}
        self.record({"step": state.global_step, "gradient_norms": row})
        self.norms = self.total = None


def sublayer_weights(model: nn.Module) -> dict[str, list[list[nn.Parameter]]]:
    """The weights of every layer's attention and feed-forward in a placed or stock model, including adapters.

    :param model: may be wrapped by PEFT.
    :returns: empty if the branches of the family are unknown.
    """
    if layers := list(placed_layers(model)):
        parts = [
            [[*functions, residual] for functions, (_, residual) in zip(layer.functions, layer.sublayers, strict=True)]
            for layer in layers
        ]
    else:
        inner: Any = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
        try:
            stack = find_stack(inner)
        except SettingsError:
            return {}
        if stack.branches is None:
            return {}
        parts = [
            [[layer.get_submodule(name) for name in branch.weights] for branch in pair]
            for layer, pair in zip(stack.layers, stack.branches, strict=True)
        ]
    return {
        name: [[p for module in pair[side] for p in module.parameters()] for pair in parts]
        for side, name in enumerate(("attention", "feed_forward"))
    }


def _norm(weights: Iterable[nn.Parameter]) -> Tensor:
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class ResidualVariance(TrainerCallback):
    """Variance of the residual stream after every sublayer, at step 0 and at every evaluation.

    Row: {step, residual_variance: {attention: [L], feed_forward: [L]}}, see :func:`mixln.diagnostics.residual.residual_variance`.

    :param batch: held-out inputs, the same for every measurement.
    """

    def __init__(self, record: Record, batch: Mapping[str, Any]) -> None:
        self.record = record
        self.batch = batch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        if state.global_step == 0:
            self._measure(state, model)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        self._measure(state, model)

    def _measure(self, state: TrainerState, model: nn.Module) -> None:
        device = next(model.parameters()).device
        inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.batch.items()}
        with eagerly(model):
            profile = residual_variance(model, inputs, step=state.global_step)
        row = {"attention": list(profile.attention), "feed_forward": list(profile.feed_forward)}
        self.record({"step": profile.step, "residual_variance": row})


class Divergence(TrainerCallback):
    """Stops a training that diverges: its loss is not finite, or stays above its initial value for too long.

    Only logged losses are considered, so that a resumed training stops at the same step as an uninterrupted one.

    :param patience: number of consecutive logged losses above the initial loss that stop the training; `None` if the loss is
        not informative.
    :param start: the initial loss; by default the first logged one, which is that of a single batch.
    """

    def __init__(self, patience: int | None = 20, start: float | None = None) -> None:
        self.patience, self.start = patience, start
        self.reason = ""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: dict[str, Any], **_: Any
    ) -> None:
        for name in ("loss", "eval_loss"):
            if name in logs and not math.isfinite(logs[name]):
                self.reason = f"the {'held-out' if name == 'eval_loss' else 'training'} loss is not finite"
        losses = [row["loss"] for row in state.log_history if "loss" in row]
        if self.patience is not None and len(losses) > self.patience:
            start = losses[0] if self.start is None else self.start
            if min(losses[-self.patience :]) > start:
                self.reason = (
                    f"the training loss stayed above its initial value {start:.3f} for {self.patience} records"
                )
        if self.reason:
            control.should_training_stop = True
            control.should_evaluate = False


class Evaluations(TrainerCallback):
    """Requests evaluations at even intervals, the last one at the last step.

    :param count: number of evaluations.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        done = self.count * state.global_step // state.max_steps
        if done > self.count * (state.global_step - 1) // state.max_steps:
            control.should_evaluate = True


class ProgressLog(TrainerCallback):
    """Logs the progress of the training every `seconds`."""

    def __init__(self, seconds: float = 15.0) -> None:
        self.seconds = seconds
        self.last = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        done = state.global_step
        log.info(
            f"resuming from step {done:,} of {state.max_steps:,}" if done else f"training for {state.max_steps:,} steps"
        )

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" in logs and time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            log.info(f"step {state.global_step:,} of {state.max_steps:,}, loss {logs['loss']:.3f}")


class Checkpoints(TrainerCallback):
    """Requests a checkpoint when the last one is `seconds` old, or when the process was told to stop; then the training ends.

    Checkpoints are written only at logged steps, because the Trainer does not save the loss that it accumulates between two logs.
    With several processes, the request of one is enough.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last = time.monotonic()
        self.stopped = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % state.logging_steps or state.global_step >= state.max_steps:
            return
        # Summed over processes: clocks and signals differ between them, but all must save and stop at the same step.
        requests = torch.tensor([time.monotonic() - self.last >= self.seconds, asked()], device=args.device)
        due, stop = (count > 0 for count in ranks.total(requests.int()).tolist())
        if due or stop:
            control.should_save = True
        if stop:
            self.stopped = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.last = time.monotonic()

    def check(self) -> None:
        """:raises Stopped: if the training was stopped before its last step."""
        if self.stopped:
            raise stopped()
