"""Where the residual branches of a layer can be seen: read from the code of a stock layer, or from the record of a placed one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mixln.hosts.reading import Read, read_layer
from mixln.hosts.syntax import Unreadable
from mixln.nn.residual import PlacedLayer
from mixln.placement import Sublayer


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One residual branch of a layer, by the paths of submodules within the layer.

    :param output: the submodule whose output is added to the stream.
    :param stream: the submodule whose input is the stream that the branch is added to, or the packed states of several.
    :param weights: the submodules that hold the branch's weights, norms included.
    """

    output: str
    stream: str
    weights: tuple[str, ...]


Branches = tuple[Branch, Branch]
"""Attention, feed-forward."""


def branches_of(layer: nn.Module) -> Branches | None:
    """The branches of a stock or placed layer; `None` if its code cannot be read, or has no submodule where a branch can be seen."""
    if isinstance(layer, PlacedLayer):
        return _placed(layer)
    try:
        reading = read_layer(layer)
    except Unreadable:
        return None
    attention, feed_forward = reading.sublayers
    # One norm for both branches of a parallel layer belongs to the attention.
    shared = attention.entry if reading.parallel == "shared" else ""
    first, second = _read(attention), _read(feed_forward, entry=shared)
    return (first, second) if first and second else None


def _read(read: Read, entry: str = "") -> Branch | None:
    stream = entry or read.entry
    if not stream or not read.output or read.record.skip_scale != 1.0:
        return None
    return Branch(output=read.output, stream=stream, weights=(*read.norms.values(), *read.modules))


def _placed(layer: PlacedLayer) -> Branches:
    def branch(names: tuple[str, ...], output: str, residual: str, record: Sublayer) -> Branch:
        stream = residual
        # With a norm on the stream, the branch is added to its output, which f or the norm before f receives.
        if record.stream_in is not None and not layer.sublayer.packed:
            stream = f"{residual}.branch_in" if record.branch_in is not None else names[0]
        return Branch(output=output, stream=stream, weights=(*names, residual))

    (attention, _), (feed_forward, _) = layer.sublayers
    names, other = layer.branch_modules
    return (
        branch(names, layer.branches[0], attention, layer.record.attention),
        branch(other, layer.branches[1], feed_forward, layer.record.feed_forward),
    )
