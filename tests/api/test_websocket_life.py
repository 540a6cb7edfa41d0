"""WebSocket mode as its clients see it: how a socket opens, what is told of it, how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hostile_kit import at_rest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from doubles import scripted
from harness import serving
from ouzel.api import websocket, write_responses
from ouzel.api.app import ApiSettings
from ouzel.engines.scripted import Pause, Reply, Say, Script, ScriptedEngine
from served import served
from websocket_kit import MODEL, check_turn, closed, playing, socket
from wire import checks

KEY = "sk-test-0123456789"
ASK = {"model": MODEL, "input": "a secret question", "store": False}


# The handshake.


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/responses", {}, 401, "missing_api_key"),
        ("/v1/responses", {"authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ("/nowhere", {}, 401, "missing_api_key"),
        ("/nowhere", {"authorization": f"Bearer {KEY}"}, 404, "unknown_url"),
        ("/v1/models", {"authorization": f"Bearer {KEY}"}, 404, "unknown_url"),
        ("/v1/responses?model=x", {"authorization": f"Bearer {KEY}"}, 400, "unknown_parameter"),
        (
            "/v1/responses",
            {"authorization": f"Bearer {KEY}", "x-answer-within": "soon"},
            400,
            "invalid_header",
        ),
    ],
)
async def test_a_handshake_is_guarded_as_any_request(serve, path, headers, status, code):
    server = await serve(settings=ApiSettings(key=KEY))
    with pytest.raises(InvalidStatus) as refused:
        await opening(server, path, headers)
    reply = refused.value.response
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/json")
    assert checks.check_error(bytes(reply.body))["error"]["code"] == code
    assert reply.headers["x-request-id"].startswith("req_")


async def opening(server, path, headers=(), **more):
    url = f"{server.url.replace('http', 'ws', 1)}{path}"
    return await connect(url, additional_headers=headers, proxy=None, **more)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example"}, "forbidden_host"),
        ({"origin": "https://evil.example"}, "forbidden_origin"),
        ({"origin": "null"}, "forbidden_origin"),
    ],
)
async def test_without_a_key_pages_from_elsewhere_get_no_socket(serve, http, headers, code):
    server = await serve()
    wanted = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "sec-websocket-version": "13",
    }
    async with http.get(f"{server.base_url}/responses", headers=wanted | headers) as reply:
        error = checks.check_error(await reply.read())["error"]
    assert (reply.status, error["code"]) == (403, code)


async def test_an_opened_socket_has_the_headers_of_every_answer(serve):
    server = await serve()
    async with socket(server) as ws:
        headers = ws.raw.response.headers
        assert headers["x-request-id"].startswith("req_")
        assert int(headers["openai-processing-ms"]) >= 0
        assert "sec-websocket-extensions" not in headers


async def test_the_time_for_an_answer_holds_for_every_turn(serve):
    server = await serve(playing())
    async with socket(server, additional_headers={"x-answer-within": "0.4"}) as ws:
        for _ in range(2):
            turn = await ws.turn(input="long", store=False)
            assert turn.response["status"] == "incomplete"


# Who sees what.


async def test_no_key_and_no_prompt_is_logged_even_at_the_loudest(serve, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
    server = await serve(settings=ApiSettings(key=KEY))
    # What the client's own library logs is not ours.
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.CRITICAL)
    async with socket(server, KEY, logger=quiet) as ws:
        await ws.turn(**ASK)
        await ws.raw.send('{"type": "a secret question"}')
        await ws.read()
    assert KEY not in caplog.text
    assert "a secret" not in caplog.text


async def test_sockets_and_turns_are_counted(serve, http):
    server = await serve(playing())
    async with socket(server) as ws:
        await ws.turn(input="hello")
        await ws.turn(input="fail")
        await ws.turn(input=7)
        open_now = await numbers(http, server)
    assert open_now["ouzel_websockets"] == 1
    assert open_now['ouzel_websocket_turns_total{status="completed"}'] == 1
    assert open_now['ouzel_websocket_turns_total{status="failed"}'] == 1
    assert open_now['ouzel_websocket_turns_total{status="refused"}'] == 1
    opened = 'ouzel_http_requests_total{method="GET",route="/v1/responses",status="101"}'
    assert open_now[opened] == 1
    await at_rest(server)
    assert (await numbers(http, server))["ouzel_websockets"] == 0


async def numbers(http, server) -> dict[str, float]:
    async with http.get(f"{server.url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


# How it ends.


async def test_a_client_that_leaves_in_mid_turn_frees_the_slot(serve):
    server = await serve(playing())
    async with socket(server) as ws:
        await ws.ask(input="hang", store=False)
        assert (await ws.event())["type"] == "response.created"
        await ws.ask(input="never begun")
        assert server.engine.active == 1
        ws.raw.transport.abort()
    await at_rest(server)
    assert server.engine.cancelled == 1
    assert len(server.engine.turns) == 1


async def test_a_client_that_says_goodbye_in_mid_turn_frees_the_slot(serve):
    server = await serve(playing())
    async with socket(server) as ws:
        await ws.ask(input="hang", store=False)
        assert (await ws.event())["type"] == "response.created"
        await ws.raw.close()
    await at_rest(server)
    assert server.engine.cancelled == 1


class Reluctant(ScriptedEngine):
    """Takes longer to let go of a turn than the server takes to begin its shutdown."""

    async def stream(self, *args: Any, **more: Any) -> AsyncGenerator[Any, None]:
        try:
            async for delta in super().stream(*args, **more):
                yield delta
        finally:
            await asyncio.sleep(0.5)


async def test_a_server_that_stops_ends_the_turn_and_says_why(tmp_path):
    async with serving(
        Reluctant(Script((Reply((Say("one two"), Pause(60))),))), tmp_path
    ) as server:
        busy, idle = await opening(server, "/v1/responses"), await opening(server, "/v1/responses")
        await busy.send(json.dumps({"type": "response.create", **ASK, "input": "hang"}))
        events = [json.loads(await busy.recv())]
        await busy.send(json.dumps({"type": "response.create", **ASK}))
    # It is down. All that it said is still there to be read.
    while events[-1]["type"] not in checks.TERMINAL:
        events.append(json.loads(await busy.recv()))
    assert events[-1]["type"] == "response.failed"
    told = json.loads(await busy.recv())
    assert (told["status"], told["error"]["code"]) == (503, "server_shutting_down")
    assert [await closed(busy), await closed(idle)] == [1012, 1012]


async def test_sigterm_in_mid_turn(tmp_path):
    script = tmp_path / "script.toml"
    script.write_text('[[reply]]\nsteps = [{ say = "word ", repeat = 2000, delay = 0.05 }]\n')
    with served(tmp_path / "home", "--script", str(script)) as server:
        url = f"{server.url.replace('http', 'ws', 1)}/responses"
        async with connect(url, proxy=None) as busy, connect(url, proxy=None) as idle:
            await busy.send(json.dumps({"type": "response.create", **ASK}))
            events = [json.loads(await busy.recv())]
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            while events[-1]["type"] not in checks.TERMINAL:
                events.append(json.loads(await busy.recv()))
            assert check_turn(events)["status"] == "failed"
            assert [await closed(busy), await closed(idle)] == [1012, 1012]
            assert await stopping == 0


async def test_a_mistake_of_ours_ends_the_connection_and_frees_the_slot(serve, monkeypatch, caplog):
    def broken(*args: Any) -> bytes:
        raise ZeroDivisionError

    server = await serve(playing())
    async with socket(server) as ws:
        monkeypatch.setattr(write_responses.ResponseStream, "write", broken)
        await ws.ask(input="hang", store=False)
        assert await closed(ws.raw) == 1011
    await at_rest(server)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[0] is ZeroDivisionError


async def test_after_an_hour_it_is_over(serve, monkeypatch):
    monkeypatch.setattr(websocket, "LIFETIME", 0.2)
    server = await serve(playing())
    async with socket(server) as ws:
        # The turn in flight comes to its end, what waits does not begin.
        await ws.ask(input="pause")
        await ws.ask(input="never begun")
        assert (await ws.read()).text == "one two three"
        over = await ws.read()
        assert (over.status, over.code) == (400, "websocket_connection_limit_reached")
        assert await closed(ws.raw) == 1001
    await at_rest(server)


async def test_a_turn_without_end_does_not_outlive_its_connection(serve, monkeypatch):
    monkeypatch.setattr(websocket, "LIFETIME", 0.1)
    monkeypatch.setattr(websocket, "LAST_TURN_WITHIN", 0.1)
    server = await serve(playing())
    async with socket(server) as ws:
        cut = await ws.turn(input="hang")
        assert cut.response["status"] == "cancelled"
        assert (await ws.read()).code == "websocket_connection_limit_reached"
        assert await closed(ws.raw) == 1001


async def test_an_idle_socket_is_told_when_its_time_is_over(serve, monkeypatch):
    monkeypatch.setattr(websocket, "LIFETIME", 0.1)
    server = await serve(scripted())
    async with socket(server) as ws:
        assert (await ws.read()).code == "websocket_connection_limit_reached"
        assert await closed(ws.raw) == 1001
