"""Everything core can hold comes back as it was; anything else is refused in words."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import deltas, ending, finished, new_run, said

from ouzel.core.errors import StoreError
from ouzel.core.events import Delta, Event, ItemDone, RunFinished
from ouzel.core.items import Item, Message, Part, TokenLogprob
from ouzel.core.request import Request, Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.store import codec
from ouzel.store.codec import DamagedRecord, Reader

# Shared machines are slow at times; how long an example takes says nothing here.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
}


def values(hint: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Every value of a type hint of core, whatever classes core has by then."""
    if hint in SCALARS:
        return SCALARS[hint]
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of([values(each, depth) for each in get_args(hint)])
    if get_origin(hint) is tuple:
        if depth > 4:
            return st.just(())
        return st.lists(values(get_args(hint)[0], depth + 1), max_size=3).map(tuple)
    if get_origin(hint) is frozenset:
        return st.frozensets(values(get_args(hint)[0], depth + 1), max_size=3)
    if get_origin(hint) is Mapping:
        return st.dictionaries(st.text(max_size=5), values(get_args(hint)[1]), max_size=3)
    hints = typing.get_type_hints(hint)
    fields = [each.name for each in dataclasses.fields(hint) if each.init]
    return st.builds(hint, **{name: values(hints[name], depth + 1) for name in fields})


@patient
@given(values(Run))
def test_every_run_comes_back(run: Run) -> None:
    assert codec.decode_run(codec.encode_run(run)) == run


@patient
@given(st.lists(values(Event), max_size=5).map(tuple))
def test_every_event_comes_back(events: tuple[Event, ...]) -> None:
    assert codec.decode_events(codec.encode_events(events)) == events


@patient
@given(values(Item))
def test_what_comes_back_is_of_cores_own_classes(item: Item) -> None:
    (event,) = codec.decode_events(codec.encode_events([ItemDone(0, item)]))
    assert isinstance(event, ItemDone)
    assert type(event.item) is type(item)
    assert isinstance(event.item, Item)
    if isinstance(event.item, Message):
        assert {type(part) for part in event.item.parts} <= set(get_args(Part))


@patient
@given(values(Item))
def test_every_item_comes_back(item: Item) -> None:
    assert codec.decode_item(codec.encode_item(item)) == item


@patient
@given(values(Run))
def test_a_part_of_a_run_says_what_the_whole_says(run: Run) -> None:
    body = codec.encode_run(run)
    assert codec.decode_turn(body) == (*run.request.input, *run.output)
    seen = codec.glance_run(body)
    assert (seen.model, seen.request.model) == (run.model, run.request.model)
    assert seen.request.metadata == run.request.metadata


@patient
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3))
def test_metadata_comes_back(metadata: dict[str, str]) -> None:
    assert codec.decode_metadata(codec.encode_metadata(metadata)) == metadata


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"a":1}', b'{"request":{}}'])
def test_bytes_that_are_no_part_are_damaged(body: bytes) -> None:
    for decode in (codec.decode_item, codec.decode_turn, codec.decode_metadata, codec.glance_run):
        with pytest.raises(DamagedRecord, match="damaged or comes from another version"):
            decode(body)


def test_a_damaged_item_of_a_turn_is_noticed() -> None:
    for change in ("inner field missing", "inner unknown field", "unknown kind", "no kind"):
        with pytest.raises(DamagedRecord):
            codec.decode_turn(altered(change))


def test_an_impossible_token_comes_back_as_one() -> None:
    token = TokenLogprob("a", -math.inf, (97,), (TokenLogprob("b", -0.5),))
    (event,) = codec.decode_events(codec.encode_events([Delta(0, "m", 0, "text", "a", (token,))]))
    assert isinstance(event, Delta)
    assert event.logprobs == (token,)


def test_a_read_only_mapping_is_kept_as_an_object() -> None:
    run = new_run()
    sealed = types.MappingProxyType({"a": "b"})
    run = dataclasses.replace(run, request=dataclasses.replace(run.request, metadata=sealed))
    assert codec.decode_run(codec.encode_run(run)).request.metadata == {"a": "b"}


def test_half_a_surrogate_pair_is_refused_without_quoting_it() -> None:
    run = new_run("secret \ud83d")
    with pytest.raises(StoreError, match="surrogate") as caught:
        codec.encode_run(run)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_json_cannot_hold_is_refused() -> None:
    run = dataclasses.replace(new_run(), owner=typing.cast("str", object()))
    with pytest.raises(StoreError, match="cannot be kept"):
        codec.encode_run(run)


def test_a_record_from_before_a_field_was_added_takes_its_default() -> None:
    record = json.loads(codec.encode_run(new_run()))
    del record["request"]["sampling"]
    del record["request"]["labels"]
    run = codec.decode_run(json.dumps(record).encode())
    assert run.request.sampling == Sampling()
    assert run.request.labels == {}


