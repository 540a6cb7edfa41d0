"""Files that clients hand over, as `core.contracts_files.Files` promises.

Rows lie in the database of the runs and share its commits; bytes lie beside it, one plain file for
each (`blobs.py`). Uploads in parts are `uploads.py`'s.

This file does not know HTTP, threads, or what anybody does with a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

from ouzel.core.contracts_files import Order
from ouzel.core.errors import NotFound, StoreError
from ouzel.core.files import Content, FileInfo, UploadInfo, UploadPartInfo
from ouzel.core.items import new_id
from ouzel.store.blobs import Blobs
from ouzel.store.files_keeping import Change, FileLimits, Keeping
from ouzel.store.files_names import clean_name, storable
from ouzel.store.sniff import sniff
from ouzel.store.sql import SqlStore
from ouzel.store.uploads import Uploads

logger = logging.getLogger(__name__)

EXPIRED_AT_ONCE = 100
"""Files that are deleted together; they share a commit."""


def open_files(
    store: SqlStore,
    folder: Path,
    limits: FileLimits | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> SqlFiles:
    """Open the files of a store. Blocks for a moment; `sweep` is to be called next.

    Args:
        store: keeps the rows. To be closed after the files.
        folder: keeps the bytes; on one file system, and used by one server at a time.
        limits: how much is kept.
        now: seconds since the epoch.

    Raises:
        StoreError: the folder cannot be made or used.
    """
    limits = limits or FileLimits()
    blobs = Blobs(folder, limits.reserve)
    keeping = Keeping(store.files_sql, store.writer, store.readers, blobs, limits, now)
    return SqlFiles(keeping)


class SqlFiles:
    """Files and uploads. Serves one event loop at a time.

    Args:
        keeping: rows, bytes, threads and quotas.
    """

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._sql = keeping.sql
        self._uploads = Uploads(keeping)

    async def create(
        self,
        owner: str,
        name: str,
        purpose: str,
        chunks: AsyncIterable[bytes],
        expires_after: float | None = None,
        file_id: str | None = None,
    ) -> FileInfo:
        """Keep a file, written to disk as it comes.

        If `chunks` fails or the caller is cancelled, nothing of it is left; but a file that had
        come whole by then may stay.

        Args:
            name: as the client calls it; what could harm is taken out.
            expires_after: seconds; None for never.
            file_id: an id that was reserved for it, and that no file has.

        Raises:
            RequestError: an impossible name.
            TooLarge: it is larger than one file may be (`file_too_large`), or the owner's quota is
                used up (`quota_exceeded`).
            StoreError: the disk is full, or refused.
        """
        name = clean_name(name, "file")
        account = await self._keeping.accounts.of(owner)
        file_id = file_id or new_id("file", "-")
        with self._keeping.busy(file_id):
            draft = await self._keeping.receive(
                file_id, chunks, account, self._keeping.limits.file, "file"
            )
            now = self._keeping.now()
            file = FileInfo(
                id=file_id,
                owner=owner,
                name=name,
                size=draft.size,
                purpose=purpose,
                media_type=sniff(draft.head, name),
                created_at=now,
                expires_at=None if expires_after is None else now + expires_after,
            )
            await self._keeping.commit(
                Change(
                    steps=[self._keeping.file_step(file)],
                    doing=f"keep file {file_id}",
                    unmet=StoreError(f"The store could not keep file {file_id}."),
                    account=account,
                    come=[file_id],
                    taken=draft.size,
                )
            )
        return file

    async def load(self, file_id: str, owner: str) -> FileInfo:
        """The file's description. Raises NotFound, StoreError."""
        if not storable(file_id):
            raise _not_found(file_id)
        rows = await self._keeping.rows(
            self._sql.select_file,
            f"read file {file_id}",
            file=file_id,
            by=owner,
            now=self._keeping.now(),
        )
        if not rows:
            raise _not_found(file_id)
        return FileInfo(*rows[0])

    async def page(
        self,
        owner: str,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        order: Order = "desc",
    ) -> tuple[list[FileInfo], bool]:
        """One page, and whether there is more.

        Args:
            purpose: only files of this one.
            after: id of the file before the page.
            limit: most files, 1 or more.
            order: by the time when a file was kept, then by its id.

        Raises NotFound if `after` is not there; StoreError.
        """
        asked: dict[str, Any] = {"by": owner, "now": self._keeping.now(), "most": limit + 1}
        if purpose is not None:
            if not storable(purpose):
                return [], False
            asked["for"] = purpose
        if after is not None:
            before = await self.load(after, owner)
            asked |= {"after_time": before.created_at, "after_id": before.id}
        statement = self._sql.select_pages[purpose is not None, after is not None, order == "desc"]
        rows = await self._keeping.rows(statement, "list files", **asked)
        return [FileInfo(*row) for row in rows[:limit]], len(rows) > limit

    async def open(self, file_id: str, owner: str) -> Content:
        """Its content, which the caller closes. Raises NotFound, StoreError."""
        file = await self.load(file_id, owner)
        opened: list[tuple[int, int]] = []
        try:
            await self._keeping.disk.do(lambda: opened.append(self._keeping.blobs.open(file_id)))
        except FileNotFoundError:
            await self.load(file_id, owner)  # deleted while we looked, or else:
            raise StoreError(f"The bytes of file {file_id} are missing on disk.") from None
        except OSError as error:
            raise StoreError(f"File {file_id} cannot be opened: {error.strerror}.") from error
        except asyncio.CancelledError:
            for descriptor, _ in opened:
                os.close(descriptor)
            raise
        descriptor, size = opened[0]
        if size != file.size:
            os.close(descriptor)
            raise StoreError(
                f"The bytes of file {file_id} are damaged: {size} of {file.size} are there."
            )
        return Content(descriptor, size, file.media_type, file.name)

    async def delete(self, file_id: str, owner: str) -> None:
        """Row and bytes are gone when this returns. Raises NotFound, StoreError.

        Who has it open can read on.
        """
        await self._remove(await self.load(file_id, owner))

    async def begin_upload(
        self,
        owner: str,
        name: str,
        purpose: str,
        size: int,
        media_type: str,
        expires_after: float | None = None,
    ) -> UploadInfo:
        """See `Uploads.begin`."""
        return await self._uploads.begin(owner, name, purpose, size, media_type, expires_after)

    async def add_part(
        self, upload_id: str, owner: str, chunks: AsyncIterable[bytes]
    ) -> UploadPartInfo:
        """See `Uploads.add_part`."""
        return await self._uploads.add_part(upload_id, owner, chunks)

    async def complete_upload(
        self, upload_id: str, owner: str, part_ids: tuple[str, ...], md5: str | None = None
    ) -> UploadInfo:
        """See `Uploads.complete`."""
        return await self._uploads.complete(upload_id, owner, part_ids, md5)

    async def cancel_upload(self, upload_id: str, owner: str) -> UploadInfo:
        """See `Uploads.cancel`."""
        return await self._uploads.cancel(upload_id, owner)

    async def sweep(self) -> int:
        """Put right what an earlier process left half done. For start-up, before new files.

        Returns how many leftovers there were. Raises StoreError.
        """
        return await self._keeping.sweep()

    async def expire(self) -> int:
        """Delete what has expired: files, and uploads that nobody completed, with their parts.

        Neither could be seen any more; this gives their space back. To be called now and then.

        Returns how many went. Raises StoreError.
        """
        gone = await self._uploads.expire()
        while rows := await self._keeping.rows(
            self._sql.select_expired,
            "find expired files",
            now=self._keeping.now(),
            most=EXPIRED_AT_ONCE,
        ):
            # Handed in together, they share a commit.
            done = await asyncio.gather(
                *(self._remove(FileInfo(*row)) for row in rows), return_exceptions=True
            )
            failed = [each for each in done if each is not None]
            gone += len(rows) - len(failed)
            for each in failed:
                if not isinstance(each, NotFound):
                    raise each
        return gone

    async def close(self) -> None:
        """Let the disk's threads end; may be called twice. To be called before the store's."""
        await self._keeping.disk.close()

    async def _remove(self, file: FileInfo) -> None:
        step = self._sql.delete_file
        await self._keeping.commit(
            Change(
                steps=[(step, step.row(file=file.id, by=file.owner))],
                doing=f"delete file {file.id}",
                unmet=_not_found(file.id),
                account=await self._keeping.accounts.of(file.owner),
                go=[file.id],
                freed=file.size,
            )
        )


def _not_found(file_id: str) -> NotFound:
    """The same for a file that does not exist, has expired, or is another owner's."""
    return NotFound(f"File with id '{file_id}' not found.", code="not_found")
