"""JSON bytes that survive every reader, and runs that advance with their events."""

from __future__ import annotations

import json

import pytest

from ouzel.api.writing import UNLIKELY, advance, encode, logprobs, unbegun
from ouzel.core.events import Delta, Failure, RunFinished, RunQueued
from ouzel.core.items import TokenLogprob
from ouzel.core.turns import Usage
from wire.wire_runs import responses_run, run_events, said

_LINE_BREAKERS = "a\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b"


def test_encoded_text_is_one_line_to_every_reader() -> None:
    data = encode({_LINE_BREAKERS: [_LINE_BREAKERS]})
    assert len(data.decode().splitlines()) == 1
    assert json.loads(data) == {_LINE_BREAKERS: [_LINE_BREAKERS]}


def test_neighbours_of_line_separators_are_left_alone() -> None:
    text = "\u0084\u0086\u2027\u202a\u00c2\u0385"
    assert encode(text) == f'"{text}"'.encode()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d\ude00"])
def test_half_characters_become_replacement_marks(text: str) -> None:
    lost = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    assert json.loads(encode(text)) == lost
    assert json.loads(encode({text: [(text,), {"n": 1, "x": None}]})) == {
        lost: [[lost], {"n": 1, "x": None}]
    }


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_logprobs_are_always_numbers(value: float) -> None:
    (written,) = logprobs([TokenLogprob("a", value, (), (TokenLogprob("b", value),))], None)
    assert written["logprob"] == UNLIKELY
    assert written["top_logprobs"] == [{"token": "b", "bytes": None, "logprob": UNLIKELY}]


def test_bytes_of_a_token_are_kept_even_if_they_are_half_a_character() -> None:
    (written,) = logprobs([TokenLogprob("\ufffd", -1.0, (0xF0, 0x9F))], [])
    assert written["bytes"] == [0xF0, 0x9F]


def test_a_run_collects_items_and_its_end() -> None:
    run = responses_run()
    for event in run_events([said("text", "Hi")], [said("refusal", "No")]):
        run = advance(run, event)
    assert [item.id for item in run.output] == ["msg_0", "msg_1"]
    assert (run.status, run.usage) == ("completed", Usage(21, 16, 9, 0))
    assert unbegun(run) == responses_run()


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_tokens_of_a_run_that_broke_off_are_unknown(status: str) -> None:
    failure = Failure("server_error", "x") if status == "failed" else None
    run = advance(responses_run(), RunFinished(status, Usage(), 1.0, failure))
    assert run.usage is None


def test_other_events_change_nothing() -> None:
    run = responses_run()
    assert advance(run, Delta(0, "msg_0", 0, "text", "Hi")) is run
    assert advance(run, RunQueued()).status == "queued"
