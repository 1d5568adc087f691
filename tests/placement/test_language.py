"""The little language: what it builds, and how it answers what it cannot read."""

from __future__ import annotations

import re

import pytest

from mixln.errors import PlacementError
from mixln.placement import MODIFIERS, ZOO, Layer, Norm, ProjectionNorm, Projections, Sublayer, placement
from mixln.placement.entry import HYBRID, POST, PRE

EVERY_NAME = list(ZOO)


@pytest.mark.parametrize("name", EVERY_NAME)
@pytest.mark.parametrize("layers", [1, 3, 12])
def test_every_placement_of_the_zoo_has_one_record_a_layer_and_its_own_name(name, layers):
    built = placement(name, layers)
    assert len(built.layers) == layers
    assert built.name == name
    assert built.init == ZOO[name].init


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" Mix( 0.25 ) ", "mix(0.25)"),
        ("POST*3 , Pre*9", "post*3,pre*9"),
        ("QKNorm + PRE", "qknorm+pre"),
        ("hybrid *", "hybrid*"),
        ("mix\t(1/3)\n", "mix(1/3)"),
    ],
)
def test_blanks_and_upper_case_do_not_matter(text, same):
    assert placement(text, 12) == placement(same, 12)
    assert placement(text, 12).name == same


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("post*3,pre*9", [POST] * 3 + [PRE] * 9),
        ("post*3,pre", [POST] * 3 + [PRE] * 9),
        ("post,pre*9", [POST] * 3 + [PRE] * 9),
        ("pre*4,post,pre*4", [PRE] * 4 + [POST] * 4 + [PRE] * 4),
        ("mix(0.5)*6,pre*6", [POST] * 6 + [PRE] * 6),
        ("pre*6,mix(0.5)*6", [PRE] * 12),
        ("hybrid*2,pre", [HYBRID] * 2 + [PRE] * 10),
    ],
)
def test_mixture_cuts_its_parts_in_order(text, records):
    assert list(placement(text, 12).layers) == records


def test_hybrid_star_with_a_count_is_hybrid_star():
    built = placement("hybrid**2,pre", 12)
    assert built.layers == (*placement("hybrid*", 12).layers[:2], *[PRE] * 10)
    assert built.layers[0] != HYBRID
    assert built.layers[1] == HYBRID


def test_hybrid_star_after_another_part_is_hybrid():
    """Its special layer is the model's first, not the part's first."""
    assert placement("pre*2,hybrid*", 12).layers == (*[PRE] * 2, *[HYBRID] * 10)


def test_mixture_of_one_init_keeps_it_and_of_two_is_normal():
    assert placement("hybrid**2,hybrid", 12).init == "megatron"
    assert placement("hybrid**2,pre", 12).init == "normal"
    assert placement("hybrid**2,deepnorm", 12).init == "normal"


def test_embedding_norm_belongs_to_the_first_part():
    assert placement("peri*2,pre", 12).embedding_norm == Norm()
    assert placement("pre*2,peri", 12).embedding_norm is None


def test_finished_placement_is_passed_on():
    built = placement("mix(0.25)", 12)
    assert placement(built, 12) is built


def test_finished_placement_for_another_depth_is_refused():
    with pytest.raises(PlacementError, match=r"'mix\(0\.25\)' has 12 layers, the model has 24"):
        placement(placement("mix(0.25)", 12), 24)


def test_modifiers_apply_to_every_layer_and_combine():
    built = placement("qknorm+group(2)+post", 3)
    for layer in built.layers:
        assert layer.projections.letters == "qk"
        assert layer.attention.stream_out == layer.feed_forward.stream_out == Norm(kind="group", groups=2)
        assert layer.attention.branch_in is None
    assert built.name == "qknorm+group(2)+post"


def test_modifier_touches_only_its_own_part():
    built = placement("qknorm+post*1,pre", 3)
    assert [layer.projections.letters for layer in built.layers] == ["qk", "", ""]


def test_qkv_norm_on_pre_equals_the_first_layer_of_hybrid_star():
    assert placement("qkvnorm+pre", 3).layers[0] == placement("hybrid*", 3).layers[0]


def test_modifier_keeps_the_recommended_init():
    assert placement("qknorm+deepnorm", 3).init == "deepnorm"


@pytest.mark.parametrize("text", ["pree", "qknorm+pree", "post*1,pree", "identity", "none", "prenorm(2)"])
def test_unknown_name_lists_every_known_one(text):
    with pytest.raises(PlacementError) as caught:
        placement(text, 12)
    message = str(caught.value)
    assert re.match(r"placement '(pree|identity|none|prenorm)' is not known; (did you mean pre\? )?known: ", message)
    listed = [name.partition("(")[0] for name in message.partition("known: ")[2].split(", ")]
    assert listed == list(ZOO)


