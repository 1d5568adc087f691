"""The tokenizer or image processor beside the weights of every model that is written: it gives what the original gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer, PreTrainedTokenizerBase

from mixln import placed_config
from mixln.cli import main
from mixln.data.preparation import prepare
from mixln.data.settings import ExampleSettings, TextSettings
from mixln.errors import DataError
from mixln.hosts import companions
from mixln.hosts.companions import write_companion
from mixln.hosts.sources import find_model
from mixln.presets import model_config
from mixln.training.settings import PostTrainingSettings
from tests import small

TEXT = "dog<s>and"
"""Before version 4.33, a Llama tokenizer put a space behind a special token; `"legacy": true` keeps it."""


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = [("d", "o"), ("do", "g"), ("▁", "dog"), ("a", "n"), ("an", "d"), ("▁", "and")]
    signs = ["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz.", *(a + b for a, b in merges)]
    return {sign: index for index, sign in enumerate(signs)}, merges


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """A small Llama with an old tokenizer, whose files say so, and files that no tokenizer reads."""
    tokens, merges = vocabulary()
    folder = tmp_path / "llama"
    LlamaTokenizer(vocab=tokens, merges=merges).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "legacy": True}))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "my_token.txt").write_text("a secret")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **sizes)).save_pretrained(folder)
    return folder


def examples(folder: Path) -> ExampleSettings:
    """Forty different prompts and completions."""
    rows = [{"prompt": f"the dog {a}{b}", "completion": f" and {b}{a}"} for a in "abcdefgh" for b in "vwxyz"]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ExampleSettings(data=str(folder / "rows.jsonl"), held_out_examples=8)


def ids(folder: Path) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]


def test_saving_it_anew_would_give_other_tokens(legacy, tmp_path):
    """Why files are copied: transformers drops the entry."""
    AutoTokenizer.from_pretrained(legacy).save_pretrained(tmp_path / "saved")
    assert ids(legacy) != ids(tmp_path / "saved")


@pytest.mark.parametrize("command", [["convert"], ["prune", "--layers", "1"]], ids=lambda command: command[0])
def test_a_model_that_a_command_writes_keeps_its_tokens(command, legacy, tmp_path):
    out = tmp_path / "out"
    assert main([command[0], str(legacy), *command[1:], "--out", str(out)]) == 0
    assert ids(out) == ids(legacy)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (legacy / name).read_bytes()
    assert not (out / "my_token.txt").exists()


@pytest.mark.filterwarnings("default")  # TRL's own
def test_a_fine_tuned_model_keeps_its_tokens_and_its_token_to_pad_with(legacy, tmp_path):
    pytest.importorskip("trl")
    from mixln.training.post_training import finetune_step

    settings = PostTrainingSettings(steps=1, batch_size=2, precision="float32")
    source = find_model(str(legacy), cache=tmp_path)
    assert AutoTokenizer.from_pretrained(legacy).pad_token is None
    finetune_step(
        source,
        examples(tmp_path),
        settings,
        tmp_path / "out",
        seed=0,
    )
    model = tmp_path / "out" / "model"
    assert ids(model) == ids(legacy)
    assert AutoTokenizer.from_pretrained(model).pad_token == "</s>"
    assert json.loads((model / "tokenizer_config.json").read_text())["legacy"] is True


def test_a_text_and_a_model_trained_on_it_keep_the_tokens_of_a_named_tokenizer(legacy, tmp_path):
    small.write_folder(tmp_path / "text", small.documents())
    settings = TextSettings(data=str(tmp_path / "text"), tokenizer=str(legacy), sequence_length=16, held_out=0.1)
    text = prepare(settings, vocabulary_size=300, tokens=1000, cache=tmp_path / "cache")
    assert text.tokenizer()(TEXT)["input_ids"] == ids(legacy)
    small.train(text, tmp_path / "run", steps=1, batch_size=2)
    assert ids(tmp_path / "run" / "checkpoint-1") == ids(legacy)


def test_the_class_that_only_the_config_of_the_model_tells_is_written_down(legacy, tmp_path):
    """A placed model has another `model_type`, and a text no config at all."""
    settings = json.loads((legacy / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (legacy / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(legacy)
    (tmp_path / "out").mkdir()
    write_companion(tokenizer, tmp_path / "out", origin=str(legacy))
    assert ids(tmp_path / "out") == ids(legacy)


def test_a_tokenizer_that_would_change_is_refused_and_nothing_is_written(legacy, tmp_path, monkeypatch, capsys):
    read = companions._read

    def other(companion: Any, folder: Path) -> Any:
        found = read(companion, folder)
        found.add_tokens(["dog"])
        return found

    monkeypatch.setattr(companions, "_read", other)
    assert main(["prune", str(legacy), "--layers", "1", "--out", str(tmp_path / "out")]) == 2
    assert 'cannot be written without change: "The dog ' in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama"]


def test_a_tokenizer_that_would_change_shows_before_a_training(legacy, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    from mixln.training import finetune
    from mixln.training.post_training import finetune_step

    monkeypatch.setattr(companions, "_difference", lambda *_: "it changes")
    monkeypatch.setattr(finetune, "load", lambda *_, **__: pytest.fail("the training began"))
    source = find_model(str(legacy), cache=tmp_path)
    with pytest.raises(DataError, match="cannot be written without change: it changes"):
        finetune_step(
            source,
            examples(tmp_path),
            PostTrainingSettings(steps=1),
            tmp_path / "out",
            seed=0,
        )


def test_an_image_processor_is_copied_too(tmp_path):
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    transformers.ViTForImageClassification(transformers.ViTConfig(**sizes)).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "vit")
    path = tmp_path / "vit" / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_its_author": 7}))
    assert main(["prune", str(tmp_path / "vit"), "--layers", "1", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_tokenizer_that_was_made_here_is_saved(tmp_path):
    tokenizer: PreTrainedTokenizerBase = small.prepared(tmp_path).tokenizer()
    (tmp_path / "out").mkdir()
    write_companion(tokenizer, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("preset", ["tiny", "olmoe-tiny", "qwen2-tiny", "smollm3-tiny", "gemma2-tiny"])
def test_a_tokenizer_that_was_made_here_is_read_beside_every_preset(tmp_path, preset):
    """transformers does not believe the tokenizer class in the files of some families, such as Qwen2."""
    tokenizer: PreTrainedTokenizerBase = small.prepared(tmp_path).tokenizer()
    (tmp_path / "out").mkdir()
    write_companion(tokenizer, tmp_path / "out", config=placed_config(model_config(preset), placement="pre"))
    read = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert read(companions.PROBE)["input_ids"] == tokenizer(companions.PROBE)["input_ids"]
