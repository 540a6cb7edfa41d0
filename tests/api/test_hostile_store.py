"""A store that is full while the server runs: clients are told, and it works again with space.

The database really is full: SQLite refuses to let it grow, as it does when the disk is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hostile_kit import at_rest

from harness import Running, serving
from ouzel.engines.scripted import Pause, Reply, Say, Script, ScriptedEngine
from wire import checks

LONG = "private " + "y" * 9000
ENGINE_SCRIPT = Script(
    (
        Reply((Say("one"), Pause(0.1), Say(f" {LONG}"), Pause(0.1), Say(" three")), match="grow"),
        Reply((Say(LONG),), match="at once"),
        Reply((Say("one"), Pause(60)), match="hang"),
        Reply((Say("You said: {input}"),)),
    )
)
ROOMY = 1_000_000


def let_grow(server: Running, pages: int) -> None:
    """Let the database file grow by so many pages from now on."""
    connection = server.store._writer._connection
    (used,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={used + pages}")


@pytest.fixture
async def server(serve: Callable[..., Awaitable[Running]]) -> Running:
    return await serve(ScriptedEngine(ENGINE_SCRIPT))


async def ask(http: aiohttp.ClientSession, server: Running, text: str, **more: Any) -> Any:
    """Status and checked answer."""
    body = {"model": "o4-mini", "input": text, **more}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        data = await reply.read()
    if reply.status != 200:
        return reply.status, checks.check_error(data)["error"]
    if more.get("stream"):
        return 200, checks.check_response_stream(data).response
    return 200, checks.check_response(data)


async def kept(http: aiohttp.ClientSession, server: Running, response_id: str) -> Any:
    async with http.get(f"{server.base_url}/responses/{response_id}") as reply:
        assert reply.status == 200
        return checks.check_response(await reply.read())


@pytest.mark.parametrize("text", ["grow", "at once"])
async def test_a_stream_that_cannot_be_stored_fails_and_the_server_lives(
    server: Running, http: aiohttp.ClientSession, tmp_path: Path, text: str
) -> None:
    let_grow(server, 1)
    _, final = await ask(http, server, text, stream=True)
    assert (final["status"], final["error"]["code"]) == ("failed", "server_error")
    assert "stored" in final["error"]["message"]
    # It cannot be written that it failed, but whoever asks is told.
    assert (await kept(http, server, final["id"]))["status"] == "failed"
    async with http.post(f"{server.base_url}/responses/{final['id']}/cancel") as reply:
        assert checks.check_response(await reply.read())["status"] == "failed"
    assert (await ask(http, server, "hi", store=False))[0] == 200
    status, error = await ask(http, server, LONG)
    assert (status, error["code"]) == (507, "insufficient_storage")
    assert "/" not in error["message"], "what the store says is for the log"
    await at_rest(server)

    let_grow(server, ROOMY)
    status, made = await ask(http, server, LONG)
    assert (status, made["status"]) == (200, "completed")
    assert await kept(http, server, made["id"]) == made
    assert await server.answers.keep_ends() == 1
    assert (await kept(http, server, final["id"]))["status"] == "failed"


async def test_a_plain_answer_that_cannot_be_stored_is_an_error(
    server: Running, http: aiohttp.ClientSession
) -> None:
    let_grow(server, 1)
    status, error = await ask(http, server, "at once")
    assert (status, error["code"]) == (507, "insufficient_storage")
    await at_rest(server)


@pytest.fixture
def lifted_on_failure(server: Running) -> Iterator[None]:
    """There is space again at the moment at which a run is given up."""

    class Lift(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            let_grow(server, ROOMY)

    handler = Lift(logging.ERROR)
    logging.getLogger("ouzel.answer").addHandler(handler)
    yield
    logging.getLogger("ouzel.answer").removeHandler(handler)


@pytest.mark.usefixtures("lifted_on_failure")
async def test_what_was_owed_to_the_store_is_kept_with_the_end(
    server: Running, http: aiohttp.ClientSession
) -> None:
    let_grow(server, 1)
    _, final = await ask(http, server, "grow", stream=True)
    assert final["status"] == "failed"
    assert final["output"][0]["content"][0]["text"].startswith("one private ")
    assert await kept(http, server, final["id"]) == final
    events = await server.store.events(final["id"], "local")
    assert [event.kind for event in events].count("run_finished") == 1
    assert "".join(event.text for event in events if event.kind == "delta").startswith("one priv")


async def test_deleting_with_a_full_store_ends_the_run_all_the_same(
    server: Running, http: aiohttp.ClientSession
) -> None:
    body = {"model": "o4-mini", "input": "hang", "stream": True}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        head = await reply.content.readuntil(b"output_text.delta")
        response_id = head.split(b'"id":"')[1].split(b'"')[0].decode()
        let_grow(server, 0)
        async with http.delete(f"{server.base_url}/responses/{response_id}") as deleted:
            assert deleted.status in (200, 500)
        final = checks.check_response_stream(head + await reply.read()).response
    assert final["status"] in ("cancelled", "failed")
    await at_rest(server)


async def test_neither_prompt_nor_answer_is_in_the_log(
    server: Running, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    let_grow(server, 1)
    await ask(http, server, "grow private", stream=True)
    await ask(http, server, LONG)
    assert "disk is full" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("ouzel")]
    assert not [line for line in ours if "private" in line or "yyy" in line]


async def test_a_database_that_is_taken_away_is_told_and_nothing_hangs(
    server: Running, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    _, made = await ask(http, server, "hi")
    for part in tmp_path.glob("ouzel.db*"):
        part.unlink()
    status, error = await ask(http, server, "hi")
    assert (status, error["code"]) == (500, "server_error")
    async with http.get(f"{server.base_url}/responses/{made['id']}") as reply:
        assert reply.status == 500
        checks.check_error(await reply.read())
    assert (await ask(http, server, "hi", store=False))[0] == 200
    await at_rest(server)


async def test_what_was_running_when_the_store_was_full_is_failed_after_a_restart(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with serving(ScriptedEngine(ENGINE_SCRIPT), tmp_path) as server:
        _, before = await ask(http, server, "hi")
        let_grow(server, 1)
        _, final = await ask(http, server, "grow", stream=True)
    async with serving(ScriptedEngine(ENGINE_SCRIPT), tmp_path) as server:
        assert await kept(http, server, before["id"]) == before
        assert (await kept(http, server, final["id"]))["status"] == "failed"
        _, after = await ask(http, server, "hi", previous_response_id=before["id"])
        assert after["status"] == "completed"
