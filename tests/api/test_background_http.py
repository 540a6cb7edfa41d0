"""Background responses over HTTP: queued, run, fetched, streamed, cancelled, deleted, bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_kit import at_rest
from resume_kit import Gated, ask, becomes, created, resumed, status_of, told

from harness import serving
from ouzel.answer.background import BackgroundLimits
from wire import checks


@pytest.fixture
async def server(serve: Any) -> Any:
    """Two background responses run at once."""
    return await serve(Gated(), background=BackgroundLimits(at_once=2, waiting=3))


async def test_from_queued_to_completed(http: Any, server: Any) -> None:
    status, made = await ask(http, server, "gated", metadata={"a": "b"})
    assert status == 200
    checks.check_response(made)
    assert (made["status"], made["background"], made["output"]) == ("queued", True, [])
    await server.engine.stands()
    running = await becomes(http, server, made["id"], "in_progress")
    checks.check_response(running)
    server.engine.gate.set()
    done = checks.check_response(await becomes(http, server, made["id"], "completed"))
    changed = ("status", "output", "usage", "completed_at")
    assert {k: v for k, v in done.items() if k not in changed} == {
        k: v for k, v in made.items() if k not in changed
    }
    await at_rest(server)


async def test_the_official_sdk_polls(server: Any, sdk: Any) -> None:
    client = sdk(server)
    server.engine.gate.set()
    made = await client.responses.create(model="o4-mini", input="gated", background=True)
    while made.status in ("queued", "in_progress"):
        made = await client.responses.retrieve(made.id)
    assert made.status == "completed"
    assert made.background is True
    assert made.output_text.endswith("word19.")
    again = await client.responses.create(
        model="o4-mini", input="hi", previous_response_id=made.id, background=True
    )
    assert again.previous_response_id == made.id


async def test_a_streamed_one_says_that_it_is_queued_and_ends(http: Any, server: Any) -> None:
    server.engine.gate.set()
    async with created(http, server, "gated", background=True) as stream:
        transcript = checks.check_response_stream(await stream.all())
    assert transcript.names[:2] == ["response.queued", "response.in_progress"] or (
        "response.queued" in transcript.names[:2]
    )
    assert transcript.response["background"] is True
    status, kept = await told(http, server, f"/{stream.id}")
    assert (status, kept) == (200, transcript.response)


async def test_no_more_run_at_once_than_may_and_the_others_wait_their_turn(
    http: Any, server: Any
) -> None:
    made = [(await ask(http, server, f"gated {n}"))[1]["id"] for n in range(5)]
    await server.engine.stands(2)
    for each in made[:2]:
        await becomes(http, server, each, "in_progress")
    assert [await status_of(http, server, each) for each in made[2:]] == ["queued"] * 3
    assert server.engine.active == 2
    server.engine.gate.set()
    for each in made:
        await becomes(http, server, each, "completed")
    asked = [turn.messages[-1].text for turn in server.engine.turns]
    assert asked == [f"gated {n}" for n in range(5)], "first come, first served"


async def test_a_full_queue_refuses_and_takes_again(http: Any, server: Any) -> None:
    made = [(await ask(http, server, "gated"))[1]["id"] for _ in range(2)]
    await server.engine.stands(2)
    made += [(await ask(http, server, "gated"))[1]["id"] for _ in range(3)]
    body = {"model": "o4-mini", "input": "gated", "background": True}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) >= 1
        error = checks.check_error(await reply.read())["error"]
        assert error["code"] == "rate_limit_exceeded"
    # Who does not wait in the queue is not refused because of it.
    async with created(http, server, "hi") as stream:
        checks.check_response_stream(await stream.all())
    await told(http, server, f"/{made[-1]}/cancel", "POST")
    status, another = await ask(http, server, "gated")
    assert status == 200
    server.engine.gate.set()
    for each in (*made[:-1], another["id"]):
        await becomes(http, server, each, "completed")


async def test_cancelled_while_it_waits_it_never_runs(http: Any, server: Any) -> None:
    made = [(await ask(http, server, f"gated {n}"))[1]["id"] for n in range(4)]
    await server.engine.stands(2)
    async with resumed(http, server, made[2]) as reader:
        await reader.until(b"response.queued")
        status, body = await told(http, server, f"/{made[2]}/cancel", "POST")
        assert (status, checks.check_response(body)["status"]) == (200, "cancelled")
        await reader.all()
        assert reader.events[-1]["type"] == "response.incomplete"
        assert reader.events[-1]["response"] == body
    assert await told(http, server, f"/{made[2]}/cancel", "POST") == (200, body)
    server.engine.gate.set()
    await becomes(http, server, made[3], "completed")
    assert await told(http, server, f"/{made[2]}") == (200, body)
    asked = [turn.messages[-1].text for turn in server.engine.turns]
    assert asked == ["gated 0", "gated 1", "gated 3"]
    await at_rest(server)


async def test_cancelled_while_it_runs_its_slot_is_free_at_once(http: Any, server: Any) -> None:
    made = [(await ask(http, server, f"gated {n}"))[1]["id"] for n in range(3)]
    await server.engine.stands(2)
    async with resumed(http, server, made[0]) as reader:
        await reader.until(b"word19")
        status, body = await told(http, server, f"/{made[0]}/cancel", "POST")
        assert (status, checks.check_response(body)["status"]) == (200, "cancelled")
        transcript = checks.check_response_stream(await reader.all())
        assert transcript.response == body
        assert transcript.text.endswith("word19"), "what was said is kept"
    assert server.engine.cancelled == 1
    await server.engine.stands(2)  # the next one has its place
    assert await told(http, server, f"/{made[0]}/cancel", "POST") == (200, body)
    for each in made[1:]:
        assert (await told(http, server, f"/{each}/cancel", "POST"))[1]["status"] == "cancelled"
    assert server.engine.active == 0
    await at_rest(server)


async def test_cancelled_after_its_end_it_is_as_it_was(http: Any, server: Any) -> None:
    _, made = await ask(http, server, "hi")
    done = await becomes(http, server, made["id"], "completed")
    for _ in range(2):
        assert await told(http, server, f"/{made['id']}/cancel", "POST") == (200, done)
    status, body = await told(http, server, "/resp_0/cancel", "POST")
    assert status == 404
    checks.check_error(body)


@pytest.mark.parametrize("place", [0, 2], ids=["running", "queued"])
async def test_deleted_it_is_gone_and_the_queue_goes_on(http: Any, server: Any, place: int) -> None:
    made = [(await ask(http, server, f"gated {n}"))[1]["id"] for n in range(4)]
    await server.engine.stands(2)
    async with resumed(http, server, made[place]) as reader:
        await reader.until(b"response.queued")
        status, body = await told(http, server, f"/{made[place]}", "DELETE")
        assert (status, body["deleted"]) == (200, True)
        await reader.all()
        assert reader.events[-1]["type"] == "response.incomplete", "its reader is told"
    for method, path in (("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel")):
        status, body = await told(http, server, f"/{made[place]}{path}", method)
        assert status == 404, (method, path)
    server.engine.gate.set()
    left = [each for each in made if each != made[place]]
    for each in left:
        await becomes(http, server, each, "completed")
    await at_rest(server)
    assert len(server.engine.turns) == (4 if place == 0 else 3)


async def test_readers_that_leave_stop_nothing(http: Any, server: Any) -> None:
    async with created(http, server, "gated", background=True) as first:
        await first.until(b"word19")
        async with resumed(http, server, first.id) as second:
            await second.until(b"word19")
        response_id = first.id
        first._reply.close()
    assert server.engine.active == 1
    assert await status_of(http, server, response_id) == "in_progress"
    server.engine.gate.set()
    done = await becomes(http, server, response_id, "completed")
    async with resumed(http, server, response_id) as late:
        assert checks.check_response_stream(await late.all()).response == done
    await at_rest(server)


async def test_it_is_always_stored(http: Any, server: Any) -> None:
    status, body = await ask(http, server, "hi", store=False)
    error = checks.check_error(body)["error"]
    assert (status, error["param"]) == (400, "background")
    assert "store" in error["message"]


async def test_what_is_wrong_is_told_at_once_and_nothing_is_queued(http: Any, server: Any) -> None:
    for wrong, param in (
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"background": "yes"}, "background"),
        ({"input": "word " * 200_000}, "input"),
    ):
        status, body = await ask(http, server, **{"text": "hi", **_input(wrong)})
        error = checks.check_error(body)["error"]
        assert (status, error["param"]) == (400, param), wrong
    await at_rest(server)
    assert not server.engine.turns


def _input(wrong: dict[str, Any]) -> dict[str, Any]:
    return {"text" if name == "input" else name: value for name, value in wrong.items()}


async def test_one_that_runs_cannot_be_continued_yet(http: Any, server: Any) -> None:
    _, made = await ask(http, server, "gated")
    status, body = await ask(http, server, "hi", previous_response_id=made["id"])
    assert (status, body["error"]["code"]) == (400, "previous_response_in_progress")
    await server.engine.stands()
    status, body = await ask(http, server, "hi", previous_response_id=made["id"])
    assert (status, body["error"]["code"]) == (400, "previous_response_in_progress")
    server.engine.gate.set()
    await becomes(http, server, made["id"], "completed")
    status, _ = await ask(http, server, "hi", previous_response_id=made["id"])
    assert status == 200


async def test_one_that_takes_too_long_is_ended(http: Any, serve: Any) -> None:
    server = await serve(Gated(), background=BackgroundLimits(within=0.2))
    async with created(http, server, "gated", background=True) as stream:
        transcript = checks.check_response_stream(await stream.all())
    final = transcript.response
    assert final["status"] == "failed"
    assert "within" in final["error"]["message"]
    assert transcript.text.endswith("word19")
    assert server.engine.active == 0
    assert (await told(http, server, f"/{stream.id}"))[1] == final


async def test_told_to_stop_it_leaves_them_for_the_next_start(http: Any, tmp_path: Path) -> None:
    limits = BackgroundLimits(at_once=1)
    async with serving(Gated(), tmp_path, background=limits) as server:
        _, runs = await ask(http, server, "gated")
        _, waits = await ask(http, server, "hi")
        async with created(http, server, "gated") as foreground:
            await foreground.until(b"word19")
            async with resumed(http, server, runs["id"]) as reader:
                await reader.until(b"word19")
                known = list(reader.blocks)
            server.answers.shut_down()
            await foreground.all()
            assert foreground.events[-1]["type"] == "response.failed"
    async with serving(engine := Gated(), tmp_path, background=limits) as server:
        assert await status_of(http, server, foreground.id) == "failed"
        engine.gate.set()
        async with resumed(http, server, runs["id"]) as reader:
            whole = await reader.all()
        assert reader.blocks[: len(known)] == known
        transcript = checks.check_response_stream(whole)
        assert transcript.text.count("GATE") == 1
        assert transcript.text.count("word19") == 2
        assert transcript.response["status"] == "completed"
        done = await becomes(http, server, waits["id"], "completed")
        assert done["output"][0]["content"][0]["text"] == "You said: hi"
