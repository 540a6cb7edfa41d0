"""Files that come in parts: each part is kept by itself, and completing puts them together.

Parts may come at once and in any order; only completing says in which order they belong, and which
of them. All that was kept survives a restart, and counts for the owner's quota until the upload
ends. An upload that is over is remembered for a while, so that a second attempt is told so.

This file does not know HTTP, threads, or files that came in one piece.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, fields, replace

from ouzel.core.errors import Conflict, NotFound, OuzelError, RequestError, StoreError
from ouzel.core.files import FileInfo, UploadInfo, UploadPartInfo
from ouzel.core.items import new_id
from ouzel.store.blobs import Draft
from ouzel.store.files_joining import PartGone, check_parts, join_parts
from ouzel.store.files_keeping import Change, Keeping, too_large
from ouzel.store.files_names import clean_name, storable
from ouzel.store.schema import Statement
from ouzel.store.sniff import sniff
from ouzel.store.writer import Row

REMEMBERED_SECONDS = 24 * 3600.0
"""How long an upload that is over is told from one that never was."""

OVERDUE_AT_ONCE = 100
"""Uploads that `expire` looks at together."""

_MEDIA_TYPE = re.compile(r"[\w.+*-]{1,127}/[\w.+*-]{1,127}(?:\s*;[\x20-\x7e]{0,255})?", re.ASCII)


_COLUMNS = tuple(each.name for each in fields(UploadInfo) if each.name != "file")


@dataclass(frozen=True, slots=True)
class _Upload:
    """A row: what is told, and how many seconds the file will live."""

    info: UploadInfo
    file_seconds: float | None


class Uploads:
    """Uploads and their parts.

    Args:
        keeping: rows, bytes, threads and quotas.
    """

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._sql = keeping.sql
        self._completing: set[str] = set()

    async def begin(
        self,
        owner: str,
        name: str,
        purpose: str,
        size: int,
        media_type: str,
        expires_after: float | None,
    ) -> UploadInfo:
        """Begin an upload.

        Args:
            size: bytes that will come.
            expires_after: seconds that the file lives once it is complete; None for ever.

        Raises:
            RequestError: an impossible name, size or media type.
            TooLarge: more than one file may have, or than the quota has left.
            StoreError: it could not be kept.
        """
        name = clean_name(name, "filename")
        limits = self._keeping.limits
        _check_announced(size, media_type, min(limits.file, limits.upload))
        account = await self._keeping.accounts.of(owner)
        account.take(size, "bytes")
        account.give(size)  # only asked: the parts are counted as they come
        now = self._keeping.now()
        upload = UploadInfo(
            id=new_id("upload"),
            owner=owner,
            name=name,
            size=size,
            purpose=purpose,
            media_type=media_type,
            created_at=now,
            expires_at=now + limits.upload_seconds,
        )
        row = {name: getattr(upload, name) for name in _COLUMNS} | {"file_seconds": expires_after}
        step = self._sql.insert_upload
        await self._keeping.commit(
            Change(
                steps=[(step, step.row(**row))],
                doing=f"keep upload {upload.id}",
                unmet=StoreError(f"The store could not keep upload {upload.id}."),
                account=account,
            )
        )
        return upload

    async def add_part(
        self, upload_id: str, owner: str, chunks: AsyncIterable[bytes]
    ) -> UploadPartInfo:
        """Keep a part, written to disk as it comes. Others may come at the same time.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is over, or has as many parts as it may have.
            TooLarge: the part is too large, or the quota is used up.
            StoreError: the disk is full, or refused.
        """
        await self._pending(upload_id, owner)
        account = await self._keeping.accounts.of(owner)
        limits = self._keeping.limits
        part_id = new_id("part")
        with self._keeping.busy(part_id):
            draft = await self._keeping.receive(part_id, chunks, account, limits.part, "data")
            now = self._keeping.now()
            row = self._sql.insert_part.row(
                id=part_id,
                size=draft.size,
                created_at=now,
                upload=upload_id,
                by=owner,
                now=now,
                parts=limits.parts,
            )
            full = Conflict(
                f"Upload '{upload_id}' has {limits.parts} parts already, the most that it may "
                "have.",
                code="too_many_parts",
            )
            change = Change(
                steps=[(self._sql.insert_part, row)],
                doing=f"keep a part of upload {upload_id}",
                unmet=full,
                account=account,
                come=[part_id],
                taken=draft.size,
            )
            try:
                await self._keeping.commit(change)
            except Conflict:
                # Either it is full, or it came to its end while the part arrived.
                await self._pending(upload_id, owner)
                raise
        return UploadPartInfo(part_id, upload_id, now, draft.size)

    async def complete(
        self, upload_id: str, owner: str, part_ids: Sequence[str], md5: str | None
    ) -> UploadInfo:
        """Put the parts together, in this order; parts that are not named are dropped.

        Args:
            md5: of the whole, in hexadecimal; checked if given.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is over, or is being completed.
            RequestError: a part is not there or named twice, the sum is not what was announced, or
                the checksum is another. The upload goes on.
            StoreError: the disk is full, or refused. The upload goes on.
        """
        upload = await self._pending(upload_id, owner)
        self._completing.add(upload_id)
        try:
            parts = await self._parts(upload_id)
            check_parts(upload.info, part_ids, parts)
            file_id = new_id("file", "-")
            with self._keeping.busy(file_id):
                try:
                    draft = await join_parts(self._keeping, file_id, upload.info, part_ids, md5)
                except PartGone:
                    await self._find(upload_id, owner)  # cancelled meanwhile: then that is said
                    raise
                file = await self._turn(upload, file_id, draft, parts)
            # One that was on its way came after all.
            await self._drop_parts(upload_id, owner)
        finally:
            self._completing.discard(upload_id)
        return replace(upload.info, status="completed", file=file)

    async def cancel(self, upload_id: str, owner: str) -> UploadInfo:
        """Give it up and drop its parts. Raises NotFound, Conflict, StoreError."""
        upload = await self._pending(upload_id, owner)
        await self._end(upload_id, owner, "cancelled")
        return replace(upload.info, status="cancelled")

    async def expire(self) -> int:
        """End uploads whose time is up, and forget those that ended long ago.

        Returns how many were ended. Raises StoreError.
        """
        ended = 0
        now = self._keeping.now()
        doing = "find expired uploads"
        while rows := await self._keeping.rows(
            self._sql.select_overdue, doing, now=now, most=OVERDUE_AT_ONCE
        ):
            for upload_id, owner in rows:
                try:
                    await self._end(upload_id, owner, "expired")
                except Conflict:
                    continue  # completed or cancelled just now
                ended += 1
        while rows := await self._keeping.rows(
            self._sql.select_forgettable,
            doing,
            now=now - REMEMBERED_SECONDS,
            most=OVERDUE_AT_ONCE,
        ):
            for upload_id, owner in rows:
                await self._drop_parts(upload_id, owner)
                await self._forget(upload_id, owner)
        return ended

    async def _pending(self, upload_id: str, owner: str) -> _Upload:
        """The upload, if it can be changed now. Raises NotFound, Conflict, StoreError."""
        upload = await self._find(upload_id, owner)
        if upload_id in self._completing:
            raise Conflict(f"Upload '{upload_id}' is being completed.", code="upload_completing")
        return upload

    async def _find(self, upload_id: str, owner: str) -> _Upload:
        """The upload, if it is not over. Raises NotFound, Conflict, StoreError."""
        unknown = NotFound(f"Upload with id '{upload_id}' not found.", code="not_found")
        if not storable(upload_id):
            raise unknown
        rows = await self._keeping.rows(
            self._sql.select_upload, f"read upload {upload_id}", upload=upload_id, by=owner
        )
        if not rows:
            raise unknown
        *known, seconds = rows[0]
        info = UploadInfo(*known)
        late = info.status == "pending" and info.expires_at <= self._keeping.now()
        status = "expired" if late else info.status
        if status != "pending":
            raise Conflict(
                f"Upload '{upload_id}' is {status}; begin another.", code=f"upload_{status}"
            )
        return _Upload(info, seconds)

    async def _parts(self, upload_id: str) -> dict[str, int]:
        """Bytes by part."""
        rows = await self._keeping.rows(
            self._sql.select_parts, f"read parts of upload {upload_id}", upload=upload_id
        )
        return dict(rows)

    async def _turn(
        self, upload: _Upload, file_id: str, draft: Draft, parts: dict[str, int]
    ) -> FileInfo:
        """Make the draft a file, and the upload completed, in one transaction."""
        info = upload.info
        now = self._keeping.now()
        file = FileInfo(
            id=file_id,
            owner=info.owner,
            name=info.name,
            size=draft.size,
            purpose=info.purpose,
            media_type=sniff(draft.head, info.name),
            created_at=now,
            expires_at=None if upload.file_seconds is None else now + upload.file_seconds,
        )
        row = self._sql.complete_upload.row(upload=info.id, by=info.owner, now=now)
        await self._keeping.commit(
            Change(
                steps=[
                    self._keeping.file_step(file),
                    (self._sql.complete_upload, row),
                    *self._part_steps(parts, info.owner),
                ],
                doing=f"complete upload {info.id}",
                unmet=Conflict(
                    f"Upload '{info.id}' ended before it was complete.", code="upload_ended"
                ),
                account=await self._keeping.accounts.of(info.owner),
                come=[file_id],
                go=list(parts),
                freed=sum(parts.values()) - draft.size,
            )
        )
        return file

    async def _end(self, upload_id: str, owner: str, status: str) -> None:
        """End a pending upload without a file. Raises Conflict if it has ended, StoreError."""
        row = self._sql.end_upload.row(new_status=status, upload=upload_id, by=owner)
        ended = Conflict(f"Upload '{upload_id}' has ended already.", code="upload_ended")
        await self._drop_parts(upload_id, owner, (self._sql.end_upload, row), ended)
        await self._drop_parts(upload_id, owner)

    async def _drop_parts(
        self,
        upload_id: str,
        owner: str,
        also: tuple[Statement, Row] | None = None,
        unmet: OuzelError | None = None,
    ) -> None:
        """Delete all parts, in one transaction with another step if there is one."""
        parts = await self._parts(upload_id)
        steps = self._part_steps(parts, owner)
        if also is not None:
            steps.insert(0, also)
        if steps:
            await self._keeping.commit(
                Change(
                    steps=steps,
                    doing=f"delete parts of upload {upload_id}",
                    unmet=unmet or StoreError(f"Parts of upload {upload_id} are deleted already."),
                    account=await self._keeping.accounts.of(owner),
                    go=list(parts),
                    freed=sum(parts.values()),
                )
            )

    def _part_steps(self, parts: dict[str, int], owner: str) -> list[tuple[Statement, Row]]:
        step = self._sql.delete_part
        return [(step, step.row(part=part_id, by=owner)) for part_id in parts]

    async def _forget(self, upload_id: str, owner: str) -> None:
        row = self._sql.delete_upload.row(upload=upload_id, by=owner)
        await self._keeping.commit(
            Change(
                steps=[(self._sql.delete_upload, row)],
                doing=f"forget upload {upload_id}",
                unmet=StoreError(f"Upload {upload_id} is forgotten already."),
                account=await self._keeping.accounts.of(owner),
            )
        )


def _check_announced(size: int, media_type: str, most: int) -> None:
    """Raise RequestError for what no file can be, TooLarge for what is too large."""
    if size < 0:
        raise RequestError("A file has 0 bytes or more.", param="bytes", code="invalid_value")
    if size > most:
        raise too_large(most, "bytes")
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise RequestError(
            "A media type looks like `text/csv`.", param="mime_type", code="invalid_value"
        )
