"""Examples from files: every form that they may have, what is too long, and every mistake with the place where it is."""

from __future__ import annotations

import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from mixln.data.examples import examples
from mixln.data.settings import ExampleSettings
from mixln.errors import DataError
from tests import decoders

COMPLETIONS = [{"prompt": f"count {number}:", "completion": " one two"} for number in range(10)]
PAIRS = [{"prompt": f"count {number}:", "chosen": " one", "rejected": " two"} for number in range(10)]
TALK = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One."}]


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def read(path, kind="completions", *, longest=256, tokenizer=None, **settings):
    chosen = ExampleSettings(data=str(path), **{"held_out_examples": 2, **settings})
    return examples(chosen, kind, tokenizer or decoders.tokenizer(), longest=longest)


def test_they_are_shuffled_once_and_for_all_and_held_out_first(tmp_path):
    path = write(tmp_path / "a.jsonl", COMPLETIONS)
    found = read(path)
    assert len(found.held_out) == 2
    assert sorted(row["prompt"] for row in found.train + found.held_out) == [f"count {n}:" for n in range(10)]
    assert found == read(path)
    fewer = read(path, examples=3)
    assert (fewer.held_out, fewer.train) == (found.held_out, found.train[:3])
    assert fewer.fingerprint != found.fingerprint


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"instruction": "Add.", "input": "1 + 1", "output": "2"}, "Add.\n\n1 + 1\n\n", "2"),
        ({"instruction": "Add.", "output": "2"}, "Add.\n\n", "2"),
        ({"messages": TALK}, "User: Count.\nAssistant: ", "One."),
        ({"prompt": TALK[:1], "completion": TALK[1:]}, "User: Count.\nAssistant: ", "One."),
    ],
)
def test_forms_of_completions(tmp_path, row, prompt, completion):
    found = read(write(tmp_path / "a.jsonl", [row] * 3))
    assert found.train == [{"prompt": prompt, "completion": completion}]


def test_conversations_that_begin_alike(tmp_path):
    """As in ultrafeedback_binarized."""
    row = {"chosen": TALK, "rejected": [TALK[0], {"role": "assistant", "content": "Two."}], "score_chosen": 9.0}
    found = read(write(tmp_path / "a.jsonl", [row] * 3), "pairs")
    assert found.train == [{"prompt": "User: Count.\nAssistant: ", "chosen": "One.", "rejected": "Two."}]


def test_the_tokenizers_own_template_and_no_second_beginning_of_text(tmp_path):
    tokenizer = type(decoders.tokenizer())(
        tokenizer_object=decoders.tokenizer().backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    found = read(write(tmp_path / "a.jsonl", [{"messages": TALK}] * 3), tokenizer=tokenizer)
    assert found.train == [{"prompt": "[user]Count.\n[assistant]", "completion": "One."}]


def test_what_is_too_long_is_counted_and_left_out(tmp_path):
    long = {"prompt": "one two three " * 40, "completion": " four"}
    found = read(write(tmp_path / "a.jsonl", [*COMPLETIONS, long, long]), longest=24)
    assert (len(found.train) + len(found.held_out), found.too_long) == (10, 2)
    # Exactly as long as there is room for, with its end of text.
    size = len(decoders.tokenizer()("count 3: one two")["input_ids"]) + 1
    assert read(write(tmp_path / "b.jsonl", [COMPLETIONS[3]] * 4), longest=size).too_long == 0
    with pytest.raises(
        DataError,
        match=rf"0 examples are left, for 4 are longer than the {size - 1} tokens that the model has room for",
    ):
        read(tmp_path / "b.jsonl", longest=size - 1)


def test_the_longer_answer_of_a_pair_counts(tmp_path):
    pair = {"prompt": "count:", "chosen": " one", "rejected": " two" * 40}
    assert read(write(tmp_path / "a.jsonl", [*PAIRS, pair]), "pairs", longest=24).too_long == 1


def test_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), tmp_path / "a.parquet")
    assert len(read(tmp_path / "a.parquet", "pairs").train) == 8


MISTAKES = [
    ([COMPLETIONS[0], '{"prompt": "a", '], "completions", "a.jsonl line 2 is not JSON: Expecting property name"),
    (
        [COMPLETIONS[0], {"prompt": "a"}],
        "completions",
        "line 2 has no column 'completion'; it has: prompt; completions need",
    ),
    (
        [{"text": "a"}],
        "pairs",
        "line 1 has no column 'prompt'; it has: text; pairs need prompt . chosen . rejected or chosen",
    ),
    ([{"prompt": "a", "completion": 3}], "completions", "column 'completion' of data .*line 1 must be text, got int"),
    (['["a"]'], "completions", "line 1 has no column 'prompt'; it has: none"),
    ([{"messages": []}], "completions", "column 'messages' of data .*line 1 must be text or a list of messages"),
    ([{"messages": [{"role": "user"}]}], "completions", "must be text or a list of messages with role and content"),
    (
        [{"chosen": "a", "rejected": "b"}],
        "pairs",
        "line 1 has no column 'prompt'; it has: chosen, rejected; pairs of texts",
    ),
    ([], "completions", "0 examples are left, and 2 of them are to be held out"),
    (COMPLETIONS[:2], "completions", "2 examples are left, and 2 of them are to be held out; give more"),
]


@pytest.mark.parametrize(("rows", "kind", "words"), MISTAKES)
def test_mistakes_are_one_line_and_name_the_place(tmp_path, rows, kind, words):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "a.jsonl", rows), kind)
    assert re.search(words, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ("./none.jsonl", "completions", r"none.jsonl does not exist; give a .jsonl or .parquet file"),
        (".", "completions", r"data . is a folder"),
        ("nobody/nothing", "pairs", r"'nobody/nothing' is no local file, and the hub did not give nobody/nothing"),
        ("ultrafeedback", "completions", r"ultrafeedback has no completions on the hub"),
    ],
)
def test_what_cannot_be_had(data, kind, words):
    with pytest.raises(DataError, match=words):
        read(data, kind)
