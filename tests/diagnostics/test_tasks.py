"""Performance drop by lm-eval tasks, on a task of our own with a tiny model and its tokenizer."""

from __future__ import annotations

import pytest
import torch

from mixln.diagnostics.stack import find_stack
from mixln.diagnostics.tasks import task_drops
from mixln.errors import DataError, SettingsError
from mixln.evaluation.harness import Harness
from tests import tiny
from tests.diagnostics import zoo

pytestmark = pytest.mark.long

QUESTIONS = [
    ("abcd", ["efg", "hij", "k"], 0),
    ("lmno", ["p", "qrst"], 1),
    ("uv", ["wx", "yza", "bcd"], 2),
    ("efgh", ["ij", "kl"], 0),
    ("mnop", ["qr", "s"], 1),
]


@pytest.fixture
def folder(tmp_path):
    rows = [{"question": q, "choices": [f" {c}" for c in choices], "gold": gold} for q, choices, gold in QUESTIONS]
    zoo.write_task(tmp_path, rows)
    lost = (
        (tmp_path / "small.yaml").read_text().replace("rows.jsonl", "none.jsonl").replace("small_choice", "lost_choice")
    )
    (tmp_path / "lost.yaml").write_text(lost)
    return tmp_path


@pytest.fixture
def tokenizer():
    import tokenizers
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: index for index, letter in enumerate("<abcdefghijklmnopqrstuvwxyz ")}
    made = tokenizers.Tokenizer(models.WordLevel(letters, unk_token="<"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<", pad_token="<", unk_token="<")


@torch.no_grad()
def accuracy(model, tokenizer) -> float:
    """The share of questions whose right choice has the highest log-likelihood, written out."""
    right = 0
    for question, choices, gold in QUESTIONS:
        scores = []
        for choice in choices:
            context, whole = (tokenizer(text)["input_ids"] for text in (question, f"{question} {choice}"))
            rows = model(torch.tensor([whole]), use_cache=False).logits[0].log_softmax(dim=-1)
            scores.append(sum(rows[at - 1, whole[at]].item() for at in range(len(context), len(whole))))
        right += scores.index(max(scores)) == gold
    return right / len(QUESTIONS)


@pytest.mark.filterwarnings("default")  # lm-eval's own
def test_equal_to_the_task_by_hand_without_each_layer(folder, tokenizer):
    model = tiny.placed("mix(0.5)", seed=3)
    harness = Harness(["small_choice"], cache=folder, folder=folder)
    (found,) = task_drops(harness, find_stack(model), tokenizer, batch_size=2)
    assert (found.measure, found.task, found.better, found.tokens) == ("acc", "small_choice", "higher", 5)
    assert found.original == pytest.approx(accuracy(model, tokenizer))
    layers = list(model.model.layers)
    values = []
    for index, drop in enumerate(found.skipped):
        model.model.layers = torch.nn.ModuleList(layer for other, layer in enumerate(layers) if other != index)
        model.config.num_hidden_layers = 2
        values.append(accuracy(model, tokenizer))
        assert (drop.first, drop.last) == (index + 1, index + 1)
        assert drop.value == pytest.approx(values[-1])
        assert drop.change == pytest.approx(values[-1] - found.original)
        assert drop.high - drop.low > 0 or drop.change in (-1, 0, 1)
    assert len({*values, found.original}) > 1


@pytest.mark.filterwarnings("default")
def test_fewer_questions(folder, tokenizer):
    harness = Harness(["small_choice"], cache=folder, folder=folder, limit=2)
    (found,) = task_drops(harness, find_stack(tiny.placed("pre")), tokenizer, batch_size=2)
    assert found.tokens == 2


@pytest.mark.filterwarnings("default")
def test_mistakes_are_one_line(folder):
    with pytest.raises(
        SettingsError,
        match=r"tasks: lm-eval does not know 'arc_eazy'; did you mean .*arc_easy.*\? lm-eval ls tasks lists all tasks",
    ):
        Harness(["arc_eazy"], cache=folder)
    with pytest.raises(DataError, match=r"tasks: the data of lost_choice cannot be loaded: .*--task-folder"):
        Harness(["lost_choice"], cache=folder, folder=folder)
    with pytest.raises(SettingsError, match=r"task-folder must be a folder .*small\.yaml"):
        Harness(["small_choice"], cache=folder, folder=folder / "small.yaml")
