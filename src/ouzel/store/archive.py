"""Writes everything that one owner has into an archive; a server may be running.

All rows are read in one transaction, so they belong together however long it takes and whatever is
written meanwhile. Rows and bytes are streamed: no more than one row, or a megabyte of a file, is in
memory. What still runs, what cannot be read, and files that are deleted while this goes on are left
out, and counted.

This file does not know how lines are read again (`archive_reading.py`), nor event loops.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from sqlalchemy.dialects import sqlite

from ouzel.core.contracts_batches import Batch
from ouzel.core.errors import StoreError
from ouzel.store import codec
from ouzel.store.archive_records import (
    FORMAT,
    HEAD,
    MEMBER_BYTES,
    BatchLine,
    BatchLineLine,
    ConversationLine,
    EventsLine,
    FileRecord,
    Head,
    ItemLine,
    Line,
    RunLine,
)
from ouzel.store.archive_sql import ArchiveStatements
from ouzel.store.archive_tar import PIECE, TarWriter
from ouzel.store.blobs import Blobs, explain
from ouzel.store.codec import DamagedRecord
from ouzel.store.schema import BATCH_LIVE, LIVE, Statement
from ouzel.store.sqlite import SqliteFile

OnProgress = Callable[[str, int], None]
"""Told what is written just now (`responses`, ...) and how many of these there are so far."""


@dataclass(slots=True)
class Counted:
    """How many of what were written or read, or were not, by a word for people."""

    done: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str) -> int:
        """One more."""
        self.done[kind] = self.done.get(kind, 0) + 1
        return self.done[kind]

    def leave_out(self, reason: str) -> None:
        """One that was not."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A file with mode 0600 that is at its place once it is whole.

    Raises StoreError if something is there already, or it cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() or target.is_symlink():
            raise StoreError(f"{target} is there already; choose another name.")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=PIECE) as stream:  # noqa: PTH123
                yield stream
                stream.flush()
                os.fsync(descriptor)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, f"write {target}") from error


def export(
    file: SqliteFile,
    blobs: Blobs,
    owner: str,
    stream: BinaryIO,
    on_progress: OnProgress,
    *,
    version: str = "",
) -> Counted:
    """Write the archive.

    Args:
        file: the database, at this version's schema.
        version: of Ouzel, for people who look into the archive.

    Raises:
        StoreError: something could not be read.
        OSError: the stream cannot be written.
    """
    now = time.time()
    writer = TarWriter(stream, now)
    head = msgspec.json.encode(Head(FORMAT, owner, now, version))
    writer.add(HEAD, len(head), (head,))
    try:
        with closing(file.connect(read_only=True)) as connection:
            connection.execute("BEGIN")
            exporting = _Exporting(connection, writer, owner, on_progress)
            exporting.lines("runs", exporting.runs())
            exporting.lines("conversations", exporting.conversations())
            exporting.lines("batches", exporting.batches())
            exporting.files(blobs, now)
    except sqlite3.Error as error:
        raise file.explain(error, "read what is to be exported") from error
    writer.finish()
    return exporting.counted


class _Exporting:
    def __init__(
        self,
        connection: sqlite3.Connection,
        writer: TarWriter,
        owner: str,
        on_progress: OnProgress,
    ) -> None:
        self._sql = ArchiveStatements(sqlite.dialect(paramstyle="qmark"))
        self._connection = connection
        self._writer = writer
        self._owner = owner
        self._on_progress = on_progress
        self.counted = Counted()

    def lines(self, folder: str, lines: Iterator[Line]) -> None:
        """Members of about a megabyte."""
        number, held, size = 0, [], 0
        for line in lines:
            text = msgspec.json.encode(line) + b"\n"
            held.append(text)
            size += len(text)
            if size >= MEMBER_BYTES:
                number += 1
                self._writer.add(f"{folder}/{number:08}.jsonl", size, held)
                held, size = [], 0
        if held:
            self._writer.add(f"{folder}/{number + 1:08}.jsonl", size, held)

    def runs(self) -> Iterator[Line]:
        found = self._rows(self._sql.runs, owner=self._owner)
        for run_id, status, body in found:
            if status in LIVE:
                self.counted.leave_out("responses that still run")
                continue
            if not self._readable_run(run_id, body):
                self.counted.leave_out("responses whose record is damaged")
                continue
            yield RunLine(msgspec.Raw(body))
            for position, events in self._events(run_id):
                yield EventsLine(run_id, position, msgspec.Raw(events))
            self._tell("responses")

    def conversations(self) -> Iterator[Line]:
        found = self._rows(self._sql.conversations, owner=self._owner)
        for conversation_id, created_at, metadata in found:
            yield ConversationLine(conversation_id, created_at, msgspec.Raw(metadata))
            items = self._rows(self._sql.items, parent=conversation_id)
            for position, body in items:
                try:
                    codec.decode_item(body)
                except DamagedRecord:
                    self.counted.leave_out("items whose record is damaged")
                    continue
                yield ItemLine(conversation_id, position, msgspec.Raw(body))
            self._tell("conversations")

    def batches(self) -> Iterator[Line]:
        found = self._rows(self._sql.batches, owner=self._owner)
        for batch_id, status, body in found:
            if status in BATCH_LIVE:
                self.counted.leave_out("batches that still run")
                continue
            try:
                msgspec.json.decode(body, type=Batch)
            except msgspec.MsgspecError:
                self.counted.leave_out("batches whose record is damaged")
                continue
            yield BatchLine(msgspec.Raw(body))
            lines = self._rows(self._sql.batch_lines, parent=batch_id)
            for line in lines:
                yield BatchLineLine(batch_id, *line)
            self._tell("batches")

    def files(self, blobs: Blobs, now: float) -> None:
        found = self._rows(self._sql.files, owner=self._owner)
        for row in found:
            record = FileRecord(*row)
            if record.expires_at is not None and record.expires_at <= now:
                continue
            try:
                descriptor, size = blobs.open(record.id)
            except FileNotFoundError:
                self.counted.leave_out("files whose bytes are gone")
                continue
            with open(descriptor, "rb") as stream:  # noqa: PTH123
                if size != record.size:
                    self.counted.leave_out("files whose bytes are damaged")
                    continue
                told = msgspec.json.encode(record)
                self._writer.add(f"files/{record.id}.json", len(told), (told,))
                pieces = _pieces(stream)
                self._writer.add(f"files/{record.id}.bin", size, pieces)
            self._tell("files")

    def _events(self, run_id: str) -> Iterator[tuple[int, bytes]]:
        """The run's events up to the first that cannot be read."""
        rows = self._rows(self._sql.events, parent=run_id)
        expected = 0
        for position, count, body in rows:
            try:
                whole = position == expected and len(codec.decode_events(body)) == count
            except DamagedRecord:
                whole = False
            if not whole:
                self.counted.leave_out("responses whose events are damaged, from there on")
                return
            expected += count
            yield position, body

    def _readable_run(self, run_id: str, body: bytes) -> bool:
        try:
            return codec.decode_run(body).id == run_id
        except DamagedRecord:
            return False

    def _rows(self, statement: Statement, **values: object) -> Iterator[tuple[Any, ...]]:
        # An iterator, not a list: an owner may have more than fits into memory.
        return iter(self._connection.execute(statement.sql, statement.row(**values)))

    def _tell(self, kind: str) -> None:
        self._on_progress(kind, self.counted.add(kind))


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(PIECE):
        yield piece
