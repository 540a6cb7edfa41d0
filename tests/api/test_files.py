"""POST, GET and DELETE below /v1/files, over the real store and a real port."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from files_kit import FORM, Field, check, check_deleted, check_page, form, real_files
from hostile_kit import exchange, request
from openai import OpenAI

from harness import Running
from ouzel.api.app import ApiSettings
from ouzel.store import FileLimits, SqlFiles
from wire.checks import check_error

DAY = 24 * 3600


class Clock:
    """The store's clock, which tests may set forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def files(tmp_path: Path, clock: Clock) -> AsyncIterator[SqlFiles]:
    limits = FileLimits(file=2**20, quota=3 * 2**20)
    async with real_files(tmp_path / "kept", limits, clock) as opened:
        yield opened


@pytest.fixture
async def served(files, serve) -> Running:
    return await serve(files=files)


async def send(http, server, body: bytes, headers=FORM) -> tuple[int, bytes]:
    url = f"{server.base_url}/files"
    async with http.post(url, data=io.BytesIO(body), headers=headers) as reply:
        return reply.status, await reply.read()


async def listed(http, server, **query) -> dict:
    async with http.get(f"{server.base_url}/files", params=query) as reply:
        assert reply.status == 200, await reply.text()
        return check_page("file", await reply.read())


async def nothing_kept(files: SqlFiles, http, server, folder: Path) -> None:
    """No file is listed, none is half there, and none waits for what it shall be."""
    assert (await listed(http, server))["data"] == []
    assert (await files.page("local (arriving)"))[0] == []
    assert [each for each in (folder / "kept").rglob("file-*") if each.is_file()] == []


# The official SDKs.


