"""Takes an archive in: all of it or nothing, for an owner that has none of it or some of it.

Rows are written in one transaction, bytes as drafts (`blobs.py`), while the archive is read; the
transaction is committed once the archive's checksum was right, and then the bytes move to where
they stay. A process that dies before leaves drafts that the next start removes, one that dies after
leaves drafts that it keeps.

What is there already, under the same owner, is left as it is. What is there under another owner
ends the import. For a home that no server uses: the transaction may take minutes.

Nothing in an archive is trusted: `archive_tar.py` and this file check all that is read.
"""

from __future__ import annotations

import dataclasses
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO, Final, TypeVar

import msgspec
from sqlalchemy.dialects import sqlite

from ouzel.core.contracts_batches import Batch
from ouzel.core.errors import StoreError
from ouzel.store import codec
from ouzel.store.archive import Counted, OnProgress
from ouzel.store.archive_records import (
    FORMAT,
    HEAD,
    LINE_BYTES,
    BatchLine,
    BatchLineLine,
    ConversationLine,
    EventsLine,
    FileRecord,
    Head,
    ItemLine,
    Line,
    RunLine,
    is_id,
)
from ouzel.store.archive_sql import ArchiveStatements
from ouzel.store.archive_tar import BadArchive, Member, TarReader
from ouzel.store.blobs import Blobs, Draft, explain
from ouzel.store.files_names import clean_name, storable
from ouzel.store.schema import BATCH_LIVE, LIVE
from ouzel.store.sniff import sniff
from ouzel.store.sqlite import SqliteFile

OWNER_BYTES: Final = 256
"""Longest name of an owner."""

SMALL_BYTES: Final = 2**16
"""Longest head, and longest description of a file."""

_LATER: Final = 86_400.0
"""Seconds that a time may lie ahead: clocks differ."""

_LINES_IN: Final = ("runs", "conversations", "batches")
_PURPOSE_BYTES: Final = 64
_LINE_STATES: Final = ("waiting", "done", "failed")

T = TypeVar("T")

_HEADS: Final = msgspec.json.Decoder(Head)
_FILES: Final = msgspec.json.Decoder(FileRecord)
_BATCHES: Final = msgspec.json.Decoder(Batch)
_LINES: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def import_archive(
    file: SqliteFile, blobs: Blobs, stream: BinaryIO, owner: str | None, on_progress: OnProgress
) -> tuple[str, Counted]:
    """Take an archive in.

    Args:
        file: the database, at this version's schema.
        owner: who gets it; None for whose it was.

    Returns:
        The owner, and what was taken and left out.

    Raises:
        BadArchive: it is damaged, cut off, or not what `archive.py` writes.
        StoreError: something of it is another owner's here, or it could not be kept.
    """
    with closing(_Importing(file, blobs, owner, on_progress)) as importing:
        try:
            importing.take(TarReader(stream))
        except sqlite3.Error as error:
            raise file.explain(error, "keep what is imported") from error
        except OSError as error:
            raise explain(error, "import") from error
        except (OverflowError, UnicodeError) as error:
            raise BadArchive("The archive holds a value that no export writes.") from error
        return importing.owner, importing.counted


