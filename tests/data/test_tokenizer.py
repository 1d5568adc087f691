"""The vocabulary: byte-level BPE trained on the training part only, or a tokenizer that the user names."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.data.tokenizer import END_OF_TEXT, named_tokenizer
from mixln.errors import DataError
from tests import small

HELD_OUT = 20
"""Of 40 documents at a share of 0.025, the one that is held out."""


def texts_with(word: str, *, at: int) -> list[str]:
    """The small text with one document that consists of a word that stands nowhere else."""
    texts = small.documents()
    texts[at] = " ".join([word] * 80)
    return texts


def vocabulary(folder, texts) -> dict:
    """What tokenizer.json holds of the trained BPE: its tokens and merges."""
    text = small.prepared(folder, texts=texts, held_out=0.025)
    return json.loads((text.folder / "tokenizer" / "tokenizer.json").read_text("utf-8"))["model"]


def test_a_word_of_the_held_out_text_alone_is_not_learnt(tmp_path):
    tokens = vocabulary(tmp_path, texts_with("zyzzyva", at=HELD_OUT))["vocab"]
    assert [token for token in tokens if "zy" in token] == []
    assert "Ġthree" in tokens


def test_a_word_of_the_training_text_is_learnt(tmp_path):
    tokens = vocabulary(tmp_path, texts_with("zyzzyva", at=HELD_OUT + 1))["vocab"]
    assert [token for token in tokens if "zy" in token] != []


def test_the_vocabulary_does_not_depend_on_the_held_out_text(tmp_path):
    one = vocabulary(tmp_path / "one", texts_with("zyzzyva", at=HELD_OUT))
    other = vocabulary(tmp_path / "other", texts_with("xylograph", at=HELD_OUT))
    assert one == other


def test_the_vocabulary_has_the_size_that_is_asked_for(tmp_path):
    text = small.prepared(tmp_path, vocabulary_size=280)
    assert text.info.vocabulary_size == len(text.tokenizer()) == 280


def test_the_vocabulary_is_the_models_where_none_is_asked_for(tmp_path):
    assert small.prepared(tmp_path).info.vocabulary_size == 300


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small.prepared(tmp_path_factory.mktemp("tokenizer")).tokenizer()


@given(text=st.text(max_size=60).filter(lambda text: END_OF_TEXT not in text))
def test_decoding_gives_back_any_unicode(tokenizer, text):
    text = text.encode("utf-8", "replace").decode("utf-8")
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    "text", ["one two", "naïve café – 日本語", "🙂🙃 \u200b\u0301", " two  blanks ,", "\r\n\t\x00"]
)
def test_decoding_gives_back_chosen_unicode(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_end_of_text_is_one_token(tokenizer):
    assert tokenizer.encode(END_OF_TEXT, add_special_tokens=False) == [tokenizer.eos_token_id]
    assert tokenizer.eos_token == tokenizer.pad_token == END_OF_TEXT


def test_a_named_tokenizer_is_used_as_it_is(tmp_path):
    trained = small.prepared(tmp_path)
    named = small.prepared(tmp_path, tokenizer=str(trained.folder / "tokenizer"))
    assert named.folder != trained.folder
    assert named.info.vocabulary_size == trained.info.vocabulary_size
    assert named.train[:]["input_ids"].tolist() == trained.train[:]["input_ids"].tolist()
    assert named.held_out[:]["labels"].tolist() == trained.held_out[:]["labels"].tolist()


def test_a_named_tokenizer_is_not_trained_on_the_text(tmp_path):
    other = small.prepared(tmp_path / "other", texts=["zyzzyva xylograph " * 60] * 4)
    text = small.prepared(tmp_path / "small", tokenizer=str(other.folder / "tokenizer"))
    assert "Ġzyzzyva" in text.tokenizer().get_vocab()
    assert "Ġthree" not in text.tokenizer().get_vocab()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tokenizer.json", "is a file; name its folder, or a hub id"),
        ("config.json", "is a file; name its folder, or a hub id"),
        ("no-such.json", "does not exist; name a folder or a hub id that holds one"),
        ("./nothing", "does not exist"),
        ("a/b/c", "does not exist"),
        ("nobody/nothing", "cannot be loaded: "),
    ],
)
def test_a_tokenizer_that_is_none_is_one_line_at_once(name, said, tmp_path, monkeypatch, capfd):
    """The hub is not asked for files and paths, and once for the rest."""
    small.prepared(tmp_path).tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        named_tokenizer(name)
    assert f"tokenizer {name!r} {said}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("entry", ["model_max_length", "padding_side"])
def test_a_tokenizer_with_an_entry_of_a_wrong_type_is_one_line(entry, tmp_path):
    folder = tmp_path / "tokenizer"
    small.prepared(tmp_path).tokenizer().save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, entry: "\x1b[2J"}))
    with pytest.raises(DataError, match="cannot be loaded: ") as caught:
        named_tokenizer(str(folder))
    assert "\n" not in str(caught.value)
