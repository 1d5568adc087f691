"""Reward models: what the evaluation finds by hand, scores that padding does not change, and checkpoints that are none."""

from __future__ import annotations

import math

import pytest
import torch

from mixln.errors import CheckpointError
from mixln.hosts.sources import find_model
from mixln.training.reward import Scorer, check_reward, load_reward, with_scalar_head
from tests import decoders, tiny
from tests.training.tuned import PAIRS, cut_at, judge, source

pytestmark = pytest.mark.filterwarnings("default")  # TRL's own


def by_hand(model) -> list[float]:
    """The margins of the held-out pairs, one text at a time, read at the last token before the end of text."""
    tokenizer = decoders.tokenizer()

    def score(text: str) -> float:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
        return (hidden @ model.score.weight[0]).item()

    return [score(row["prompt"] + row["chosen"]) - score(row["prompt"] + row["rejected"]) for row in PAIRS.held_out]


@pytest.mark.parametrize("placement", ["mix(0.5)", "hybrid*", None])
def test_what_is_found_is_what_it_is_by_hand(tmp_path, placement):
    """The end of text is also what is padded with here, and a sequence classifier reads the last token that is no padding."""
    model = source(tmp_path, placement)
    found = judge(tmp_path / "out", model)
    for figures, made in (
        (found.before, with_scalar_head(model, seed=0).eval()),
        (found.after, load_reward(find_model(str(tmp_path / "out/model"), cache=tmp_path))),
    ):
        margins = by_hand(made)
        assert figures["margin"].value == pytest.approx(sum(margins) / 6, rel=1e-4, abs=1e-5)
        assert figures["accuracy"].value == pytest.approx(sum(margin > 0 for margin in margins) / 6)
        loss = sum(math.log1p(math.exp(-margin)) for margin in margins) / 6
        assert figures["loss"].value == pytest.approx(loss, rel=1e-4)
    assert found.after["loss"].value < found.before["loss"].value


@pytest.mark.parametrize("lora", [None, 4])
def test_scores_do_not_depend_on_the_batch(tmp_path, lora):
    judge(tmp_path / "out", source(tmp_path), lora=lora)
    model = load_reward(find_model(str(tmp_path / "out/model"), cache=tmp_path))
    scorer = Scorer(model, decoders.tokenizer(), batch_size=3)
    prompts, answers = ["one two:", "three one two four:", "one:", "six:"], [" three", " one", " two two two", ""]
    together = scorer(prompts, answers)
    alone = [scorer([prompt], [answer])[0] for prompt, answer in zip(prompts, answers, strict=True)]
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_a_new_head_is_drawn_by_the_seed(tmp_path):
    model = source(tmp_path)
    heads = [with_scalar_head(model, seed=seed).score.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_what_is_no_reward_model(tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"model is a PlacedLlamaForCausalLM, not a model with a scalar head; train one with mixln reward",
    ):
        check_reward(source(tmp_path))
    torch.manual_seed(0)
    import mixln

    three = mixln.from_config(tiny.tiny_config(num_labels=3), placement="pre", head="sequence-classification")
    three.save_pretrained(tmp_path / "three")
    with pytest.raises(CheckpointError, match=r"with 3 outputs, not a model with a scalar head"):
        check_reward(find_model(str(tmp_path / "three"), cache=tmp_path))


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path):
    model = source(tmp_path)
    whole = judge(tmp_path / "whole", model)
    with cut_at(8):
        judge(tmp_path / "cut", model, checkpoint_seconds=0)
    cut = judge(tmp_path / "cut", model)
    assert (cut.before, cut.after, cut.curves) == (whole.before, whole.after, whole.curves)


@pytest.mark.long
def test_a_first_batch_that_happens_to_be_easy_is_no_divergence(tmp_path):
    """Pairs without a signal: every loss is near ln 2, the first by chance below those that come."""
    for seed in range(4):
        found = judge(tmp_path / str(seed), source(tmp_path), seed=seed, steps=60, learning_rate=1e-6, batch_size=2)
        assert found.status == "finished"
