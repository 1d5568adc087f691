"""`mixln pretrain --from`: a checkpoint trained further, resumed to the bit, and loaded by transformers alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, LlamaForSequenceClassification, MixtralConfig, MixtralForCausalLM

import mixln
from mixln.cli import main
from mixln.compare.continuation import continue_training
from mixln.compare.settings import PretrainSettings
from mixln.data.settings import TextSettings
from mixln.data.text import Text
from mixln.hosts.sources import find_model, load
from mixln.nn.ramp import step_of
from mixln.runs.metrics import read_metrics
from mixln.training.settings import EngineSettings, TrainSettings
from tests import decoders, small, tiny
from tests.training.tuned import cut_at, source

pytestmark = pytest.mark.long

PLAIN = """
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = model(torch.tensor([[1, 2, 3, 4]])).logits
assert "mixln" not in sys.modules
print(json.dumps([type(model).__name__, len(tokenizer), logits.sum().item()]))
"""


def settings(folder, out="out", **changes):
    if not (folder / "text").exists():
        small.write_folder(folder / "text", small.documents())
    engine = EngineSettings(checkpoint_seconds=changes.pop("checkpoint_seconds", 1e9))
    training = {"steps": 8, "batch_size": 4, "precision": "float32", "evaluations": 2, **changes}
    return PretrainSettings(
        out=folder / out,
        cache=folder / "cache",
        learning_rate=3e-3,
        text=TextSettings(data=str(folder / "text"), sequence_length=16, held_out=0.1),
        training=TrainSettings(**training),
        engine=engine,
    )


def held_out_loss(model, folder) -> float:
    """−Σ log p of the held-out tokens, each from those before it in its window, divided by their number."""
    (place,) = (folder / "cache/text").glob("*/info.json")
    total, count = 0.0, 0
    for row in Text.load(place.parent).held_out:
        with torch.no_grad():
            logs = model(row["input_ids"][None], use_cache=False).logits[0].log_softmax(dim=-1)
        for before, label in enumerate(row["labels"][1:].tolist()):
            if label != -100:
                total -= logs[before, label].item()
                count += 1
    return total / count


@pytest.mark.parametrize("placement", ["mix(0.5)", "hybrid*", "prores(20)+pre", "ngpt", None])
def test_the_loss_starts_at_that_of_the_checkpoint_and_falls(tmp_path, placement):
    model = source(tmp_path, placement)
    found = continue_training(model, settings(tmp_path))
    assert [step for step, _ in found.eval_curve] == [0, 4, 8]
    assert found.eval_curve[0][1] == pytest.approx(held_out_loss(load(model), tmp_path), rel=1e-5)
    trained = find_model(str(tmp_path / "out/model"), cache=tmp_path)
    assert found.loss == pytest.approx(held_out_loss(load(trained), tmp_path), rel=1e-5)
    assert found.loss < 0.95 * found.eval_curve[0][1]
    assert (found.step, found.tokens) == (8, 8 * 4 * 16)
    assert bool(found.residual_variance) == (placement is not None)
    assert len(found.gradient_norms[0].attention) == 3
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "out/model"))
    assert before == after


def test_branches_that_grow_go_on_from_the_step_of_the_checkpoint(tmp_path):
    model = mixln.from_config(tiny.tiny_config(vocab_size=300, eos_token_id=0), placement="prores(20)+pre")
    mixln.set_step(model, 15)
    model.save_pretrained(tmp_path / "model")
    decoders.tokenizer().save_pretrained(tmp_path / "model")
    first = source(tmp_path)
    with cut_at(5):
        continue_training(first, settings(tmp_path, checkpoint_seconds=0))
    continue_training(first, settings(tmp_path, checkpoint_seconds=0))
    assert step_of(load(find_model(str(tmp_path / "out/model"), cache=tmp_path))) == 15 + 8


def stock_experts(folder):
    """A stock mixture of experts, whose weights have other names in memory than in files."""
    config = MixtralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, eos_token_id=0, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    MixtralForCausalLM(config).save_pretrained(folder / "model")
    decoders.tokenizer().save_pretrained(folder / "model")
    return find_model(str(folder / "model"), cache=folder / "cache")


@pytest.mark.parametrize("made", [source, lambda folder: source(folder, None), stock_experts])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch, made):
    model = made(tmp_path)
    whole = continue_training(model, settings(tmp_path, "whole"))
    with cut_at(6):
        continue_training(model, settings(tmp_path, "cut", checkpoint_seconds=0))
    resumed = []
    train = transformers.Trainer.train
    monkeypatch.setattr(
        transformers.Trainer, "train", lambda self, **k: resumed.append(k["resume_from_checkpoint"]) or train(self, **k)
    )
    cut = continue_training(model, settings(tmp_path, "cut", checkpoint_seconds=0))
    assert resumed[0].endswith("checkpoint-5")
    assert (cut.train_curve, cut.eval_curve) == (whole.train_curve, whole.eval_curve)
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    stored = load_file(tmp_path / "model/model.safetensors")
    assert one.keys() == other.keys() == stored.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list((tmp_path / "cut/checkpoints").glob("checkpoint-*"))
    assert continue_training(model, settings(tmp_path, "cut")) == cut  # nothing is trained again
    assert len(resumed) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stock_model_loads_with_transformers_alone(tmp_path, dtype):
    """From the command line; config and number format are the checkpoint's."""
    decoders.save(tmp_path / "model", None)
    made = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=dtype)
    made.save_pretrained(tmp_path / "model")
    assert main(command(tmp_path)) == 0
    out = tmp_path / "out/model"
    result = subprocess.run([sys.executable, "-c", PLAIN, str(out)], capture_output=True, text=True, check=True)
    name, tokens, total = json.loads(result.stdout)
    assert (name, tokens) == ("LlamaForCausalLM", 300)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "model", out))
    assert before == after
    weights = load_file(out / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert weights.keys() == load_file(tmp_path / "model/model.safetensors").keys()
    with torch.no_grad():
        first = made(torch.tensor([[1, 2, 3, 4]])).logits.sum().item()
    assert abs(total - first) > 1e-3  # it has learned


def test_diagnose_reads_the_result(tmp_path, capsys):
    decoders.save(tmp_path / "model")
    assert main(command(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "Held-out loss 6." in said
    assert "in 4 steps, 256 tokens" in " ".join(said.split())
    measured = ["--no-drop", "--tokens", "256", "--gradient-tokens", "256", "--sequence-length", "64"]
    out = ["--out", str(tmp_path / "diagnosis"), "--cache", str(tmp_path / "cache")]
    assert main(["diagnose", str(tmp_path / "out/model"), *measured, *out]) == 0


def command(folder, *more: str) -> list[str]:
    if not (folder / "text").exists():
        small.write_folder(folder / "text", small.documents())
    return [
        *("pretrain", "--from", str(folder / "model"), "--data", str(folder / "text"), "--cache", str(folder / "cache")),
        *("--held-out", "0.1", "--sequence-length", "16", "--batch-size", "4", "--steps", "4", "--precision", "float32"),
        *("--learning-rate", "1e-2", "--out", str(folder / "out"), *more),
    ]  # fmt: skip


def refused(folder, capsys, *more: str) -> str:
    """The message of a refusal; nothing has been written to the folder."""
    assert main(command(folder, *more)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not (folder / "out").exists()
    return line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "tiny"),  # the default too
        ("placement", "post"),
        ("layers", "2"),
        ("init", "normal"),
        ("tokenizer", "gpt2"),
        ("vocabulary-size", "300"),
    ],
)
def test_what_the_checkpoint_decides_cannot_be_given(tmp_path, capsys, option, value):
    line = refused(tmp_path, capsys, f"--{option}", value)
    assert (
        line
        == f"mixln: {option} and from: the checkpoint decides the {option}; omit --{option}, or train without --from"
    )


def test_an_experiment_is_not_extended_by_a_checkpoint(tmp_path, capsys):
    assert "only an experiment can be extended; omit --extend" in refused(tmp_path, capsys, "--extend")


def test_models_that_are_not_language_models_are_refused(tmp_path, capsys):
    sizes = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    classifier = LlamaForSequenceClassification(tiny.tiny_config(vocab_size=300))
    for model in (classifier, BertForMaskedLM(BertConfig(**sizes))):
        model.save_pretrained(tmp_path / "model")
        assert "is not a decoder with a language-modelling head; name one that is" in refused(tmp_path, capsys)


def test_multimodal_models_adapters_and_quantized_models_are_refused(tmp_path, capsys):
    decoders.save(tmp_path / "model", None)
    config = tmp_path / "model/config.json"
    entries = json.loads(config.read_text())

    config.write_text(json.dumps({**entries, "quantization_config": {"quant_method": "gptq", "bits": 4}}))
    assert "is quantized, and quantized weights cannot be trained; name the model" in refused(tmp_path, capsys)

    text = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    both = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "llama", **text},
    }
    config.write_text(json.dumps(both))
    assert "also takes images, and cannot be trained here; name one that takes text only" in refused(tmp_path, capsys)

    config.write_text(json.dumps(entries))
    (tmp_path / "model/adapter_config.json").write_text("{}")
    assert "has an adapter in the same folder (adapter_config.json)" in refused(tmp_path, capsys)


