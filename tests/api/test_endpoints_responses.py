from __future__ import annotations

import asyncio

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError

from doubles import scripted
from ouzel.api.app import ApiSettings
from ouzel.engines.scripted import Die, Fail, Pause, Say, Stop, Think
from wire import checks


async def raw_stream(http, server, **body) -> bytes:
    async with http.post(f"{server.base_url}/responses", json={"stream": True, **body}) as reply:
        assert reply.status == 200, await reply.text()
        assert reply.content_type == "text/event-stream"
        return await reply.read()


async def test_the_official_sdk_creates_streams_and_continues(serve, sdk):
    client = sdk(await serve())
    first = await client.responses.create(model="o4-mini", input="hello")
    assert first.output_text == "You said: hello"
    assert first.status == "completed"
    stream = await client.responses.create(
        model="scripted", input="again", previous_response_id=first.id, stream=True
    )
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "You said: again"
    assert events[-1].response.previous_response_id == first.id
    counted = await client.responses.input_tokens.count(
        model="o4-mini", input="again", previous_response_id=first.id
    )
    assert counted.input_tokens == events[-1].response.usage.input_tokens


async def test_the_sdks_own_stream_helper_reads_to_the_end(serve, sdk):
    client = sdk(await serve(scripted(Think("hm"), Say("fine, thanks"))))
    async with client.responses.stream(model="o4-mini", input="how are you?") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text == "fine, thanks"


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((Say("one two"),), "completed"),
        ((Think("let me see"), Say("yes")), "completed"),
        ((Say("cut of"), Stop("length")), "incomplete"),
        ((Say("cut of"), Stop("filter")), "incomplete"),
        ((Say("half a sen"), Die()), "failed"),
        ((Fail("broken"),), "failed"),
    ],
)
async def test_every_stream_is_true_to_the_wire(serve, http, steps, status, store):
    server = await serve(scripted(*steps))
    sse = await raw_stream(http, server, model="o4-mini", input="hi", store=store)
    transcript = checks.check_response_stream(sse)
    assert transcript.response["status"] == status
    if store:
        async with http.get(f"{server.base_url}/responses/{transcript.response['id']}") as reply:
            kept = checks.check_response(await reply.read())
        assert kept == transcript.response


async def test_a_plain_reply_is_the_last_event_of_the_same_stream(serve, http):
    server = await serve()
    body = {"model": "o4-mini", "input": "hi", "metadata": {"a": "b"}, "temperature": 0.5}
    final = checks.check_response_stream(await raw_stream(http, server, **body)).response
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        plain = checks.check_response(await reply.read())
        assert reply.headers["x-request-id"].startswith("req_")
        assert int(reply.headers["openai-processing-ms"]) >= 0
    ids = {"id", "output", "created_at", "completed_at"}
    assert {k: v for k, v in plain.items() if k not in ids} == {
        k: v for k, v in final.items() if k not in ids
    }
    assert plain["metadata"] == {"a": "b"}
    assert plain["temperature"] == 0.5


async def test_log_probabilities_come_when_they_are_included(serve, sdk):
    client = sdk(await serve(scripted(Say("yes no"))))
    made = await client.responses.create(
        model="o4-mini", input="?", include=["message.output_text.logprobs"], top_logprobs=2
    )
    logprobs = made.output[0].content[0].logprobs
    assert [entry.token for entry in logprobs] == ["yes", " no"]
    assert [len(entry.top_logprobs) for entry in logprobs] == [2, 2]


async def test_input_items_are_listed_in_pages(serve, sdk, http):
    server = await serve()
    client = sdk(server)
    messages = [{"role": "user", "content": f"number {n}"} for n in range(5)]
    made = await client.responses.create(model="o4-mini", input=messages)
    listed = await client.responses.input_items.list(made.id, order="asc", limit=2)
    texts = [item.content[0].text async for item in listed]
    assert texts == [f"number {n}" for n in range(5)]
    async with http.get(f"{server.base_url}/responses/{made.id}/input_items") as reply:
        page = checks.check_input_items(await reply.read())
    assert page["data"][0]["content"][0]["text"] == "number 4"


