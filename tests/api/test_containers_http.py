"""Everything below /v1/containers that is HTTP's business, over the sandbox's own containers.

Nothing is run here; code runs in `test_containers_real.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from files_kit import (
    FORM,
    Field,
    check,
    check_deleted,
    check_page,
    form,
    leave,
    neglect,
    real_containers,
    real_files,
    real_jail,
)

from harness import Running
from ouzel.api.app import ApiSettings
from ouzel.core.files import ContainerSpec
from ouzel.core.items import new_id
from ouzel.sandbox.containers import SandboxContainers
from ouzel.store import SqlFiles
from wire.checks import check_error


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqlFiles]:
    async with real_files(tmp_path / "kept") as opened:
        yield opened


@pytest.fixture
async def rooms(files, tmp_path) -> AsyncIterator[SandboxContainers]:
    opened = real_containers(tmp_path / "rooms", files, await real_jail(tmp_path))
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
async def served(files, rooms, serve) -> Running:
    return await serve(files=files, containers=rooms)


async def call(http, server, method: str, path: str, body=None, headers=None) -> tuple[int, bytes]:
    data = json.dumps(body) if isinstance(body, dict) else body
    async with http.request(
        method, f"{server.base_url}/containers{path}", data=data, headers=headers
    ) as reply:
        return reply.status, await reply.read()


async def made(http, server, **more) -> str:
    status, body = await call(http, server, "POST", "", {"name": "c"} | more)
    assert status == 200, body
    return check("container", body)["id"]


async def test_the_sdk_makes_lists_and_deletes_containers(served, sdk):
    client = sdk(served)
    source = await client.files.create(file=("in.csv", b"a,b"), purpose="user_data")
    first = await client.containers.create(
        name="first",
        file_ids=[source.id],
        memory_limit="4g",
        expires_after={"anchor": "last_active_at", "minutes": 5},
        network_policy={"type": "disabled"},
    )
    assert (first.name, first.status, first.memory_limit) == ("first", "running", "4g")
    assert first.expires_after.minutes == 5
    assert first.network_policy.type == "disabled"
    second = await client.containers.create(name="second")
    assert (second.memory_limit, second.expires_after.minutes) == ("1g", 20)
    assert (await client.containers.retrieve(first.id)).name == "first"
    assert [each.id async for each in client.containers.list()] == [second.id, first.id]
    assert [each.id async for each in client.containers.list(order="asc", limit=1)] == [
        first.id,
        second.id,
    ]
    assert [each.id async for each in client.containers.list(name="second")] == [second.id]
    names = [each.path async for each in client.containers.files.list(first.id)]
    assert names == ["/mnt/data/in.csv"]
    await client.containers.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.containers.retrieve(first.id)


async def test_the_sdk_puts_lists_reads_and_deletes_files(served, sdk, rooms):
    client = sdk(served)
    box = await client.containers.create(name="box")
    source = await client.files.create(file=("in.csv", b"a,b"), purpose="user_data")
    put = await client.containers.files.create(box.id, file=("up.txt", b"hello"))
    assert (put.path, put.bytes, put.source) == ("/mnt/data/up.txt", 5, "user")
    copied = await client.containers.files.create(box.id, file_id=source.id)
    assert (copied.path, copied.container_id) == ("/mnt/data/in.csv", box.id)
    left = await leave(rooms, box.id, "plots/a.png", b"png")
    found = [each async for each in client.containers.files.list(box.id, order="asc", limit=2)]
    assert [each.id for each in found] == [put.id, copied.id, left]
    assert (found[2].path, found[2].source) == ("/mnt/data/plots/a.png", "assistant")
    got = await client.containers.files.retrieve(put.id, container_id=box.id)
    assert got == type(got)(**put.to_dict())
    content = await client.containers.files.content.retrieve(put.id, container_id=box.id)
    assert content.content == b"hello"
    await client.containers.files.delete(put.id, container_id=box.id)
    with pytest.raises(openai.NotFoundError):
        await client.containers.files.retrieve(put.id, container_id=box.id)
    assert (await client.files.retrieve(source.id)).bytes == 3


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "name", "missing_required_parameter"),
        ({"name": 3}, 400, "name", "invalid_type"),
        ({"name": "x" * 257}, 400, "name", None),
        ({"name": "c", "file_ids": "x"}, 400, "file_ids", None),
        ({"name": "c", "file_ids": ["file-unknown"]}, 404, "file_ids", "not_found"),
        ({"name": "c", "file_ids": ["f"] * 101}, 400, "file_ids", None),
        ({"name": "c", "expires_after": {"minutes": 5}}, 400, "expires_after.anchor", None),
        (
            {"name": "c", "expires_after": {"anchor": "created_at", "minutes": 5}},
            400,
            "expires_after.anchor",
            "invalid_value",
        ),
        (
            {"name": "c", "expires_after": {"anchor": "last_active_at", "minutes": 0}},
            400,
            "expires_after.minutes",
            None,
        ),
        ({"name": "c", "memory_limit": "2g"}, 400, "memory_limit", "invalid_value"),
        ({"name": "c", "memory_limit": "64g"}, 400, "memory_limit", None),
        (
            {"name": "c", "network_policy": {"type": "allowlist", "allowed_domains": ["a.b"]}},
            400,
            "network_policy.type",
            "unsupported_value",
        ),
        ({"name": "c", "network_policy": {"type": "all"}}, 400, "network_policy.type", None),
        ({"name": "c", "network_policy": {}}, 400, "network_policy.type", None),
        (
            {"name": "c", "network_policy": {"type": "disabled", "allowed_domains": []}},
            400,
            "network_policy.allowed_domains",
            "unknown_parameter",
        ),
        (
            {"name": "c", "skills": [{"type": "skill_reference", "skill_id": "s"}]},
            400,
            "skills",
            "unsupported_parameter",
        ),
        ({"name": "c", "other": 1}, 400, "other", "unknown_parameter"),
    ],
)
async def test_wrong_containers_are_refused(served, http, body, status, param, code):
    answered, reply = await call(http, served, "POST", "", body)
    error = check_error(reply)["error"]
    assert (answered, error["param"]) == (status, param)
    assert code is None or error["code"] == code
    assert check_page("container", (await call(http, served, "GET", ""))[1])["data"] == []


async def test_what_changes_nothing_may_be_said(served, http):
    await made(http, served, skills=[], file_ids=[], expires_after=None, network_policy=None)
    await made(http, served, name="", memory_limit=None)


async def test_pages_of_containers_and_of_their_files(served, http, rooms):
    boxes = [await made(http, served, name=str(n % 2)) for n in range(5)]
    status, body = await call(http, served, "GET", f"?limit=2&after={boxes[3]}")
    page = check_page("container", body)
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([boxes[2], boxes[1]], True)
    page = check_page("container", (await call(http, served, "GET", "?name=1&order=asc"))[1])
    assert [each["id"] for each in page["data"]] == [boxes[1], boxes[3]]
    names = [f"{n}.txt" for n in range(5)]
    ids = [await leave(rooms, boxes[0], name, b"x") for name in names]
    path = f"/{boxes[0]}/files"
    page = check_page("container.file", (await call(http, served, "GET", path))[1])
    assert [each["id"] for each in page["data"]] == ids[::-1]
    status, body = await call(http, served, "GET", f"{path}?order=asc&limit=2&after={ids[1]}")
    page = check_page("container.file", body)
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (ids[2:4], True)
    empty = check_page("container.file", (await call(http, served, "GET", f"/{boxes[1]}/files"))[1])
    assert (empty["data"], empty["has_more"]) == ([], False)
    for wrong, code in (("?after=cfile_x", 404), ("?limit=101", 400), ("?name=x", 400)):
        status, body = await call(http, served, "GET", path + wrong)
        assert status == code
        assert check_error(body)["error"]["param"] == wrong[1:].partition("=")[0]
    for wrong, code in (("?after=cntr_x", 404), ("?limit=0", 400), ("?purpose=x", 400)):
        status, body = await call(http, served, "GET", wrong)
        assert status == code
        assert check_error(body)["error"]["param"] == wrong[1:].partition("=")[0]


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        (form(), FORM, 400, "file"),
        (form(Field("file", b"x")), FORM, 400, "file"),
        (form(Field("file", b"x", ".hidden")), FORM, 400, "file"),
        (form(Field("file", b"x", "a"), Field("file", b"x", "a")), FORM, 400, "file"),
        (form(Field("purpose", "user_data")), FORM, 400, "purpose"),
        (form(Field("file", b"x", "a"), Field("file_id", "file-x")), FORM, 400, "file_id"),
        (form(Field("file_id", "file-x"), Field("file", b"x", "a")), FORM, 400, "file_id"),
        (form(Field("file_id", "file-x")), FORM, 404, "file_id"),
        (form(Field("file", b"x" * 2**19, "a.bin"), Field("a", "")), FORM, 400, "a"),
        (form(Field("file", b"x", "a"), end=False), FORM, 400, None),
        ({"file_id": "file-x"}, None, 404, "file_id"),
        ({"file_id": 3}, None, 400, "file_id"),
        ({}, None, 400, "file_id"),
        ({"file_id": "file-x", "file": "x"}, None, 400, "file"),
        (b"not json", None, 400, None),
    ],
)
async def test_wrong_files_are_refused_and_not_kept(served, http, body, headers, status, param):
    box = await made(http, served)
    answered, reply = await call(http, served, "POST", f"/{box}/files", body, headers)
    assert (answered, check_error(reply)["error"]["param"]) == (status, param), reply
    found = (await call(http, served, "GET", f"/{box}/files"))[1]
    assert check_page("container.file", found)["data"] == []


async def test_too_much_for_the_container_is_told_of_the_right_field(served, http, sdk, rooms):
    box = await made(http, served)
    source = await sdk(served).files.create(file=("f", bytes(600_000)), purpose="user_data")
    await leave(rooms, box, "there", bytes(600_000))
    for body, headers, param in (
        (form(Field("file", bytes(600_000), "big")), FORM, "file"),
        ({"file_id": source.id}, None, "file_id"),
        (form(Field("file_id", source.id)), FORM, "file_id"),
    ):
        status, reply = await call(http, served, "POST", f"/{box}/files", body, headers)
        assert (status, check_error(reply)["error"]["param"]) == (413, param)
    status, reply = await call(
        http, served, "POST", "", {"name": "c", "file_ids": [source.id, source.id]}
    )
    assert status == 200  # the same file under the same name


async def test_the_servers_limit_holds_for_containers_too(files, rooms, serve, http):
    server = await serve(files=files, containers=rooms, settings=ApiSettings(max_file=1000))
    box = await made(http, server)
    body = form(Field("file", bytes(1001), "f"))
    status, reply = await call(http, server, "POST", f"/{box}/files", body, FORM)
    assert (status, check_error(reply)["error"]["code"]) == (413, "file_too_large")


async def test_contents_have_ranges_and_are_files_only(served, http, rooms):
    box = await made(http, served)
    left = await leave(rooms, box, "plots/ü.html", b"<html>")
    url = f"{served.base_url}/containers/{box}/files/{left}/content"
    async with http.get(url, headers={"range": "bytes=1-4"}) as reply:
        assert (reply.status, await reply.read()) == (206, b"html")
        assert reply.headers["content-range"] == "bytes 1-4/6"
        assert reply.headers["content-disposition"].endswith("filename*=UTF-8''%C3%BC.html")
        tag = reply.headers["etag"]
    await leave(rooms, box, "plots/ü.html", b"<HTML>")  # the same id and size, other bytes
    async with http.get(url, headers={"range": "bytes=1-4", "if-range": tag}) as reply:
        assert (reply.status, await reply.read()) == (200, b"<HTML>")
    async with http.head(url) as reply:
        assert (reply.status, reply.headers["content-length"]) == (200, "6")
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_an_expired_container_is_shown_and_its_files_are_gone(served, http, rooms):
    box = await made(http, served)
    left = await leave(rooms, box, "a", b"x")
    neglect(rooms, box)
    body = (await call(http, served, "GET", f"/{box}"))[1]
    assert check("container", body)["status"] == "expired"
    file = f"/{box}/files/{left}"
    for method, path, data in (
        ("GET", f"/{box}/files", None),
        ("POST", f"/{box}/files", {"file_id": "file-x"}),
        ("GET", file, None),
        ("DELETE", file, None),
        ("GET", f"{file}/content", None),
    ):
        assert (await call(http, served, method, path, data))[0] == 404


async def test_unknown_and_foreign_containers_and_files_are_not_found(served, http, rooms):
    foreign = (await rooms.create("somebody", ContainerSpec())).id
    box = await made(http, served)
    upload = form(Field("file", b"x", "a"))
    made_up = new_id("cntr")
    for method, path, body, headers in (
        ("GET", "", None, None),
        ("DELETE", "", None, None),
        ("GET", "/files", None, None),
        ("POST", "/files", upload, FORM),
        ("GET", "/files/cfile_0", None, None),
        ("DELETE", "/files/cfile_0", None, None),
        ("GET", "/files/cfile_0/content", None, None),
    ):
        told = []
        for one in (foreign, made_up, "cntr_0", "a%00b", "x" * 300):
            status, reply = await call(http, served, method, f"/{one}{path}", body, headers)
            assert status == 404
            told.append(check_error(reply)["error"])
        theirs, nobodys = (
            {**error, "message": error["message"].replace(one, "")}
            for error, one in zip(told, (foreign, made_up), strict=False)
        )
        assert theirs == nobodys
    for file_id in ("cfile_0", "a%00b", "%ff", "x" * 300):
        for method, leaf in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
            status, reply = await call(http, served, method, f"/{box}/files/{file_id}{leaf}")
            assert status == 404
            check_error(reply)


async def test_deleting_says_so(served, http, rooms):
    box = await made(http, served)
    left = await leave(rooms, box, "a", b"x")
    path = f"/{box}/files/{left}"
    assert (await call(http, served, "DELETE", path, {"a": 1}))[0] == 400
    _, body = await call(http, served, "DELETE", path)
    check_deleted(body, left, "container.file.deleted")
    _, body = await call(http, served, "DELETE", f"/{box}")
    check_deleted(body, box, "container.deleted")


async def test_where_no_code_runs_every_endpoint_says_why(files, serve, http):
    why = "Code cannot be run here: user namespaces are forbidden and there is no Landlock."
    server = await serve(files=files, settings=ApiSettings(why_no_containers=why))
    for method, path in (
        ("POST", ""),
        ("GET", ""),
        ("GET", "/x"),
        ("DELETE", "/x"),
        ("POST", "/x/files"),
        ("GET", "/x/files"),
        ("GET", "/x/files/y"),
        ("DELETE", "/x/files/y"),
        ("GET", "/x/files/y/content"),
    ):
        status, body = await call(http, server, method, path)
        error = check_error(body)["error"]
        assert (status, error["code"], error["message"]) == (400, "unsupported", why)


async def test_without_files_containers_take_bytes_only(rooms, serve, http):
    server = await serve(containers=rooms)
    box = await made(http, server)
    upload = form(Field("file", b"x", "a"))
    status, reply = await call(http, server, "POST", f"/{box}/files", upload, FORM)
    assert (status, check("container.file", reply)["path"]) == (200, "/mnt/data/a")
    status, reply = await call(http, server, "POST", f"/{box}/files", {"file_id": "file-x"})
    assert (status, check_error(reply)["error"]["code"]) == (400, "unsupported")


async def test_eight_files_at_once(served, sdk):
    client = sdk(served)
    box = await client.containers.create(name="box")
    put = await asyncio.gather(
        *(
            client.containers.files.create(box.id, file=(f"{n}", bytes([n]) * 1000))
            for n in range(8)
        )
    )
    assert len({each.id for each in put}) == 8