async def test_the_async_sdk_keeps_lists_reads_and_deletes(served, sdk):
    client = sdk(served)
    made = await client.files.create(file=("a.csv", b"x,y\n1,2\n"), purpose="user_data")
    assert (made.filename, made.bytes, made.purpose) == ("a.csv", 8, "user_data")
    assert (made.status, made.expires_at) == ("processed", None)
    assert (await client.files.retrieve(made.id)) == made
    assert [each.id async for each in client.files.list()] == [made.id]
    assert await (await client.files.content(made.id)).aread() == b"x,y\n1,2\n"
    gone = await client.files.delete(made.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.files.content(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.files.delete(made.id)


async def test_the_plain_sdk_sends_files_and_streams_them_back(served, tmp_path):
    path = tmp_path / "Bericht ü.txt"
    path.write_bytes(b"line\n" * 10_000)

    def work() -> None:
        with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
            made = client.files.create(
                file=path,
                purpose="assistants",
                expires_after={"anchor": "created_at", "seconds": 3600},
            )
            assert made.filename == "Bericht ü.txt"
            assert made.expires_at == made.created_at + 3600
            assert client.files.wait_for_processing(made.id).id == made.id
            with client.files.with_streaming_response.content(made.id) as reply:
                reply.stream_to_file(tmp_path / "back")
            unnamed = client.files.create(file=io.BytesIO(b"x"), purpose="batch")
            assert unnamed.filename == "upload"
            assert unnamed.expires_at == unnamed.created_at + 30 * DAY
            assert [each.id for each in client.files.list(purpose="batch")] == [unnamed.id]

    await asyncio.to_thread(work)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


async def test_eight_files_at_once(served, sdk):
    client = sdk(served)
    contents = [bytes([number]) * 300_000 for number in range(8)]
    made = await asyncio.gather(
        *(
            client.files.create(file=(f"{number}.bin", data), purpose="user_data")
            for number, data in enumerate(contents)
        )
    )
    assert len({each.id for each in made}) == 8
    back = await asyncio.gather(*(client.files.content(each.id) for each in made))
    assert [each.content for each in back] == contents


# Forms.

FILE = Field("file", b"some data", "data.txt")
PURPOSE = Field("purpose", "user_data")
ANCHOR = Field("expires_after[anchor]", "created_at")
SECONDS = Field("expires_after[seconds]", "86400")


@pytest.mark.parametrize(
    "fields",
    [
        [PURPOSE, ANCHOR, SECONDS, FILE],
        [PURPOSE, FILE, ANCHOR, SECONDS],
        [FILE, PURPOSE, ANCHOR, SECONDS],
        [ANCHOR, FILE, SECONDS, PURPOSE],
        [ANCHOR, SECONDS, FILE, PURPOSE],
    ],
)
async def test_fields_may_come_in_any_order(served, http, files, fields):
    status, body = await send(http, served, form(*fields))
    assert status == 200, body
    made = check("file", body)
    assert made["expires_at"] == made["created_at"] + DAY
    assert [each["id"] for each in (await listed(http, served))["data"]] == [made["id"]]
    assert (await files.page("local (arriving)"))[0] == []
    async with http.get(f"{served.base_url}/files/{made['id']}/content") as reply:
        assert await reply.read() == b"some data"


async def test_one_field_too_few_is_refused_after_the_file_too(served, http, files, tmp_path):
    for fields in ([PURPOSE, ANCHOR, FILE], [PURPOSE, FILE, SECONDS], [FILE, PURPOSE, ANCHOR]):
        status, body = await send(http, served, form(*fields))
        error = check_error(body)["error"]
        assert (status, error["code"]) == (400, "missing_required_parameter")
        assert error["param"] in ("expires_after.seconds", "expires_after.anchor")
    await nothing_kept(files, http, served, tmp_path)


def field(name: str, value: str | bytes) -> bytes:
    return form(PURPOSE, Field(name, value), FILE)


WRONG = [
    (form(PURPOSE), 400, "file", "missing_required_parameter"),
    (form(), 400, "file", "missing_required_parameter"),
    (form(FILE), 400, "purpose", "missing_required_parameter"),
    (form(FILE, PURPOSE, FILE), 400, "file", "invalid_value"),
    (form(PURPOSE, FILE, FILE), 400, "file", "invalid_value"),
    (form(PURPOSE, FILE, PURPOSE), 400, "purpose", "invalid_value"),
    (form(PURPOSE, FILE, Field("name", "x")), 400, "name", "unknown_parameter"),
    (form(Field("name", "x"), PURPOSE, FILE), 400, "name", "unknown_parameter"),
    (form(Field("purpose", "fun"), FILE), 400, "purpose", "invalid_value"),
    (form(FILE, Field("purpose", "fun")), 400, "purpose", "invalid_value"),
    (form(PURPOSE, Field("file", b"no name")), 400, "file", "invalid_value"),
    (form(PURPOSE, Field("file", b"", "")), 400, "file", "invalid_value"),
    (field("expires_after", "x"), 400, "expires_after", "unknown_parameter"),
    (field("expires_after[seconds]", "3600"), 400, "expires_after.anchor", None),
    (form(PURPOSE, ANCHOR, Field("expires_after[seconds]", "ten"), FILE), 400, None, None),
    (form(PURPOSE, ANCHOR, Field("expires_after[seconds]", "3599"), FILE), 400, None, None),
    (form(PURPOSE, ANCHOR, Field("expires_after[seconds]", "2592001"), FILE), 400, None, None),
    (form(PURPOSE, ANCHOR, Field("expires_after[seconds]", "9" * 4000), FILE), 400, None, None),
    (form(PURPOSE, SECONDS, Field("expires_after[anchor]", "now"), FILE), 400, None, None),
    (form(PURPOSE, FILE)[:-5], 400, None, "invalid_form"),
    (form(PURPOSE, FILE, end=False), 400, None, "invalid_form"),
    (form(FILE, PURPOSE, end=False), 400, None, "invalid_form"),
    (b"", 400, None, "invalid_form"),
    (b"hello", 400, None, "invalid_form"),
    (form(PURPOSE, FILE, boundary="other"), 400, None, "invalid_form"),
    (form(PURPOSE, Field("file", b"x" * (2**20 + 1), "f")), 413, "file", "file_too_large"),
]


@pytest.mark.parametrize(("body", "status", "param", "code"), WRONG)
async def test_what_is_wrong_is_refused_and_not_kept(
    served, http, files, tmp_path, body, status, param, code
):
    answered, reply = await send(http, served, body)
    error = check_error(reply)["error"]
    assert answered == status, error
    if param is not None:
        assert error["param"] == param
    if code is not None:
        assert error["code"] == code
    await nothing_kept(files, http, served, tmp_path)
    assert (await send(http, served, form(PURPOSE, FILE)))[0] == 200


@pytest.mark.parametrize(
    ("headers", "status", "param"),
    [
        ({"content-type": "application/json"}, 415, "content-type"),
        ({"content-type": "multipart/form-data"}, 400, "content-type"),
        ({"content-type": "multipart/form-data; boundary=;"}, 400, "content-type"),
        ({**FORM, "content-encoding": "gzip"}, 415, None),
    ],
)
async def test_other_bodies_are_refused(served, http, headers, status, param):
    url = f"{served.base_url}/files"
    data = form(PURPOSE, FILE)
    async with http.post(url, data=data, headers=headers) as reply:
        assert reply.status == status
        assert check_error(await reply.read())["error"]["param"] == param


async def test_the_query_of_a_post_is_refused(served, http):
    async with http.post(f"{served.base_url}/files?a=b", data=form(), headers=FORM) as reply:
        assert check_error(await reply.read())["error"]["param"] == "a"


async def test_any_purpose_may_be_asked_for(served, http):
    for purpose in ("assistants", "batch", "fine-tune", "vision", "user_data", "evals"):
        status, body = await send(http, served, form(Field("purpose", purpose), FILE))
        assert (status, check("file", body)["purpose"]) == (200, purpose)
        assert ("expires_at" in json.loads(body)) == (purpose == "batch")


async def test_an_empty_file_is_a_file(served, http):
    status, body = await send(http, served, form(PURPOSE, Field("file", b"", "empty")))
    made = check("file", body)
    assert (status, made["bytes"]) == (200, 0)
    async with http.get(f"{served.base_url}/files/{made['id']}/content") as reply:
        assert (reply.status, await reply.read()) == (200, b"")


# Limits.


async def test_the_servers_own_limit_holds_announced_or_not(files, serve, http, tmp_path):
    server = await serve(files=files, settings=ApiSettings(max_file=1000, max_body=100))
    taken = await send(http, server, form(PURPOSE, Field("file", b"x" * 1000, "f")))
    assert taken[0] == 200
    await files.delete(json.loads(taken[1])["id"], "local")
    refused = await send(http, server, form(PURPOSE, Field("file", b"x" * 1001, "f")))
    assert (refused[0], check_error(refused[1])["error"]["param"]) == (413, "file")

    port = int(server.url.rpartition(":")[2])
    unended = form(PURPOSE, Field("file", b"x" * 1001, "f"), end=False).removesuffix(b"\r\n")
    kind = f"content-type: {FORM['content-type']}"
    chunk = b"%x\r\n%b\r\n" % (len(unended), unended)
    # Neither goes on, so the answer cannot have waited for the rest.
    announced = request("/v1/files", b"", kind, f"content-length: {2**30}")
    chunked = request("/v1/files", None, kind, "transfer-encoding: chunked") + chunk
    for data, code in ((announced, "request_too_large"), (chunked, "file_too_large")):
        reply = await asyncio.to_thread(exchange, port, data)
        assert (reply.status, check_error(reply.body)["error"]["code"]) == (413, code)
    await nothing_kept(files, http, server, tmp_path)


async def test_the_quota_is_told_as_such(served, http):
    big = Field("file", b"x" * 2**20, "f")
    for _ in range(3):
        assert (await send(http, served, form(PURPOSE, big)))[0] == 200
    status, body = await send(http, served, form(PURPOSE, FILE))
    error = check_error(body)["error"]
    assert (status, error["code"], error["param"]) == (413, "quota_exceeded", "file")
    assert len((await listed(http, served))["data"]) == 3


async def test_a_file_whose_copy_does_not_fit_is_not_kept_at_all(served, http, files):
    """A late `expires_after` asks for a copy, and the quota has room for the file only once."""
    big = Field("file", b"x" * 2**20, "f")
    for _ in range(2):
        assert (await send(http, served, form(PURPOSE, big)))[0] == 200
    status, body = await send(http, served, form(PURPOSE, big, ANCHOR, SECONDS))
    assert (status, check_error(body)["error"]["code"]) == (413, "quota_exceeded")
    assert len((await listed(http, served))["data"]) == 2
    status, body = await send(http, served, form(PURPOSE, ANCHOR, SECONDS, big))
    assert (status, check("file", body)["bytes"]) == (200, 2**20)


# Lists.


async def test_pages_follow_each_other_both_ways(served, sdk, http):
    client = sdk(served)
    made = [
        (await client.files.create(file=(f"{n}", b"x"), purpose="vision" if n % 2 else "evals")).id
        for n in range(5)
    ]
    assert [each.id async for each in client.files.list(limit=2, order="asc")] == made
    assert [each.id async for each in client.files.list(limit=2)] == made[::-1]
    assert [each.id async for each in client.files.list(purpose="vision", limit=1)] == [
        made[3],
        made[1],
    ]
    page = await listed(http, served, after=made[1], order="asc", limit="2")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (made[2:4], True)
    page = await listed(http, served, after=made[4], order="asc")
    assert (page["data"], page["has_more"]) == ([], False)


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("limit=0", 400, "limit"),
        ("limit=10001", 400, "limit"),
        ("limit=x", 400, "limit"),
        ("limit=%D9%A1", 400, "limit"),
        ("limit=" + "9" * 5000, 400, "limit"),
        ("limit=1&limit=2", 400, "limit"),
        ("order=up", 400, "order"),
        ("purpose=fun", 400, "purpose"),
        ("after=file-unknown", 404, "after"),
        ("after=%00", 400, "after"),
        ("after=%ff", 404, "after"),
        ("before=x", 400, "before"),
    ],
)
async def test_wrong_queries_are_refused(served, http, query, status, param):
    async with http.get(f"{served.base_url}/files?{query}") as reply:
        assert reply.status == status
        assert check_error(await reply.read())["error"]["param"] == param