def altered(change: str) -> bytes:
    record: dict[str, Any] = json.loads(codec.encode_run(finished(new_run("a secret"))))
    if change == "field missing":
        del record["owner"]
    elif change == "inner field missing":
        del record["request"]["input"][0]["role"]
    elif change == "unknown field":
        record["colour"] = "blue"
    elif change == "inner unknown field":
        record["output"][0]["parts"][0]["colour"] = "blue"
    elif change == "unknown kind":
        record["output"][0]["kind"] = "hologram"
    elif change == "no kind":
        del record["output"][0]["kind"]
    elif change == "kind of another union":
        record["output"][0]["kind"] = "text"
    elif change == "wrong type":
        record["created_at"] = "yesterday"
    elif change == "unknown status":
        record["status"] = "dreaming"
    elif change == "number for text":
        record["request"]["input"][0]["parts"][0]["text"] = 5
    elif change == "null":
        record["request"]["input"] = None
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "change",
    [
        "field missing",
        "inner field missing",
        "unknown field",
        "inner unknown field",
        "unknown kind",
        "no kind",
        "kind of another union",
        "wrong type",
        "unknown status",
        "number for text",
        "null",
    ],
)
def test_a_record_that_core_would_not_write_is_damaged(change: str) -> None:
    with pytest.raises(DamagedRecord, match="damaged or comes from another version") as caught:
        codec.decode_run(altered(change))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_run_are_damaged(body: bytes) -> None:
    with pytest.raises(DamagedRecord):
        codec.decode_run(body)


@patient
@given(st.data())
def test_a_torn_record_never_passes_for_a_whole_one(data: st.DataObject) -> None:
    body = codec.encode_events([*deltas(2), *ending(said("assistant", "Two."))])
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(DamagedRecord):
        codec.decode_events(body[:cut])


@patient
@given(st.data())
def test_a_flipped_byte_is_another_record_or_damaged(data: st.DataObject) -> None:
    body = bytearray(codec.encode_events([RunFinished("completed", Usage(1, 2, 3), 4.5)]))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    try:
        (event,) = codec.decode_events(bytes(body))
    except DamagedRecord:
        return
    assert isinstance(event, RunFinished)


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A class that core does not have."""

    size: int
    kind: Literal["leaf"] = dataclasses.field(default="leaf", init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """One that holds itself, and others, in every way that hints can say."""

    children: tuple[Leaf | Branch, ...] = ()
    named: Mapping[str, Leaf | Branch] = dataclasses.field(default_factory=dict)
    best: Branch | None = None
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    anything: Any = None
    kind: Literal["branch"] = dataclasses.field(default="branch", init=False)


def test_a_new_class_needs_no_line_in_the_codec() -> None:
    tree = Branch(
        (Leaf(1), Branch((Leaf(2),))),
        {"left": Leaf(3), "right": Branch()},
        Branch(best=Branch()),
        {"a": -math.inf, "b": 1.0},
        {"schema": [1, "two", None]},
    )
    reader = Reader(Branch)
    assert reader.restore(reader.decoder.decode(codec._encode(tree))) == tree


@dataclasses.dataclass(frozen=True)
class Odd:
    """A class whose fields the codec could lose."""

    pairs: tuple[Leaf, int]


def test_a_class_that_would_be_read_wrongly_is_refused_when_the_reader_is_made() -> None:
    with pytest.raises(TypeError, match="cannot read"):
        Reader(Odd)
    with pytest.raises(TypeError, match="cannot read"):
        Reader(tuple[Odd, ...])
    with pytest.raises(TypeError, match="cannot read"):
        Reader(float | Leaf | tuple[Leaf, ...])


def test_threads_that_read_for_the_first_time_at_once_read_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, events = new_run(), deltas(3)
    bodies = codec.encode_run(run), codec.encode_events(events)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            monkeypatch.setattr(codec, "_records", {})
            codec._run_reader.cache_clear()
            codec._events_reader.cache_clear()
            with ThreadPoolExecutor(8) as pool:
                runs = [pool.submit(codec.decode_run, bodies[0]) for _ in range(4)]
                lists = [pool.submit(codec.decode_events, bodies[1]) for _ in range(4)]
                assert [each.result() for each in runs] == [run] * 4
                assert [list(each.result()) for each in lists] == [events] * 4
    finally:
        sys.setswitchinterval(before)


def test_sampling_and_request_defaults_are_the_same_object_types() -> None:
    run = codec.decode_run(codec.encode_run(new_run()))
    assert isinstance(run.request, Request)
    assert isinstance(run.request.sampling, Sampling)
