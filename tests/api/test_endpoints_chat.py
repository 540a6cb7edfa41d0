from __future__ import annotations

import asyncio

import pytest
from openai import APIError, APIStatusError, BadRequestError

from doubles import scripted
from ouzel.api.app import ApiSettings
from ouzel.engines.scripted import Die, Fail, Pause, Say, Stop, Think
from wire import checks

HELLO = [{"role": "user", "content": "hello"}]


async def raw_stream(http, server, **body) -> bytes:
    body = {"model": "o4-mini", "messages": HELLO, "stream": True, **body}
    async with http.post(f"{server.base_url}/chat/completions", json=body) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.read()


async def test_the_official_sdk_completes_and_streams(serve, sdk):
    client = sdk(await serve(scripted(Think("hm"), Say("You said: {input}"))))
    made = await client.chat.completions.create(model="o4-mini", messages=HELLO)
    message = made.choices[0].message
    assert message.content == "You said: hello"
    assert message.reasoning_content == "hm"
    assert made.usage.completion_tokens_details.reasoning_tokens == 1
    stream = await client.chat.completions.create(
        model="o4-mini", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "You said: hello"
    assert chunks[-1].usage == made.usage


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("include_usage", [True, False])
@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((Say("one two"),), "stop"),
        ((Think("let me see"), Say("yes")), "stop"),
        ((Say("cut of"), Stop("length")), "length"),
        ((Say("cut of"), Stop("filter")), "content_filter"),
    ],
)
async def test_every_stream_is_true_to_the_wire(serve, http, steps, reason, n, include_usage):
    server = await serve(scripted(*steps))
    sse = await raw_stream(http, server, n=n, stream_options={"include_usage": include_usage})
    transcript = checks.check_chat_stream(sse)
    assert transcript.finish == dict.fromkeys(range(n), reason)
    assert (transcript.usage is not None) == include_usage


async def test_several_choices_share_the_prompt_in_usage(serve, http):
    server = await serve(scripted(Say("one two three")))
    body = {"model": "o4-mini", "messages": HELLO, "n": 4, "seed": 7}
    async with http.post(f"{server.base_url}/chat/completions", json=body) as reply:
        made = checks.check_chat(await reply.read())
    assert len(made["choices"]) == 4
    assert made["usage"]["prompt_tokens"] == 2
    assert made["usage"]["completion_tokens"] == 12


async def test_stop_limit_and_logprobs_are_honoured(serve, sdk):
    client = sdk(await serve(scripted(Say("one two three four"))))
    made = await client.chat.completions.create(
        model="o4-mini", messages=HELLO, stop=[" three"], logprobs=True, top_logprobs=2
    )
    assert made.choices[0].message.content == "one two"
    assert [entry.token for entry in made.choices[0].logprobs.content] == ["one", " two"]
    cut = await client.chat.completions.create(
        model="o4-mini", messages=HELLO, max_completion_tokens=2
    )
    assert cut.choices[0].finish_reason == "length"
    assert cut.choices[0].message.content == "one two"


async def test_a_failure_before_the_first_word_has_its_status(serve, sdk):
    client = sdk(await serve(scripted(Fail("restarting", 503))))
    for stream in (False, True):
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(model="o4-mini", messages=HELLO, stream=stream)
        assert caught.value.status_code == 503
        assert "retry-after" in caught.value.response.headers


async def test_a_death_in_mid_stream_raises_in_the_sdk(serve, sdk, http):
    server = await serve(scripted(Say("half a"), Pause(0.05), Say(" sen"), Die("it is gone")))
    stream = await sdk(server).chat.completions.create(model="o4-mini", messages=HELLO, stream=True)
    heard = ""

    async def listen() -> None:
        nonlocal heard
        async for chunk in stream:
            heard += chunk.choices[0].delta.content or ""

    with pytest.raises(APIError, match="it is gone"):
        await listen()
    assert heard == "half a sen"
    transcript = checks.check_chat_stream(await raw_stream(http, server))
    assert transcript.error is not None


async def test_a_long_silence_begins_the_stream_all_the_same(serve, http):
    server = await serve(scripted(Pause(0.3), Say("late")), settings=ApiSettings(keep_alive=0.05))
    sse = await raw_stream(http, server)
    assert b": keep-alive\n\n" in sse
    assert checks.check_chat_stream(sse).finish == {0: "stop"}


@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_goes_away_frees_every_choice(serve, http, n):
    engine = scripted(Say("a"), Pause(60))
    server = await serve(engine)
    body = {"model": "o4-mini", "messages": HELLO, "stream": True, "n": n}
    reply = await http.post(f"{server.base_url}/chat/completions", json=body)
    await reply.content.readuntil(b"\n\n")
    reply.close()
    async with asyncio.timeout(5):
        while engine.active or server.answers._finding.live:
            await asyncio.sleep(0.01)
    assert engine.cancelled == n


async def test_too_long_a_conversation_names_messages(serve, sdk):
    client = sdk(await serve(scripted(window=50)))
    messages = [{"role": "user", "content": "word " * 400}]
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(model="o4-mini", messages=messages)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


async def test_more_choices_than_the_server_admits_leave_nothing_running(serve, http):
    server = await serve(scripted(Pause(60)), max_requests=2)
    body = {"model": "o4-mini", "messages": HELLO, "n": 3}
    async with http.post(f"{server.base_url}/chat/completions", json=body) as reply:
        assert reply.status == 429
        assert "retry-after" in reply.headers
        checks.check_error(await reply.read())
    assert server.answers._finding.live == {}
    assert server.engine.active == 0