class _Importing:
    def __init__(
        self, file: SqliteFile, blobs: Blobs, owner: str | None, on_progress: OnProgress
    ) -> None:
        self.owner = owner or ""
        self.counted = Counted()
        self._from = ""
        self._sql = ArchiveStatements(sqlite.dialect(paramstyle="qmark"))
        self._connection = file.connect()
        self._blobs = blobs
        self._on_progress = on_progress
        self._latest = time.time() + _LATER
        self._drafts: list[Draft] = []
        self._files: list[str] = []
        self._thing = ("", "")
        """Kind and id of what lines belong to that follow."""
        self._skipping = False
        self._next = 0
        """Number that the next of those lines has at least."""

    def close(self) -> None:
        """Undo what was not committed."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._connection.close()
        for draft in self._drafts:
            draft.abandon()

    def take(self, reader: TarReader) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        members = reader.members()
        self._read_head(next(members, None))
        for member in members:
            folder = member.name.partition("/")[0]
            if folder in _LINES_IN and member.name.endswith(".jsonl"):
                for line in _lines(member):
                    self._take_line(folder, line)
            elif folder == "files" and member.name.endswith(".json"):
                told = _small(member)
                self._take_file(member.name, told, next(members, None))
            else:
                raise BadArchive(f"The archive holds a member that no export writes: {member.name}")
        self._connection.execute("COMMIT")
        self._drafts.clear()  # from here on the database says that they stay
        self._blobs.keep(self._files)

    def _read_head(self, member: Member | None) -> None:
        if member is None or member.name != HEAD:
            raise BadArchive("The archive does not begin with what `ouzel export` writes first.")
        body = _small(member)
        told = _decoded(body, _HEADS) if _format(body) == FORMAT else None
        if told is None:
            raise BadArchive("The archive is of another format; a newer Ouzel may have written it.")
        self._from = told.owner
        self.owner = self.owner or told.owner
        for name in (self._from, self.owner):
            if not name or not storable(name) or len(name.encode()) > OWNER_BYTES:
                raise BadArchive("The archive names no owner.")

    def _take_line(self, folder: str, line: Line) -> None:
        match line:
            case RunLine() if folder == "runs":
                self._take_run(bytes(line.body))
            case EventsLine() if folder == "runs":
                self._take_events(line)
            case ConversationLine() if folder == "conversations":
                self._take_conversation(line)
            case ItemLine() if folder == "conversations":
                self._take_item(line)
            case BatchLine() if folder == "batches":
                self._take_batch(bytes(line.body))
            case BatchLineLine() if folder == "batches":
                self._take_batch_line(line)
            case _:
                raise BadArchive(f"The archive holds a wrong line among its {folder}.")

    def _take_run(self, body: bytes) -> None:
        run = codec.decode_run(body)
        if run.status in LIVE or run.owner != self._from:
            raise BadArchive("The archive holds a response that no export writes.")
        self._begin("runs", "responses", run.id, run.created_at)
        if run.owner != self.owner:
            run = dataclasses.replace(run, owner=self.owner)
            body = codec.encode_run(run)
        self._insert(
            "runs",
            id=run.id,
            owner=run.owner,
            created_at=run.created_at,
            status=run.status,
            model=run.model,
            protocol=run.request.protocol,
            choice_of=run.request.choice_of,
            previous_id=run.request.previous_id,
            body=body,
        )

    def _take_events(self, line: EventsLine) -> None:
        self._follow("runs", line.run, line.position)
        body = bytes(line.body)
        count = len(codec.decode_events(body))
        if line.position != self._next or not count:
            raise BadArchive("The archive lacks events of a response.")
        self._next += count
        self._insert("events", run_id=line.run, position=line.position, count=count, body=body)

    def _take_conversation(self, line: ConversationLine) -> None:
        self._begin("conversations", "conversations", line.id, line.created_at)
        metadata = bytes(line.metadata)
        codec.decode_metadata(metadata)
        self._insert(
            "conversations",
            id=line.id,
            owner=self.owner,
            created_at=line.created_at,
            metadata=metadata,
        )

    def _take_item(self, line: ItemLine) -> None:
        self._follow("conversations", line.conversation, line.position)
        body = bytes(line.body)
        item = codec.decode_item(body)
        self._next = line.position + 1
        self._insert(
            "conversation_items",
            conversation_id=line.conversation,
            position=line.position,
            item_id=item.id,
            body=body,
        )

    def _take_batch(self, body: bytes) -> None:
        batch = _decoded(body, _BATCHES)
        if batch.status in BATCH_LIVE or batch.owner != self._from:
            raise BadArchive("The archive holds a batch that no export writes.")
        self._begin("batches", "batches", batch.id, batch.created_at)
        if batch.owner != self.owner:
            batch = dataclasses.replace(batch, owner=self.owner)
            body = msgspec.json.encode(batch)
        self._insert(
            "batches",
            id=batch.id,
            owner=batch.owner,
            created_at=batch.created_at,
            status=batch.status,
            body=body,
        )

    def _take_batch_line(self, line: BatchLineLine) -> None:
        self._follow("batches", line.batch, line.number)
        if line.status not in _LINE_STATES:
            raise BadArchive("The archive holds a batch's line in no known state.")
        self._next = line.number + 1
        self._insert(
            "batch_lines",
            batch_id=line.batch,
            number=line.number,
            status=line.status,
            request=line.request,
            result=line.result,
        )

    def _take_file(self, named: str, told: bytes, content: Member | None) -> None:
        record = _decoded(told, _FILES)
        expires = record.expires_at
        if (
            not record.id.startswith("file-")
            or named != f"files/{record.id}.json"
            or content is None
            or content.name != f"files/{record.id}.bin"
            or content.size != record.size
            or not (expires is None or math.isfinite(expires))
            or not 0 < len(record.purpose) <= _PURPOSE_BYTES
        ):
            raise BadArchive("The archive holds a file that no export writes.")
        self._begin("files", "files", record.id, record.created_at)
        if self._skipping:
            return
        name = clean_name(record.name, "name")
        draft = self._blobs.draft(record.id)
        draft.begin()
        self._drafts.append(draft)
        for piece in content.pieces:
            draft.write([piece])
        draft.finish()
        self._files.append(record.id)
        self._insert(
            "files",
            id=record.id,
            owner=self.owner,
            name=name,
            size=draft.size,
            purpose=record.purpose,
            # As the bytes look here, not as the archive says.
            media_type=sniff(draft.head, name),
            created_at=record.created_at,
            expires_at=expires,
        )

    def _begin(self, table: str, kind: str, thing_id: str, created_at: float) -> None:
        """A thing comes: look whether it is there, and whose it is."""
        if not is_id(thing_id) or not 0 <= created_at <= self._latest:
            raise BadArchive("The archive holds an id or a time that no export writes.")
        statement = self._sql.owners[table]
        found = self._connection.execute(statement.sql, statement.row(id=thing_id)).fetchone()
        if found is not None and found[0] != self.owner:
            raise StoreError(
                f"{thing_id} of the archive is another owner's here; nothing was imported."
            )
        self._thing, self._next = (table, thing_id), 0
        self._skipping = found is not None
        if self._skipping:
            self.counted.leave_out(f"{kind} that were there already")
        else:
            self._on_progress(kind, self.counted.add(kind))

    def _follow(self, table: str, thing_id: str, number: int) -> None:
        """Something comes that belongs to the thing before it."""
        if self._thing != (table, thing_id) or number < self._next:
            raise BadArchive("The archive's lines are not in the order in which they are written.")

    def _insert(self, table: str, **values: object) -> None:
        if not self._skipping:
            statement = self._sql.inserts[table]
            self._connection.execute(statement.sql, statement.row(**values))


def _lines(member: Member) -> Iterator[Line]:
    """The member's lines. Raises BadArchive for what is none."""
    held = bytearray()
    for piece in member.pieces:
        *whole, rest = piece.split(b"\n")
        for part in whole:
            held += part
            yield _decoded(bytes(held), _LINES)
            held.clear()
        held += rest
        if len(held) > LINE_BYTES:
            raise BadArchive("The archive holds a line that is too long.")
    if held:
        raise BadArchive("The archive holds a line without its end.")


def _small(member: Member) -> bytes:
    if member.size > SMALL_BYTES:
        raise BadArchive("The archive holds a description that is too long.")
    return b"".join(member.pieces)


def _format(body: bytes) -> object:
    """The format that a head names, whatever else it says."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return told.get("format") if isinstance(told, dict) else None


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        # What the error quotes may be what somebody wrote: it is not repeated.
        raise BadArchive("The archive holds a record that cannot be read.") from error
