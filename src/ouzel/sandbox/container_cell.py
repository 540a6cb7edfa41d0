"""One cell in a container, from waiting in line to what it left in the work folder.

How code is kept in, and how a kernel is spoken to, this file does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final

from ouzel.core.errors import NotFound, StoreError, ToolError
from ouzel.core.files import CellDone, CellEvent, CellPicture, CellText, ContainerFile
from ouzel.sandbox.container_record import Record, not_found, to_the_end
from ouzel.sandbox.container_settings import ContainerSettings
from ouzel.sandbox.folder import Draft, Folder, Found
from ouzel.sandbox.outputs import KernelEnd, KernelPicture, KernelText
from ouzel.sandbox.pool import Pool, Seat
from ouzel.sandbox.registry import Registry
from ouzel.sandbox.watch import has_spare

MOST_LEFT: Final = 100
"""Files that a cell is said to have left; the rest is found in the listing."""

MOST_PICTURES: Final = 10_000
"""Names that are tried for a picture before its number is given up."""

LEAST_SECONDS: Final = 0.1
"""What a cell gets to run in any case, once it has an interpreter."""

NO_SPACE: Final = (
    "The server's disk has too little free space for code to be run. Nothing that code could do "
    "would help; say so, and answer without it."
)

STILL_RUNNING: Final = (
    "Other code is still running in this container. Wait until it has ended, or use another "
    "container."
)


class Cells:
    """Runs cells, each container's one after another."""

    def __init__(self, registry: Registry, pool: Pool, settings: ContainerSettings) -> None:
        self._registry = registry
        self._pool = pool
        self._settings = settings

    async def run(
        self, record: Record, code: str, within: float
    ) -> AsyncGenerator[CellEvent, None]:
        """As `core.contracts_files.Containers.run`, for a container that was found."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(within, self._settings.cell_seconds)
        try:
            async with asyncio.timeout_at(deadline):
                await record.turn.acquire()
        except TimeoutError:
            raise ToolError(STILL_RUNNING) from None
        done: CellDone | None = None
        try:
            async with aclosing(self._in_turn(record, code, deadline)) as events:
                async for event in events:
                    if isinstance(event, CellDone):
                        done = event
                    else:
                        yield event
        finally:
            record.turn.release()
            if record.gone:
                await self._pool.drop(record.info.id)
        # All is let go before the last word: who hears it may never ask for more.
        assert done is not None  # noqa: S101  # the last event of every cell
        yield done

    async def _in_turn(
        self, record: Record, code: str, deadline: float
    ) -> AsyncGenerator[CellEvent, None]:
        work = record.folder(self._registry).work
        owner, memory = record.info.owner, record.memory
        allow = self._settings.cell_limits(memory)
        # Otherwise each cell would be killed, and blamed, for what it did not do.
        if not await to_the_end(has_spare, work, allow):
            raise ToolError(NO_SPACE)
        seat = await self._pool.hold(record.info.id, owner, work, memory, deadline)
        try:
            fresh = await self._move_in(record, seat)
            before = {found.path: found.mark for found in await self._look(record)}
            end: KernelEnd | None = None
            left = max(LEAST_SECONDS, deadline - asyncio.get_running_loop().time())
            cell = seat.kernel.execute(code, within=left, allow=allow)
            async with aclosing(cell) as events:
                async for event in events:
                    if isinstance(event, KernelText):
                        yield CellText(event.stream, event.text)
                    elif isinstance(event, KernelPicture):
                        yield CellPicture(await self._picture(record, event.data), event.data)
                    else:
                        end = event
            assert end is not None  # noqa: S101  # the last event of every cell
            files = await self._left(record, before)
        finally:
            self._pool.release(seat)
        yield CellDone(
            end.status,
            error=end.error,
            traceback=end.traceback,
            files=files,
            fresh=fresh,
            seconds=end.seconds,
            cut=end.cut,
        )

    async def _move_in(self, record: Record, seat: Seat) -> bool:
        """Bring the container's files to where its interpreter is; whether that has forgotten
        what earlier cells did."""
        async with record.disk:
            if record.gone:
                raise not_found(record.info.id)
            fresh = record.meta.used and seat.kernel.fresh
            moving = record.meta.leaving or (seat.place and seat.place != record.meta.place)
            if moving and not record.meta.leaving:
                old = record.meta.place
                record.meta = replace(record.meta, place=seat.place, leaving=old)
            if moving or not record.meta.used:
                record.meta = replace(record.meta, used=True)
                # Should this be cut short, it is done again before the next cell, or at the next
                # start of the server.
                await record.save(self._registry)
            if moving:
                await to_the_end(self._registry.finish_move, record.meta)
                record.meta = replace(record.meta, leaving="")
        return fresh

    async def _look(self, record: Record) -> list[Found]:
        async with record.disk:
            return await to_the_end(record.folder(self._registry).files)

    async def _left(self, record: Record, before: dict[str, Mark]) -> tuple[ContainerFile, ...]:
        """The files that are new or changed, oldest first."""
        try:
            async with record.disk:
                folder = record.folder(self._registry)
                return await to_the_end(_changed, record, folder, before)
        except (NotFound, FileNotFoundError):
            return ()  # the container was deleted meanwhile

    async def _picture(self, record: Record, data: bytes) -> ContainerFile:
        try:
            async with record.disk:
                folder = record.folder(self._registry)
                return await to_the_end(
                    _keep_picture, record, folder, self._registry.incoming, data
                )
        except (FileNotFoundError, IsADirectoryError) as error:
            raise StoreError("A picture could not be kept in the container.") from error


Mark = tuple[int, int, int, int]


def _changed(record: Record, folder: Folder, before: dict[str, Mark]) -> tuple[ContainerFile, ...]:
    changed = [
        found
        for found in folder.files()
        if found.mark not in (before.get(found.path), record.brought.get(found.path))
    ]
    changed.sort(key=lambda found: (found.changed_at, found.path))
    files = []
    for found in changed[:MOST_LEFT]:
        try:
            files.append(record.file(found, folder.media_type(found.path)))
        except FileNotFoundError:
            continue  # threads of the code may go on when the cell is over
    return tuple(files)


def _keep_picture(record: Record, folder: Folder, incoming: Path, data: bytes) -> ContainerFile:
    draft = Draft(incoming)
    try:
        draft.write(data)
        for _ in range(MOST_PICTURES):
            record.pictures += 1
            name = f"figure-{record.pictures}.png"
            if not folder.has(name):
                break
        return record.file(draft.keep(folder, name), "image/png")
    finally:
        draft.drop()
