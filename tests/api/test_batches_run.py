"""How lines of batches share the engine with live requests and with each other, and what becomes of
them when something goes away in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from files_kit import real_files

from batch_kit import (
    CHAT,
    RESPONSES,
    Held,
    chat,
    checked,
    end,
    lines_of,
    reach,
    response,
    said,
    submit,
)
from harness import Running, serving
from ouzel.core.contracts_batches import Batch
from ouzel.core.errors import NotFound, StoreError
from ouzel.engines.script import Die, Fail, Reply, Say, Script
from ouzel.engines.scripted import ScriptedEngine
from ouzel.store import FileLimits, SqlFiles


class Clock:
    """The runner's clock, which tests may set forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqlFiles]:
    async with real_files(tmp_path / "kept") as opened:
        yield opened


@asynccontextmanager
async def running(
    engine: Any, home: Path, files: SqlFiles, **batching: Any
) -> AsyncIterator[tuple[Running, openai.AsyncOpenAI]]:
    """A server that another may follow in the same home."""
    more = {"again": 0.01, **batching}
    async with (
        serving(engine, home, files=files, batching=more) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        yield server, client


async def told(client: openai.AsyncOpenAI, batch: Any) -> list[str]:
    """What was answered to each line, in order."""
    return [said(each) for each in await lines_of(client, batch.output_file_id)]


# Live requests come first.


@pytest.mark.parametrize("slots", [1, 2, 4])
async def test_a_live_request_never_waits_for_lines(tmp_path, files, slots) -> None:
    """Lines that do not end have taken all room there is. As many live requests as the engine has
    slots begin nevertheless, and the lines are answered later."""
    engine = Held(slots=slots, holding="")
    async with running(engine, tmp_path, files) as (server, client):
        lines = [response(f"r{n}", f"line {n}") for n in range(2 * slots)]
        batch = await submit(client, lines)
        most = max(1, slots - 1)
        await engine.until(most)
        assert engine.open == [f"line {n}" for n in range(most)]
        assert server.spare.held == most
        names = [f"live {n}" for n in range(slots)]
        live = [
            asyncio.ensure_future(client.responses.create(model="scripted", input=name))
            for name in names
        ]
        await engine.until(most + slots)
        assert sorted(engine.open) == names
        assert server.spare.held == 0
        counts = (await client.batches.retrieve(batch.id)).request_counts
        assert (counts.completed, counts.failed) == (0, 0)
        assert len(engine.began) == most + slots  # and no line comes as long as they run
        engine.let()
        assert [each.status for each in await asyncio.gather(*live)] == ["completed"] * slots
        batch = await end(client, batch)
        assert await told(client, batch) == [f"You said: line {n}" for n in range(2 * slots)]
        assert (server.spare.held, server.spare.live) == (0, 0)


async def test_background_responses_come_before_lines(tmp_path, files) -> None:
    engine = Held(slots=2, holding="")
    async with running(engine, tmp_path, files) as (server, client):
        batch = await submit(client, [response("r0", "line")])
        await engine.until(1)
        for number in range(2):
            await client.responses.create(
                model="scripted", input=f"background {number}", background=True
            )
        await engine.until(3)
        assert sorted(engine.open) == ["background 0", "background 1"]
        assert (server.spare.live, server.spare.held) == (2, 0)
        engine.let()
        batch = await end(client, batch)
        assert await told(client, batch) == ["You said: line"]
        assert engine.began[3:] == ["line"]


async def test_lines_that_gave_way_come_again_before_others(tmp_path, files) -> None:
    engine = Held(slots=2, holding="")
    async with running(engine, tmp_path, files) as (server, client):
        batch = await submit(client, [response("r0", "line 0"), response("r1", "line 1")])
        await engine.until(1)
        live = [
            asyncio.ensure_future(client.responses.create(model="scripted", input=f"live {n}"))
            for n in range(2)
        ]
        await engine.until(3)
        engine.let()
        await asyncio.gather(*live)
        batch = await end(client, batch)
        assert await told(client, batch) == ["You said: line 0", "You said: line 1"]
        assert engine.began[0] == "line 0"
        assert engine.began[3:] == ["line 0", "line 1"]
        # What gave way was never a response of anybody's.
        assert await stored(server) == 2 + 2


async def stored(server: Running) -> int:
    """How many runs are kept."""

    def count(connection) -> int:
        return connection.execute("SELECT count(*) FROM runs").fetchone()[0]

    return await server.store.readers.read(count, "count runs")


async def test_batches_run_side_by_side_and_owners_take_turns(tmp_path, files) -> None:
    """A long batch holds up neither another one nor another owner."""
    engine = Held(slots=2, holding="first")
    async with running(engine, tmp_path, files) as (server, client):
        first = await submit(client, [response(f"r{n}", f"first {n}") for n in range(9)])
        await engine.until(1)
        second = await submit(client, [response(f"r{n}", f"second {n}") for n in range(3)])
        other = await foreign(server, files, [response(f"r{n}", f"other {n}") for n in range(4)])
        await reach(client, second, "in_progress")
        while (await server.batches.batches.get(other.id, "other")).status == "validating":
            await asyncio.sleep(0.01)
        engine.let()
        assert (await end(client, first)).status == (await end(client, second)).status
        while (await server.batches.batches.get(other.id, "other")).status != "completed":
            await asyncio.sleep(0.01)
    # One line may have been chosen already when the others came.
    turns = [each.split()[0] for each in engine.began[2:]]
    assert turns[:6] in (
        ["other", "second", "other", "first", "other", "second"],
        ["other", "first", "other", "second", "other", "first"],
        ["second", "other", "first", "other", "second", "other"],
        ["first", "other", "second", "other", "first", "other"],
    )
    for name, count in (("first", 9), ("second", 3), ("other", 4)):
        mine = [each for each in engine.began if each.startswith(name)]
        assert mine == [f"{name} {n}" for n in range(count)]


async def foreign(server: Running, files: SqlFiles, lines: list[dict[str, Any]]) -> Batch:
    """A batch of another owner's."""
    from batch_kit import jsonl

    async def data():
        yield jsonl(lines)

    file = await files.create("other", "in.jsonl", "batch", data())
    now = time.time()
    return await server.batches.submit(
        Batch(
            id="batch_other",
            owner="other",
            endpoint=RESPONSES,
            model="scripted",
            input_file_id=file.id,
            created_at=now,
            expires_at=now + 1000,
        )
    )


# What goes wrong by no fault of the line.


def failing(*steps: Any, times: int) -> ScriptedEngine:
    """An engine that does this first, so often, and then answers."""
    replies = (Reply(steps, times=times), Reply((Say("You said: {input}"),)))
    return ScriptedEngine(Script(replies, slots=2))


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT])
@pytest.mark.parametrize(
    "engine",
    [
        lambda: failing(Fail("not now", 503), times=1),
        lambda: failing(Say("half "), Die(), times=2),
    ],
)
async def test_a_line_waits_for_an_engine_that_is_not_there(
    tmp_path, files, monkeypatch, protocol, engine
) -> None:
    monkeypatch.setattr("ouzel.api.batch_line._PAUSE", 0.01)
    async with running(engine(), tmp_path, files) as (server, client):
        make = chat if protocol == CHAT else response
        batch = await end(client, await submit(client, [make("r", "hi")], protocol))
        assert await told(client, batch) == ["You said: hi"]
        assert batch.request_counts.failed == 0
        assert await stored(server) == (protocol == RESPONSES)