async def test_ids_that_are_none_or_others_are_not_found(served, http, files):
    async def piece():
        yield b"x"

    other = await files.create("somebody", "x", "vision", piece())
    for file_id in (other.id, "file-0", "x" * 300, "a%00b", "%C3%BC"):
        for method, leaf in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/content"),
            ("HEAD", "/content"),
        ):
            url = f"{served.base_url}/files/{file_id}{leaf}"
            async with http.request(method, url) as reply:
                assert reply.status == 404
                if method != "HEAD":
                    assert "not found" in check_error(await reply.read())["error"]["message"]
    assert (await files.load(other.id, "somebody")).size == 1
    async with http.get(f"{served.base_url}/files?after={other.id}") as reply:
        assert reply.status == 404


async def test_an_expired_file_is_gone(served, sdk, http, clock):
    client = sdk(served)
    made = await client.files.create(
        file=("f", b"x"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (await client.files.retrieve(made.id)).expires_at == made.created_at + 3600
    clock.ahead = 3601
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)
    assert (await listed(http, served))["data"] == []


async def test_deleting_says_so(served, http):
    _, body = await send(http, served, form(PURPOSE, FILE))
    file_id = json.loads(body)["id"]
    async with http.delete(f"{served.base_url}/files/{file_id}", json={"a": 1}) as reply:
        assert check_error(await reply.read())["error"]["param"] == "a"
    async with http.delete(f"{served.base_url}/files/{file_id}") as reply:
        check_deleted(await reply.read(), file_id, "file")


async def test_without_files_every_endpoint_says_so(serve, http):
    server = await serve()
    for method, path in (
        ("POST", "/files"),
        ("GET", "/files"),
        ("GET", "/files/x"),
        ("DELETE", "/files/x"),
        ("GET", "/files/x/content"),
        ("POST", "/uploads"),
        ("POST", "/uploads/x/parts"),
        ("POST", "/uploads/x/complete"),
        ("POST", "/uploads/x/cancel"),
    ):
        async with http.request(method, server.base_url + path) as reply:
            assert reply.status == 400
            assert check_error(await reply.read())["error"]["code"] == "unsupported"


async def test_a_key_is_asked_for(files, serve, http, sdk):
    server = await serve(files=files, settings=ApiSettings(key="secret"))
    status, body = await send(http, server, form(PURPOSE, FILE))
    assert (status, check_error(body)["error"]["code"]) == (401, "missing_api_key")
    client = sdk(server, api_key="secret")
    made = await client.files.create(file=("f", b"data"), purpose="vision")
    digest = hashlib.sha256((await client.files.content(made.id)).content).hexdigest()
    assert digest == hashlib.sha256(b"data").hexdigest()
