from __future__ import annotations

import asyncio
import logging

import pytest

from doubles import scripted
from ouzel.api.app import ApiSettings
from ouzel.engines.scripted import ScriptedEngine
from wire import checks

KEY = "sk-test-0123456789"
ASK = {"model": "o4-mini", "input": "a secret question"}


async def post(http, server, path="/v1/responses", **more):
    async with http.post(f"{server.url}{path}", **more) as reply:
        return reply, await reply.read()


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Basic abc", "missing_api_key"),
        ("Bearer wrong", "invalid_api_key"),
        (f"Bearer {KEY}x", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/models", "/metrics", "/nowhere"])
async def test_with_a_key_nothing_is_told_without_it(serve, http, header, code, path):
    server = await serve(settings=ApiSettings(key=KEY))
    headers = {} if header is None else {"authorization": header}
    async with http.get(f"{server.url}{path}", headers=headers) as reply:
        error = checks.check_error(await reply.read())["error"]
    assert (reply.status, error["code"]) == (401, code)
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "x-request-id" in reply.headers


async def test_the_right_key_opens_and_health_is_open_to_all(serve, http):
    server = await serve(settings=ApiSettings(key=KEY))
    reply, body = await post(http, server, json=ASK, headers={"authorization": f"bearer {KEY}"})
    assert reply.status == 200
    checks.check_response(body)
    for path in ("/health", "/ready"):
        async with http.get(f"{server.url}{path}") as reply:
            assert reply.status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost:8321"}, 200),
        ({"host": "[::1]:8321"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "http://127.0.0.1@evil.example"}, 403),
    ],
)
async def test_without_a_key_web_pages_and_rebound_names_are_kept_out(serve, http, headers, status):
    server = await serve()
    reply, body = await post(http, server, json=ASK, headers=headers)
    assert reply.status == status
    if status == 403:
        checks.check_error(body)


async def test_unknown_paths_and_methods_are_json_errors(serve, http):
    server = await serve()
    for method, path, status, code in (
        ("GET", "/v1/nowhere", 404, "unknown_url"),
        ("GET", "/v1/responses/", 404, "unknown_url"),
        ("PUT", "/v1/responses", 405, "method_not_allowed"),
        ("GET", "/v1/responses", 405, "method_not_allowed"),
    ):
        async with http.request(method, f"{server.url}{path}") as reply:
            error = checks.check_error(await reply.read())["error"]
            assert (reply.status, error["code"]) == (status, code)


async def test_a_body_that_is_too_large_is_refused_announced_or_not(serve, http):
    server = await serve(settings=ApiSettings(max_body=1000))
    data = b'{"model": "o4-mini", "input": "' + b"x" * 2000 + b'"}'

    async def pieces():
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    for body in (data, pieces()):
        reply, answer = await post(http, server, data=body)
        error = checks.check_error(answer)["error"]
        assert (reply.status, error["code"]) == (413, "request_too_large")


async def test_an_unexpected_error_tells_only_the_request_id(serve, http, caplog):
    class Broken(ScriptedEngine):
        async def count_tokens(self, turn):
            raise ZeroDivisionError("inner detail")

    server = await serve(Broken())
    reply, body = await post(http, server, "/v1/responses/input_tokens", json=ASK)
    error = checks.check_error(body)["error"]
    assert reply.status == 500
    assert reply.headers["x-request-id"] in error["message"]
    assert "inner" not in error["message"]
    assert "inner detail" in caplog.text


async def test_neither_key_nor_prompt_nor_header_is_logged(serve, http, caplog):
    caplog.set_level(logging.DEBUG)
    server = await serve(settings=ApiSettings(key=KEY))
    headers = {"authorization": f"Bearer {KEY}", "x-private": "header-value"}
    await post(http, server, json=ASK, headers=headers)
    await post(http, server, data=b'{"model": "a secret question', headers=headers)
    await post(http, server, json=ASK, headers={"authorization": "Bearer another-key"})
    ours = [record.getMessage() for record in caplog.records if "aiohttp" not in record.name]
    for secret in (KEY, "secret question", "header-value", "another-key"):
        assert not [line for line in ours if secret in line]


async def test_readiness_follows_the_engine_and_health_does_not(serve, http):
    server = await serve()
    server.engine.state = "restarting"
    for path, status in (("/health", 200), ("/ready", 503)):
        async with http.get(f"{server.url}{path}") as reply:
            assert reply.status == status
            assert (await reply.json())["engine"] == "restarting"
    reply, _ = await post(http, server, json=ASK)
    assert reply.status == 503
    assert "retry-after" in reply.headers


async def test_models_are_listed_with_their_aliases(serve, sdk, http):
    server = await serve()
    client = sdk(server)
    assert [model.id async for model in await client.models.list()] == ["scripted", "o4-mini"]
    assert (await client.models.retrieve("o4-mini")).id == "o4-mini"
    async with http.get(f"{server.base_url}/models/gpt-9") as reply:
        error = checks.check_error(await reply.read())["error"]
    assert (reply.status, error["code"]) == (404, "model_not_found")


async def test_metrics_count_runs_and_tokens_by_route(serve, http):
    server = await serve()
    await post(http, server, json=ASK)
    await post(http, server, "/v1/secret-path", json=ASK)
    async with http.get(f"{server.url}/metrics") as reply:
        text = await reply.text()
    assert 'ouzel_runs_total{model="scripted",status="completed"} 1.0' in text
    assert 'ouzel_tokens_total{kind="output",model="scripted"} 5.0' in text
    assert 'route="/v1/responses",status="200"' in text
    assert "secret-path" not in text
    assert 'ouzel_engine_state{state="ready"} 1.0' in text


async def test_a_client_that_breaks_off_its_body_leaves_nothing(serve):
    server = await serve()
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert server.answers._finding.live == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n{}",
        b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\n"
        b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
async def test_broken_http_is_answered_or_closed_and_the_server_lives(serve, http, raw):
    server = await serve(scripted())
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert not answer.startswith(b"HTTP/1.1 5")
    writer.close()
    reply, _ = await post(http, server, json=ASK)
    assert reply.status == 200
