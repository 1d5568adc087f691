"""The common base of all trainers, transformers' and TRL's: schedule, weight decay, checkpoints and exact evaluation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from mixln.errors import SettingsError
from mixln.runs.checkpoints import UNFINISHED, publish
from mixln.training import ranks
from mixln.training.compiling import eagerly
from mixln.training.evaluation import evaluate
from mixln.training.precision import resolve
from mixln.training.private_methods import HookedTrainer
from mixln.training.settings import OptimizerSettings

RECORDS, LONGEST = 100, 10
"""Target for the number of logged losses, and upper limit on the steps between two. A training can stop only at a logged step."""


class FairTrainer(HookedTrainer):
    """A schedule whose first update is not 0, weight decay on matrices only, and evaluation with equal weight for every token.

    A mix-in for transformers' `Trainer` and TRL's subclasses of it; it must precede them in the bases.
    """

    unfinished = UNFINISHED

    def __init__(self, *, settings: OptimizerSettings, warmup_steps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        self.settings = settings
        self.warmup_steps = warmup_steps

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        if self.lr_scheduler is None:
            target = self.optimizer if optimizer is None else optimizer
            assert isinstance(target, torch.optim.Optimizer)

            def multiplier(update: int) -> float:
                return self.settings.share(update, steps=num_training_steps, warmup_steps=self.warmup_steps)

            self.lr_scheduler = LambdaLR(target, multiplier)
            self._created_lr_scheduler = True
        return self.lr_scheduler  # type: ignore[return-value]

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The names of the matrices, without norm gains and biases."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Writes no model card: TRL's would contain local paths and omit the placement."""

    def checkpoint_written(self) -> None:
        """Renames a complete checkpoint to its final name, so that a folder with this name is never incomplete."""
        ranks.wait()  # until every process has written its shard
        if self.args.should_save:
            folder = Path(self.args.output_dir or ".")
            unfinished = folder / UNFINISHED / f"checkpoint-{self.state.global_step}"
            (unfinished / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that mixln does not read
            publish(unfinished, folder)
        ranks.wait()

    def measure(self) -> dict[str, float]:
        """The figures of an evaluation; here the token-weighted held-out loss, nats per token. The standard error of a figure has its
        name with the suffix `_error`."""
        batches = (self._prepare_inputs(batch) for batch in self.get_eval_dataloader())
        return {"loss": evaluate(self.model, batches).loss}  # type: ignore[arg-type]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The figures of :meth:`measure`, named `eval_loss` and so on; `eval_dataset` and `ignore_keys` have no effect."""
        # The model is not wrapped in autocast before the training.
        with eagerly(self.model), self.accelerator.autocast():  # type: ignore[arg-type]
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.measure().items()}
        Trainer.log(self, metrics)  # TRL's `log` would add its training metrics since the last row
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def per_process(settings: OptimizerSettings, processes: int) -> int:
    """Sequences per forward pass of one process: `micro_batch_size`, or by default its complete share of the batch.

    :raises SettingsError: if the batch cannot be divided evenly over the processes.
    """
    micro = settings.micro_batch_size or max(1, settings.batch_size // processes)
    if settings.batch_size % (micro * processes):
        raise SettingsError(
            f"batch-size must be a multiple of {micro * processes} ({processes} processes with {micro} sequences per pass), "
            f"got {settings.batch_size}"
        )
    return micro


def arguments(
    settings: OptimizerSettings, *, steps: int, learning_rate: float, seed: int, folder: Path
) -> dict[str, Any]:
    """The `TrainingArguments` common to all trainers. The batch size is that of all processes together.

    :param folder: folder of the checkpoints.
    :raises SettingsError: if the batch cannot be divided evenly over the processes.
    """
    micro = per_process(settings, ranks.size())
    # Set by accelerate launch; transformers would read it if `bf16` is False, and override the setting.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": settings.batch_size // (micro * ranks.size()),
        "learning_rate": learning_rate,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.beta1,
        "adam_beta2": settings.beta2,
        "max_grad_norm": settings.max_gradient_norm,
        "optim": "adamw_torch_fused",
        "bf16": resolve(settings.precision) == "bfloat16",
        "use_cpu": ranks.on_processors(),
        "ddp_find_unused_parameters": False,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": min(max(1, steps // RECORDS), LONGEST),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is not finite must reach Divergence
        "eval_strategy": "no",  # the callbacks Evaluations and Checkpoints decide
        "save_strategy": "no",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "report_to": "none",
    }
