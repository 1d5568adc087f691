"""Every number that a command takes has bounds, and what lies beyond them is one line, whatever its size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from mixln.bounds import Range, found_in, short
from mixln.cli import Others, main
from mixln.cli.compare import COMMANDS as COMPARE
from mixln.cli.pretrain import Pretrain
from mixln.compare.settings import CompareSettings
from mixln.data.settings import TextSettings
from mixln.errors import SettingsError
from mixln.training.settings import TrainSettings

LONG = 10**400
COMMANDS = {
    **{f"compare --task {name}": command for name, command in COMPARE.items()},
    "pretrain": Pretrain,
} | {get_args(each)[1].name: get_args(each)[0] for each in get_args(Others)}
NEEDED: dict[str, Any] = {
    "models": ("x",),
    "model": "x",
    "reward_model": "x",
    "out": Path("x"),
    "action": "prepare",
    "tokens": 10**6,
    "data": "x",
    "recipe": "table1",
    "layers": "1",
    "placement": "pre",
}


def parts(kind: Any) -> Iterator[type[Any]]:
    """The records of settings in a type, with those within them."""
    if dataclasses.is_dataclass(kind):
        yield kind  # type: ignore[misc]
        hints = get_type_hints(kind)
        for item in dataclasses.fields(kind):
            yield from parts(hints[item.name])
    for inner in get_args(kind):
        yield from parts(inner)


KINDS = sorted({kind for command in COMMANDS.values() for kind in parts(command)}, key=lambda kind: kind.__qualname__)


def numbers(kind: type[Any]) -> Iterator[tuple[str, type[Any], bool, list[Range]]]:
    """Name, `int` or `float`, whether there are several, and bounds of every number of a record."""
    plain, whole = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    for item in dataclasses.fields(kind):
        inner = {plain[item.name], *get_args(plain[item.name])}
        for number in (int, float):
            if number in inner:
                yield (
                    item.name,
                    number,
                    tuple in {type(None), *map(_origin, [plain[item.name]])},
                    list(found_in(whole[item.name])),
                )


def _origin(kind: Any) -> Any:
    return getattr(kind, "__origin__", None)


EVERY = [(kind, *each) for kind in KINDS for each in numbers(kind)]
IDS = [f"{kind.__name__}.{name}" for kind, name, *_ in EVERY]


def test_there_are_many() -> None:
    assert len(KINDS) > 25
    assert len(EVERY) > 100


@pytest.mark.parametrize(("kind", "name", "number", "several", "bounds"), EVERY, ids=IDS)
def test_every_number_has_bounds_that_are_checked(kind, name, number, several, bounds) -> None:
    (bound,) = bounds
    assert -math.inf < bound.least <= bound.most < math.inf
    needed = {
        item.name: NEEDED[item.name]
        for item in dataclasses.fields(kind)
        if item.name in NEEDED and item.default is item.default_factory
    }
    beyond = [LONG, -LONG] if number is int else [math.inf, -math.inf, math.nan, 1e308, -1e308]
    for value in beyond:
        with pytest.raises(SettingsError, match=rf"^{name.replace('_', '-')} must ") as caught:
            kind(**(needed | {name: (value,) if several else value}))
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare --layers 10000", "layers must be at most 1,024, got 10000"),
        ("compare --steps 1000000000000000", "steps must be at most 1,000,000,000, got 1000000000000000"),
        ("compare --vocabulary-size 1000000000000", "vocabulary-size must be at most 1,000,000, got 1000000000000"),
        ("plan --sequence-length 100000000", "sequence-length must be at most 10,000,000 tokens, got 100000000"),
        ("plan --batch-size 1000000000000000", "batch-size must be at most 10,000,000, got 1000000000000000"),
        ("plan --sequence-length 10000000", "micro-batch-size × sequence-length must be at most 1,048,576 tokens"),
        ("plan --batch-size 10000000", "micro-batch-size × sequence-length must be at most 1,048,576 tokens"),
        ("finetune x --lora 1000000000", "lora must be at most 100,000, got 1000000000"),
        ("diagnose x --memory-gb 1e308", "memory-gb must be at most 1,000,000, got 1e+308"),
        ("compare --chain rlhf --rlhf.new-tokens 1000000000000", "rlhf.new-tokens must be at most 10,000,000"),
        (f"compare --tokens {LONG}", "tokens must be at most 1,000,000,000,000,000, got a number of about 400 digits"),
        (f"compare --seeds 0 {LONG}", "seeds must lie in [0, 2³²), got a number of about 400 digits"),
        (f"plan --trials {LONG}", "trials must be at most 1,000,000,000, got a number of about 400 digits"),
        ("compare --steps " + "9" * 5000, "--steps cannot be "),
        (f"compare --learning-rates {LONG}", "learning-rates must be above 0, got inf"),
        (f"compare --placements mix({LONG})", "mix("),
        (f"compare --placements pre*{LONG}", "placement 'pre*1"),
        ("compare --placements mix(1e308)", "mix(1e308): α must be a number such as 0.25"),
        (f"compare --placements mix({'9' * 5000})", "mix(999"),
        (f"prune x --out y --layers 1-{LONG}", "layers must look like 3,7,21-24"),
        ("prune x --out y --layers 1-" + "9" * 5000, "layers must look like 3,7,21-24"),
        (
            "compare --tokens 1000000000000000 --batch-size 1 --sequence-length 2",
            "tokens must make at most 1,000,000,000 steps",
        ),
        (f"tune --trials {LONG}", "trials must be at most"),
        (f"stress --depths {LONG}", "depths must be at most 1,024"),
        (f"placements show pre --layers {LONG}", "layers must be at most 1,024"),
    ],
    ids=lambda text: text[:60],
)
def test_a_number_beyond_its_bounds_is_one_line(capsys, tmp_path, monkeypatch, line, said) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(line.split())
    except SystemExit as stop:
        code = stop.code
    found = capsys.readouterr().err
    assert code == 2
    assert found.startswith(f"mixln: {said}")
    assert found.count("\n") == 1
    assert len(found) < 1100
    assert list(tmp_path.iterdir()) == []


def test_what_a_cluster_trains_is_within() -> None:
    """Fifteen trillion tokens in batches of sixteen million."""
    text = TextSettings(sequence_length=8192, vocabulary_size=256_000)
    training = TrainSettings(tokens=15 * 10**12, batch_size=2048, micro_batch_size=1)
    assert CompareSettings(text=text, training=training, layers=1000).steps == 894_070


def test_a_number_that_fills_a_line_is_counted() -> None:
    assert short(10**19) == "10000000000000000000"
    assert short(-LONG) == "a number of about 400 digits"
    assert short(1e308) == "1e+308"
