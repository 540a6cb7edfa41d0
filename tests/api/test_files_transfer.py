"""Bytes on their way: clients that are slow or gone, big files, and parts of files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from files_kit import FORM, Field, check, form, real_files
from hostile_kit import connect, read_reply, request, reset

from harness import Running
from ouzel.api import transfer
from ouzel.store import SqlFiles
from wire.checks import check_error

PURPOSE = Field("purpose", "user_data")
KIND = f"content-type: {FORM['content-type']}"
MB = 2**20


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqlFiles]:
    async with real_files(tmp_path / "kept") as opened:
        yield opened


@pytest.fixture
async def served(files, serve) -> Running:
    return await serve(files=files)


async def kept(files: SqlFiles, data: bytes, name: str = "data.bin") -> str:
    async def pieces():
        yield data

    return (await files.create("local", name, "user_data", pieces())).id


async def get(http, server, file_id: str, method: str = "GET", **headers: str):
    """Status, headers and body of a file's content."""
    url = f"{server.base_url}/files/{file_id}/content"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, headers=named) as reply:
        return reply.status, reply.headers, await reply.read()


def port_of(server: Running) -> int:
    return int(server.url.rpartition(":")[2])


def opened_below(folder: Path) -> list[str]:
    """Files of the folder that this process has open, those removed meanwhile included."""
    found = []
    for each in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            found.append(str(each.readlink()))
    return [each for each in found if each.startswith(str(folder)) and "file-" in each]