async def test_a_line_that_always_fails_has_failed(tmp_path, files, monkeypatch) -> None:
    monkeypatch.setattr("ouzel.api.batch_line._PAUSE", 0.01)
    engine = Held(Say("half "), Die())
    async with running(engine, tmp_path, files) as (server, client):
        batch = await end(client, await submit(client, [response("r", "hi")]))
        (error,) = await lines_of(client, batch.error_file_id)
        assert error["response"]["status_code"] == 500
        assert error["response"]["body"]["error"]["code"] == "server_error"
        assert engine.began == ["hi"] * 3
        assert await stored(server) == 1


async def test_a_line_that_never_ends_is_ended(tmp_path, files) -> None:
    engine = Held(holding="slow")
    async with running(engine, tmp_path, files, within=0.2) as (_, client):
        batch = await submit(client, [response("r", "slow"), response("s", "quick")])
        batch = await end(client, batch)
        (error,) = await lines_of(client, batch.error_file_id)
        assert (error["custom_id"], error["line"]) == ("r", 1)
        assert (error["response"], error["error"]["code"]) == (None, "request_timeout")
        assert await told(client, batch) == ["You said: quick"]
        assert engine.open == []


async def test_a_result_that_cannot_be_kept_is_not_lost(tmp_path, files, monkeypatch) -> None:
    engine = Held()
    async with running(engine, tmp_path, files) as (server, client):
        kept, tries = server.batches.batches.record, 0

        async def record(batch_id, line):
            nonlocal tries
            tries += 1
            if tries <= 3:
                raise StoreError("The disk is full.")
            await kept(batch_id, line)

        monkeypatch.setattr(server.batches.batches, "record", record)
        batch = await end(client, await submit(client, [response("r", "hi")]))
        assert await told(client, batch) == ["You said: hi"]
        assert (engine.began, tries) == (["hi"], 4)


