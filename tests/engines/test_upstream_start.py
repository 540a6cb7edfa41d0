"""What an engine learns of its server when it starts, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fake_upstream import FakeUpstream, serving
from fake_upstream_faults import (
    raw,
    slow_headers,
    status,
)

from ouzel.core.errors import EngineError, EngineUnavailable
from ouzel.core.turns import Turn, TurnMessage
from ouzel.engines.upstream import Timeouts, UpstreamEngine
from ouzel.engines.upstream_client import Client

SAMPLING = {"logprobs", "logit_bias", "seed", "stop", "penalties"}
EVERYTHING = SAMPLING | {"grammar", "json_schema", "opening", "tools"}


async def start(fake: FakeUpstream, **how: Any) -> UpstreamEngine:
    """A started engine, stopped again: what it learnt stays."""
    how = {"key": fake.key, "model": None, "retries": 1} | how
    engine = UpstreamEngine(fake.url, **how)
    try:
        await engine.start()
    finally:
        state = engine.state
        await engine.stop()
    assert state == "ready"
    return engine


@pytest.mark.parametrize(
    ("dialect", "capabilities", "source", "server"),
    [
        ("llama", EVERYTHING | {"llguidance"}, "/v1/models", "llamacpp"),
        ("old_llama", SAMPLING | {"grammar", "opening"}, "/props", "llamacpp"),
        ("vllm", EVERYTHING, "/v1/models", "vllm"),
        ("sglang", EVERYTHING, "/v1/models", "sglang"),
        # Ollama takes logprobs and logit_bias and does nothing with them.
        (
            "ollama",
            {"seed", "stop", "penalties", "json_schema", "opening", "tools"},
            "/api/ps",
            "library",
        ),
    ],
)
async def test_a_server_is_asked_what_it_is(
    dialect: str, capabilities: set[str], source: str, server: str
) -> None:
    async with serving(dialect, window=777) as fake:
        info = (await start(fake)).info
        assert info.model == "m"
        assert info.context_window == 777
        assert info.capabilities == capabilities
        assert info.created_at == 1_700_000_000
        assert dict(info.detail)["context from"] == source
        assert dict(info.detail)["server"] == server
        assert (info.thinks, info.tool_style) == (
            "no",
            "native" if "tools" in capabilities else "guided",
        )
        assert all(body["max_tokens"] <= 200 for body in fake.chats)


async def test_what_is_configured_is_not_asked() -> None:
    async with serving("ollama", window=777) as fake:
        info = (
            await start(fake, context_window=99, capabilities=frozenset({"seed"}), served_as="ours")
        ).info
        assert (info.model, info.context_window) == ("ours", 99)
        assert info.capabilities == {"seed"}
        assert [path for path, _ in fake.asked] == ["/v1/models"]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_in_v1_or_not(suffix: str) -> None:
    async with serving() as fake:
        engine = UpstreamEngine(fake.url + suffix, key="k", model=None)
        await engine.start()
        await engine.stop()
        assert {path for path, _ in fake.asked} == {
            "/v1/models",
            "/v1/chat/completions",
            "/props",
            "/apply-template",
        }


async def test_a_server_may_live_under_a_path() -> None:
    assert str(Client("https://h/a/b/v1", None, Timeouts()).url("/v1/models")) == (
        "https://h/a/b/v1/models"
    )
    assert str(Client("http://h:1/a b", None, Timeouts()).url("/props")) == "http://h:1/a%20b/props"


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://h/", "http://", "http://h:99999", "http://u:p@h/", "::"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(EngineError, match="engine_url"):
        UpstreamEngine(url, key=None, model=None)


def test_a_key_that_no_header_can_carry() -> None:
    with pytest.raises(EngineError, match="engine_key"):
        UpstreamEngine("http://h", key="a\r\nX: y", model=None)


async def test_one_of_several_models_has_to_be_named() -> None:
    async with serving(models=("a", "b")) as fake:
        with pytest.raises(EngineError, match="engine_model to one of: a, b"):
            await start(fake)
        assert (await start(fake, model="b")).info.model == "b"
        with pytest.raises(EngineError, match="does not serve 'c'; engine_model can be: a, b"):
            await start(fake, model="c")
    async with serving("ollama", models=("a:latest", "b:7b")) as fake:
        assert (await start(fake, model="a")).info.model == "a:latest"


async def test_a_server_without_models() -> None:
    async with serving("ollama", models=()) as fake:
        with pytest.raises(EngineError, match="serves 0 models"):
            await start(fake)


async def test_a_server_that_does_not_say_its_context() -> None:
    async with serving("ollama", window=0) as fake:
        with pytest.raises(EngineError, match="engine_context"):
            await start(fake)
        # What the weights were trained for is no answer: Ollama gives them much less.
        assert "/api/show" in [path for path, _ in fake.asked]
        fake.parameters = 'stop "x"\nnum_ctx    8192\ntemperature 1'
        info = (await start(fake, capabilities=frozenset())).info
        assert info.context_window == 8192


async def test_stopping_while_it_starts() -> None:
    async with serving() as fake:
        fake.faults.append(slow_headers(30))
        engine = UpstreamEngine(fake.url, key="k", model=None)
        task = asyncio.create_task(engine.start())
        while not fake.running:
            await asyncio.sleep(0.01)
        await engine.stop()
        with pytest.raises(EngineUnavailable):
            await task
        assert engine.state == "stopped"
        await engine.start()
        assert engine.state == "ready", "it may be started again"
        await engine.stop()


async def test_a_wrong_key_is_named_as_such() -> None:
    async with serving(key="right") as fake:
        engine = UpstreamEngine(fake.url, key="wrong", model=None)
        with pytest.raises(EngineError, match="engine_key"):
            await engine.start()
        assert engine.state == "failed"
        with pytest.raises(EngineUnavailable, match="engine_key"):
            _ = engine.info
        await engine.stop()


async def test_no_server_at_all() -> None:
    fake = FakeUpstream()
    await fake.start()
    await fake.stop()
    engine = UpstreamEngine(fake.url, key=None, model=None, retries=1)
    with pytest.raises(EngineUnavailable, match="not up: it was not started"):
        _ = engine.info
    with pytest.raises(EngineUnavailable, match="No connection to the engine at http://127"):
        await engine.start()
    assert engine.state == "failed"
    await engine.stop()


async def test_a_host_that_does_not_exist() -> None:
    engine = UpstreamEngine("http://nowhere.invalid:1", key=None, model=None, retries=0)
    with pytest.raises(EngineUnavailable, match=r"no address|No connection"):
        await engine.start()
    await engine.stop()


async def test_a_server_that_still_loads_is_waited_for_a_little() -> None:
    async with serving() as fake:
        fake.healthy = False

        async def load() -> None:
            while not fake.asked:
                await asyncio.sleep(0.01)
            fake.healthy = True

        loading = asyncio.create_task(load())
        assert (await start(fake, retries=3)).info.model == "m"
        await loading
        fake.healthy = False
        with pytest.raises(EngineUnavailable, match="Loading model"):
            await start(fake, retries=1)


async def test_something_else_at_that_address() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mail = await asyncio.start_server(line, "127.0.0.1", 0)
    try:
        for port, says in (
            (runner.addresses[0][1], "lists no models"),
            (mail.sockets[0].getsockname()[1], "not HTTP"),
        ):
            engine = UpstreamEngine(f"http://127.0.0.1:{port}", key=None, model=None, retries=0)
            with pytest.raises(EngineError, match=says):
                await engine.start()
            await engine.stop()
    finally:
        mail.close()
        await mail.wait_closed()
        await runner.cleanup()


async def test_a_server_that_cannot_stream_is_found_out_at_the_start() -> None:
    async with serving() as fake:
        engine = UpstreamEngine(fake.url, key="k", model=None, retries=0)
        plain = 7  # requests of the probe that are not streamed
        fake.faults += [_behave] * plain + [raw(b"{}", content_type="application/json")] * 2
        with pytest.raises(EngineError, match="instead of a stream"):
            await engine.start()
        await engine.stop()


async def _behave(fake: FakeUpstream, request: web.Request, body: Any) -> web.StreamResponse:
    return await fake.answer(request, body)


async def test_a_server_that_counts_nothing_is_found_out_at_the_start() -> None:
    async with serving("ollama", usage=False) as fake:
        with pytest.raises(EngineError, match="include_usage"):
            await start(fake)


async def test_a_server_that_refuses_parameters_can_do_less() -> None:
    async with serving() as fake:
        behave = fake.answer

        async def strict(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            for name in ("logprobs", "logit_bias", "seed", "presence_penalty"):
                if name in body:
                    error = {"error": {"message": f"no {name}", "param": name, "code": 400}}
                    return web.json_response(error, status=400)
            return await behave(request, body)

        fake.answer = strict  # type: ignore[method-assign]
        assert (await start(fake)).info.capabilities == (EVERYTHING | {"llguidance"}) - {
            "logprobs",
            "logit_bias",
            "seed",
            "penalties",
        }


async def test_a_server_that_fails_while_it_is_probed() -> None:
    async with serving() as fake:
        fake.faults += [_behave, status(500, {"error": {"message": "CUDA is gone"}})]
        with pytest.raises(EngineError, match="CUDA is gone"):
            await start(fake)


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = tmp_path / "pair.pem"
    pair.write_text(PAIR)
    context.load_cert_chain(pair)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    engine = UpstreamEngine(f"https://127.0.0.1:{port}", key="sk-1", model=None)
    try:
        with pytest.raises(EngineUnavailable, match=r"certificate .* not trusted .*self-signed"):
            await engine.start()
    finally:
        await engine.stop()
        server.close()
        await server.wait_closed()


async def test_https_to_a_server_that_speaks_http() -> None:
    async with serving() as fake:
        url = fake.url.replace("http:", "https:")
        engine = UpstreamEngine(url, key="k", model=None)
        with pytest.raises(EngineUnavailable, match="does it speak https"):
            await engine.start()
        await engine.stop()


async def test_a_proxy_from_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving() as fake:
        engine = UpstreamEngine(fake.url, key="k", model=None, retries=0)
        await engine.start()
        turn = Turn((TurnMessage("user", "Hi"),))
        assert [d async for d in engine.stream(turn)]
        await engine.stop()
    away = UpstreamEngine("http://engine.invalid", key=None, model=None, retries=0)
    with pytest.raises(EngineUnavailable, match=r"No connection|proxy"):
        await away.start()
    await away.stop()


# A self-signed pair for 127.0.0.1, made for this test and good for nothing else.
PAIR = """-----BEGIN {0} KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcRN8yNXiEkTV6o+Y
eJEw7fQjyd3zTZVsYOAcZm1RbXGhRANCAARjOuR+tfNtsc0M6ypu6fHhm8cvzC5t
FRyWwo4iKpHJ2PsoVL3JHuIs+oloynJRGIwiUx0Dp56iubmsgXnI4t8P
-----END {0} KEY-----
-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIUeVHl8dbue8oPloeerOuZ4xgYdsUwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjE4MjM0MFoYDzIxMjYxMDI5
MTgyMzQwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARjOuR+tfNtsc0M6ypu6fHhm8cvzC5tFRyWwo4iKpHJ2PsoVL3JHuIs
+oloynJRGIwiUx0Dp56iubmsgXnI4t8Po2QwYjAdBgNVHQ4EFgQUGDxwKruZwEvN
lCoR0qn/zQZSCbYwHwYDVR0jBBgwFoAUGDxwKruZwEvNlCoR0qn/zQZSCbYwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQC
IHeobLs8V6cLJ1aoONEvitQR7Ae6Zypa0EhKZLJz3tkSAiBEAZ5ISHP1JxSiVOk1
x3XzRqkxOCucu7KWLHOVqOrt3Q==
-----END CERTIFICATE-----
""".format("PRIVATE")