async def soon(done, within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while not done():
            await asyncio.sleep(0.01)


# What comes.


async def test_a_client_that_leaves_in_mid_upload_leaves_nothing(served, files, tmp_path, http):
    body = form(PURPOSE, Field("file", b"x" * 3 * MB, "f"))
    blobs = tmp_path / "kept"
    for leave in (reset, socket.socket.close):
        client = await asyncio.to_thread(connect, port_of(served))
        head = request("/v1/files", b"", KIND, f"content-length: {len(body)}")
        await asyncio.to_thread(client.sendall, head + body[: 2 * MB])
        await soon(lambda: any("file-" in each.name for each in blobs.rglob("*")))
        leave(client)
        await soon(lambda: not any(each.is_file() for each in blobs.rglob("*file-*")))
        await soon(lambda: not opened_below(blobs))
    assert (await files.page("local"))[0] == []
    async with http.get(f"{served.base_url}/files") as reply:
        assert reply.status == 200


@pytest.mark.parametrize("drip", [b"", b"x"])
async def test_a_client_that_stalls_is_told_and_let_go(served, files, monkeypatch, drip):
    monkeypatch.setattr(transfer, "STALL", 0.3)
    body = form(PURPOSE, Field("file", b"x" * 1000, "f"))
    client = await asyncio.to_thread(connect, port_of(served))
    head = request("/v1/files", b"", KIND, f"content-length: {len(body)}")
    answer = asyncio.create_task(asyncio.to_thread(read_reply, client))
    await asyncio.to_thread(client.sendall, head + body[:200])
    while not answer.done():
        # A byte now and then is no progress.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(client.sendall, drip)
        await asyncio.sleep(0.02)
    reply = await answer
    client.close()
    assert (reply.status, check_error(reply.body)["error"]["code"]) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert (await files.page("local"))[0] == []


async def test_a_slow_client_that_goes_on_is_waited_for(served, monkeypatch):
    """It takes much longer in all than it may stall."""
    monkeypatch.setattr(transfer, "STALL", 1.0)
    body = form(PURPOSE, Field("file", b"x" * 160_000, "f"))
    client = await asyncio.to_thread(connect, port_of(served))
    head = request("/v1/files", b"", KIND, f"content-length: {len(body)}")
    await asyncio.to_thread(client.sendall, head)
    for at in range(0, len(body), 20_000):
        await asyncio.to_thread(client.sendall, body[at : at + 20_000])
        await asyncio.sleep(0.2)
    reply = await asyncio.to_thread(read_reply, client)
    client.close()
    assert (reply.status, check("file", reply.body)["bytes"]) == (200, 160_000)


async def test_a_client_that_waits_for_leave_to_send_gets_it(served):
    body = form(PURPOSE, Field("file", b"x", "f"))
    client = await asyncio.to_thread(connect, port_of(served))
    lines = (KIND, f"content-length: {len(body)}", "expect: 100-continue")
    await asyncio.to_thread(client.sendall, request("/v1/files", b"", *lines))
    assert (await asyncio.to_thread(client.recv, 1000)).startswith(b"HTTP/1.1 100")
    await asyncio.to_thread(client.sendall, body)
    assert (await asyncio.to_thread(read_reply, client)).status == 200
    client.close()


class Memory:
    """The most memory that this process has while inside, above what it had before; bytes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.most = 0

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, self._process.memory_info().rss - self._before)
            await asyncio.sleep(0.005)

    async def __aenter__(self) -> Memory:
        self._before = self._process.memory_info().rss
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()


@pytest.mark.parametrize("purpose_first", [True, False])
async def test_big_files_go_by_without_being_held(served, http, purpose_first):
    """200 MB both ways in little memory, whichever field comes first."""
    size = 200 * MB
    piece = bytes(range(256)) * 1024
    opening = form(Field("file", b"", "big.bin"), end=False).removesuffix(b"\r\n")
    purpose = form(PURPOSE, end=False)

    async def body():
        yield purpose + opening if purpose_first else opening
        for _ in range(size // len(piece)):
            yield piece
        yield b"\r\n" + (form() if purpose_first else form(PURPOSE))

    async with Memory() as memory:
        url = f"{served.base_url}/files"
        async with http.post(url, data=body(), headers=FORM) as reply:
            made = check("file", await reply.read())
        assert made["bytes"] == size
        taken = 0
        async with http.get(f"{url}/{made['id']}/content") as reply:
            assert reply.content_length == size
            async for part in reply.content.iter_chunked(MB):
                taken += len(part)
        assert taken == size
    print(f"{memory.most / MB:.1f} MB above what there was before")
    assert memory.most < 100 * MB


# What goes.


async def test_a_content_is_handed_out_as_nothing_but_a_file(served, files, http):
    name = 'a "b"; ü\u202e.html'
    file_id = await kept(files, b"<html><script>alert(1)</script></html>", name)
    status, headers, body = await get(http, served, file_id)
    assert (status, body[:6]) == (200, b"<html>")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["content-disposition"].startswith('attachment; filename="')
    assert "filename*=UTF-8''a%20%22b%22%3B%20%C3%BC" in headers["content-disposition"]
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-length"] == str(len(body))


async def test_a_head_says_what_a_get_would(served, files, http):
    file_id = await kept(files, b"0123456789")
    _, got, _ = await get(http, served, file_id)
    status, headers, body = await get(http, served, file_id, "HEAD", range="bytes=1-2")
    assert (status, body) == (200, b"")
    for name in ("content-length", "content-type", "etag", "content-disposition"):
        assert headers[name] == got[name]


@pytest.mark.parametrize(
    ("asked", "body", "told"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=9-99", b"9", "bytes 9-9/10"),
        ("bytes=0-1,3-4", b"0123456789", None),
        ("bytes=4-2", b"0123456789", None),
        ("nonsense", b"0123456789", None),
    ],
)
async def test_a_part_may_be_asked_for(served, files, http, asked, body, told):
    file_id = await kept(files, b"0123456789")
    status, headers, data = await get(http, served, file_id, range=asked)
    assert (status, data) == (206 if told else 200, body)
    assert headers.get("content-range") == told
    assert headers["content-length"] == str(len(body))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0"])
async def test_a_part_that_is_not_there_is_refused(served, files, http, asked, tmp_path):
    file_id = await kept(files, b"0123456789")
    status, headers, body = await get(http, served, file_id, range=asked)
    assert (status, headers["content-range"]) == (416, "bytes */10")
    assert check_error(body)["error"]["param"] == "range"
    await soon(lambda: not opened_below(tmp_path / "kept"))


async def test_what_a_client_has_is_not_sent_again(served, files, http, tmp_path):
    file_id, other = await kept(files, b"0123456789"), await kept(files, b"0123456789")
    _, headers, _ = await get(http, served, file_id)
    tag = headers["etag"]
    assert (await get(http, served, file_id))[1]["etag"] == tag
    assert (await get(http, served, other))[1]["etag"] != tag
    status, headers, body = await get(http, served, file_id, if_none_match=tag)
    assert (status, headers["etag"], body) == (304, tag, b"")
    assert (await get(http, served, other, if_none_match=tag))[0] == 200
    assert (await get(http, served, file_id, if_range=tag, range="bytes=0-0"))[0] == 206
    assert (await get(http, served, other, if_range=tag, range="bytes=0-0"))[0] == 200
    await soon(lambda: not opened_below(tmp_path / "kept"))


async def test_a_download_goes_on_where_it_broke_off(served, files, http):
    data = os.urandom(3 * MB)
    file_id = await kept(files, data)
    _, headers, first = await get(http, served, file_id, range="bytes=0-1000000")
    tag = headers["etag"]
    rest = await get(http, served, file_id, range=f"bytes={len(first)}-", if_range=tag)
    assert (rest[0], first + rest[2]) == (206, data)


async def test_a_client_that_leaves_in_mid_download_holds_nothing(served, files, tmp_path):
    file_id = await kept(files, bytes(64 * MB))
    path = f"/v1/files/{file_id}/content"
    for leave in (reset, socket.socket.close):
        client = await asyncio.to_thread(lambda: connect(port_of(served), receive=10_000))
        await asyncio.to_thread(client.sendall, request(path, method="GET"))
        await asyncio.to_thread(client.recv, 1000)
        await soon(lambda: bool(opened_below(tmp_path / "kept")))
        leave(client)
        await soon(lambda: not opened_below(tmp_path / "kept"))


async def test_a_client_that_does_not_read_is_waited_for(served, files, tmp_path):
    """Nothing is read ahead for it: memory stays small, and so does what others notice."""
    file_id = await kept(files, bytes(200 * MB))
    client = await asyncio.to_thread(lambda: connect(port_of(served), receive=10_000))
    async with Memory() as memory:
        data = request(f"/v1/files/{file_id}/content", method="GET")
        await asyncio.to_thread(client.sendall, data)
        await asyncio.sleep(0.5)
        assert opened_below(tmp_path / "kept")
    assert memory.most < 50 * MB
    await files.delete(file_id, "local")  # who reads it may read on
    size = await asyncio.to_thread(lambda: len(read_reply(client, "GET").body))
    client.close()
    assert size == 200 * MB


async def test_a_content_that_got_shorter_breaks_the_connection(served, files, http, tmp_path):
    """Better an error than a file that looks whole."""
    file_id = await kept(files, bytes(8 * MB))
    client = await asyncio.to_thread(lambda: connect(port_of(served), receive=10_000))
    await asyncio.to_thread(client.sendall, request(f"/v1/files/{file_id}/content", method="GET"))
    await asyncio.to_thread(client.recv, 100)
    (blob,) = {Path(each) for each in opened_below(tmp_path / "kept")}
    os.truncate(blob, MB)
    taken = 0
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.to_thread(client.recv, MB):
            taken += len(piece)
    client.close()
    assert taken < 8 * MB
    await soon(lambda: not opened_below(tmp_path / "kept"))


async def test_metrics_name_the_route_and_not_the_file(served, files, http):
    file_id = await kept(files, b"x")
    await get(http, served, file_id)
    async with http.get(f"{served.url}/metrics") as reply:
        text = await reply.text()
    assert "/v1/files/{id}/content" in text
    assert file_id not in text
    assert json.dumps(file_id) not in text
