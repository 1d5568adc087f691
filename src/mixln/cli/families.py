"""`mixln families`."""

from __future__ import annotations

from dataclasses import dataclass

from mixln.cli.terminal import Terminal
from mixln.errors import PlacementError


@dataclass(frozen=True, kw_only=True)
class Families:
    """List the model families of the installed transformers: which can be placed and diagnosed, or why not.

    A family is placed by reading the code of its layers; the placed model is then compared with the stock model on a small config.
    Results are cached, so only the first run takes a minute.
    """

    check: str | None = None
    """Compare placed and stock model of this family now, for example qwen2, and print its layers as equations."""

    def run(self) -> int:
        """Prints the table, or the result of one comparison."""
        terminal = Terminal()
        terminal.loading()
        from mixln.quiet import quiet

        with quiet():
            if self.check is not None:
                _check(self.check, terminal)
            else:
                _list(terminal)
        return 0


def _check(name: str, terminal: Terminal) -> None:
    """:raises PlacementError: if the family cannot be placed."""
    from mixln.hosts.families import host_of
    from mixln.hosts.verify import verify

    host = host_of(name)
    result = verify(host)
    if result.failure:
        raise PlacementError(f"{name} cannot be placed: {result.failure}")
    terminal.line(f"{name}: {host.formula}")
    terminal.line(f"heads: {', '.join(host.heads) or 'none'}")
    terminal.line(f"norms on projections: {', '.join(host.projections) or 'none'}{', down' if host.down else ''}")
    equal = f"equal within {result.difference:.1g}" if result.difference else "equal to the bit"
    terminal.line(f"logits and gradients of placed and stock model: {equal}")


def _list(terminal: Terminal) -> None:
    from collections import Counter

    import transformers

    from mixln.hosts.survey import survey

    counts: Counter[str] = Counter()
    for found in survey():
        diagnosed = found.host is not None or _branches_are_seen(found.model_type)
        state = found.host.formula if found.host else f"not placed: {found.reason}"
        by = "by branch" if diagnosed else "by layer"
        terminal.line(f"{found.model_type} ({', '.join(found.kinds)}; diagnosed {by}): {state}")
        if found.host:
            counts[found.kind] += 1
    total = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    terminal.line(f"\nplaced and verified on transformers {transformers.__version__}: {total}")


def _branches_are_seen(model_type: str) -> bool:
    """Whether the branches of a family's layers can be read from their code."""
    from mixln.diagnostics.branches import branches_of
    from mixln.hosts.derive import example_layers
    from mixln.hosts.syntax import Unreadable

    try:
        return all(branches_of(layer) is not None for layer in example_layers(model_type))
    except Unreadable:
        return False
