"""`mixln plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mixln.cli.terminal import Terminal
from mixln.files import bytes_text
from mixln.planning.settings import DEVICES, PlanSettings

if TYPE_CHECKING:
    from rich.table import Table

    from mixln.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PlanCommand(PlanSettings):
    __doc__ = PlanSettings.__doc__
    INTERRUPTED: ClassVar[str] = "nothing was written"

    def run(self) -> int:
        """Prints the plan."""
        terminal = Terminal()
        terminal.loading()
        from mixln.planning.plan import make_plan

        plan = make_plan(self)
        terminal.show(_summary(plan))
        terminal.line()
        terminal.show(_memory(plan))
        for note in _notes(plan):
            terminal.note(note)
        return 0


def _summary(plan: Plan) -> Table:
    from rich.table import Table

    settings = plan.settings
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    weights = plan.flops.weights
    rows = {
        "model": f"{settings.model}, placement {settings.placement}",
        "parameters": f"{_count(plan.parameters)}, without embeddings and head {_count(plan.without_embeddings)}; "
        f"N = {_count(weights)} in matrix products",
        "batch": f"{settings.batch_size} × {settings.sequence_length} tokens per step on {_devices(plan)}: "
        f"{settings.micro_batch} sequences × {settings.accumulation} on each",
        "tokens": f"{_count(plan.tokens)} in {plan.steps:,} steps",
        "FLOPs": f"{plan.model_flops:.2e}: 6·N + 12·L·h·T = {plan.flops.model:.2e} per token",
    }
    if settings.activation_checkpointing:
        rows["computed"] = f"{plan.executed_flops:.2e}, as checkpointing computes the layers' forward pass twice"
    rows["time"] = f"{_duration(plan.seconds)} at {settings.utilisation:.0%} of {settings.peak:g} TFLOP/s per device"
    if settings.trials > 1:
        rows[f"{settings.trials} trainings"] = (
            f"{_duration(settings.trials * plan.seconds)}, {settings.trials * plan.executed_flops:.2e} FLOPs"
        )
    for row in rows.items():
        table.add_row(*row)
    return table


def _memory(plan: Plan) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("memory per device, GB", "total")
    table.add_column("at the peak", f"{plan.memory.total / 1e9:.2f}", justify="right")
    table.add_column("maximum", "", justify="right")
    for name, (at_peak, maximum) in plan.memory.parts().items():
        table.add_row(name, f"{at_peak / 1e9:.2f}", f"{maximum / 1e9:.2f}")
    return table


def _notes(plan: Plan) -> list[str]:
    settings = plan.settings
    available = f"{settings.memory / 1e9:g} GB"
    required = bytes_text(plan.memory.total)
    if plan.fits:
        return [f"fits in {available}: {required}, and 1 GB for the driver's context"]
    notes = [f"does not fit in {available}: {required}, and 1 GB for the driver's context"]
    if plan.remedy is None:
        more = "more devices with --parallel fsdp, or devices with more memory"
        return [*notes, f"no micro batch, sharding or checkpointing makes it fit; use {more}"]
    return [*notes, f"fits with {plan.remedy_options}"]


def _devices(plan: Plan) -> str:
    settings = plan.settings
    named = DEVICES[settings.device].title if settings.device_tflops is None else "device"
    if settings.devices == 1:
        return f"1 {named}"
    return f"{settings.devices} × {named} ({settings.parallel})"


def _count(number: int) -> str:
    """1234567 as 1.23M."""
    for size, sign in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.2f}{sign}"
    return f"{number:,}"


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
