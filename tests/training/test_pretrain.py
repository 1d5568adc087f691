"""What a training does to a model: loss, gradients, accumulation, weight decay, the final checkpoint."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainingArguments, set_seed

import mixln
from mixln.runs.checkpoints import SUMS
from mixln.training.evaluation import evaluate
from mixln.training.language_modelling import PlacementTrainer, collate
from mixln.training.settings import TrainSettings
from tests import small

PLACEMENTS = ["pre", "mix(0.5)", "hybrid*"]


def initial(placement: str, seed: int = 0):
    """The model that a training starts from."""
    set_seed(seed)
    return mixln.from_config(small.config(), placement=placement, init="normal")


def gradient_norms(model, ids) -> tuple[dict[str, list[float]], float]:
    """L2 norms of the gradient of the mean next-token loss: of each sublayer, sorted by its weights' names, and of all weights."""
    logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
    squares = {name: [0.0] * 2 for name in ("attention", "feed_forward")}
    total = 0.0
    for name, parameter in model.named_parameters():
        square = parameter.grad.double().square().sum().item()
        total += square
        if ".layers." in name:
            layer = int(name.split(".layers.")[1].split(".")[0])
            part = "attention" if ".self_attn." in name or ".attention_residual." in name else "feed_forward"
            squares[part][layer] += square
    return {name: [math.sqrt(value) for value in values] for name, values in squares.items()}, math.sqrt(total)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_recorded_gradient_norms_are_those_before_clipping(fed, text, tmp_path, placement):
    small.train(text, tmp_path, placement, steps=1, max_gradient_norm=1e-3)
    expected, total = gradient_norms(initial(placement), fed[0])
    assert total > 0.1
    assert small.column(tmp_path, "gradient_norm") == [pytest.approx(total, rel=1e-4)]
    (found,) = small.column(tmp_path, "gradient_norms")
    assert found["attention"] == pytest.approx(expected["attention"], rel=1e-4)
    assert found["feed_forward"] == pytest.approx(expected["feed_forward"], rel=1e-4)


def test_gradient_norms_without_clipping_are_the_same(text, tmp_path):
    for name, limit in (("clipped", 1e-3), ("free", 0.0)):
        small.train(text, tmp_path / name, steps=1, max_gradient_norm=limit)
    for figure in ("gradient_norm", "gradient_norms"):
        clipped, free = small.column(tmp_path / "clipped", figure), small.column(tmp_path / "free", figure)
        if figure == "gradient_norms":
            clipped, free = (row[0]["attention"] + row[0]["feed_forward"] for row in (clipped, free))
        assert clipped == pytest.approx(free, rel=1e-4)


def test_the_first_loss_is_the_mean_over_the_predicted_tokens_of_the_first_batch(fed, text, tmp_path):
    small.train(text, tmp_path, steps=1)
    found = evaluate(initial("pre"), [{"input_ids": fed[0], "labels": fed[0]}])
    assert found.tokens == 4 * (small.LENGTH - 1)
    assert small.column(tmp_path, "loss") == [pytest.approx(found.loss, rel=1e-5)]


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_accumulated_micro_batches_equal_one_large_batch(text, tmp_path, placement):
    settings = {"steps": 8, "batch_size": 8, "learning_rate": 1e-3}
    whole = small.train(text, tmp_path / "whole", placement, **settings)
    for micro in (1, 4):
        parts = small.train(text, tmp_path / f"{micro}", placement, micro_batch_size=micro, **settings)
        for figure in ("loss", "eval_loss", "gradient_norm"):
            expected = small.column(tmp_path / "whole", figure)
            assert small.column(tmp_path / f"{micro}", figure) == pytest.approx(expected, rel=1e-5)
        assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
        assert (parts.step, parts.tokens) == (whole.step, whole.tokens) == (8, 8 * 8 * small.LENGTH)


def test_the_same_training_twice_gives_the_same_numbers(text, tmp_path):
    one, other = (small.train(text, tmp_path / name, "post", seed=7) for name in ("one", "other"))
    assert one.loss == other.loss
    assert one.train_curve == other.train_curve


def placement_trainer(text, folder, placement: str, weight_decay: float = 0.1) -> PlacementTrainer:
    return PlacementTrainer(
        settings=TrainSettings(steps=5),
        warmup_steps=1,
        model=initial(placement),
        args=TrainingArguments(
            output_dir=str(folder),
            weight_decay=weight_decay,
            use_cpu=True,
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            per_device_eval_batch_size=7,
        ),
        eval_dataset=text.held_out,
        data_collator=collate,
    )


@pytest.mark.parametrize("placement", ["pre", "peri", "qkvnorm+post"])
def test_weight_decay_is_on_matrices_only_and_on_all_of_them(text, tmp_path, placement):
    trainer = placement_trainer(text, tmp_path, placement)
    groups = trainer.create_optimizer().param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    names = dict(trainer.model.named_parameters())
    assert {name: decays[id(parameter)] for name, parameter in names.items()} == {
        name: 0.1 if parameter.ndim == 2 else 0.0 for name, parameter in names.items()
    }
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_the_whole_held_out_text_is_scored(text, tmp_path):
    found = placement_trainer(text, tmp_path, "pre").evaluate()
    assert found["eval_loss"] == pytest.approx(token_by_token(initial("pre"), text), rel=1e-6)


