"""Files for the store's tests: an open store, chunks, what lies on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ouzel.core.files import FileInfo
from ouzel.store import FileLimits, SqlFiles, SqlStore, open_files, open_store

OWNER = "alice"
OTHER = "bob"


class Clock:
    """Time that goes when it is told to."""

    def __init__(self) -> None:
        self.at = 1_750_000_000.0

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def opened(
    folder: Path, limits: FileLimits | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[SqlFiles, SqlStore]]:
    """Both, as the server opens and closes them."""
    store = open_store(folder / "ouzel.db")
    files = open_files(store, folder / "files", limits, now=clock or Clock())
    await files.sweep()
    yield files, store
    await files.close()
    await store.close()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """What a client sends."""
    for part in parts:
        yield part


async def zeros(size: int, chunk: int = 64 * 1024) -> AsyncIterator[bytes]:
    """So many bytes, which nobody has in memory at once."""
    piece = bytes(chunk)
    while size > 0:
        yield piece[:size]
        size -= chunk


async def keep(
    files: SqlFiles, body: bytes = b"hello", name: str = "a.txt", purpose: str = "user_data"
) -> FileInfo:
    """A file of OWNER's."""
    return await files.create(OWNER, name, purpose, chunks(body))


async def body_of(files: SqlFiles, file: FileInfo) -> bytes:
    """All that is in a file."""
    content = await files.open(file.id, file.owner)
    try:
        return await content.read(0, content.size + 1)
    finally:
        content.close()


def on_disk(folder: Path) -> dict[str, int]:
    """Bytes by name of everything below the folder of files."""
    found = (folder / "files").rglob("*")
    return {each.name: each.stat().st_size for each in found if each.is_file()}


def drafts(folder: Path) -> list[str]:
    """Names of what is not in its place."""
    return [each.name for each in (folder / "files" / "drafts").iterdir()]
