"""Files in messages: kept, found, shown."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ouzel.answer.attachments import KEPT_FOR, MOST_FILES, MOST_SHOWN, attach
from ouzel.core.errors import RequestError, TooLarge
from ouzel.core.items import File, Message, Text
from ouzel.core.request import HostedTool, Request
from ouzel.store import FileLimits, SqlFiles, open_files, open_store

CODE = (HostedTool("code_interpreter"),)


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqlFiles]:
    store = open_store(tmp_path / "a.db")
    opened = open_files(store, tmp_path / "files", FileLimits(file=1_000_000))
    yield opened
    await opened.close()
    await store.close()


def data(content: bytes) -> str:
    return base64.b64encode(content).decode()


def ask(*parts: File, **more) -> Request:
    messages = (Message("msg_0", "system", (Text("s"),)), Message("msg_1", "user", parts))
    return Request("responses", "m", messages, **more)


def part_of(request: Request) -> File:
    part = request.input[1].parts[0]
    assert isinstance(part, File)
    return part


async def test_data_becomes_a_file_and_plain_text_is_shown(files: SqlFiles) -> None:
    content = "\ufeffä,b\n".encode() + b"1,2\n" * 20_000
    part = part_of(await attach(ask(File(name="a.csv", data=data(content))), "ann", files))
    assert part.data == ""
    assert part.shown == content.decode("utf-8-sig")
    info = await files.load(part.file_id, "ann")
    assert (info.name, info.size, info.purpose) == ("a.csv", len(content), "user_data")
    assert info.expires_at is not None
    assert info.expires_at - info.created_at == pytest.approx(KEPT_FOR)
    again = part_of(await attach(ask(File(part.file_id)), "ann", files))
    assert again == part


async def test_with_code_anything_goes_and_nothing_is_shown(files: SqlFiles) -> None:
    request = ask(File(name="a.bin", data=data(b"\0\xff" * 99)), tools=CODE)
    part = part_of(await attach(request, "ann", files))
    assert (part.name, part.shown, part.data) == ("a.bin", "", "")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a\0b", b"x" * (MOST_SHOWN + 1), b"a" * 199_999 + b"\xc3"]
)
async def test_what_cannot_be_shown_is_refused_and_not_kept(
    files: SqlFiles, content: bytes
) -> None:
    with pytest.raises(RequestError) as caught:
        await attach(ask(File(name="a", data=data(content))), "ann", files)
    assert (caught.value.param, caught.value.code) == (
        "input[1].content[0].file_data",
        "unsupported_value",
    )
    assert "code_interpreter" in caught.value.message
    assert await files.page("ann") == ([], False)


async def test_another_owners_file_is_not_there(files: SqlFiles) -> None:
    mine = part_of(await attach(ask(File(name="a", data=data(b"x"))), "ann", files))
    with pytest.raises(RequestError) as caught:
        await attach(ask(File(mine.file_id), tools=CODE), "bob", files)
    error = caught.value
    assert (error.status, error.code, error.param) == (
        400,
        "file_not_found",
        "input[1].content[0].file_id",
    )


async def test_too_much_is_refused_with_its_place(files: SqlFiles) -> None:
    with pytest.raises(TooLarge) as caught:
        await attach(ask(File(name="a", data=data(b"x" * 1_000_001)), tools=CODE), "ann", files)
    assert caught.value.param == "input[1].content[0].file_data"
    with pytest.raises(RequestError, match="Too many files"):
        await attach(ask(*[File("file-1")] * (MOST_FILES + 1)), "ann", files)


async def test_to_count_tokens_nothing_is_kept(files: SqlFiles) -> None:
    part = part_of(await attach(ask(File(name="a", data=data(b"x"))), "ann", files, keep=False))
    assert part == File(name="a", shown="x")
    assert await files.page("ann") == ([], False)


async def test_a_server_without_files_still_shows_plain_text() -> None:
    sent = File(name="a", data=data(b"x"))
    assert part_of(await attach(ask(sent), "ann", None)) == File(name="a", shown="x")
    for request in (ask(sent, tools=CODE), ask(File("file-1"))):
        with pytest.raises(RequestError, match="keeps no files"):
            await attach(request, "ann", None)


async def test_a_request_without_files_is_not_touched() -> None:
    request = ask()
    assert await attach(request, "ann", None) is request