@torch.no_grad()
def token_by_token(model, text) -> float:
    """The held-out loss from windows cut by hand out of the held-out tokens in a row."""
    rows = text.held_out[:]
    first = rows["input_ids"][0, :1].tolist()
    stream = first + [token for row in rows["labels"][:, 1:].tolist() for token in row if token >= 0]
    losses = []
    for start in range(0, len(stream) - 1, small.LENGTH - 1):
        ids = torch.tensor(stream[start : start + small.LENGTH])
        logits = model.eval()(input_ids=ids[None]).logits[0, :-1].double()
        losses += torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none").tolist()
    assert len(losses) == text.info.held_out_tokens
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_final_checkpoint_gives_the_reported_loss(text, tmp_path, placement):
    outcome = small.train(text, tmp_path, placement, steps=6)
    model = mixln.from_pretrained(tmp_path / "checkpoint-6")
    assert outcome.loss == pytest.approx(token_by_token(model, text), rel=1e-6)
    assert outcome.eval_curve[-1] == (6, outcome.loss)
    assert outcome.bits_per_byte == text.info.bits_per_byte(outcome.loss)
    assert outcome.perplexity == math.exp(outcome.loss)


def test_the_final_checkpoint_holds_the_tokenizer_and_is_not_marked_for_resuming(text, tmp_path):
    small.train(text, tmp_path, steps=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-6", SUMS, "metrics.jsonl"]
    assert not (tmp_path / "checkpoint-6" / SUMS).exists()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint-6")
    assert tokenizer.get_vocab() == text.tokenizer().get_vocab()
    assert mixln.from_pretrained(tmp_path / "checkpoint-6").config.eos_token_id == tokenizer.eos_token_id


def test_the_disk_holds_two_checkpoints_to_resume_from_at_most(text, tmp_path):
    small.train(text, tmp_path, steps=6, checkpoint_seconds=0)
    assert sorted(path.parent.name for path in tmp_path.glob(f"*/{SUMS}")) == ["checkpoint-4", "checkpoint-5"]


@pytest.mark.parametrize(("evaluations", "steps"), [(4, [2, 3, 5, 6]), (1, [6]), (6, [1, 2, 3, 4, 5, 6]), (9, None)])
def test_evaluations_are_spread_evenly_and_end_at_the_end(text, tmp_path, evaluations, steps):
    outcome = small.train(text, tmp_path, evaluations=evaluations)
    assert [step for step, _ in outcome.eval_curve] == (steps or [1, 2, 3, 4, 5, 6])


def test_a_long_training_logs_about_a_hundred_rows(text, tmp_path):
    outcome = small.train(text, tmp_path, steps=250, evaluations=1)
    assert [step for step, _ in outcome.train_curve] == [1, *range(2, 251, 2)]
    assert [profile.step for profile in outcome.gradient_norms] == [1, 250]
    assert [profile.step for profile in outcome.residual_variance] == [0, 250]


def test_bfloat16_trains_and_keeps_float32_weights(text, tmp_path):
    settings = {"steps": 30, "learning_rate": 1e-2}
    narrow = small.train(text, tmp_path / "bfloat16", precision="bfloat16", **settings)
    wide = small.train(text, tmp_path / "float32", precision="float32", **settings)
    assert narrow.eval_curve[-1][1] < narrow.eval_curve[0][1] - 0.5
    assert narrow.loss == pytest.approx(wide.loss, rel=0.05)
    assert narrow.loss != wide.loss
    weights = load_file(tmp_path / "bfloat16" / "checkpoint-30" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert any(not torch.equal(value, value.bfloat16().float()) for value in weights.values())


def test_precision_is_the_settings_and_not_that_of_accelerate_launch(text, tmp_path, monkeypatch):
    plain = small.train(text, tmp_path / "plain", precision="float32")
    for other in ("bf16", "fp16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", other)
        assert small.train(text, tmp_path / other, precision="float32").train_curve == plain.train_curve


def test_weights_and_gains_are_float32_whatever_the_config_says(text, tmp_path):
    """Most configs of the hub carry bfloat16; AdamW on such weights never moves a gain from 1."""
    small.train(text, tmp_path, model=small.config(dtype="bfloat16"), steps=4, learning_rate=1e-2)
    weights = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert (weights["model.norm.weight"] - 1).abs().max() > 1e-4


def test_weights_in_bfloat16_lose_small_steps(text, tmp_path):
    """What the Mix-LN authors' code does: of a gain at 1 the next number below is 1/256 away, and steps of 0.001 are lost."""
    gains = {}
    for weights in ("float32", "bfloat16"):
        found = small.train(text, tmp_path / weights, weights=weights, steps=4, learning_rate=1e-3, weight_decay=0.0)
        assert found.status in ("finished", "stalled")
        saved = load_file(tmp_path / weights / "checkpoint-4" / "model.safetensors")
        assert {str(value.dtype) for value in saved.values()} == {f"torch.{weights}"}
        gains[weights] = torch.cat([value.float() for name, value in saved.items() if "norm" in name])
    assert (gains["float32"] != 1).float().mean() > 0.9
    assert (gains["bfloat16"] == 1).all()
