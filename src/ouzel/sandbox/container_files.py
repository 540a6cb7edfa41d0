"""Files of one container: listed, opened, removed, brought in.

Paths only ever come from our own look into the work folder; a client names a file by its id.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from ouzel.core.contracts_files import Files
from ouzel.core.errors import NotFound, StoreError, TooLarge
from ouzel.core.files import ContainerFile, Content
from ouzel.sandbox.container_names import file_id, tamed_name
from ouzel.sandbox.container_record import Record, to_the_end
from ouzel.sandbox.container_settings import MEGABYTE, ContainerSettings
from ouzel.sandbox.folder import Draft, Folder, Found
from ouzel.sandbox.registry import Registry
from ouzel.sandbox.watch import measure

CHUNK: Final = MEGABYTE
"""Bytes that are copied at a time."""


def listing(record: Record, folder: Folder) -> list[ContainerFile]:
    """All files, oldest first. Raises OSError."""
    files = []
    for found in folder.files():
        try:
            files.append(record.file(found, folder.media_type(found.path)))
        except FileNotFoundError:
            continue  # gone since it was seen, or not ours to read
    return sorted(files, key=lambda file: (file.created_at, file.path))


def opened(record: Record, folder: Folder, wanted: str, box: list[Content]) -> ContainerFile:
    """Put a file's content into `box`, from where the caller closes it in any case.

    Raises FileNotFoundError, OSError.
    """
    found = _find(record, folder, wanted)
    media = folder.media_type(found.path)
    descriptor, found = folder.open(found.path)
    file = record.file(found, media)
    box.append(Content(descriptor, found.size, media, file.name))
    return file


def removed(record: Record, folder: Folder, wanted: str) -> str:
    """Remove a file; its path. Raises FileNotFoundError, OSError."""
    path = _find(record, folder, wanted).path
    folder.remove(path)
    return path


def no_such_file(wanted: str) -> NotFound:
    """The same answer for one that is not there and for one that is not a plain file."""
    return NotFound(
        f"No file with the id '{wanted[:64]}' was found.", param="file_id", code="not_found"
    )


def room(folder: Folder, settings: ContainerSettings, replaced: str = "") -> int:
    """Bytes that may still be put into a work folder, maybe less than none. Raises OSError."""
    free = shutil.disk_usage(folder.work).free - settings.cell_limits(memory=0).disk_floor
    return min(spare(folder, settings, replaced), free)


def spare(folder: Folder, settings: ContainerSettings, replaced: str = "") -> int:
    """The same, but as if the disk had no end: for bytes that are on it already."""
    limits = settings.cell_limits(memory=0)
    held = measure(folder.work, limits)
    if held.trouble or held.files >= limits.work_files:
        return 0
    left = limits.work_bytes - held.size
    if replaced:
        left += sum(found.size for found in folder.files() if found.path == replaced)
    return left


async def write(draft: Draft, chunks: AsyncIterable[bytes], most: int) -> None:
    """Write all of it. Raises TooLarge (more than `most` bytes), StoreError."""
    async for chunk in chunks:
        if draft.size + len(chunk) > most:
            raise full(most)
        await to_the_end(draft.write, chunk)


def full(most: int) -> TooLarge:
    """For a file that is larger than the bytes that are left."""
    return TooLarge(
        f"The file does not fit: there is room for {max(0, most)} bytes in this container.",
        code="container_full",
    )


async def copy_in(
    files: Files,
    owner: str,
    file_ids: tuple[str, ...],
    folder: Folder,
    registry: Registry,
    settings: ContainerSettings,
) -> frozenset[str]:
    """Copy the owner's files into a new work folder; their names there.

    Raises NotFound (with `param` `file_ids`), TooLarge, StoreError.
    """
    names: set[str] = set()
    for each in dict.fromkeys(file_ids):
        try:
            content = await files.open(each, owner)
        except NotFound as error:
            raise NotFound(error.message, param="file_ids", code=error.code) from error
        try:
            name = tamed_name(content.name, names)
            draft = new_draft(registry)
            try:
                await write(draft, _read(content), await to_the_end(room, folder, settings))
                await to_the_end(draft.keep, folder, name)
            finally:
                await asyncio.to_thread(draft.drop)
            names.add(name)
        finally:
            content.close()
    return frozenset(names)


def new_draft(registry: Registry) -> Draft:
    """A file on its way into a container. Raises StoreError."""
    try:
        return Draft(registry.incoming)
    except OSError as error:
        raise StoreError(f"No file could be begun: {error.strerror}.") from error


async def _read(content: Content) -> AsyncIterator[bytes]:
    start = 0
    while data := await content.read(start, CHUNK):
        start += len(data)
        yield data


def _find(record: Record, folder: Folder, wanted: str) -> Found:
    for found in folder.files():
        if file_id(record.info.id, found.path) == wanted:
            return found
    raise FileNotFoundError(wanted)
