from __future__ import annotations

from mixln.placement import draw, placement


def test_drawing_shows_every_layer_and_joins_neighbours_of_one_kind():
    assert draw(placement("mix(0.4)", 5)).splitlines() == [
        "      embedding",
        "  ┌ layer 1   x ← N(x + A(x));  x ← N(x + F(x))",
        "  └ layer 2   x ← N(x + A(x));  x ← N(x + F(x))",
        "  ┌ layer 3   x ← x + A(N(x));  x ← x + F(N(x))",
        "  │ layer 4   x ← x + A(N(x));  x ← x + F(N(x))",
        "  └ layer 5   x ← x + A(N(x));  x ← x + F(N(x))",
        "      final norm, head",
    ]


def test_drawing_aligns_layer_numbers_and_marks_a_layer_of_its_own():
    lines = draw(placement("hybrid*", 12)).splitlines()
    assert lines[1] == "  ─ layer  1   x ← x + A_qkv(N(x));  x ← x + F(N(x))"
    assert lines[12].startswith("  └ layer 12   ")


def test_drawing_explains_what_goes_along_beside_the_stream():
    *_, stream, values = draw(placement("vres+x0+pre", 2)).splitlines()
    assert stream.startswith("  each layer first reads  x ← λ_l·x + μ_l·e")
    assert values == "  A_1 attends with  v ← λ_l·v + μ_l·v₁,  v₁ the values of layer 1"


def test_drawing_shows_the_norm_on_the_embeddings():
    assert draw(placement("peri", 2)).splitlines()[0] == "      embedding;  x ← N(x)"
