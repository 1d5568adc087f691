"""What the published code does otherwise, each alone."""

from __future__ import annotations

import math

import pytest

from mixln.cli import main
from mixln.errors import SettingsError
from mixln.placement import placement
from mixln.recipes import RECIPES
from mixln.recipes.deviations import DEVIATIONS, RecipeVariant, changed, recounted, variants
from mixln.recipes.folders import placed
from tests.recipes.test_outcome import trial


def first(name, *chosen):
    recipe = RECIPES[name]
    (variant,) = variants(("+".join(chosen),)) if chosen else (RecipeVariant(),)
    return changed(recipe.runs("cpu", None)[0], variant).settings


@pytest.mark.parametrize("name", DEVIATIONS)
def test_each_changes_its_own_setting_and_no_other(name):
    plain, made = first("table1"), first("table1", name)
    expected = {
        "embedding": {"init": "embedding(0.632)+normal"},
        "bfloat16": {"weights": "bfloat16"},
        "clipping": {"max_gradient_norm": 0.0},
        "evaluation": {},
        "deepnorm": {"placements": ("post", "deepnorm(2.828)", "pre", "mix(0.25)")},
    }[name]
    for part, other in ((made, plain), (made.training, plain.training)):
        for field, value in vars(part).items():
            if field != "training":
                assert value == expected.get(field, getattr(other, field))
    assert first("table8", "embedding").init == "embedding(0.632)+normal"


def test_alpha_of_deepnorm_is_right_for_32_layers_alone():
    def alpha(name, layers):
        return placement(name, layers).layers[0].attention.skip_scale

    assert alpha("deepnorm(2.828)", 32) == pytest.approx(alpha("deepnorm", 32), rel=1e-3)
    assert alpha("deepnorm(2.828)", 12) == 2.828 != pytest.approx(alpha("deepnorm", 12), rel=0.1)


def test_a_sum_over_n_batches_counted_as_n_plus_one():
    """At a perplexity of 20 over 600 batches, half a percent of perplexity is lost."""
    loss = math.log(20)
    (variant,) = variants(("evaluation",))
    found = recounted(trial(loss), variant).loss
    assert found == pytest.approx(loss * 600 / 601)
    assert math.exp(found) / 20 == pytest.approx(0.995, abs=2e-4)
    assert recounted(trial(None, status="diverged"), variant).loss is None
    assert recounted(trial(loss), RecipeVariant()).loss == loss


def test_what_is_refused(tmp_path, capsys):
    with pytest.raises(SettingsError, match="as-published 'nonsense' is not known; known: embedding"):
        variants(("embedding+nonsense",))
    with pytest.raises(SettingsError, match="as-published must not repeat, got clipping twice in"):
        variants(("clipping+embedding+clipping",))
    with pytest.raises(SettingsError, match=r"as-published must not repeat, got embedding\+clipping twice"):
        variants(("clipping+embedding", "embedding+clipping"))
    for recipe in ("table4", "table7", "hybridnorm"):
        assert main(["reproduce", recipe, "--as-published", "embedding", "--out", str(tmp_path / "out")]) == 2
        assert "as-published applies only to the language models of the Mix-LN paper" in capsys.readouterr().err
    assert main(["reproduce", "table6", "--as-published", "deepnorm", "--out", str(tmp_path / "out")]) == 2
    assert "as-published deepnorm has no effect" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_text_is_a_variant_and_plus_joins():
    found = variants(("clipping,embedding", "evaluation+clipping"))
    assert [variant.name for variant in found] == ["clipping", "embedding", "clipping+evaluation"]
    assert first("table1", "embedding", "bfloat16").training.weights == "bfloat16"
    assert first("table1", "embedding", "bfloat16").init == "embedding(0.632)+normal"


def test_the_same_settings_have_one_folder_whatever_they_are_for(tmp_path):
    """DeepNorm's own α changes one placement of four; scaled embeddings are no other with Scaled Embed."""

    def folder(name, index, text=""):
        variant = variants((text,))[0] if text else RecipeVariant()
        run = changed(RECIPES[name].runs("cpu", None)[index], variant)
        return placed(run, tmp_path, tmp_path).settings.out.name

    plain = folder("table1", 0)
    assert plain == folder("table1", 0, "deepnorm") == folder("table1", 0, "evaluation")
    assert plain.startswith("71m-mini-")
    assert plain != folder("table1", 0, "bfloat16") == folder("table1", 0, "bfloat16+deepnorm+evaluation")
    embedded = len(RECIPES["table8"].runs("cpu", None)) - 1
    assert folder("table8", embedded, "embedding+bfloat16") == folder("table8", embedded, "bfloat16")
    assert folder("figure3", 0) == folder("figure5", 0)
    assert folder("table1", 1) != folder("table1", 2) == folder("table2", 0) == folder("table6", 0)
    assert folder("table1", 1) == folder("table5", 1) == folder("table8", 0) == folder("table3", 0)


def test_what_would_move_no_quantity_of_a_recipe_is_refused(tmp_path, capsys):
    for recipe in ("table3", "figure5"):
        assert main(["reproduce", recipe, "--as-published", "evaluation", "--out", str(tmp_path / "out")]) == 2
        assert "as-published evaluation has no effect" in capsys.readouterr().err
    assert main(["reproduce", "table1", "--as-published", ","]) == 2
    assert "as-published must name one of embedding, bfloat16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