@pytest.mark.parametrize("name", ["change", "add_lines", "next_line", "lines", "drop_lines"])
async def test_whatever_the_store_refuses_is_tried_again(
    tmp_path, files, monkeypatch, name
) -> None:
    async with running(Held(), tmp_path, files) as (server, client):
        whole, calls = getattr(server.batches.batches, name), 0

        async def sometimes(*args, **more):
            nonlocal calls
            calls += 1
            if calls % 5 == 1:
                raise StoreError("Not now.")
            return await whole(*args, **more)

        lines = [response(f"r{n}", f"hi {n}") for n in range(7)]
        monkeypatch.setattr(server.batches.batches, name, sometimes)
        batch = await end(client, await submit(client, [*lines, b"wrong"]))
        assert await told(client, batch) == [f"You said: hi {n}" for n in range(7)]
        assert len(await lines_of(client, batch.error_file_id)) == 1
        assert len((await client.files.list(purpose="batch_output")).data) == 2


# Restarts, and files that go.


async def test_another_process_goes_on(tmp_path, files) -> None:
    first = Held(slots=4, holding="line 1")  # 1, and 10 to 19
    lines = [response(f"r{n}", f"line {n}") for n in range(20)]
    async with running(first, tmp_path, files) as (_, client):
        batch = await submit(client, [b"wrong", *lines])
        await first.until(12)
        while (await client.batches.retrieve(batch.id)).request_counts.completed < 9:
            await asyncio.sleep(0.01)
        await client.files.delete(batch.input_file_id)
    second = Held(slots=4)
    async with running(second, tmp_path, files) as (server, client):
        batch = await end(client, batch)
        assert await told(client, batch) == [f"You said: line {n}" for n in range(20)]
        assert len(await lines_of(client, batch.error_file_id)) == 1
        assert sorted(second.began) == sorted(["line 1", *(f"line {n}" for n in range(10, 20))])
        assert await stored(server) == 20
        assert (batch.request_counts.total, batch.request_counts.failed) == (21, 1)


async def test_an_input_file_that_goes_before_it_is_read(tmp_path, files, monkeypatch) -> None:
    async with running(Held(), tmp_path, files) as (_, client):
        gone = NotFound("not found")

        async def missing(*args):
            raise gone

        monkeypatch.setattr(files, "open", missing)
        batch = await end(client, await submit(client, [response("r", "hi")]))
        assert (batch.status, batch.errors.data[0].code) == ("failed", "input_file_not_found")


async def test_a_batch_that_was_cut_off_in_its_check_has_each_line_once(tmp_path, files) -> None:
    lines = [response(f"r{n}", f"line {n}") for n in range(450)] + [response("r7", "twice")]
    async with running(Held(), tmp_path, files) as (server, client):
        whole = server.batches.batches.add_lines
        enough = asyncio.Event()

        async def two_groups(batch_id, group):
            if group[0].number > 200:
                enough.set()
                await asyncio.Event().wait()
            await whole(batch_id, group)

        server.batches.batches.add_lines = two_groups
        batch = await submit(client, lines)
        await enough.wait()
        batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.request_counts.total) == ("validating", 200)
    async with running(Held(), tmp_path, files) as (_, client):
        batch = await end(client, batch)
        assert await told(client, batch) == [f"You said: line {n}" for n in range(450)]
        (error,) = await lines_of(client, batch.error_file_id)
        assert (error["line"], error["error"]["code"]) == (451, "duplicate_custom_id")


@pytest.mark.parametrize("when", ["first file", "second file", "written", "dropped"])
async def test_the_files_are_made_once_wherever_the_end_is_cut_off(tmp_path, files, when) -> None:
    async with running(Held(), tmp_path, files) as (server, client):
        batches, cut = server.batches.batches, asyncio.Event()

        def cutting(whole, at: int, after: bool = True):
            calls = 0

            async def call(*args, **more):
                nonlocal calls
                calls += 1
                if calls == at and not after:
                    cut.set()
                    await asyncio.Event().wait()
                result = await whole(*args, **more)
                if calls == at:
                    cut.set()
                    await asyncio.Event().wait()
                return result

            return call

        with pytest.MonkeyPatch.context() as patch:
            batch = await client.files.create(file=("f", b"x"), purpose="batch")
            if when == "first file":
                patch.setattr(files, "create", cutting(files.create, 2))  # after the input
            elif when == "second file":
                patch.setattr(files, "create", cutting(files.create, 3))
            elif when == "written":  # in progress, ending, written, ended
                patch.setattr(batches, "change", cutting(batches.change, 3))
            else:
                patch.setattr(batches, "drop_lines", cutting(batches.drop_lines, 1))
            batch = await submit(client, [b"wrong", *(response(f"r{n}", "hi") for n in range(3))])
            async with asyncio.timeout(20):
                await cut.wait()
            seen = await client.batches.retrieve(batch.id)
            assert seen.status == "finalizing"
            assert (seen.request_counts.completed, seen.request_counts.failed) == (3, 1)
            await server.batches.close()
    async with running(Held(), tmp_path, files) as (_, client):
        batch = await end(client, batch)
        assert batch.status == "completed"
        assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 1)
        assert await told(client, batch) == ["You said: hi"] * 3
        assert len(await lines_of(client, batch.error_file_id)) == 1
        assert batch.usage.total_tokens > 0
        made = {each.id for each in (await client.files.list(purpose="batch_output")).data}
        assert made == {batch.output_file_id, batch.error_file_id}


