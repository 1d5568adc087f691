"""Examples from files: every form that they may have, what is too long, and every mistake with the place where it is."""

from __future__ import annotations

import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from mixln.data.examples import _read, examples, rooms
from mixln.data.settings import ExampleSettings
from mixln.errors import DataError
from tests import decoders


def one(path, kind, tokenizer=None):
    """Every example of a file."""
    return _read(ExampleSettings(data=str(path)), kind, tokenizer or decoders.tokenizer())[1]


COMPLETIONS = [{"prompt": f"count {number}:", "completion": " one two"} for number in range(10)]
PAIRS = [{"prompt": f"count {number}:", "chosen": " one", "rejected": " two"} for number in range(10)]
TALK = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One."}]


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def read(path, kind="completions", *, longest=256, tokenizer=None, **settings):
    chosen = ExampleSettings(data=str(path), **{"held_out_examples": 2, **settings})
    tokenizer = tokenizer or decoders.tokenizer()
    return examples(chosen, kind, tokenizer, rooms(kind, tokenizer, longest))


def test_the_prompt_decides_what_is_held_out(tmp_path):
    path = write(tmp_path / "a.jsonl", COMPLETIONS)
    found = read(path)
    assert len(found.held_out) == 2
    used = [row["prompt"] for row in found.train + found.held_out]
    assert len(set(used)) == len(used)
    assert set(used) <= {f"count {n}:" for n in range(10)}
    fewer = read(path, examples=3)
    assert (fewer.held_out, fewer.train) == (found.held_out, found.train[:3])
    assert fewer.fingerprint != found.fingerprint
    turned = read(write(tmp_path / "b.jsonl", COMPLETIONS[::-1]))
    assert (turned.train, turned.held_out) == (found.train, found.held_out)


def test_what_one_step_holds_out_no_other_learns_from(tmp_path):
    """Completions and pairs of the same prompts, of which other ones are too long, and some are there twice."""
    rows = [{"prompt": f"one {n}:", "completion": " two", "chosen": " two", "rejected": " six"} for n in range(300)]
    for n in range(0, 300, 7):
        rows[n]["rejected"] = " three" * 40
    pairs = read(write(tmp_path / "pairs.jsonl", rows[:200] + rows[:50]), "pairs", longest=24, held_out_examples=12)
    alone = read(write(tmp_path / "all.jsonl", rows), held_out_examples=12)
    held = {row["prompt"] for part in (pairs, alone) for row in part.held_out}
    assert pairs.too_long > 0
    assert not held & {row["prompt"] for part in (pairs, alone) for row in part.train}


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
    found = one(write(tmp_path / "a.jsonl", [row, *COMPLETIONS]), "completions")
    assert {"prompt": prompt, "completion": completion} in found


def test_conversations_that_begin_alike(tmp_path):
    """As in ultrafeedback_binarized."""
    row = {"chosen": TALK, "rejected": [TALK[0], {"role": "assistant", "content": "Two."}], "score_chosen": 9.0}
    found = one(write(tmp_path / "a.jsonl", [row, *PAIRS]), "pairs")
    assert {"prompt": "User: Count.\nAssistant: ", "chosen": "One.", "rejected": "Two."} in found


def test_the_tokenizers_own_template_and_no_second_beginning_of_text(tmp_path):
    tokenizer = type(decoders.tokenizer())(
        tokenizer_object=decoders.tokenizer().backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    found = one(write(tmp_path / "a.jsonl", [{"messages": TALK}, *COMPLETIONS]), "completions", tokenizer)
    assert {"prompt": "[user]Count.\n[assistant]", "completion": "One."} in found
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    with pytest.raises(
        DataError, match=r"line 1: with the tokenizer's chat template, prompt and completion together do not begin"
    ):
        one(tmp_path / "a.jsonl", "completions", tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(
        DataError, match=r"line 1 cannot be formatted with the tokenizer's chat template: no users here"
    ):
        one(tmp_path / "a.jsonl", "completions", tokenizer)


def test_what_is_too_long_is_counted_and_left_out(tmp_path):
    long = [{"prompt": f"one two three {n} " * 40, "completion": " four"} for n in range(30)]
    short = [{"prompt": f"count {n}:", "completion": " one"} for n in range(100)]
    assert 20 < read(write(tmp_path / "a.jsonl", [*long, *short]), longest=24).too_long <= 30
    # Exactly as long as there is room for, with its end of text.
    same = [{"prompt": f"count {n}:", "completion": " one two"} for n in range(10)]
    size = max(len(decoders.tokenizer()(row["prompt"] + row["completion"])["input_ids"]) for row in same) + 1
    assert read(write(tmp_path / "b.jsonl", same), longest=size).too_long == 0
    with pytest.raises(DataError, match=r"are longer than 3 tokens; give more or shorter ones"):
        read(tmp_path / "b.jsonl", longest=3)


def test_the_longer_answer_of_a_pair_counts(tmp_path):
    pairs = [{"prompt": f"a {n}:", "chosen": " one", "rejected": " two" * (40 if n % 2 else 1)} for n in range(100)]
    assert read(write(tmp_path / "a.jsonl", pairs), "pairs", longest=24).too_long > 30


def test_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", "pairs")
    assert 0 < len(found.train) <= 8


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
    (['["a"]'], "completions", "line 1 must be a JSON object, got list; correct or remove it"),
    ([{"messages": []}], "completions", "column 'messages' of data .*line 1 must be text or a list of messages"),
    ([{"messages": TALK[:1]}], "completions", "line 1 must have a prompt and an answer, got one message"),
    ([{"chosen": TALK, "rejected": TALK[1:]}], "pairs", "line 1 must begin with the same message, the prompt"),
    ([{"messages": [{"role": "user"}]}], "completions", "must be text or a list of messages with role and content"),
    (
        [{"chosen": "a", "rejected": "b"}],
        "pairs",
        "line 1 has no column 'prompt'; it has: chosen, rejected; pairs of texts",
    ),
    ([], "completions", "has no examples; name another --data"),
    (COMPLETIONS[:2], "completions", "2 examples leave 0 for training and . of 2 for evaluation; give more"),
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
        ("./none.jsonl", "completions", r"none.jsonl does not exist; give a .jsonl or .gz or .parquet file"),
        (".", "completions", r"data . is a folder"),
        (
            "nobody/nothing",
            "pairs",
            r"'nobody/nothing' is not a local file, and nobody/nothing cannot be loaded from the hub",
        ),
        ("ultrafeedback", "completions", r"ultrafeedback has no completions on the hub"),
    ],
)
def test_what_cannot_be_had(data, kind, words):
    with pytest.raises(DataError, match=words):
        read(data, kind)
