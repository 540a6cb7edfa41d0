"""WebSocket mode as its clients see it: turns, bad messages, and continuation."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hostile_kit import at_rest

from ouzel.api import websocket
from ouzel.api.app import ApiSettings
from ouzel.engines.scripted import Call, Reply, Say, Script, ScriptedEngine
from websocket_kit import MODEL, playing, socket
from wire import checks

KEY = "sk-test-0123456789"
ASK = {"model": MODEL, "input": "a secret question", "store": False}


# Turns.


async def test_the_official_client_works_unchanged(serve, sdk):
    server = await serve(settings=ApiSettings(key=KEY))
    async with sdk(server, api_key=KEY).responses.connect() as connection:
        previous = None
        for text in ("Hello.", "And again."):
            more = {} if previous is None else {"previous_response_id": previous}
            await connection.response.create(model=MODEL, input=text, store=False, **more)
            async for event in connection:
                if event.type == "response.completed":
                    break
            assert event.response.output_text == f"You said: {text}"
            assert event.response.previous_response_id == previous
            previous = event.response.id
        await connection.response.create(model="nobody", input="Hello.")
        error = await connection.recv()
    assert (error.type, error.status, error.error.code) == ("error", 404, "model_not_found")


async def test_the_events_are_those_of_a_stream_over_http(serve, http):
    server = await serve()
    async with socket(server) as ws:
        turn = await ws.turn(input="Hello.")
    body = {"model": MODEL, "input": "Hello.", "stream": True}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        stream = checks.check_response_stream(await reply.read())
    assert [alike(event) for event in turn.events] == [alike(event) for event in stream.events]


def alike(value: Any) -> Any:
    """Without what differs from one response to the next."""
    if isinstance(value, dict):
        own = ("id", "item_id", "created_at", "completed_at")
        return {name: alike(inner) for name, inner in value.items() if name not in own}
    return [alike(each) for each in value] if isinstance(value, list) else value


async def test_messages_that_come_at_once_are_answered_one_after_the_other(serve):
    server = await serve()
    async with socket(server) as ws:
        for number in range(10):
            await ws.ask(input=f"n{number}", **({} if number != 5 else {"colour": "red"}))
        turns = [await ws.read() for _ in range(10)]
    assert turns[5].code == "unknown_parameter"
    del turns[5]
    assert [turn.text for turn in turns] == [f"You said: n{n}" for n in range(10) if n != 5]


async def test_several_sockets_at_once(serve):
    server = await serve()

    async def chain(name: str) -> None:
        async with socket(server) as ws:
            first = await ws.turn(input=f"{name} first", store=False)
            second = await ws.turn(input=name, store=False, previous_response_id=first.id)
            assert (first.text, second.text) == (f"You said: {name} first", f"You said: {name}")

    await asyncio.gather(*(chain(f"socket{n}") for n in range(20)))
    await at_rest(server)


async def test_more_than_may_wait_is_refused_in_its_turn(serve, monkeypatch):
    monkeypatch.setattr(websocket, "MOST_WAITING", 2)
    server = await serve(playing())
    async with socket(server) as ws:
        await ws.ask(input="pause here")
        assert (await ws.event())["type"] == "response.created"
        for number in range(5):
            await ws.ask(input=f"n{number}")
        while (event := await ws.event())["type"] not in checks.TERMINAL:
            pass
        assert event["type"] == "response.completed"
        turns = [await ws.read() for _ in range(5)]
        assert [turn.text for turn in turns[:2]] == ["You said: n0", "You said: n1"]
        assert [turn.status for turn in turns[2:]] == [429] * 3
        assert turns[2].events[0]["error"]["headers"]["retry-after"] == "1"
        assert (await ws.turn(input="and on")).text == "You said: and on"


async def test_what_waits_has_no_more_bytes_than_one_message_may_have(serve):
    server = await serve(playing(), settings=ApiSettings(max_body=2000))
    async with socket(server) as ws:
        await ws.ask(input="pause here")
        assert (await ws.event())["type"] == "response.created"
        for number in range(3):
            await ws.ask(input=f"n{number} " + "x" * 900)
        while (await ws.event())["type"] not in checks.TERMINAL:
            pass
        turns = [await ws.read() for _ in range(3)]
    assert [turn.status for turn in turns] == [0, 0, 429]


# Messages that are not right.

BAD: list[tuple[str, Any, str, str | None]] = [
    ("binary", b"{}", "invalid_type", None),
    ("empty", "", "invalid_json", None),
    ("no JSON", "hello", "invalid_json", None),
    ("two", "{}{}", "invalid_json", None),
    ("array", "[]", "invalid_type", None),
    ("null", "null", "invalid_type", None),
    ("half a pair", '{"type": "\\ud800"}', "invalid_json", None),
    ("deep", "[" * 5000 + "]" * 5000, "invalid_json", None),
    ("no type", {"type": ...}, "missing_required_parameter", "type"),
    ("null type", {"type": None}, "invalid_type", "type"),
    ("number type", {"type": 7}, "invalid_type", "type"),
    ("other type", {"type": "response.cancel"}, "invalid_value", "type"),
    ("steer", {"type": "response.steer"}, "unsupported_parameter", "type"),
    ("stream", {"stream": True}, "unsupported_parameter", "stream"),
    ("no stream", {"stream": False}, "unsupported_parameter", "stream"),
    ("stream_options", {"stream_options": {}}, "unsupported_parameter", "stream_options"),
    ("background", {"background": True}, "unsupported_parameter", "background"),
    ("no background", {"background": False}, "unsupported_parameter", "background"),
    ("generate", {"generate": False}, "unsupported_parameter", "generate"),
    ("odd generate", {"generate": 1}, "invalid_type", "generate"),
    ("stream_id", {"stream_id": "a"}, "unsupported_parameter", "stream_id"),
    ("no model", {"model": ...}, "missing_required_parameter", "model"),
    ("unknown model", {"model": "gpt-9"}, "model_not_found", "model"),
    ("unknown", {"colour": "red"}, "unknown_parameter", "colour"),
    ("input", {"input": 5}, "invalid_type", "input"),
    ("no input", {"input": ...}, "missing_required_parameter", "input"),
    ("previous", {"previous_response_id": 5}, "invalid_type", "previous_response_id"),
    ("NUL", {"previous_response_id": "x\0y"}, "invalid_value", "previous_response_id"),
]


async def test_a_bad_message_is_an_error_and_the_socket_stays_open(serve):
    server = await serve(settings=ApiSettings(max_body=100_000))
    async with socket(server) as ws:
        for name, message, code, param in BAD:
            if isinstance(message, dict):
                body = {"type": "response.create", **ASK, **message}
                message = json.dumps({k: v for k, v in body.items() if v is not ...})
            await ws.raw.send(message)
            turn = await ws.read()
            assert turn.error is not None, name
            assert turn.code == code, (name, turn.error)
            if param is not None:
                assert turn.error["param"] == param, (name, turn.error)
            assert len(turn.error["message"]) < 500, name
        assert (await ws.turn(input="still there?", generate=True, stream=None)).text


async def test_a_server_that_is_full_says_so(serve):
    server = await serve(playing(), max_requests=1)
    async with socket(server) as first, socket(server) as second:
        await first.ask(input="hang")
        assert (await first.event())["type"] == "response.created"
        turn = await second.turn(input="hello")
        assert (turn.status, turn.code) == (429, "rate_limit_exceeded")


# Continuation.


async def test_only_what_came_last_is_kept(serve):
    server = await serve()
    async with socket(server) as ws:
        first = await ws.turn(input="first", store=False)
        second = await ws.turn(input="second", store=False, previous_response_id=first.id)
        gone = await ws.turn(input="fork", store=False, previous_response_id=first.id)
        assert gone.code == "previous_response_not_found"
        third = await ws.turn(input="third", store=False, previous_response_id=second.id)
    shown = [message.text for message in server.engine.turns[-1].messages]
    assert [text for text in shown if text in ("first", "second", "third")] == [
        "first",
        "second",
        "third",
    ]
    assert third.response is not None
    assert third.response["store"] is False


@pytest.mark.parametrize(
    "wrong",
    [{"colour": "red"}, {"input": "fail"}, {"model": "nobody"}, {"temperature": "hot"}],
    ids=["unreadable", "run", "model", "type"],
)
async def test_a_continuation_that_fails_in_any_way_is_forgotten(serve, wrong):
    server = await serve(playing())
    async with socket(server) as ws:
        first = await ws.turn(input="first", store=False)
        chain = {"input": "on", "store": False, "previous_response_id": first.id}
        failed = await ws.turn(**(chain | wrong))
        assert failed.error or failed.response["status"] == "failed"
        assert (await ws.turn(**chain)).code == "previous_response_not_found"


async def test_a_failure_elsewhere_forgets_nothing(serve):
    server = await serve(playing())
    async with socket(server) as ws:
        first = await ws.turn(input="first", store=False)
        assert (await ws.turn(input="alone", colour="red")).error
        assert (await ws.turn(input="fail", store=False)).response["status"] == "failed"
        assert (await ws.turn(input="x", previous_response_id="resp_other")).error
        again = await ws.turn(input="second", store=False, previous_response_id=first.id)
        assert again.text == "You said: second"


async def test_stored_responses_are_continued_from_anywhere(serve, sdk):
    server = await serve()
    client = sdk(server)
    over_http = await client.responses.create(model=MODEL, input="over http")
    async with socket(server) as ws:
        stored = await ws.turn(input="over ws", previous_response_id=over_http.id)
        kept = await ws.turn(input="kept", store=False, previous_response_id=stored.id)
        last = await ws.turn(input="last", store=False, previous_response_id=kept.id)
    shown = [message.text for message in server.engine.turns[-1].messages]
    assert [t for t in shown if not t.startswith("You")] == ["over http", "over ws", "kept", "last"]
    assert last.text == "You said: last"
    found = await client.responses.retrieve(stored.id)
    assert found.output_text == "You said: over ws"
    async with socket(server) as other:
        assert (await other.turn(input="x", previous_response_id=stored.id)).text
        gone = await other.turn(input="x", previous_response_id=kept.id)
        assert gone.code == "previous_response_not_found"


async def test_a_stored_response_on_a_chain_that_is_not_goes_on_here_only(serve):
    server = await serve()
    async with socket(server) as ws:
        first = await ws.turn(input="first", store=False)
        stored = await ws.turn(input="second", store=True, previous_response_id=first.id)
        third = await ws.turn(input="third", store=False, previous_response_id=stored.id)
        assert third.text == "You said: third"
    assert "first" in [message.text for message in server.engine.turns[-1].messages]
    async with socket(server) as other:
        lost = await other.turn(input="third", previous_response_id=stored.id)
        assert lost.code == "previous_response_not_found"


async def test_calls_go_on_with_their_outputs(serve):
    engine = ScriptedEngine(
        Script((Reply((Call("look", '{"at": "x"}'),), times=1), Reply((Say("It is {last}"),))))
    )
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    server = await serve(engine)
    async with socket(server) as ws:
        first = await ws.turn(input="look", store=False, tools=[tool])
        (call,) = first.response["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "blue"}
        chain = {"store": False, "previous_response_id": first.id, "tools": [tool]}
        assert (await ws.turn(input=[output], **chain)).text == "It is blue"