def test_sequences_longer_than_the_positions_are_refused(tmp_path, capsys):
    decoders.save(tmp_path / "model", max_position_embeddings=12)
    line = refused(tmp_path, capsys)
    assert line == f"mixln: sequence-length must be at most 12, the positions of model {tmp_path}/model, got 16"


def test_what_is_for_placed_models_only_is_refused_for_stock_ones(tmp_path, capsys):
    decoders.save(tmp_path / "model", None)
    assert "; use --parallel ddp" in refused(tmp_path, capsys, "--parallel", "fsdp")
    assert "; use --compile auto" in refused(tmp_path, capsys, "--compile", "on")


def test_missing_models_tokenizers_and_weights_are_refused(tmp_path, capsys):
    assert "does not exist" in refused(tmp_path, capsys)
    decoders.save(tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in refused(tmp_path, capsys)
    decoders.save(tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    weights.pop("model.norm.weight")
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    assert "weight model.norm.weight is missing" in refused(tmp_path, capsys)


def test_another_request_or_another_run_in_the_folder_is_refused(tmp_path, capsys):
    decoders.save(tmp_path / "model")
    assert main(command(tmp_path)) == 0
    rows = read_metrics(tmp_path / "out/checkpoints/metrics.jsonl")
    assert main(command(tmp_path)) == 0
    assert main(command(tmp_path, "--seed", "1")) == 2
    assert "holds another continued training: seed" in capsys.readouterr().err
    decoders.save(tmp_path / "model", seed=1)  # other weights under the same name
    assert main(command(tmp_path)) == 2
    assert "holds another continued training: model" in capsys.readouterr().err
    assert read_metrics(tmp_path / "out/checkpoints/metrics.jsonl") == rows


def test_a_text_in_other_tokens_is_refused(tmp_path, capsys):
    decoders.save(tmp_path / "model")
    small.write_folder(tmp_path / "raw", small.documents())
    prepared = [
        *("data", "prepare", "--data", str(tmp_path / "raw"), "--out", str(tmp_path / "text"), "--tokens", "4000"),
        *("--sequence-length", "16", "--held-out", "0.1", "--vocabulary-size"),
    ]
    assert main([*prepared, "280"]) == 0
    capsys.readouterr()
    assert "is tokenized with another tokenizer than that of model" in refused(tmp_path, capsys)


@pytest.mark.parametrize(("placement", "parallel"), [("mix(0.5)", "fsdp"), (None, "ddp")])
def test_two_processes_train_the_same_model_as_one(tmp_path, placement, parallel):
    decoders.save(tmp_path / "model", placement)
    assert main(command(tmp_path)) == 0
    (tmp_path / "out").rename(tmp_path / "one")
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mixln"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, *together, *command(tmp_path, "--parallel", parallel)]
    subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=300)
    one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "out"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
