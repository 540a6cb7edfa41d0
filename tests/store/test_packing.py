"""Deltas in a row are one record on file, and the same events when they are read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.events import Delta, Event, RunStarted, StepDone
from ouzel.core.items import TokenLogprob
from ouzel.core.turns import Usage
from ouzel.store import codec
from ouzel.store.packing import Deltas, packed, unpacked

LIKELY = (TokenLogprob("a", -0.5, (97,)),)
DELTAS = st.builds(
    Delta,
    index=st.integers(0, 1),
    item_id=st.sampled_from(["msg_1", "msg_2"]),
    part=st.integers(0, 1),
    channel=st.sampled_from(["text", "reasoning"]),
    text=st.text(st.characters(exclude_categories=("Cs",)), max_size=3),
    logprobs=st.sampled_from([(), (), (), LIKELY]),
)
EVENTS = st.lists(
    DELTAS | st.just(Delta(0, "msg_1", 0, "text", "x")) | st.just(RunStarted()), max_size=30
)


@given(EVENTS)
def test_what_is_packed_is_unpacked_and_read_as_it_was(events: list[Event]) -> None:
    assert list(unpacked(packed(events))) == events
    assert list(codec.decode_events(codec.encode_events(events))) == events


def test_deltas_of_one_part_are_one_record_and_others_are_apart() -> None:
    events: list[Event] = [
        RunStarted(),
        *(Delta(0, "rs_1", 0, "reasoning", text) for text in ("a", "b")),
        Delta(1, "msg_1", 0, "text", "c"),
        Delta(1, "msg_1", 0, "text", "d", LIKELY),
        *(Delta(1, "msg_1", 0, "text", text) for text in ("", "e", "f")),
        StepDone(Usage()),
        Delta(1, "msg_1", 1, "text", "g"),
    ]
    assert packed(events) == [
        RunStarted(),
        Deltas(0, "rs_1", 0, "reasoning", ["a", "b"]),
        Deltas(1, "msg_1", 0, "text", ["c"]),
        events[4],
        Deltas(1, "msg_1", 0, "text", ["", "e", "f"]),
        StepDone(Usage()),
        Deltas(1, "msg_1", 1, "text", ["g"]),
    ]


def test_events_that_were_kept_before_there_was_packing_are_read() -> None:
    body = (
        b'[{"kind":"run_started"},{"index":0,"item_id":"m","part":0,"channel":"text","text":"a",'
        b'"logprobs":[],"kind":"delta"}]'
    )
    assert codec.decode_events(body) == (RunStarted(), Delta(0, "m", 0, "text", "a"))


def test_many_pieces_take_little_room() -> None:
    events = [Delta(0, "msg_" + "0" * 48, 0, "text", " word") for _ in range(1000)]
    assert len(codec.encode_events(events)) < 10_000
