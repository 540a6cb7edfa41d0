"""Encrypted reasoning over HTTP, with the official SDK: given out, given back, gone on with."""

from __future__ import annotations

import io
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from harness import serving
from ouzel.core.turns import Turn
from ouzel.engines.scripted import Call, Reply, Say, Script, ScriptedEngine, Think
from ouzel.store.sealing import KeySealer
from ouzel.store.sealing_keys import load_keys
from wire.checks import check_response, check_response_stream

THOUGHT = "They ask about Oslo, so I look."
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SEALED = "reasoning.encrypted_content"
ASK: dict[str, Any] = {"model": "o4-mini", "tools": [TOOL], "include": [SEALED], "store": False}
QUESTION = {"role": "user", "content": "weather?"}


def engine(**more: Any) -> ScriptedEngine:
    """Calls for the weather once it has thought, and tells it."""
    told = Reply((Think("12 is warm."), Say("It is {last}.")), last="degrees")
    asks = Reply((Think(THOUGHT), Call("get_weather", '{"city":"Oslo"}')), match="weather")
    return ScriptedEngine(Script((told, asks, Reply((Say("Hello."),))), **more))


def keys() -> KeySealer:
    return KeySealer([bytes(range(32))], 30)


def given_back(response: Any, call: int = 1) -> list[Any]:
    """What a stateless client sends next: everything so far, and the function's output."""
    items = [item.model_dump(exclude_none=True) for item in response.output]
    call_id = items[call]["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "12 degrees"}
    return [QUESTION, *items, output]


def shown(turn: Turn) -> list[tuple[str, str, str, int]]:
    """Of a prompt, what does not depend on the ids of calls."""
    return [(m.role, m.text, m.thinking, len(m.calls)) for m in turn.messages]


async def test_thinking_goes_out_sealed_and_is_continued(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    first = await client.responses.create(input=[QUESTION], **ASK)
    thought, call = first.output
    assert (thought.type, call.type) == ("reasoning", "function_call")
    assert thought.encrypted_content
    assert "Oslo" not in thought.encrypted_content
    last = await client.responses.create(input=given_back(first), **ASK)
    assert last.output_text == "It is 12 degrees."
    turn = server.engine.turns[-1]
    assert [message.thinking for message in turn.messages] == ["", THOUGHT, ""]


async def test_the_sealed_words_alone_are_enough(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    first = await client.responses.create(input=[QUESTION], **ASK)
    items = given_back(first)
    del items[1]["content"]
    await client.responses.create(input=items, **ASK)
    assert server.engine.turns[-1].messages[1].thinking == THOUGHT


async def test_stored_or_given_back_the_engine_sees_the_same(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    stateless = await client.responses.create(input=[QUESTION], **ASK)
    await client.responses.create(input=given_back(stateless), **ASK)
    one = server.engine.turns[-1]
    stored = await client.responses.create(input=[QUESTION], **ASK | {"store": True})
    output = given_back(stored)[-1:]
    await client.responses.create(input=output, previous_response_id=stored.id, **ASK)
    two = server.engine.turns[-1]
    conversation = await client.conversations.create()
    kept = ASK | {"conversation": conversation.id}
    kept_first = await client.responses.create(input=[QUESTION], **kept)
    await client.responses.create(input=given_back(kept_first)[-1:], **kept)
    three = server.engine.turns[-1]
    assert shown(one) == shown(two) == shown(three)
    assert one.tools == two.tools == three.tools
    assert THOUGHT in [message.thinking for message in one.messages]


async def test_the_next_round_begins_without_it(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    first = await client.responses.create(input=[QUESTION], **ASK)
    items = given_back(first)
    second = await client.responses.create(input=items, **ASK)
    items += [item.model_dump(exclude_none=True) for item in second.output]
    items.append({"role": "user", "content": "Thanks."})
    third = await client.responses.create(input=items, **ASK)
    assert third.output_text == "Hello."
    assert not any(message.thinking for message in server.engine.turns[-1].messages)


@pytest.mark.parametrize("included", [True, False])
async def test_a_stream_has_the_same_bytes_in_every_place(
    serve: Any, http: Any, included: bool
) -> None:
    server = await serve(engine(), sealer=keys())
    body = ASK | {"input": "weather?", "stream": True, "store": True}
    body["include"] = [SEALED] if included else []
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        data = await reply.read()
    seen = check_response_stream(data)
    events = [json.loads(line[6:]) for line in data.decode().splitlines() if line[:5] == "data:"]
    done = [
        event["item"]
        for event in events
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "reasoning"
    ]
    final = [item for item in seen.response["output"] if item["type"] == "reasoning"]
    assert done == final
    assert ("encrypted_content" in done[0]) is included
    # Read again, it is still the same, for those who ask for it.
    url = f"{server.base_url}/responses/{seen.response['id']}"
    async with http.get(url, params={"include": SEALED}) as reply:
        found = check_response(await reply.read())["output"][0]
    assert found.get("encrypted_content") == final[0].get("encrypted_content")
    async with http.get(url) as reply:
        again = check_response(await reply.read())["output"][0]
    assert again.get("encrypted_content") == final[0].get("encrypted_content")


async def test_it_opens_after_a_restart_and_a_rotation(tmp_path: Path, sdk: Any) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    old = load_keys(folder)
    async with serving(engine(), tmp_path, sealer=KeySealer(old)) as server:
        first = await sdk(server).responses.create(input=[QUESTION], **ASK)
    renewed = KeySealer([bytes(32), *load_keys(folder)])
    async with serving(engine(), tmp_path, sealer=renewed) as server:
        await sdk(server).responses.create(input=given_back(first), **ASK)
        assert server.engine.turns[-1].messages[1].thinking == THOUGHT
    async with serving(engine(), tmp_path, sealer=KeySealer([bytes(32)])) as server:
        with pytest.raises(BadRequestError) as caught:
            await sdk(server).responses.create(input=given_back(first), **ASK)
        assert caught.value.param == "input[1].encrypted_content"


def altered(sealed: str) -> str:
    middle = len(sealed) // 2
    return sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        *product(("reasoning", "compaction"), ("altered", "foreign", "words", "long", "model")),
        ("reasoning", "expired"),  # a compaction does not expire
    ],
)
async def test_what_does_not_open_is_a_400_with_its_place(
    serve: Any, http: Any, kind: str, wrong: str
) -> None:
    server = await serve(engine(), sealer=keys())
    expires = KeySealer([bytes(range(32))], 30, lambda: 1_000_000_000.0)
    seals = {"foreign": KeySealer([bytes(32)]), "expired": expires}.get(wrong, keys())
    sealed = seals.seal(kind, "local", "other" if wrong == "model" else "scripted", THOUGHT)
    content = {"altered": altered(sealed), "words": "Oslo, \u00fc!", "long": "A" * 20_971_520}
    item = {"type": kind, "encrypted_content": content.get(wrong, sealed)}
    if kind == "reasoning":
        item["summary"] = []
    before = len(server.engine.turns)
    body = json.dumps(ASK | {"input": [QUESTION, item]}).encode()
    async with http.post(f"{server.base_url}/responses", data=io.BytesIO(body)) as reply:
        error = (await reply.json())["error"]
        assert reply.status == 400, error
    assert error["param"] == "input[1].encrypted_content"
    assert error["code"] == "invalid_encrypted_content"
    assert ("expired" in error["message"]) is (wrong == "expired")
    assert len(server.engine.turns) == before


async def test_chat_goes_on_from_the_thinking_that_is_given_back(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    function = {name: TOOL[name] for name in ("name", "parameters")}
    tools = [{"type": "function", "function": function}]
    first = await client.chat.completions.create(model="o4-mini", messages=[QUESTION], tools=tools)
    message = first.choices[0].message
    assert message.reasoning_content == THOUGHT
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12 degrees"}
    said = message.model_dump(exclude_none=True)
    await client.chat.completions.create(
        model="o4-mini", messages=[QUESTION, said, result], tools=tools
    )
    assert [m.thinking for m in server.engine.turns[-1].messages] == ["", THOUGHT, ""]


async def test_thinking_that_does_not_fit_is_left_out(serve: Any, sdk: Any) -> None:
    server = await serve(engine(context_window=100), sealer=keys())
    client = sdk(server)
    first = await client.responses.create(input=[QUESTION], **ASK)
    items = given_back(first)
    items[1] = {
        "type": "reasoning",
        "summary": [],
        "encrypted_content": keys().seal("reasoning", "local", "scripted", "word " * 200),
    }
    last = await client.responses.create(input=items, **ASK)
    assert last.output_text == "It is 12 degrees."
    assert not any(message.thinking for message in server.engine.turns[-1].messages)


async def test_a_background_run_goes_on_from_it_too(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    behind = ASK | {"store": True, "background": True}
    first = await client.responses.create(input=[QUESTION], **behind)
    while first.status in ("queued", "in_progress"):
        first = await client.responses.retrieve(first.id, include=[SEALED])
    assert first.output[0].encrypted_content
    items = given_back(first)
    del items[1]["content"]
    last = await client.responses.create(input=items, **behind)
    while last.status in ("queued", "in_progress"):
        last = await client.responses.retrieve(last.id)
    assert last.output_text == "It is 12 degrees."
    assert server.engine.turns[-1].messages[1].thinking == THOUGHT
    items[1]["encrypted_content"] = altered(items[1]["encrypted_content"])
    with pytest.raises(BadRequestError) as caught:
        await client.responses.create(input=items, **behind)
    assert caught.value.param == "input[1].encrypted_content"


async def test_a_conversation_is_given_sealed_items(serve: Any, sdk: Any) -> None:
    server = await serve(engine(), sealer=keys())
    client = sdk(server)
    first = await client.responses.create(input=[QUESTION], **ASK)
    items = given_back(first)
    del items[1]["content"]
    conversation = await client.conversations.create(items=items)
    last = await client.responses.create(conversation=conversation.id, **ASK)
    assert last.output_text == "It is 12 degrees."
    assert server.engine.turns[-1].messages[1].thinking == THOUGHT
