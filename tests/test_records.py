"""The codec: every stored record there and back, what is refused by its path, and the files of the version before."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixln
from mixln.compare import former as chain_former
from mixln.compare.results import ChainResult, Summary
from mixln.compare.settings import CompareSettings, PretrainSettings, VisionCompareSettings
from mixln.compare.store import EXPERIMENT_RUN, Experiment
from mixln.data.image_dataset import ImagesInfo
from mixln.data.settings import ImageSettings, TextSettings
from mixln.data.shards import DuplicateDocuments
from mixln.data.stream import Position
from mixln.data.text import TextInfo
from mixln.diagnostics.results import DIAGNOSES, Diagnoses, Diagnosis
from mixln.errors import RecordError, SettingsError, UnknownEntry
from mixln.evaluation.results import EVALUATION, Evaluation, Score
from mixln.hosts.verify import Verification
from mixln.placement import Placement, placement
from mixln.recipes.results import AS_PUBLISHED, REPRODUCTION, DeviationStudy, Reproduction
from mixln.records import OPTIONAL, Partial, Sparse, derived, difference, from_json, read_json, to_json, unreadable
from mixln.runs.checkpoints import MetricsPrefix
from mixln.runs.outcome import Outcome, PostTrainingOutcome
from mixln.runs.trials import StoredTrial, TrialResult
from mixln.search.proxy_trials import Proposal
from mixln.search.results import SEARCH, STRESS, Search, Stress
from mixln.training.settings import TrainSettings
from tests.tiny import EVERY

STORED = Path(__file__).parent / "stored"
"""Files that the version before this codec wrote."""
PAPERS = Path(__file__).parents[1] / "docs/papers"
"""Files of several versions, some before entries were added."""
ROOTS: dict[type, tuple[str, ...]] = {
    DeviationStudy: ("table1.as-published.json",),
    ChainResult: ("chain.json",),
    Diagnoses: ("diagnosis.json",),
    Diagnosis: (),
    DuplicateDocuments: (),
    Evaluation: ("evaluation.json",),
    Experiment: ("experiment-language.json", "experiment-vision.json"),
    ImagesInfo: ("images-info.json",),
    Placement: ("config.json",),
    Position: ("position.json",),
    Proposal: ("proposal.json",),
    Reproduction: ("hybridnorm-init.json", "table1.json", "table4.json", "table8.json"),
    MetricsPrefix: (),
    Score: ("score.json",),
    Search: ("tune.json",),
    StoredTrial: ("trial.json", "trial-of-a-search.json"),
    Stress: ("stress.json",),
    Summary: ("results-language.json", "results-vision.json"),
    TextInfo: ("text-info.json", "prepared-text-info.json", "streamed-text-info.json"),
    TrialResult: ("trial-result.json",),
    Verification: (),
    Outcome: ("continuation-result.json",),
    PostTrainingOutcome: ("finetune-result.json", "rlhf-result.json"),
}
"""Every record that is stored → files with one."""
ENTRY = {ChainResult: "result", Placement: "placement", Score: "score"}
"""Records that are an entry of their file."""
UPGRADES: dict[type, Callable[[Any], Any]] = {
    ChainResult: chain_former.chain_result,
    Experiment: EXPERIMENT_RUN.request.upgrades[0],
    **{schema.record: schema.upgrades[0] for schema in (DIAGNOSES, EVALUATION, SEARCH, STRESS)},
}
"""Records that had another form in version 1 → what turns that into theirs."""
FILES = [(kind, name) for kind, names in ROOTS.items() for name in names]
SETTINGS = (CompareSettings, ImageSettings, PretrainSettings, TextSettings, TrainSettings, VisionCompareSettings)
"""Settings that are read back out of an experiment."""


def stored(kind: type, name: str) -> Any:
    path = next(path for path in (STORED / name, PAPERS / name) if path.is_file())
    data = json.loads(path.read_text("utf-8"))
    former = not isinstance(data.pop("schema", None), str)  # which says what the file is, and is no entry of the record
    entries = data[ENTRY[kind]] if kind in ENTRY else data
    return UPGRADES[kind](entries) if former and kind in UPGRADES else entries


def nested(kind: Any) -> Iterator[type]:
    """The record classes in a type, itself first."""
    if is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for inner in get_type_hints(kind).values():
            yield from nested(inner)
    for inner in get_args(kind):
        yield from nested(inner)


# There and back


def plain(value: Any) -> Any:
    """As a file has it."""
    return json.loads(json.dumps(value.to_json() if isinstance(value, Placement) else to_json(value), allow_nan=False))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
VALID: dict[type, st.SearchStrategy[Any]] = {
    Placement: st.builds(placement, st.sampled_from(EVERY), st.just(3)),
    TextSettings: st.sampled_from([TextSettings(), TextSettings(data="c4:en", tokenizer="folder", streaming=True)]),
}
"""Records that check their own values."""
PLAIN = {Any: JSON, object: JSON, bool: st.booleans(), int: st.integers(), str: st.text(), NoneType: st.none()}


def values(kind: Any, floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    """Values of a type."""
    if kind is float:
        return floats
    if kind in PLAIN or kind in VALID:
        return {**PLAIN, **VALID}[kind]
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return st.builds(kind, **{item.name: values(types[item.name], floats) for item in dataclasses.fields(kind)})
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, UnionType):
        return st.one_of(*(values(each, floats) for each in inner))
    if origin is dict:
        return st.dictionaries(st.text(), values(inner[1], floats), max_size=2)
    if Ellipsis in inner:
        few = 1 if is_dataclass(inner[0]) else 2  # each class is tested by itself too
        return st.lists(values(inner[0], floats), max_size=few).map(tuple)
    return st.tuples(*(values(each, floats) for each in inner))


KINDS = sorted({kind for root in ROOTS for kind in nested(root)} - {TextSettings}, key=lambda kind: kind.__name__)
PARTS_OF_PLACEMENTS = set(nested(Placement)) - {Placement}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PARTS_OF_PLACEMENTS])
def test_every_stored_record_comes_back_equal(kind):
    @settings(max_examples=10, deadline=None)
    @given(values(kind, st.floats(allow_nan=False, allow_infinity=False)))
    def check(record: Any) -> None:
        assert from_json(kind, plain(record)) == record

    check()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PARTS_OF_PLACEMENTS])
def test_floats_that_are_not_finite_stay_null(kind):
    @settings(max_examples=10, deadline=None)
    @given(values(kind, st.floats()))
    def check(record: Any) -> None:
        written = plain(from_json(kind, plain(record)))  # what is derived of a number that is lost is lost too
        assert plain(from_json(kind, written)) == written

    check()


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_come_back_equal(kind):
    assert from_json(kind, plain(kind())) == kind()


def test_the_roots_are_all_records_that_the_package_reads():
    found = set()
    for path in Path(mixln.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found |= {ast.unparse(node.args[0])} if node.func.id == "from_json" else set()
                of_schema = node.keywords if node.func.id == "Schema" else ()
                found |= {ast.unparse(entry.value) for entry in of_schema if entry.arg == "record"}
    names = {kind.__name__ for kind in (*ROOTS, *SETTINGS)}
    assert found - names <= {
        "kind",
        "cls",
        "self.record",
        "schema.record",
        "Request",
        "dict[str, Request]",
        "dict[str, tuple[int, str]]",
    }


# The files of the version before


def entries_of(data: Any, written: Any) -> Any:
    """What is written, without entries that the data do not have."""
    if isinstance(data, dict):
        return {name: entries_of(entry, written[name]) for name, entry in data.items()}
    if isinstance(data, list):
        return [entries_of(entry, other) for entry, other in zip(data, written, strict=True)]
    return written


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_file_of_the_version_before_is_read_and_written_as_it_was(kind, name):
    data = stored(kind, name)
    assert entries_of(data, plain(from_json(kind, data))) == data


@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.json")), ids=lambda path: path.name)
def test_every_outcome_of_a_recipe_in_the_documents_is_read(path):
    (AS_PUBLISHED if path.name.endswith(".as-published.json") else REPRODUCTION).read(path)


# What is refused, anywhere in any of these files


def places(kind: Any, data: Any, steps: tuple[Any, ...] = ()) -> Iterator[tuple[type, tuple[Any, ...]]]:
    """Every record in the data of a type: its class, and the steps to it."""
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(data, dict):
        yield kind, steps
        types = get_type_hints(kind)
        for name in data.keys() & types.keys():
            yield from places(types[name], data[name], (*steps, name))
    elif get_origin(kind) in (Union, UnionType):
        yield from (found for each in get_args(kind) for found in places(each, data, steps))
    elif get_origin(kind) is dict:
        yield from (found for name in data for found in places(get_args(kind)[1], data[name], (*steps, name)))
    elif get_origin(kind) is tuple and isinstance(data, list):
        kinds = get_args(kind)[:1] * len(data) if Ellipsis in get_args(kind) else get_args(kind)
        for index, (each, entry) in enumerate(zip(kinds, data, strict=True)):
            yield from places(each, entry, (*steps, index))


def shown(steps: tuple[Any, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def at(data: Any, steps: tuple[Any, ...]) -> Any:
    for step in steps:
        data = data[step]
    return data


def may_be_missing(kind: type, item: dataclasses.Field[Any]) -> bool:
    has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
    return has_default and (issubclass(kind, Partial) or item.metadata == OPTIONAL)


def first_of_each(found: Iterator[tuple[type, tuple[Any, ...]]]) -> dict[type, tuple[Any, ...]]:
    """Of each class its last place, so that lists are entered beyond their first entry."""
    return dict(found)


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_an_unknown_entry_of_any_record_in_a_file_is_refused_by_its_path(kind, name):
    data = stored(kind, name)
    for _, steps in first_of_each(places(kind, data)).items():
        changed = copy.deepcopy(data)
        at(changed, steps)["median"] = 1
        with pytest.raises(UnknownEntry) as caught:
            from_json(kind, changed)
        assert str(caught.value).startswith(f"{shown((*steps, 'median'))} is unknown to this version of mixln; known: ")


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_missing_entry_of_any_record_in_a_file_is_refused_by_its_path(kind, name):
    data = stored(kind, name)
    for inner, steps in first_of_each(places(kind, data)).items():
        for item in dataclasses.fields(inner):
            changed = copy.deepcopy(data)
            at(changed, steps).pop(item.name, None)
            if may_be_missing(inner, item):
                from_json(kind, changed)
                continue
            with pytest.raises(RecordError) as caught:
                from_json(kind, changed)
            assert str(caught.value) == f"{shown((*steps, item.name))} is missing"


# Each rule, on small records


@dataclass(frozen=True, kw_only=True)
class Inner:
    value: float
    kind: Literal["a", "b", 1] = "a"
    end: float | None = None
    since: int = field(default=7, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        if self.value < 0:
            raise SettingsError(f"value must be at least 0, got {self.value}")

    @derived
    def double(self) -> float:
        return 2 * self.value


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    count: int
    flag: bool
    place: Path
    inner: Inner
    many: tuple[Inner, ...]
    pair: tuple[str, float]
    table: dict[str, tuple[float | None, ...]]
    maybe: Inner | None
    free: Any


INNER = Inner(value=1.5)
WHOLE = Outer(
    name="a",
    count=3,
    flag=True,
    place=Path("a") / "b",
    inner=INNER,
    many=(INNER, replace(INNER, kind=1)),
    pair=("x", 2.0),
    table={"row": (1.0, None)},
    maybe=None,
    free={"any": [1, {"thing": None}]},
)


def with_entry(steps: tuple[Any, ...], value: Any) -> Any:
    data = plain(WHOLE)
    at(data, steps[:-1])[steps[-1]] = value
    return data


def test_there_and_back():
    assert from_json(Outer, plain(WHOLE)) == WHOLE
    assert plain(WHOLE)["place"] == str(Path("a/b"))


@pytest.mark.parametrize(
    ("steps", "value", "message"),
    [
        (("inner", "value"), "x", 'inner.value must be a finite number, got "x"'),
        (("inner", "value"), True, "inner.value must be a finite number, got true"),
        (("inner", "value"), math.inf, "inner.value must be a finite number, got Infinity"),
        (("inner", "value"), math.nan, "inner.value must be a finite number, got NaN"),
        (("inner", "value"), 10**400, f"inner.value must be a finite number, got 1{'0' * 199}…"),
        (("inner", "value"), -1, "inner cannot be used: value must be at least 0, got -1"),
        (("inner", "kind"), "c", 'inner.kind must be one of a, b, 1, got "c"'),
        (("inner", "kind"), [], "inner.kind must be one of a, b, 1, got []"),
        (("inner", "kind"), True, "inner.kind must be one of a, b, 1, got true"),
        (("inner",), None, "inner must be an object, got null"),
        (("inner",), [], "inner must be an object, got []"),
        (("many",), {}, "many must be a list, got {}"),
        (("many",), "ab", 'many must be a list, got "ab"'),
        (("many", 1), 3, "many[1] must be an object, got 3"),
        (("many", 1, "since"), 0.5, "many[1].since must be an integer, got 0.5"),
        (("pair",), ["x"], "pair must have 2 entries, got 1"),
        (("pair", 0), 1, "pair[0] must be a string, got 1"),
        (("table",), [], "table must be an object, got []"),
        (("table", "row", 1), "x", 'table.row[1] must be a finite number, got "x"'),
        (("maybe",), 0, "maybe must be an object, got 0"),
        (("count",), True, "count must be an integer, got true"),
        (("count",), None, "count must be an integer, got null"),
        (("flag",), 1, "flag must be true or false, got 1"),
        (("name",), None, "name must be a string, got null"),
        (("place",), 1, "place must be a string, got 1"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_path(steps, value, message):
    with pytest.raises(RecordError) as caught:
        from_json(Outer, with_entry(steps, value))
    assert str(caught.value) == message


@pytest.mark.parametrize("data", [None, 3, [], "x"])
def test_a_whole_that_is_no_object_is_refused(data):
    with pytest.raises(RecordError, match=r"^it must be an object, got "):
        from_json(Outer, data)


def test_the_path_begins_where_the_caller_says():
    with pytest.raises(RecordError, match=r"^settings\.text\.count must be an integer"):
        from_json(Outer, with_entry(("count",), "3"), "settings.text")


def test_a_whole_number_is_a_float_and_null_is_nan():
    assert from_json(Inner, {**plain(INNER), "value": 2}).value == 2
    assert math.isnan(from_json(Inner, {**plain(INNER), "value": None}).value)
    assert plain(Inner(value=math.inf))["value"] is None


def test_a_derived_property_is_written_and_ignored_when_read():
    assert plain(INNER) == {"value": 1.5, "kind": "a", "end": None, "since": 7, "double": 3.0}
    assert from_json(Inner, {**plain(INNER), "double": "anything"}) == INNER


def test_only_an_optional_entry_may_be_missing():
    data = plain(INNER)
    assert from_json(Inner, {name: data[name] for name in ("value", "kind", "end")}) == INNER
    with pytest.raises(RecordError, match=r"^end is missing$"):
        from_json(Inner, {name: data[name] for name in ("value", "kind", "since")})


@dataclass(frozen=True, kw_only=True)
class Options(Partial):
    steps: int
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Short(Sparse):
    name: str
    rate: float = 0.1
    names: tuple[str, ...] = field(default_factory=tuple)


def test_settings_may_lack_what_has_a_default_and_are_written_whole():
    assert from_json(Options, {"steps": 1}) == Options(steps=1)
    assert plain(Options(steps=1)) == {"steps": 1, "rate": 0.1}
    with pytest.raises(RecordError, match=r"^steps is missing$"):
        from_json(Options, {"rate": 0.2})


def test_a_sparse_record_is_written_without_its_defaults():
    assert plain(Short(name="a")) == {"name": "a"}
    assert plain(Short(name="a", rate=0.2, names=("b",))) == {"name": "a", "rate": 0.2, "names": ["b"]}
    assert from_json(Short, {"name": "a"}) == Short(name="a")


def test_a_type_without_a_json_form_is_a_mistake_of_the_program():
    @dataclass
    class Odd:
        value: complex

    with pytest.raises(TypeError, match="complex"):
        from_json(Odd, {"value": 1})


def test_the_line_about_a_file_tells_a_newer_version_from_a_corrupt_file(tmp_path):
    path = tmp_path / "a.json"
    lines = []
    for data in ({"value": 1.0, "kind": "a", "end": None, "median": 1}, {"value": 1.0}):
        path.write_text(json.dumps(data))
        with pytest.raises(RecordError) as caught:
            from_json(Inner, read_json(path))
        lines.append(unreadable(path, caught.value, "delete it"))
    assert lines == [
        f"{path}: median is unknown to this version of mixln; known: value, kind, end, since; update mixln",
        f"{path} is corrupt (kind is missing); delete it",
    ]


def test_the_first_difference_of_two_requests():
    before, now = {"model": {"size": 1, "name": "a"}}, {"model": {"size": 1, "name": "b"}}
    assert difference(before, now) == "name was a, now b"
    assert difference(before, before) == ""
