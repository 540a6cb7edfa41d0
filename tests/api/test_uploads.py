"""POST below /v1/uploads, over the real store and a real port."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from files_kit import FORM, Field, check, form, real_files
from openai import OpenAI

from harness import Running
from ouzel.store import FileLimits, SqlFiles
from wire.checks import check_error

MB = 2**20
ASKED = {"filename": "a.csv", "purpose": "user_data", "bytes": 6, "mime_type": "text/csv"}


@pytest.fixture
def clock() -> list[float]:
    """Seconds that the store's clock is ahead."""
    return [0.0]


@pytest.fixture
async def files(tmp_path: Path, clock: list[float]) -> AsyncIterator[SqlFiles]:
    limits = FileLimits(file=8 * MB, part=2 * MB)
    async with real_files(tmp_path / "kept", limits, lambda: time.time() + clock[0]) as opened:
        yield opened


@pytest.fixture
async def served(files, serve) -> Running:
    return await serve(files=files)


async def post(http, server, path: str, body=None, headers=None) -> tuple[int, bytes]:
    data = json.dumps(body) if isinstance(body, dict) else body
    url = f"{server.base_url}/uploads{path}"
    async with http.post(url, data=data, headers=headers) as reply:
        return reply.status, await reply.read()


async def begun(http, server, **more) -> str:
    status, body = await post(http, server, "", ASKED | more)
    upload = check("upload", body)
    assert (status, upload["status"]) == (200, "pending")
    return upload["id"]


async def part(http, server, upload_id: str, data: bytes) -> str:
    body = form(Field("data", data, "part"))
    status, reply = await post(http, server, f"/{upload_id}/parts", body, FORM)
    assert status == 200, reply
    return check("upload.part", reply)["id"]


async def test_the_plain_sdk_uploads_in_parts(served, tmp_path):
    data = os.urandom(5 * MB + 17)
    path = tmp_path / "data.parquet"
    path.write_bytes(data)

    def work() -> bytes:
        with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
            upload = client.uploads.upload_file_chunked(
                file=path,
                mime_type="application/vnd.apache.parquet",
                purpose="user_data",
                part_size=MB,
                md5=hashlib.md5(data).hexdigest(),
            )
            assert upload.status == "completed"
            assert upload.file is not None
            assert (upload.file.bytes, upload.file.filename) == (len(data), "data.parquet")
            assert client.files.retrieve(upload.file.id) == upload.file
            return client.files.content(upload.file.id).content

    assert await asyncio.to_thread(work) == data


async def test_the_async_sdk_sends_parts_at_once_and_says_their_order(served, sdk):
    client = sdk(served)
    pieces = [bytes([number]) * 100_000 for number in range(8)]
    upload = await client.uploads.create(
        filename="all.bin",
        purpose="vision",
        bytes=800_000,
        mime_type="application/octet-stream",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert upload.expires_at > upload.created_at
    parts = await asyncio.gather(
        *(client.uploads.parts.create(upload.id, data=piece) for piece in pieces)
    )
    assert {each.upload_id for each in parts} == {upload.id}
    done = await client.uploads.complete(upload.id, part_ids=[each.id for each in parts])
    assert (done.id, done.status) == (upload.id, "completed")
    assert done.file.expires_at == done.file.created_at + 3600
    content = await client.files.content(done.file.id)
    assert content.content == b"".join(pieces)
    for late in (
        client.uploads.parts.create(upload.id, data=b"x"),
        client.uploads.complete(upload.id, part_ids=[parts[0].id]),
        client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.ConflictError):
            await late


async def test_a_cancelled_upload_is_over(served, sdk, http, files):
    client = sdk(served)
    upload_id = await begun(http, served)
    await part(http, served, upload_id, b"abc")
    given_up = await client.uploads.cancel(upload_id)
    assert (given_up.status, given_up.file) == ("cancelled", None)
    with pytest.raises(openai.ConflictError):
        await client.uploads.parts.create(upload_id, data=b"def")
    status, body = await post(http, served, f"/{upload_id}/cancel", {"a": 1})
    assert (status, check_error(body)["error"]["param"]) == (400, "a")
    assert (await files.page("local"))[0] == []


async def test_an_upload_that_nobody_completes_expires(served, http, clock):
    upload_id = await begun(http, served)
    part_id = await part(http, served, upload_id, b"abcdef")
    clock[0] = 3601
    status, body = await post(http, served, f"/{upload_id}/complete", {"part_ids": [part_id]})
    assert status == 409
    assert "expired" in check_error(body)["error"]["message"]


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"filename": None}, 400, "filename"),
        ({"filename": ""}, 400, "filename"),
        ({"filename": "folder/"}, 400, "filename"),
        ({"filename": 3}, 400, "filename"),
        ({"filename": "a\0"}, 400, "filename"),
        ({"filename": "x" * 5000}, 400, "filename"),
        ({"purpose": "fun"}, 400, "purpose"),
        ({"bytes": 0}, 400, "bytes"),
        ({"bytes": -1}, 400, "bytes"),
        ({"bytes": 1.5}, 400, "bytes"),
        ({"bytes": True}, 400, "bytes"),
        ({"bytes": 2**63}, 400, "bytes"),
        ({"bytes": 9 * MB}, 413, "bytes"),
        ({"mime_type": "csv"}, 400, "mime_type"),
        ({"mime_type": "text/csv\r\nx: y"}, 400, "mime_type"),
        ({"expires_after": {}}, 400, "expires_after.anchor"),
        ({"expires_after": 3600}, 400, "expires_after"),
        (
            {"expires_after": {"anchor": "last_active_at", "seconds": 3600}},
            400,
            "expires_after.anchor",
        ),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, 400, "expires_after.seconds"),
        ({"other": 1}, 400, "other"),
    ],
)
async def test_wrong_uploads_are_refused(served, http, change, status, param):
    answered, body = await post(http, served, "", ASKED | change)
    assert (answered, check_error(body)["error"]["param"]) == (status, param), body


