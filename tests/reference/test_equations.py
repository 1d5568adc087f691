"""The placed models against the papers' equations, and the reference against itself: can it tell placements apart?"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.reference.equations import REFERENCES, decoder
from tests.tiny import gradients, placed, tokens

LAYERS = 3
# The reference is float64 throughout; the norms and the rotary table of transformers' Llama are float32.
TOLERANCE = 1e-5
IDS = tokens(batch=2, length=9)
# The last gate scales what the final norm reads, and a norm does not see scale.
# Beam's stream is the sandwich's divided by a constant in each sublayer, and all that read it normalize it.
ALIKE = {"beam": ["sandwich"], "sandwich": ["beam"]}
WITHOUT_EFFECT = {"gpas+pre": {"model.layers.2.feed_forward_residual.stream_gate.weight"}}


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().double().requires_grad_() for name, value in model.named_parameters()}


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest entry."""
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("name", REFERENCES)
def test_logits_follow_the_equation(name):
    model = placed(name).double()
    expected = decoder(name, weights(model), IDS, LAYERS)
    assert distance(model(IDS).logits, expected) < TOLERANCE


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_of_every_parameter_follow_the_equation(name):
    model = placed(name).double()
    w = weights(model)
    scores = decoder(name, w, IDS, LAYERS)[:, :-1]
    torch.nn.functional.cross_entropy(scores.flatten(0, 1), IDS[:, 1:].flatten()).backward()
    actual = gradients(model, IDS)
    assert actual.keys() == w.keys()
    for key in WITHOUT_EFFECT.get(name, ()):
        assert (actual.pop(key) - w.pop(key).grad).abs().max() < 1e-6
    far = {key: distance(actual[key], w[key].grad) for key in w if not distance(actual[key], w[key].grad) < TOLERANCE}
    assert not far


@pytest.mark.parametrize("text", ["dssn", "dssn(2)"])
def test_depth_scaled_sandwich_is_a_sandwich_whose_outer_gains_start_small(text):
    model = placed(text, gains=False).double()
    w = weights(model)
    start = (2 if "2" in text else 1) / LAYERS**0.5
    outer = {name: value for name, value in w.items() if "branch_out" in name}
    assert len(outer) == 2 * LAYERS
    w |= {name: torch.full_like(value, start) for name, value in outer.items()}
    assert distance(model(IDS).logits, decoder("sandwich", w, IDS, LAYERS)) < TOLERANCE


class OnlyMatrices(dict):
    """Norms' gains are 1, other vectors have one value, and gates are half open, so that any equation can read any model."""

    VECTORS: ClassVar[dict[str, Tensor]] = {
        "_gain.": torch.tensor(0.5, dtype=torch.float64),
        "combination.": torch.full((LAYERS + 1,), 0.25, dtype=torch.float64),
        ".bias": torch.zeros((), dtype=torch.float64),
        "head_gain.": torch.ones(4, dtype=torch.float64),
        "output_gate.": torch.zeros(32, 32, dtype=torch.float64),
    }

    def __init__(self, model: torch.nn.Module, other: dict[str, Tensor]) -> None:
        """:param other: weights of the equation's maps between streams."""
        super().__init__({name: value for name, value in weights(model).items() if value.ndim == 2})
        self.update(other)

    def __missing__(self, name: str) -> Tensor:
        vectors = [value for part, value in self.VECTORS.items() if part in name]
        return next(iter(vectors), torch.ones((), dtype=torch.float64))


@cache
def maps_of(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights(placed(name)).items() if ".maps." in key}


@pytest.mark.long
@pytest.mark.parametrize("name", REFERENCES)
def test_reference_tells_every_other_placement_apart_by_structure_alone(name):
    model = placed(name, gains=False)

    def scores(other: str) -> Tensor:
        return decoder(other, OnlyMatrices(model, maps_of(other)), IDS, LAYERS)

    own = scores(name)
    alike = [other for other in REFERENCES if other != name and distance(scores(other), own) < 1e-3]
    assert alike == ALIKE.get(name, [])


@pytest.mark.long
@pytest.mark.parametrize("name", REFERENCES)
def test_a_lost_gain_shows(name):
    """Gains taken for 1 are what careless loading leaves; each of them moves the logits far beyond the tolerance."""
    w = weights(placed(name))
    own = decoder(name, w, IDS, LAYERS)
    lost = {key: {**w, key: torch.ones_like(w[key])} for key in w if w[key].ndim == 1}
    silent = [key for key in lost if distance(decoder(name, lost[key], IDS, LAYERS), own) < 1e-3]
    assert lost
    assert set(silent) == WITHOUT_EFFECT.get(name, set())
