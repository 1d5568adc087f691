"""Placements as data: the records, the zoo of named placements, and the grammar of their names. Nothing here needs torch."""

from mixln.placement.drawing import draw
from mixln.placement.language import canonical, check_names, placement
from mixln.placement.modifiers import MODIFIERS
from mixln.placement.records import (
    MOST_LAYERS,
    Anchor,
    Balance,
    Gain,
    Layer,
    Norm,
    Placement,
    ProjectionNorm,
    Projections,
    Rate,
    Sublayer,
)
from mixln.placement.zoo import ZOO

__all__ = [
    "MODIFIERS",
    "MOST_LAYERS",
    "ZOO",
    "Anchor",
    "Balance",
    "Gain",
    "Layer",
    "Norm",
    "Placement",
    "ProjectionNorm",
    "Projections",
    "Rate",
    "Sublayer",
    "canonical",
    "check_names",
    "draw",
    "placement",
]