async def test_results_wait_for_room_in_the_quota(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ouzel.api.batch_runner._FULL_AGAIN", 0.01)
    async with (
        real_files(tmp_path / "kept", FileLimits(quota=20_000)) as files,
        running(Held(), tmp_path, files) as (_, client),
    ):
        waste = await client.files.create(file=("f", b"x" * 18_000), purpose="user_data")
        batch = await submit(client, [response(f"r{n}", "hi") for n in range(5)])
        batch = await reach(client, batch, "finalizing")
        while not (batch.errors and batch.errors.data):
            batch = checked(await client.batches.retrieve(batch.id))
            await asyncio.sleep(0.01)
        assert batch.errors.data[0].code == "quota_exceeded"
        await client.files.delete(waste.id)
        batch = await end(client, batch)
        assert (batch.status, batch.errors) == ("completed", None)
        assert await told(client, batch) == ["You said: hi"] * 5


# Ends before all is done.


async def test_cancelling_keeps_what_is_there(tmp_path, files) -> None:
    engine = Held(slots=4, holding="slow")
    lines = [response(f"r{n}", f"quick {n}") for n in range(3)]
    lines += [response(f"s{n}", f"slow {n}") for n in range(5)]
    async with running(engine, tmp_path, files) as (server, client):
        batch = await submit(client, lines)
        await engine.until(6)
        batch = await reach(client, await client.batches.cancel(batch.id), "cancelled")
        assert engine.open == []  # the engine is free at once
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (8, 3, 0)
        assert await told(client, batch) == [f"You said: quick {n}" for n in range(3)]
        left = await lines_of(client, batch.error_file_id)
        assert [(each["custom_id"], each["line"]) for each in left] == [
            (f"s{n}", n + 4) for n in range(5)
        ]
        assert {each["error"]["code"] for each in left} == {"batch_cancelled"}
        assert await stored(server) == 3


@pytest.mark.parametrize("down", [False, True])
async def test_what_is_not_done_in_a_day_expires(tmp_path, files, monkeypatch, down) -> None:
    monkeypatch.setattr("ouzel.api.batch_runner._LONGEST_WAIT", 0.01)
    clock = Clock()
    engine = Held(slots=4, holding="slow")
    lines = [response("r", "quick"), response("s", "slow"), response("t", "slow")]
    async with running(engine, tmp_path, files, now=clock) as (_, client):
        batch = await submit(client, lines)
        await engine.until(3)
        while (await client.batches.retrieve(batch.id)).request_counts.completed < 1:
            await asyncio.sleep(0.01)
        clock.ahead = 24 * 3600 - 60
        await asyncio.sleep(0.05)  # it has looked at its clock
        assert (await client.batches.retrieve(batch.id)).status == "in_progress"
        if not down:
            clock.ahead = 24 * 3600 + 1
            batch = await end(client, batch)
            assert engine.open == []
    if down:
        clock.ahead = 24 * 3600 + 1
    async with running(Held(holding="slow"), tmp_path, files, now=clock) as (_, client):
        batch = await end(client, batch)
        assert batch.status == "expired"
        assert await told(client, batch) == ["You said: quick"]
        left = await lines_of(client, batch.error_file_id)
        assert [each["custom_id"] for each in left] == ["s", "t"]
        assert {each["error"]["code"] for each in left} == {"batch_expired"}
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (3, 1, 0)


async def test_shutting_down_takes_no_line_along(tmp_path, files) -> None:
    """What runs when the server is told to stop is no failure; nothing of it is left."""
    engine = Held(holding="line")
    async with running(engine, tmp_path, files) as (server, client):
        batch = await submit(client, [response(f"r{n}", f"line {n}") for n in range(5)])
        await engine.until(3)
        server.answers.shut_down()
        await server.batches.close()
        kept = await server.batches.batches.get(batch.id, "local")
        assert (kept.status, kept.counts.waiting, kept.counts.failed) == ("in_progress", 5, 0)
        assert engine.open == []
        assert await stored(server) == 0
