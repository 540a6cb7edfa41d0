"""Containers: places where model-written code runs, with files of their own.

Each call finds the container among the caller's own, does its work in threads where it blocks,
and leaves what is kept on disk whole. Cells are run by `container_cell.py`, interpreters are kept
by `pool.py`, what there is after a restart `registry.py` knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from ouzel.core.contracts_files import Files, Order
from ouzel.core.errors import Conflict, RequestError, StoreError, TooManyRequests
from ouzel.core.files import (
    CellEvent,
    ContainerFile,
    ContainerInfo,
    ContainerSpec,
    Content,
)
from ouzel.core.items import new_id
from ouzel.sandbox.container_cell import Cells
from ouzel.sandbox.container_files import (
    copy_in,
    full,
    listing,
    new_draft,
    no_such_file,
    opened,
    removed,
    room,
    spare,
    write,
)
from ouzel.sandbox.container_janitor import Janitor
from ouzel.sandbox.container_names import checked_name, is_container_id
from ouzel.sandbox.container_record import GIGABYTES, Record, not_found, to_the_end
from ouzel.sandbox.container_settings import MEGABYTE, ContainerSettings
from ouzel.sandbox.environment import Interpreter
from ouzel.sandbox.jail import Jail, Limits
from ouzel.sandbox.kernel import Kernel
from ouzel.sandbox.kernel_link import sweep_folders
from ouzel.sandbox.pool import Pool
from ouzel.sandbox.registry import Meta, Registry
from ouzel.sandbox.watch import trim

TAKEN: Final = "There is a container with this id already."


class SandboxContainers:
    """Keeps `core.contracts_files.Containers`. To be started before use, and closed.

    Args:
        home: folder for all that is kept of containers; made if it is not there, one server's.
        jail: how code is kept in.
        interpreter: what runs the code.
        files: where files that a container is made with come from.
    """

    def __init__(
        self,
        home: Path,
        jail: Jail,
        interpreter: Interpreter,
        files: Files,
        settings: ContainerSettings | None = None,
    ) -> None:
        self._settings = settings or ContainerSettings()
        self._jail = jail
        self._interpreter = interpreter
        self._files = files
        self._registry = Registry(home.absolute())
        self._records: dict[str, Record] = {}
        self._pool = Pool(
            self._start_kernel,
            _WarmFolders(self._registry),
            most=self._settings.most_live,
            warm=self._settings.warm,
            warm_memory=min(self._settings.memory_mb, 1024) * MEGABYTE,
            grace=self._settings.idle_grace,
        )
        self._cells = Cells(self._registry, self._pool, self._settings)
        self._janitor = Janitor(self._registry, self._pool, self._records, self._settings)

    @property
    def pool(self) -> Pool:
        """The live interpreters, to be looked at."""
        return self._pool

    async def start(self) -> None:
        """Find the containers that are there, and begin to keep interpreters warm.

        Raises:
            StoreError: the home cannot be used, or another server uses it.
        """
        metas = await to_the_end(self._registry.open)
        await to_the_end(sweep_folders)
        self._records.update(
            {key: Record(meta, gone=meta.info.status == "expired") for key, meta in metas.items()}
        )
        self._janitor.start()
        self._pool.start()

    async def close(self) -> None:
        """End all code; what containers hold stays. Nothing runs when this returns."""
        await self._janitor.close()
        await self._pool.close()
        for record in list(self._records.values()):
            async with record.disk:
                if record.unsaved:
                    await record.save(self._registry)
        await asyncio.to_thread(self._registry.close)

    def _running(self, owner: str) -> int:
        """Containers of this owner that have not expired."""
        infos = [record.info for record in self._records.values()]
        return sum(info.owner == owner and info.status == "running" for info in infos)

    async def create(
        self, owner: str, spec: ContainerSpec, container_id: str | None = None
    ) -> ContainerInfo:
        """See `Containers.create`; Conflict if there is one with this id."""
        most = self._settings.memory_mb
        if GIGABYTES[spec.memory] * 1024 > most:
            raise RequestError(
                f"memory_limit '{spec.memory}' is more than containers get on this server "
                f"({most} MiB); ask for less.",
                param="memory_limit",
                code="memory_limit_exceeded",
            )
        container_id = container_id or new_id("cntr")
        if not is_container_id(container_id):
            raise RequestError("This is no id of a container.", param="container_id")
        if container_id in self._records:
            raise Conflict(TAKEN, param="container_id")
        if self._running(owner) >= self._settings.most_of_owner:
            raise TooManyRequests(
                f"There are {self._settings.most_of_owner} containers that have not expired, which "
                "is as many as one owner may have; delete some, or wait until they expire.",
                retry_after=60.0,
            )
        now = time.time()
        place = await to_the_end(self._registry.make_place)
        try:
            folder = self._registry.folder(place)
            names = await copy_in(
                self._files, owner, spec.file_ids, folder, self._registry, self._settings
            )
            meta = Meta(ContainerInfo(container_id, owner, spec, now, now), place, puts=names)
        except BaseException:
            await to_the_end(self._registry.remove_place, place)
            raise
        return await self._add(meta)

    async def load(self, container_id: str, owner: str) -> ContainerInfo:
        """See `Containers.load`."""
        record = self._any(container_id, owner)
        if not _is_over(record):
            record.touch()
        return _shown(record)

    async def page(
        self,
        owner: str,
        *,
        name: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> tuple[list[ContainerInfo], bool]:
        """See `Containers.page`."""
        records = [each for each in self._records.values() if each.info.owner == owner]
        records.sort(key=lambda each: (each.info.created_at, each.info.id))
        if order == "desc":
            records.reverse()
        if after is not None:
            ids = [each.info.id for each in records]
            if after not in ids:
                raise not_found(after)
            records = records[ids.index(after) + 1 :]
        if name is not None:
            records = [each for each in records if each.info.spec.name == name]
        return [_shown(each) for each in records[:limit]], len(records) > limit

    async def delete(self, container_id: str, owner: str) -> None:
        """See `Containers.delete`."""
        await self._janitor.remove(self._any(container_id, owner))

    async def put(
        self, container_id: str, owner: str, name: str, chunks: AsyncIterable[bytes]
    ) -> ContainerFile:
        """See `Containers.put`."""
        with self._using(container_id, owner) as record:
            try:
                name = checked_name(name)
            except ValueError as error:
                raise RequestError(
                    f"The file's name cannot be used: {error}.", param="name", code="invalid_name"
                ) from error
            async with record.disk:
                folder = record.folder(self._registry)
                most = await to_the_end(room, folder, self._settings, name)
            draft = new_draft(self._registry)
            try:
                await write(draft, chunks, most)
                async with record.disk:
                    folder = record.folder(self._registry)
                    # Others may have come meanwhile, or code may have written.
                    most = await to_the_end(spare, folder, self._settings, name)
                    if draft.size > most:
                        raise full(most)
                    found = await to_the_end(draft.keep, folder, name)
                    record.brought[name] = found.mark
                    record.meta = replace(record.meta, puts=record.meta.puts | {name})
                    await record.save(self._registry)
                    media = await to_the_end(folder.media_type, name)
            except IsADirectoryError:
                raise RequestError(
                    "There is a folder of this name in the container.",
                    param="name",
                    code="invalid_name",
                ) from None
            except FileNotFoundError as error:
                raise StoreError("The container's folder changed while it was used.") from error
            finally:
                await asyncio.to_thread(draft.drop)
            return record.file(found, media)

    async def files(self, container_id: str, owner: str) -> list[ContainerFile]:
        """See `Containers.files`."""
        with self._using(container_id, owner) as record:
            async with record.disk:
                folder = record.folder(self._registry)
                return await to_the_end(listing, record, folder)

    async def open(
        self, container_id: str, owner: str, file_id: str
    ) -> tuple[ContainerFile, Content]:
        """See `Containers.open`."""
        box: list[Content] = []
        try:
            with self._using(container_id, owner) as record:
                async with record.disk:
                    folder = record.folder(self._registry)
                    file = await to_the_end(opened, record, folder, file_id, box)
        except BaseException as error:
            for content in box:
                content.close()
            if isinstance(error, FileNotFoundError):
                raise no_such_file(file_id) from None
            raise
        return file, box[0]

    async def delete_file(self, container_id: str, owner: str, file_id: str) -> None:
        """See `Containers.delete_file`."""
        with self._using(container_id, owner) as record:
            async with record.disk:
                folder = record.folder(self._registry)
                try:
                    path = await to_the_end(removed, record, folder, file_id)
                except FileNotFoundError:
                    raise no_such_file(file_id) from None
                if path in record.meta.puts:
                    record.meta = replace(record.meta, puts=record.meta.puts - {path})
                    await record.save(self._registry)

    async def run(
        self, container_id: str, owner: str, code: str, within: float
    ) -> AsyncGenerator[CellEvent, None]:
        """See `Containers.run`."""
        with self._using(container_id, owner) as record:
            async with aclosing(self._cells.run(record, code, within)) as events:
                async for event in events:
                    yield event

    async def _add(self, meta: Meta) -> ContainerInfo:
        """Keep a new container, or nothing of it. Raises Conflict, StoreError."""
        await self._janitor.removed(meta.info.id)
        if meta.info.id in self._records:  # made by somebody else in the meantime
            await to_the_end(self._registry.remove_place, meta.place)
            raise Conflict(TAKEN, param="container_id")
        record = self._records[meta.info.id] = Record(meta)
        try:
            async with record.disk:
                await record.save(self._registry)
        except BaseException:
            await self._janitor.remove(record)
            raise
        return meta.info

    def _any(self, container_id: str, owner: str) -> Record:
        """One of the owner's, expired or not. Raises NotFound."""
        record = self._records.get(container_id)
        if record is None or record.info.owner != owner:
            raise not_found(container_id)
        return record

    @contextmanager
    def _using(self, container_id: str, owner: str) -> Iterator[Record]:
        """One of the owner's that does not expire meanwhile. Raises NotFound."""
        record = self._any(container_id, owner)
        if _is_over(record):
            raise not_found(container_id)
        record.users += 1
        record.touch()
        try:
            yield record
        finally:
            record.users -= 1
            record.touch()

    async def _start_kernel(self, work: Path, memory: int, ahead: bool) -> Kernel:
        settings = self._settings
        if not ahead:
            # What a cell left when the server was killed: too much, or nested too deep to walk.
            await asyncio.to_thread(trim, work, settings.cell_limits(memory), 0)
        limits = Limits(
            memory=memory,
            processes=settings.processes,
            file_size=settings.disk,
            tmp=settings.tmp_mb * MEGABYTE,
            cpu_seconds=settings.cpu_seconds,
        )
        return await Kernel.start(
            self._jail,
            self._interpreter,
            work,
            limits,
            preload=ahead,
            within=settings.start_seconds,
        )


class _WarmFolders:
    """Places for interpreters that are started ahead."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def make(self) -> tuple[str, Path]:
        place = await to_the_end(self._registry.make_place)
        return place, self._registry.folder(place).work

    async def remove(self, place: str) -> None:
        await to_the_end(self._registry.remove_place, place)


def _is_over(record: Record) -> bool:
    return record.gone or record.overdue(time.time())


def _shown(record: Record) -> ContainerInfo:
    return replace(record.info, status="expired") if _is_over(record) else record.info
