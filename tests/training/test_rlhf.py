"""Reinforcement learning: likelihoods by hand, no KL before the first step, and a reward that can be learnt is learnt."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from mixln.hosts.sources import find_model, load
from mixln.training import rlhf as module
from mixln.training.reward import Scorer
from mixln.training.rlhf import RlhfRun, in_order, log_likelihoods
from mixln.training.run import run as training_run
from mixln.training.settings import RlhfSettings
from tests import decoders
from tests.training.tuned import PAIRS, common, cut_at, judge, source

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # TRL's own
]


def settings(**changes) -> RlhfSettings:
    return RlhfSettings(
        **{
            "steps": 3,
            "batch_size": 8,
            "generations": 4,
            "new_tokens": 5,
            "learning_rate": 1e-3,
            "precision": "float32",
            "evaluations": 1,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    """A reward model that prefers the next number."""
    folder = tmp_path_factory.mktemp("reward")
    judge(folder / "out", source(folder, "pre"))
    return find_model(str(folder / "out/model"), cache=folder)


def run(folder, model, reward, *, kind=RlhfRun, checkpoint_seconds=1e9, **changes):
    chosen = settings(**changes)
    shared = common(folder, model, PAIRS, checkpoint_seconds=checkpoint_seconds)
    return training_run(kind(settings=chosen, reward=reward, judge=decoders.tokenizer(), **shared))


def test_likelihoods_by_hand(tmp_path):
    model = load(source(tmp_path, "hybrid*"))
    sequences = [([5, 6, 7], [8, 9]), ([5], [6, 7, 8, 9, 10]), ([20, 21], [22])]
    found = log_likelihoods(model, sequences, 2)
    for value, (prompt, completion) in zip(found, sequences, strict=True):
        with torch.no_grad():
            rows = model(torch.tensor([prompt + completion]), use_cache=False).logits[0].log_softmax(dim=-1)
        expected = sum(rows[len(prompt) - 1 + place, token].item() for place, token in enumerate(completion))
        assert value.item() == pytest.approx(expected, rel=1e-5)


PLACEMENTS = ("post", "mix(0.5)", "hybrid*", "qkvnorm+sandwich", "keel", "dlcl", "resi-dual")


@pytest.mark.parametrize(
    ("placement", "algorithm", "lora"),
    [
        *((placement, "rloo", None) for placement in (*PLACEMENTS, None)),
        ("mix(0.5)", "grpo", None),
        ("hybrid*", "rloo", 2),
    ],
)
def test_policy_and_reference_are_one_before_the_first_step(tmp_path, reward, placement, algorithm, lora):
    """Where the KV cache were wrong, what is sampled would not be what is scored; where the reference were another model, the KL
    would not be 0."""
    found = run(
        tmp_path / "out", source(tmp_path, placement), reward, algorithm=algorithm, lora=lora, learning_rate=1e-2
    )
    assert found.before["kl"].value == 0
    assert found.curves["kl"][0] == (1, pytest.approx(0, abs=1e-5))
    assert found.after["kl"].value != 0
    assert found.before.keys() == {"reward", "kl", "length", "accuracy"}
    assert 1 <= found.before["length"].value <= 5
    trained = load(find_model(str(tmp_path / "out/model"), cache=tmp_path))
    assert type(trained) is type(load(source(tmp_path)))


def test_samples_are_drawn_from_the_model(tmp_path, reward):
    """Cached, left-padded sampling gives each next token with the probability of the full forward pass."""
    folder = source(tmp_path, "mix(0.5)")
    model = load(folder)

    class Only(module.RlooPolicy):
        def __init__(self) -> None:
            self.processing_class, self.eos_token_ids = decoders.tokenizer(), [0]
            self.generation_config = GenerationConfig(
                do_sample=True, max_new_tokens=1, top_k=0, pad_token_id=0, eos_token_id=[0]
            )

    torch.manual_seed(0)
    prompts = ["one two:"] * 3000 + ["six one two three four:"]
    drawn = list(Only()._sampled(model, prompts, 3001))[:3000]
    counts = torch.bincount(torch.tensor([ids[0] for ids in drawn]), minlength=300) / 3000
    with torch.no_grad():
        expected = model(torch.tensor([decoders.tokenizer()("one two:")["input_ids"]])).logits[0, -1].softmax(-1)
    assert (counts - expected).abs().max() < 0.03
    assert (counts - expected).abs().sum() < 0.35


def test_a_reward_that_can_be_learnt_is_learnt(tmp_path, reward):
    class Ones(Scorer):
        """The share of ones among the words of a completion."""

        def __init__(self) -> None:
            pass

        def scores(self, texts):
            return torch.tensor([text.split(":")[1].count("one") / 5 for text in texts], dtype=torch.float64)

    class Counted(RlhfRun):
        def scorer(self):
            return Ones()

    found = run(
        tmp_path / "out",
        source(tmp_path),
        reward,
        kind=Counted,
        steps=40,
        batch_size=32,
        generations=8,
        learning_rate=1e-2,
        beta=0.0,
    )
    before, after = found.before["reward"], found.after["reward"]
    assert after.value > before.value + 0.1
    assert found.curves["reward"][-1][1] > found.curves["reward"][0][1]


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, reward):
    """Over more than one pass: 30 prompts, 2 a step."""
    model = source(tmp_path)
    whole = run(tmp_path / "whole", model, reward, steps=20)
    with cut_at(18):
        run(tmp_path / "cut", model, reward, steps=20, checkpoint_seconds=0)
    cut = run(tmp_path / "cut", model, reward, steps=20)
    assert (cut.before, cut.after, cut.curves) == (whole.before, whole.after, whole.curves)


def test_every_pass_has_every_prompt_once_in_another_order():
    found = in_order("abcdef", 15, seed=3)
    assert sorted(found[:6]) == sorted(found[6:12]) == list("abcdef")
    assert found[:6] != found[6:12]
    assert found == in_order("abcdef", 15, seed=3) != in_order("abcdef", 15, seed=4)
    assert in_order("a", 3, seed=0) == ["a", "a", "a"]


@pytest.mark.parametrize("lora", [None, 2])
def test_without_a_penalty_there_is_a_divergence_still(tmp_path, reward, lora):
    found = run(tmp_path / "out", source(tmp_path), reward, steps=6, learning_rate=1e-2, beta=0.0, lora=lora)
    assert found.before["kl"].value == 0
    assert found.after["kl"].value != 0


def test_in_bfloat16_policy_and_reference_are_one_too(tmp_path, reward):
    found = run(tmp_path / "out", source(tmp_path), reward, precision="bfloat16")
    assert found.before["kl"].value == 0
