"""Shared commits: neighbours in a batch, a full queue, cancelled callers, a busy file."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from ouzel.core.errors import NotFound, StoreError
from ouzel.store import sqlite as sqlite_module
from ouzel.store import writer as writer_module
from ouzel.store.schema import Statement
from ouzel.store.sqlite import SqliteFile
from ouzel.store.writer import ROW_BYTES, Write, Writer

ADD = Statement("INSERT INTO birds (name, legs) VALUES (?, ?)", ("name", "legs"))
SET = Statement("UPDATE birds SET legs = ? WHERE name = ?", ("legs", "name"))

CLEAR = Statement("DELETE FROM birds WHERE legs = ?", ("legs",), exact=False)


@pytest.fixture
def file(tmp_path: Path) -> SqliteFile:
    made = SqliteFile(tmp_path / "birds.db", max_record=100_000)
    made.make()
    with closing(made.connect()) as connection:
        made.use_wal(connection)
        connection.execute("CREATE TABLE birds (name TEXT PRIMARY KEY, legs INTEGER NOT NULL)")
    return made


@pytest.fixture
async def writer(file: SqliteFile) -> AsyncIterator[Writer]:
    opened = Writer(file, (ADD, SET, CLEAR))
    yield opened
    await opened.close()


def add(name: str, legs: object = 2, size: int = 100) -> Write:
    return Write([(ADD, (name, legs))], f"add {name}", StoreError("unmet"), size)


def birds(file: SqliteFile) -> dict[str, int]:
    with closing(file.connect()) as connection:
        return dict(connection.execute("SELECT name, legs FROM birds"))


class Held:
    """Another process that holds the file, so that the writer has to wait."""

    def __init__(self, file: SqliteFile) -> None:
        self._connection = file.connect()
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def test_a_log_that_cannot_be_written_does_not_end_the_thread(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module.logger, "error", full)
    await writer.write(add("first"))
    for _ in range(2):
        with pytest.raises(StoreError, match="it is there already"):
            await writer.write(add("first"))
    await writer.write(add("second"))


@pytest.mark.parametrize(("legs", "left"), [(7, 4), (2, 1), (3, 3)])
async def test_a_statement_that_is_not_exact_may_change_none_or_several(
    writer: Writer, file: SqliteFile, legs: int, left: int
) -> None:
    await asyncio.gather(*(writer.write(add(f"b{n}")) for n in range(3)))
    gone = NotFound("gone")
    await writer.write(Write([(ADD, ("new", 3)), (CLEAR, (legs,))], "clear", gone, 0))
    assert len(birds(file)) == left
    # What goes with it still has to.
    with pytest.raises(NotFound, match="gone"):
        await writer.write(Write([(SET, (5, "nobody")), (CLEAR, (3,))], "clear", gone, 0))
    assert len(birds(file)) == left


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (add("b1"), "it is there already"),
        (add("huge" + "x" * 200_000), "the record is too large"),
        (add("null", None), "NOT NULL constraint failed"),
        (add("wide", 2**70), "unexpected OverflowError"),
        (add("odd", object()), "not supported"),
        (add("half \ud800"), "unexpected UnicodeEncodeError"),
    ],
    ids=["duplicate", "too large", "null", "overflow", "odd type", "surrogate"],
)
async def test_a_write_that_fails_fails_alone(
    writer: Writer, file: SqliteFile, bad: Write, reason: str
) -> None:
    good = [add(f"b{n}") for n in range(10)]
    outcomes = await asyncio.gather(
        *(writer.write(each) for each in (*good[:5], bad, *good[5:])), return_exceptions=True
    )
    failed = outcomes.pop(5)
    assert isinstance(failed, StoreError)
    assert reason in failed.message
    assert outcomes == [None] * 10
    assert birds(file) == {f"b{n}": 2 for n in range(10)}


async def test_a_row_that_changes_nothing_raises_what_the_write_says(
    writer: Writer, file: SqliteFile
) -> None:
    gone = Write([(SET, (3, "ghost"))], "change", NotFound("no such bird", code="not_found"), 10)
    there = Write([(ADD, ("heron", 2)), (SET, (1, "heron"))], "add", StoreError("unmet"), 10)
    outcomes = await asyncio.gather(writer.write(there), writer.write(gone), return_exceptions=True)
    assert outcomes[0] is None
    assert isinstance(outcomes[1], NotFound)
    assert birds(file) == {"heron": 1}


async def test_the_steps_of_a_write_are_kept_together_or_not_at_all(
    writer: Writer, file: SqliteFile
) -> None:
    half = Write([(ADD, ("wren", 2)), (SET, (1, "ghost"))], "add", StoreError("unmet"), 10)
    with pytest.raises(StoreError, match="unmet"):
        await writer.write(half)
    assert birds(file) == {}


async def test_writes_that_wait_share_one_commit(writer: Writer, file: SqliteFile) -> None:
    held = Held(file)
    seen: list[str] = []
    writer._connection.set_trace_callback(seen.append)
    first = asyncio.create_task(writer.write(add("first")))
    await asyncio.sleep(0.05)  # the thread has most likely taken it and waits for the file
    others = [asyncio.create_task(writer.write(add(f"b{n}"))) for n in range(30)]
    await asyncio.sleep(0)
    held.release()
    await asyncio.gather(first, *others)
    assert len(birds(file)) == 31
    assert seen.count("COMMIT") in (1, 2)


async def test_callers_wait_when_the_queue_is_full(file: SqliteFile) -> None:
    each = 1000 + ROW_BYTES
    writer = Writer(file, (ADD, SET), waiting_bytes=3 * each)
    held = Held(file)
    tasks = [asyncio.create_task(writer.write(add(f"b{n}", size=1000))) for n in range(10)]
    await asyncio.sleep(0.05)
    assert writer._held == 3 * each
    assert len(writer._waiting) == 7
    tasks[8].cancel()
    await asyncio.sleep(0)
    held.release()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes.pop(8), asyncio.CancelledError)
    assert outcomes == [None] * 9
    assert set(birds(file)) == {f"b{n}" for n in range(10)} - {"b8"}
    assert writer._held == 0
    await writer.close()


async def test_a_write_larger_than_the_queue_goes_alone(file: SqliteFile) -> None:
    writer = Writer(file, (ADD, SET), waiting_bytes=100)
    await asyncio.gather(*(writer.write(add(f"b{n}", size=5000)) for n in range(5)))
    assert len(birds(file)) == 5
    await writer.close()


async def test_closing_with_a_full_queue_still_writes_all(file: SqliteFile) -> None:
    writer = Writer(file, (ADD, SET), waiting_bytes=100)
    held = Held(file)
    tasks = [asyncio.create_task(writer.write(add(f"b{n}"))) for n in range(20)]
    await asyncio.sleep(0.02)
    closing_task = asyncio.create_task(writer.close())
    await asyncio.sleep(0.02)
    with pytest.raises(StoreError, match="closed"):
        await writer.write(add("late"))
    held.release()
    await asyncio.gather(closing_task, *tasks)
    await writer.close()
    assert len(birds(file)) == 20


async def test_cancelling_a_queued_write_stops_only_the_waiting(
    writer: Writer, file: SqliteFile
) -> None:
    held = Held(file)
    task = asyncio.create_task(writer.write(add("swift")))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.release()
    await writer.write(add("crow"))
    assert set(birds(file)) == {"swift", "crow"}


async def test_a_file_that_another_process_holds_too_long_is_an_error_and_recovers(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.1)
    writer = Writer(file, (ADD, SET))
    held = Held(file)
    outcomes = await asyncio.gather(
        *(writer.write(add(f"b{n}")) for n in range(5)), return_exceptions=True
    )
    assert all("another process holds" in str(outcome) for outcome in outcomes)
    held.release()
    await writer.write(add("rook"))
    assert set(birds(file)) == {"rook"}
    await writer.close()


async def test_a_mistake_in_the_thread_is_told_to_whoever_waits(
    writer: Writer, file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = Write([(Statement("", ()), ())], "do something odd", StoreError("unmet"), 1)
    with pytest.raises(StoreError, match="could not do something odd: unexpected KeyError"):
        await writer.write(stray)
    monkeypatch.setattr(file, "verify", lambda: 1 / 0)
    with pytest.raises(StoreError, match="unexpected ZeroDivisionError"):
        await writer.write(add("dodo"))
    monkeypatch.undo()
    await writer.write(add("rook"))
    assert set(birds(file)) == {"rook"}


def test_a_loop_that_is_gone_does_not_stop_the_thread(file: SqliteFile) -> None:
    writer = Writer(file, (ADD, SET), waiting_bytes=2 * (100 + ROW_BYTES))
    held = Held(file)

    async def leave() -> None:
        for n in range(2):
            task = asyncio.create_task(writer.write(add(f"b{n}")))
            await asyncio.sleep(0.02)
            task.cancel()

    asyncio.run(leave())
    held.release()

    async def come_back() -> None:
        await writer.write(add("rook"))
        await writer.close()

    asyncio.run(come_back())
    assert set(birds(file)) == {"b0", "b1", "rook"}


async def test_a_full_disk_is_logged_once_for_a_batch(
    writer: Writer, file: SqliteFile, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(file)
    writer._connection.execute("PRAGMA max_page_count=1")
    first = asyncio.create_task(writer.write(add("a" * 3000)))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(writer.write(add(f"{n}" * 3000))) for n in range(1, 9)]
    await asyncio.sleep(0)
    held.release()
    outcomes = await asyncio.gather(first, *others, return_exceptions=True)
    failed = [outcome for outcome in outcomes if outcome is not None]
    assert failed
    assert all("the disk is full" in str(each) for each in failed)
    assert 1 <= len(caplog.records) <= 2
    writer._connection.execute("PRAGMA max_page_count=100000")
    await writer.write(add("rook"))
    assert "rook" in birds(file)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not open its database"):
        Writer(SqliteFile(tmp_path / "missing" / "birds.db"), ())


def test_the_reasons_are_sqlites_own_codes() -> None:
    codes = [code for name, code in vars(sqlite3).items() if name.startswith("SQLITE_")]
    assert set(sqlite_module._REASONS) <= set(codes)