@pytest.mark.parametrize("text", ["foo+pre", "qknorm+foo+pre"])
def test_unknown_modifier_lists_every_known_one(text):
    with pytest.raises(PlacementError, match=rf"modifier 'foo' is not known; known: {', '.join(MODIFIERS)}$"):
        placement(text, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pre(3)", r"pre\(3\): takes no argument, got 1"),
        ("mix(1,2)", r"mix\(1,2\): takes 1 argument, got 2"),
        ("bare(2)+pre", r"bare\(2\): takes no argument, got 1"),
        ("qknorm(2)+pre", r"norm\(qk,2\): the width must be head or full, got '2'"),
        ("norm+pre", r"norm\(\): needs letters from qkvc .*; for example norm\(qkv\)\+pre"),
        ("norm(qq)+pre", r"each at most once, got 'qq'"),
        ("norm(x)+pre", r"needs letters from qkvc"),
        (
            "hybrid(qkv)",
            r"hybrid\(qkv\): the variant must have the form .*, for example qkv-post or pre-qk-pre, got 'qkv'",
        ),
        ("dyt(0)+pre", r"dyt\(0\): α must be a number above 0, got '0'"),
        ("layerscale(x)+pre", r"layerscale\(x\): λ must be a number above 0, got 'x'"),
        ("layerscale+rezero", r"layerscale: the branches already have a gain"),
        ("hybrid(qq-post)", r"hybrid\(qq-post\): each letter may occur once, got 'q' more than once"),
        ("mix-ln", r"placement 'mix-ln' is not known; did you mean mix\? known: pre, "),
        ("preln", r"did you mean pre\? known"),
        ("hybridnorm", r"did you mean hybrid\? known"),
        ("pre+qknorm", r"'pre\+qknorm' ends in the modifier qknorm, which must come before a placement: qknorm\+pre"),
        ("post+pre", r"modifier 'post' is not known; .*; write a mixture of placements as post\*6,pre"),
        ("dlcl*1,pre", r"all parts of a mixture must use the same residual stream, got dlcl, single"),
        ("mix()", r"'mix\(\)' has empty parentheses; omit them"),
        ("mix(0.25", r"'mix\(0\.25' is not valid; write for example pre, mix\(0\.25\)"),
        ("", r"'' is not valid; write for example"),
        ("+pre", r"'' is not valid"),
        ("pre+", r"'' is not valid"),
        ("3*pre", r"'3\*pre' is not valid"),
        ("post*2.5,pre*9", r"'post\*2\.5' is not valid"),
        ("post*-1,pre*9", r"'post\*-1' is not valid"),
        ("group(x)", r"group\(x\): groups must be an integer of at least 1, got 'x'"),
        ("group(0)", r"group\(0\): groups must be an integer of at least 1, got '0'"),
        ("group(-2)+pre", r"groups must be an integer of at least 1, got '-2'"),
        ("group(2.5)+pre", r"groups must be an integer of at least 1, got '2\.5'"),
        (
            "post*3,pre*8",
            r"^post\*3,pre\*8: its parts have 11 layers, the model has 12; change the counts so that they add up",
        ),
        ("post*13,pre", r"its parts have 13 layers, the model has 12; change the counts"),
        ("pre*11", r"its parts have 11 layers, the model has 12"),
        ("post,pre", r"^post,pre: only one part of a mixture may omit its count, got 2"),
    ],
)
def test_wrong_text_is_answered_with_the_field_the_rule_and_the_value(text, message):
    with pytest.raises(PlacementError, match=message):
        placement(text, 12)


@pytest.mark.parametrize("layers", [0, -1])
def test_model_without_layers_is_refused(layers):
    with pytest.raises(PlacementError, match=rf"layers must be at least 1, got {layers}"):
        placement("pre", layers)


@pytest.mark.parametrize("text", ["post*3,pre", "peri*0,pre", "hybrid*3,pre*0"])
def test_part_without_layers_is_refused(text):
    with pytest.raises(PlacementError, match="every part of a mixture needs at least one of the model's 3 layers"):
        placement(text, 3)


QWEN = Layer(
    attention=Sublayer(branch_in=Norm()),
    feed_forward=Sublayer(branch_in=Norm()),
    projections=Projections(query=ProjectionNorm(), key=ProjectionNorm()),
)


def test_stock_is_what_the_family_does_and_names_its_init():
    built = placement("stock", 3, stock=QWEN, stock_init="scaled")
    assert built.layers == (QWEN,) * 3
    assert built.init == "scaled"
    assert placement("stock", 3).layers == placement("pre", 3).layers


def test_norms_of_the_family_stay_where_a_placement_has_none_of_its_own():
    post = placement("post", 2, stock=QWEN).layers[0]
    assert post.attention == Sublayer(stream_out=Norm())
    assert post.projections == QWEN.projections
    full = ProjectionNorm(width="full")
    assert placement("res-post", 2, stock=QWEN).layers[0].projections == Projections(query=full, key=full)
    hybrid = placement("hybrid", 2, stock=QWEN).layers[0].projections
    assert hybrid == Projections(query=ProjectionNorm(), key=ProjectionNorm(), value=ProjectionNorm())
    assert placement("qknorm(full)+pre", 2, stock=QWEN).layers[0].projections == Projections(query=full, key=full)


def test_bare_takes_the_norms_of_the_projections_away_and_later_ones_can_be_added():
    assert placement("bare+pre", 2, stock=QWEN).layers == placement("pre", 2).layers
    assert placement("norm(v)+bare+pre", 2, stock=QWEN).layers[0].projections == Projections(value=ProjectionNorm())


def test_finished_placement_says_all_itself():
    finished = placement("pre", 2)
    assert placement(finished, 2, stock=QWEN) is finished