async def test_deleted_is_gone(serve, sdk):
    client = sdk(await serve())
    made = await client.responses.create(model="o4-mini", input="hi")
    await client.responses.delete(made.id)
    for act in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(NotFoundError):
            await act(made.id)
    with pytest.raises(BadRequestError) as caught:
        await client.responses.create(model="o4-mini", input="x", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"


async def test_what_is_not_stored_cannot_be_fetched(serve, sdk):
    client = sdk(await serve())
    made = await client.responses.create(model="o4-mini", input="hi", store=False)
    assert made.store is False
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(made.id)


async def test_cancelling_a_stream_from_elsewhere_ends_it_properly(serve, http, sdk):
    engine = scripted(Say("a b c"), Pause(60), Say("never"))
    server = await serve(engine)
    body = {"model": "o4-mini", "input": "hi", "stream": True}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        head = await reply.content.readuntil(b"output_text.delta")
        response_id = head.split(b'"id":"')[1].split(b'"')[0].decode()
        cancelled = await sdk(server).responses.cancel(response_id)
        rest = await reply.read()
    assert cancelled.status == "cancelled"
    transcript = checks.check_response_stream(head + rest)
    assert transcript.response["status"] == "cancelled"
    assert engine.active == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_the_engine(serve, http, stream):
    engine = scripted(Say("a"), Pause(60))
    server = await serve(engine)
    body = {"model": "o4-mini", "input": "hi", "stream": stream}
    request = asyncio.create_task(http.post(f"{server.base_url}/responses", json=body))
    while not engine.active:
        await asyncio.sleep(0.01)
    if stream:
        (await request).close()
    else:
        request.cancel()
    async with asyncio.timeout(5):
        while engine.active or server.answers._finding.live:
            await asyncio.sleep(0.01)
    assert engine.cancelled == 1


async def test_a_failure_of_a_plain_request_is_an_error_with_its_status(serve, sdk):
    client = sdk(await serve(scripted(Fail("restarting", 503))))
    with pytest.raises(APIStatusError) as caught:
        await client.responses.create(model="o4-mini", input="hi")
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_too_long_a_prompt_names_both_numbers(serve, sdk):
    client = sdk(await serve(scripted(window=50)))
    for stream in (False, True):
        with pytest.raises(BadRequestError, match=r"50 tokens.*402 tokens") as caught:
            await client.responses.create(model="o4-mini", input="w " * 400 + "end", stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param == "input"


async def test_a_silent_stream_gives_signs_of_life(serve, http):
    server = await serve(scripted(Pause(0.3), Say("late")), settings=ApiSettings(keep_alive=0.05))
    sse = await raw_stream(http, server, model="o4-mini", input="hi")
    assert sse.count(b": keep-alive\n\n") >= 2
    assert checks.check_response_stream(sse).response["status"] == "completed"


async def test_shutting_down_ends_streams_with_failed(serve, http):
    server = await serve(scripted(Say("a"), Pause(60)))
    body = {"model": "o4-mini", "input": "hi", "stream": True}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        head = await reply.content.readuntil(b"output_text.delta")
        server.answers.shut_down()
        transcript = checks.check_response_stream(head + await reply.read())
    assert transcript.response["status"] == "failed"
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        assert reply.status == 503
        checks.check_error(await reply.read())


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("?stream=maybe", "stream", "invalid_value"),
        ("?starting_after=3", "starting_after", "invalid_parameter_combination"),
        ("?stream=true&starting_after=-1", "starting_after", "invalid_value"),
        ("?stream=true&starting_after=" + "9" * 11, "starting_after", "invalid_value"),
        ("?include_obfuscation=true", "include_obfuscation", "unsupported_parameter"),
        ("?colour=red", "colour", "unknown_parameter"),
        ("/input_items?limit=0", "limit", "invalid_value"),
        ("/input_items?limit=101", "limit", "invalid_value"),
        ("/input_items?limit=many", "limit", "invalid_value"),
        ("/input_items?order=up", "order", "invalid_value"),
        ("/input_items?before=x", "before", "unknown_parameter"),
    ],
)
async def test_odd_queries_are_named(serve, http, query, param, code):
    server = await serve()
    async with http.post(
        f"{server.base_url}/responses", json={"model": "o4-mini", "input": "hi"}
    ) as reply:
        made = await reply.json()
    async with http.get(f"{server.base_url}/responses/{made['id']}{query}") as reply:
        error = checks.check_error(await reply.read())["error"]
    assert (reply.status, error["param"], error["code"]) == (400, param, code)


async def test_eight_clients_at_once_each_get_a_true_stream(serve, http):
    server = await serve(scripted(Say("{input} " * 20, delay=0.002)))
    streams = await asyncio.gather(
        *(raw_stream(http, server, model="o4-mini", input=f"n{n}") for n in range(8))
    )
    for number, sse in enumerate(streams):
        final = checks.check_response_stream(sse).response
        assert final["output"][0]["content"][0]["text"].split() == [f"n{number}"] * 20