async def test_folders_of_the_name_are_left_out(served, http):
    status, body = await post(http, served, "", ASKED | {"filename": "../../etc/passwd"})
    assert (status, check("upload", body)["filename"]) == (200, "passwd")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (form(), "data", "missing_required_parameter"),
        (form(Field("file", b"x", "x")), "file", "unknown_parameter"),
        (form(Field("data", b"x"), Field("more", "x")), "more", "unknown_parameter"),
        (form(Field("data", b"x"), Field("data", b"y")), "data", "invalid_value"),
        (form(Field("data", b"x"), end=False), None, "invalid_form"),
    ],
)
async def test_wrong_parts_are_refused_and_not_kept(served, http, body, param, code):
    upload_id = await begun(http, served)
    status, reply = await post(http, served, f"/{upload_id}/parts", body, FORM)
    error = check_error(reply)["error"]
    assert (status, error["param"], error["code"]) == (400, param, code)
    part_id = await part(http, served, upload_id, b"abcdef")
    done = await post(http, served, f"/{upload_id}/complete", {"part_ids": [part_id]})
    assert check("upload", done[1])["file"]["bytes"] == 6


async def test_a_part_needs_no_name_and_may_not_be_too_large(served, http):
    upload_id = await begun(http, served)
    body = form(Field("data", b"abcdef"))
    status, reply = await post(http, served, f"/{upload_id}/parts", body, FORM)
    assert status == 200
    check("upload.part", reply)

    async def pieces():
        yield form(Field("data", b""), end=False).removesuffix(b"\r\n")
        for _ in range(3):
            yield b"x" * MB
        yield b"\r\n" + form()

    status, reply = await post(http, served, f"/{upload_id}/parts", pieces(), FORM)
    error = check_error(reply)["error"]
    assert (status, error["param"], error["code"]) == (413, "data", "file_too_large")


async def test_wrong_completions_are_refused_and_the_upload_goes_on(served, http):
    upload_id = await begun(http, served)
    other = await part(http, served, await begun(http, served), b"abcdef")
    first = await part(http, served, upload_id, b"abc")
    second = await part(http, served, upload_id, b"def")
    whole = [first, second]
    sum_ = hashlib.md5(b"abcdef").hexdigest()
    for body, param in (
        ({}, "part_ids"),
        ({"part_ids": []}, "part_ids"),
        ({"part_ids": "x"}, "part_ids"),
        ({"part_ids": [3]}, "part_ids[0]"),
        ({"part_ids": whole, "md5": "abc"}, "md5"),
        ({"part_ids": whole, "md5": "0" * 32}, "md5"),
        ({"part_ids": [first]}, None),
        ({"part_ids": [first, first]}, None),
        ({"part_ids": [other]}, None),
        ({"part_ids": [first, "part_unknown"]}, None),
        ({"part_ids": whole, "other": 1}, "other"),
    ):
        status, reply = await post(http, served, f"/{upload_id}/complete", body)
        error = check_error(reply)["error"]
        assert status == 400, (body, error)
        assert error["param"] == param or (param is None and error["param"]), (body, error)
    body = {"part_ids": whole, "md5": sum_.upper()}
    status, reply = await post(http, served, f"/{upload_id}/complete", body)
    assert (status, check("upload", reply)["status"]) == (200, "completed")


async def test_unknown_uploads_are_not_found(served, http, files):
    other = await files.begin_upload("somebody", "x", "vision", 3, "text/plain")
    for upload_id in (other.id, "upload_0", "a%00b", "x" * 300):
        for path, body, headers in (
            ("parts", form(Field("data", b"abc")), FORM),
            ("complete", {"part_ids": ["part_x"]}, None),
            ("cancel", None, None),
        ):
            status, reply = await post(http, served, f"/{upload_id}/{path}", body, headers)
            assert status == 404
            assert check_error(reply)["error"]["code"] == "not_found"
