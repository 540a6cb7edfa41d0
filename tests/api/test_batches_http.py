"""POST and GET below /v1/batches with the official SDK: what goes in, what comes out, what is
refused. How lines share the engine is tested in `test_batches_run.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from files_kit import real_files

from batch_kit import (
    CHAT,
    RESPONSES,
    chat,
    checked,
    end,
    jsonl,
    lines_of,
    reach,
    response,
    said,
    submit,
)
from doubles import scripted
from harness import Running
from ouzel.api import batch_input
from ouzel.store import SqlFiles
from wire.checks import check_error


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqlFiles]:
    async with real_files(tmp_path / "kept") as opened:
        yield opened


@pytest.fixture
async def served(files: SqlFiles, serve) -> Running:
    return await serve(files=files)


@pytest.fixture
def client(served: Running, sdk) -> openai.AsyncOpenAI:
    return sdk(served)


# What comes out.


async def test_responses_are_answered_in_the_order_of_their_lines(client) -> None:
    lines = [response(f"r{n}", f"hello {n}", metadata={"n": str(n)}) for n in range(30)]
    made = await submit(client, lines, metadata={"what": "a test"})
    assert (made.status, made.endpoint, made.completion_window) == ("validating", RESPONSES, "24h")
    assert (made.metadata, made.model) == ({"what": "a test"}, "scripted")
    batch = await end(client, made)
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    found = await lines_of(client, batch.output_file_id)
    assert [each["custom_id"] for each in found] == [f"r{n}" for n in range(30)]
    assert [said(each) for each in found] == [f"You said: hello {n}" for n in range(30)]
    bodies = [each["response"]["body"] for each in found]
    assert [each["metadata"]["n"] for each in bodies] == [str(n) for n in range(30)]
    assert batch.usage is not None
    assert batch.usage.total_tokens == sum(each["usage"]["total_tokens"] for each in bodies) > 0
    # They are kept, as responses are; and they are the same.
    kept = await client.responses.retrieve(bodies[7]["id"])
    assert kept.output_text == "You said: hello 7"
    file = await client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert file.expires_at is None
    assert (batch.request_counts.total, batch.request_counts.completed) == (30, 30)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at


async def test_chat_completions_with_several_choices(client) -> None:
    lines = [
        chat("one", "hello", n=3, seed=1),
        chat("two", "hi", model="o4-mini", store=True, metadata={"a": "b"}),
    ]
    batch = await end(
        client,
        await submit(
            client, lines, CHAT, output_expires_after={"anchor": "created_at", "seconds": 3600}
        ),
    )
    one, two = await lines_of(client, batch.output_file_id)
    assert said(one) == "You said: hello"
    assert [each["index"] for each in one["response"]["body"]["choices"]] == [0, 1, 2]
    assert (await client.chat.completions.retrieve(two["response"]["body"]["id"])).id
    bodies = [each["response"]["body"]["usage"] for each in (one, two)]
    assert batch.usage.input_tokens == sum(each["prompt_tokens"] for each in bodies)
    assert batch.usage.output_tokens == sum(each["completion_tokens"] for each in bodies)
    file = await client.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 3600


# Lines that are wrong.

MISSING = "missing_required_parameter"
BIG = b'{"custom_id": "big", "pad": "' + b"x" * 2**20 + b'"}'
DEEP = b'{"custom_id": "deep", "body": ' + b"[" * 5000 + b"]" * 5000 + b"}"
WRONG: list[tuple[Any, str, str | None, str | None]] = [
    (b"not json", "invalid_json_line", None, None),
    (b"\x00\xff\xfe binary \x80", "invalid_json_line", None, None),
    (b"[1, 2]", "invalid_type", None, None),
    (b"7", "invalid_type", None, None),
    (b'{"custom_id": "half \\ud800"}', "invalid_json_line", None, None),
    (DEEP, "invalid_json_line", None, None),
    (b'{"custom_id": "cut", "method": "POS', "invalid_json_line", None, None),
    (b"1e999", "invalid_json_line", None, None),
    (response("again", "y") | {"custom_id": "right"}, "duplicate_custom_id", "custom_id", "right"),
    ({"method": "POST", "url": RESPONSES, "body": {}}, MISSING, "custom_id", None),
    (response("x", "y") | {"custom_id": 7}, "invalid_type", "custom_id", None),
    (response("x", "y") | {"custom_id": ""}, "empty_string", "custom_id", None),
    (response("x", "y") | {"custom_id": "n\0"}, "invalid_value", "custom_id", None),
    (response("x", "y") | {"custom_id": "x" * 513}, "string_above_max_length", "custom_id", None),
    (response("get", "y") | {"method": "GET"}, "invalid_value", "method", "get"),
    (response("url", "y") | {"url": CHAT}, "invalid_value", "url", "url"),
    (response("url2", "y") | {"url": 5}, "invalid_type", "url", "url2"),
    (response("body", "y") | {"body": "text"}, "invalid_type", "body", "body"),
    ({"custom_id": "empty", "method": "POST", "url": RESPONSES}, MISSING, "body", "empty"),
    (response("more", "y") | {"priority": 1}, "unknown_parameter", "priority", "more"),
]  # fmt: skip
REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    (response("model", "y", model="gpt-9"), 404, "model_not_found", "model"),
    (response("nope", "y", nope=1), 400, "unknown_parameter", "nope"),
    (response("type", "y", temperature="hot"), 400, "invalid_type", "temperature"),
    (response("stream", "y", stream=True), 400, "unsupported_value", "stream"),
    (response("background", "y", background=True), 400, "unsupported_value", "background"),
]


async def test_each_wrong_line_is_told_and_the_others_run(client) -> None:
    right = response("right", "hello")
    lines = [right, *(line for line, *_ in WRONG), *(line for line, *_ in REFUSED), b"", b"  \t"]
    batch = await end(client, await submit(client, [*lines, response("last", "bye")]))
    counts = batch.request_counts
    wrong = len(WRONG) + len(REFUSED)
    assert (batch.status, batch.errors) == ("completed", None)
    assert (counts.total, counts.completed, counts.failed) == (wrong + 2, 2, wrong)
    found = await lines_of(client, batch.output_file_id)
    assert [(each["custom_id"], said(each)) for each in found] == [
        ("right", "You said: hello"),
        ("last", "You said: bye"),
    ]
    errors = await lines_of(client, batch.error_file_id)
    assert [each["line"] for each in errors] == list(range(2, wrong + 2))
    for each, (_, code, param, custom_id) in zip(errors, WRONG, strict=False):
        assert (each["response"], each["custom_id"]) == (None, custom_id), each
        assert (each["error"]["code"], each["error"]["param"]) == (code, param)
        assert each["error"]["line"] == each["line"]
        assert each["error"]["message"]
    for each, (line, status, code, param) in zip(errors[len(WRONG) :], REFUSED, strict=True):
        assert (each["custom_id"], each["error"]) == (line["custom_id"], None)
        assert each["response"]["status_code"] == status
        error = check_error(json.dumps(each["response"]["body"]).encode())["error"]
        assert (error["code"], error["param"]) == (code, param)


async def test_what_is_found_out_when_a_line_runs_is_its_own_error(client) -> None:
    lines = [
        response("before", "y", previous_response_id="resp_unknown"),
        response("long", "word " * 10_000),
        response("fine", "y"),
    ]
    batch = await end(client, await submit(client, lines))
    errors = await lines_of(client, batch.error_file_id)
    told = [(each["custom_id"], each["response"]["body"]["error"]["code"]) for each in errors]
    assert told == [
        ("before", "previous_response_not_found"),
        ("long", "context_length_exceeded"),
    ]
    assert [each["line"] for each in errors] == [1, 2]
    assert batch.request_counts.completed == 1


async def test_lines_may_end_as_on_windows_and_begin_with_a_mark(client) -> None:
    lines = [response(f"r{n}", "hi") for n in range(3)]
    data = b"\xef\xbb\xbf" + jsonl(lines).replace(b"\n", b"\r\n\r\n") + b"\r\n"
    batch = await end(client, await submit(client, data))
    assert batch.request_counts.completed == 3
    assert batch.error_file_id is None


async def test_a_big_line_is_answered_as_any(client) -> None:
    padding = b" " * 2**19
    lines = [json.dumps(response(f"r{n}", f"hi {n}")).encode() for n in range(3)]
    lines[1] = lines[1][:-1] + padding + b"}"
    batch = await end(client, await submit(client, lines))
    found = await lines_of(client, batch.output_file_id)
    assert [said(each) for each in found] == [f"You said: hi {n}" for n in range(3)]


async def test_a_mistake_of_ours_costs_one_line(client, monkeypatch) -> None:
    whole = batch_input.read_request

    def broken(endpoint, body, hosted):
        if body["input"] == "poison":
            raise ZeroDivisionError
        return whole(endpoint, body, hosted)

    monkeypatch.setattr(batch_input, "read_request", broken)
    lines = [response("a", "hi"), response("b", "poison")]
    batch = await end(client, await submit(client, lines))
    (error,) = await lines_of(client, batch.error_file_id)
    assert (error["custom_id"], error["response"]["status_code"]) == ("b", 500)
    assert "ZeroDivision" not in json.dumps(error)
    assert batch.request_counts.completed == 1
    batch = await end(client, await submit(client, lines[1:]))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "server_error")


async def test_a_line_that_is_too_long_is_passed_over(files, serve, sdk) -> None:
    server = await serve(files=files, batching={"longest": 1000})
    client = sdk(server)
    fits = json.dumps(response("fits", "hi")).encode()
    fits = fits[:-1] + b" " * (1000 - len(fits)) + b"}"
    lines = [BIG, response("right", "hi"), fits, fits[:-1] + b" }", BIG]
    batch = await end(client, await submit(client, lines))
    errors = await lines_of(client, batch.error_file_id)
    assert [(each["line"], each["error"]["code"]) for each in errors] == [
        (1, "line_too_large"),
        (4, "line_too_large"),
        (5, "line_too_large"),
    ]
    assert batch.request_counts.completed == 2


# Files that are wrong as a whole.


@pytest.mark.parametrize("data", [b"", b"\n\n  \r\n\t\n", b"\xef\xbb\xbf"])
async def test_a_file_without_requests_fails(client, data) -> None:
    batch = await end(client, await submit(client, data))
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert (error.code, error.param, error.line) == ("empty_file", "input_file_id", None)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.request_counts.total == 0


async def test_a_file_with_no_right_line_fails_and_tells_each(client) -> None:
    batch = await end(client, await submit(client, [b"x"] * 150))
    assert batch.status == "failed"
    told = batch.errors.data
    assert [each.line for each in told[:-1]] == list(range(1, 101))
    assert {each.code for each in told[:-1]} == {"invalid_json_line"}
    assert (told[-1].code, told[-1].line) == ("more_errors", None)
    assert "50 further" in told[-1].message
    assert batch.output_file_id is None
    errors = await lines_of(client, batch.error_file_id)
    assert [each["line"] for each in errors] == list(range(1, 151))
    assert batch.request_counts.failed == 150


async def test_too_many_lines_or_bytes_fail(client, monkeypatch) -> None:
    lines = [response(f"r{n}", "hi") for n in range(4)]
    monkeypatch.setattr(batch_input, "MOST_LINES", 3)
    batch = await end(client, await submit(client, lines))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "too_many_requests")
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    monkeypatch.setattr(batch_input, "MOST_LINES", 4)
    monkeypatch.setattr(batch_input, "MOST_BYTES", len(jsonl(lines)))
    assert (await end(client, await submit(client, lines))).status == "completed"
    batch = await end(client, await submit(client, jsonl(lines) + b"\n"))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "file_too_large")


# Calls that are refused.

RIGHT = {"endpoint": RESPONSES, "completion_window": "24h"}
CREATE: list[tuple[dict[str, Any], int, str, str]] = [
    ({"endpoint": "/v1/embeddings"}, 400, "endpoint", "unsupported_value"),
    ({"endpoint": "/v1/fun"}, 400, "endpoint", "invalid_value"),
    ({"endpoint": None}, 400, "endpoint", "invalid_type"),
    ({"completion_window": "1h"}, 400, "completion_window", "invalid_value"),
    ({"input_file_id": 7}, 400, "input_file_id", "invalid_type"),
    ({"input_file_id": "file-unknown"}, 404, "input_file_id", "not_found"),
    ({"input_file_id": "\0"}, 400, "input_file_id", "invalid_value"),
    ({"metadata": {"a": 1}}, 400, "metadata.a", "invalid_type"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400,
     "output_expires_after.seconds", "integer_below_min_value"),
    ({"output_expires_after": {"seconds": 3600}}, 400,
     "output_expires_after.anchor", "missing_required_parameter"),
    ({"priority": 1}, 400, "priority", "unknown_parameter"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "status", "param", "code"), CREATE)
async def test_what_is_wrong_with_a_batch_is_refused(
    served, client, http, change, status, param, code
) -> None:
    file = await client.files.create(file=("f", b"x"), purpose="batch")
    body = {"input_file_id": file.id, **RIGHT, **change}
    async with http.post(f"{served.base_url}/batches", json=body) as reply:
        error = check_error(await reply.read())["error"]
        assert (reply.status, error["param"], error["code"]) == (status, param, code)
        if param == "endpoint" and code == "unsupported_value":
            assert CHAT in error["message"]
            assert RESPONSES in error["message"]
    assert (await client.batches.list()).data == []


async def test_only_files_for_batches_that_are_ones_own(served, client, files) -> None:
    async def piece():
        yield b"x"

    other = await files.create("somebody", "x", "batch", piece())
    mine = await files.create("local", "x", "user_data", piece())
    for file_id, status in ((other.id, 404), (mine.id, 400)):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.batches.create(input_file_id=file_id, **RIGHT)
        assert (caught.value.status_code, caught.value.param) == (status, "input_file_id")


async def test_ids_that_are_none_or_others_are_not_found(served, http, client) -> None:
    from dataclasses import replace

    batch = await end(client, await submit(client, [response("a", "b")]))
    kept = await served.batches.batches.get(batch.id, "local")
    await served.batches.batches.create(replace(kept, id="batch_others", owner="somebody"))
    for batch_id in ("batch_others", "batch_0", "x" * 300, "a%00b", "%C3%BC", "..%2Ffiles"):
        for method, leaf in (("GET", ""), ("POST", "/cancel")):
            url = f"{served.base_url}/batches/{batch_id}{leaf}"
            async with http.request(method, url) as reply:
                assert reply.status == 404, (batch_id, await reply.text())
                check_error(await reply.read())
    async with http.get(f"{served.base_url}/batches?after=batch_others") as reply:
        assert (reply.status, check_error(await reply.read())["error"]["param"]) == (404, "after")
    assert [each.id async for each in client.batches.list()] == [batch.id]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("limit=0", 400, "limit"),
        ("limit=101", 400, "limit"),
        ("limit=%D9%A1", 400, "limit"),
        ("limit=1&limit=2", 400, "limit"),
        ("order=asc", 400, "order"),
        ("after=x", 404, "after"),
        ("after=%00", 400, "after"),
        ("after=%ff", 404, "after"),
    ],
)
async def test_wrong_queries_are_refused(served, http, query, status, param) -> None:
    async with http.get(f"{served.base_url}/batches?{query}") as reply:
        assert reply.status == status
        assert check_error(await reply.read())["error"]["param"] == param


async def test_pages_follow_each_other_newest_first(client, served, http) -> None:
    made = [(await submit(client, [response("a", "b")])).id for _ in range(5)]
    assert [each.id async for each in client.batches.list(limit=2)] == made[::-1]
    async with http.get(f"{served.base_url}/batches?limit=2&after={made[4]}") as reply:
        page = await reply.json()
    assert [each["id"] for each in page["data"]] == [made[3], made[2]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[3], made[2], True)


async def test_without_files_there_are_no_batches(serve, http) -> None:
    server = await serve()
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/x"), ("POST", "/x/cancel")):
        async with http.request(method, f"{server.base_url}/batches{path}") as reply:
            assert reply.status == 400
            assert check_error(await reply.read())["error"]["code"] == "unsupported"


async def test_eight_hostile_files_at_once(client) -> None:
    """None disturbs another; each right line is answered, whatever stands around it."""
    bad = [DEEP, BIG, b"\x00" * 5000, b"{" * 5000, b"]", b'"', b"\xff\xfe{\x00}\x00"]

    async def one(number: int) -> None:
        lines: list[Any] = []
        for each in range(20):
            lines += [bad[(number + each) % len(bad)], response(f"r{each}", f"{number}/{each}")]
        batch = await end(client, await submit(client, lines))
        assert batch.status == "completed"
        found = await lines_of(client, batch.output_file_id)
        assert [said(each) for each in found] == [f"You said: {number}/{n}" for n in range(20)]
        assert len(await lines_of(client, batch.error_file_id)) == 20

    await asyncio.gather(*(one(number) for number in range(8)))


# Cancelling.


async def test_a_batch_that_has_ended_cannot_be_cancelled(client) -> None:
    batch = await end(client, await submit(client, [response("a", "b")]))
    with pytest.raises(openai.ConflictError) as caught:
        await client.batches.cancel(batch.id)
    assert caught.value.code == "batch_not_cancellable"
    assert checked(await client.batches.retrieve(batch.id)) == batch


async def test_a_batch_can_be_cancelled_at_once_and_again(files, serve, sdk, http) -> None:
    server = await serve(scripted(), files=files)
    client = sdk(server)
    batch = await submit(client, [response(f"r{n}", "hi") for n in range(2000)])
    cancelling = checked(await client.batches.cancel(batch.id))
    assert cancelling.status == "cancelling"
    assert (await client.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
    batch = await reach(client, cancelling, "cancelled")
    again = await client.batches.cancel(batch.id)
    assert again == batch
    done = await lines_of(client, batch.output_file_id)
    left = await lines_of(client, batch.error_file_id)
    counts = batch.request_counts
    assert (len(done), counts.failed) == (counts.completed, 0)
    assert len(done) + len(left) == counts.total
    assert {each["error"]["code"] for each in left} <= {"batch_cancelled"}
    names = [each["custom_id"] for each in done + left]
    assert len(names) == len(set(names))
    url = f"{server.base_url}/batches/{batch.id}/cancel"
    async with aiohttp.ClientSession() as session, session.post(url, json={"a": 1}) as reply:
        assert check_error(await reply.read())["error"]["param"] == "a"
