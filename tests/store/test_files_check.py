"""Expired files are counted, and rows and bytes that do not agree are found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from ouzel.core.files import FileInfo
from ouzel.store import open_files, open_store
from ouzel.store.blobs import Blobs
from ouzel.store.files_check import expired_files, unnamed, without_bytes
from ouzel.store.retention import Removed
from ouzel.store.sqlite import SqliteFile


async def chunks() -> AsyncIterator[bytes]:
    yield b"12345"


async def test_what_does_not_agree_is_found_and_goes_when_asked(tmp_path: Path) -> None:
    now = 1_000.0
    store = open_store(tmp_path / "ouzel.db")
    files = open_files(store, tmp_path / "files", now=lambda: now)
    kept: list[FileInfo] = [
        await files.create("alice", "a.txt", "user_data", chunks(), seconds)
        for seconds in (None, 50.0, None)
    ]
    upload = await files.begin_upload("alice", "b.txt", "user_data", 5, "text/plain")
    await files.add_part(upload.id, "alice", chunks())
    file, blobs = SqliteFile(tmp_path / "ouzel.db"), Blobs(tmp_path / "files", 0)
    file.make()

    assert expired_files(file, now) == [Removed("files", 0, 0), Removed("uploads", 0, 0)]
    assert expired_files(file, now + 4_000) == [Removed("files", 1, 5), Removed("uploads", 1, 5)]
    assert list(unnamed(file, blobs, delete=True)) == []
    assert list(without_bytes(file, blobs, delete=True)) == []

    place = next((tmp_path / "files" / "kept").rglob(kept[2].id))
    nameless = tmp_path / "files" / "kept" / "00" / "00" / ("file-" + "0" * 48)
    nameless.parent.mkdir(parents=True)
    place.rename(nameless)
    elsewhere = nameless.with_name("notes.txt")
    elsewhere.write_text("not ours")
    for delete in (False, True):
        assert list(unnamed(file, blobs, delete=delete)) == [Removed("unnamed bytes", 1, 5)]
        assert list(without_bytes(file, blobs, delete=delete)) == [
            Removed("files without bytes", 1, 0)
        ]
    assert not nameless.exists()
    assert elsewhere.exists()
    assert {each.id for each in (await files.page("alice"))[0]} == {kept[0].id, kept[1].id}
    await files.close()
    await store.close()
