"""What is old goes, what is needed stays, and what was deleted is in no file any more."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from store_samples import OWNER, deltas, finished, new_run, said

from ouzel.core.errors import NotFound, StoreError
from ouzel.core.runs import Run
from ouzel.store import SqlStore, open_store, retention
from ouzel.store.retention import Removed, Retention
from ouzel.store.retiring import Retiring
from ouzel.store.sqlite import SqliteFile

OLD, LIMIT, YOUNG = 1_000.0, 2_000.0, 3_000.0
MARK = "nightjar-4711"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ouzel.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(path)
    yield opened
    await opened.close()


@pytest.fixture
def keeper(path: Path, store: SqlStore) -> Iterator[Retention]:
    file = SqliteFile(path)
    file.make()
    with closing(Retention(file)) as opened:
        yield opened


async def kept(store: SqlStore, made: float, previous: str | None = None, words: str = "") -> Run:
    """A run that has ended, with its events."""
    run = new_run(words or "Hello", previous_id=previous, created_at=made)
    await store.begin(run)
    await store.append(run.id, 0, deltas(4))
    await store.finish(finished(run, said("assistant", f"{words} it is")), 4, deltas(2, 4))
    return run


async def there(store: SqlStore, *runs: Run) -> list[bool]:
    found = []
    for run in runs:
        try:
            await store.load(run.id, OWNER)
            found.append(True)
        except NotFound:
            found.append(False)
    return found


def total(steps: Iterator[Removed]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.kind] = counts.get(step.kind, 0) + step.count
    return counts


def rows(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def raw(path: Path) -> bytes:
    """All bytes of the database's files."""
    return b"".join(each.read_bytes() for each in path.parent.iterdir() if each.is_file())


async def test_what_is_old_goes_with_its_events_and_the_young_stays(
    path: Path, store: SqlStore, keeper: Retention
) -> None:
    old, young = await kept(store, OLD), await kept(store, YOUNG)
    assert total(keeper.expired(LIMIT)) == {"responses": 1}
    assert await there(store, old, young) == [True, True], "counting deletes nothing"
    steps = list(keeper.expire(LIMIT))
    assert total(iter(steps)) == {"responses": 1}
    assert sum(step.size for step in steps) > 300
    assert await there(store, old, young) == [False, True]
    assert len(await store.events(young.id, OWNER)) == 6
    assert rows(path, "events") == 2


async def test_a_chain_stays_until_its_youngest_is_old(store: SqlStore, keeper: Retention) -> None:
    first = await kept(store, OLD)
    second = await kept(store, OLD + 1, first.id)
    third = await kept(store, YOUNG, second.id)
    branch = await kept(store, OLD + 2, first.id)
    twig = await kept(store, OLD + 3, branch.id)
    assert total(keeper.expired(LIMIT)) == {"responses": 2}
    assert total(keeper.expire(LIMIT)) == {"responses": 2}
    assert await there(store, first, second, third, branch, twig) == [True] * 3 + [False] * 2
    assert len(await store.history(third.id, OWNER)) == 6
    assert total(keeper.expire(YOUNG + 1)) == {"responses": 3}, "in one walk"


async def test_a_long_chain_goes_at_once(store: SqlStore, keeper: Retention) -> None:
    previous = None
    for number in range(250):
        previous = (await kept(store, OLD + number / 1000, previous)).id
    assert total(keeper.expired(LIMIT)) == {"responses": 250}
    assert total(keeper.expire(LIMIT)) == {"responses": 250}


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_what_runs_stays_however_old(store: SqlStore, keeper: Retention, status: str) -> None:
    before = await kept(store, OLD - 1)
    run = dataclasses.replace(new_run(previous_id=before.id, created_at=OLD), status=status)
    await store.begin(run)
    assert total(keeper.expired(LIMIT)) == {"responses": 0}
    assert total(keeper.expire(LIMIT)) in ({}, {"responses": 0})
    assert await there(store, before, run) == [True, True]


async def test_another_owners_run_keeps_nothing_alive(store: SqlStore, keeper: Retention) -> None:
    mine = await kept(store, OLD)
    theirs = new_run(owner="mallory", previous_id=mine.id, created_at=YOUNG)
    await store.begin(theirs)
    assert total(keeper.expired(LIMIT)) == {"responses": 1}
    assert total(keeper.expire(LIMIT)) == {"responses": 1}


async def test_batches_go_with_their_lines_once_they_have_ended(
    path: Path, store: SqlStore, keeper: Retention
) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for batch_id, made, status in (
            ("old", OLD, "completed"),
            ("young", YOUNG, "completed"),
            ("running", OLD, "in_progress"),
        ):
            connection.execute(
                "INSERT INTO batches VALUES (?, 'alice', ?, ?, ?)", (batch_id, made, status, b"{}")
            )
            connection.executemany(
                "INSERT INTO batch_lines VALUES (?, ?, 'done', ?, ?)",
                [(batch_id, number, b"asked", b"told") for number in range(450)],
            )
    assert total(keeper.expired(LIMIT))["batches"] == 1
    steps = [step for step in keeper.expire(LIMIT) if step.kind == "batches"]
    assert sum(step.count for step in steps) == 1
    assert sum(step.size for step in steps) == 2 + 450 * 9
    assert rows(path, "batches") == 2
    assert rows(path, "batch_lines") == 900


async def test_conversations_stay(path: Path, store: SqlStore, keeper: Retention) -> None:
    made = await store.conversations.create(OWNER, {}, [said("user", "Hi")])
    total(keeper.leftovers())
    total(keeper.expire(time.time() + 1e6))
    assert len(await store.conversations.history(made.id, OWNER)) == 1


async def test_steps_that_were_never_made_are_found_again(
    path: Path, store: SqlStore, keeper: Retention
) -> None:
    for number in range(3):
        await kept(store, OLD + number)
    steps = keeper.expire(LIMIT)
    assert next(steps).count == 3
    # As if the process had died here: the runs are gone, their events are not.
    assert rows(path, "runs") == 0
    assert rows(path, "events") == 6
    assert total(keeper.leftovers(delete=False)) == {"leftovers": 3}
    assert rows(path, "events") == 6
    assert total(keeper.leftovers()) == {"leftovers": 3}
    assert rows(path, "events") == 0


async def test_a_step_is_short_and_others_write_between(
    monkeypatch: pytest.MonkeyPatch, path: Path, store: SqlStore, keeper: Retention
) -> None:
    monkeypatch.setattr(retention, "STEP_SECONDS", 0.0)
    runs = [await kept(store, OLD + number) for number in range(5)]
    alive = 0
    for step in keeper.expire(LIMIT):
        assert step.count <= 1
        await store.begin(new_run(created_at=YOUNG))  # nobody holds the file
        alive += 1
    assert alive >= 10
    assert await there(store, *runs) == [False] * 5
    assert rows(path, "runs") == alive


async def test_deleted_words_are_in_no_file(path: Path, store: SqlStore, keeper: Retention) -> None:
    secret = f"{MARK} " * 2_000
    run = await kept(store, OLD, words=secret)
    short = await kept(store, OLD, words=MARK)
    talk = await store.conversations.create(OWNER, {"a": MARK}, [said("user", secret)])
    await kept(store, YOUNG, words="dipper-12")
    assert MARK.encode() in raw(path)
    await store.delete(run.id, OWNER)
    await store.conversations.delete(talk.id, OWNER)
    total(keeper.expire(LIMIT))
    assert await there(store, short) == [False]
    assert keeper.fold()
    assert MARK.encode() not in raw(path)
    assert run.id.encode() not in raw(path)
    assert talk.id.encode() not in raw(path)
    assert b"dipper-12" in raw(path)


async def test_space_is_given_back(path: Path, store: SqlStore, keeper: Retention) -> None:
    run = await kept(store, OLD, words="x" * 3_000_000)
    keeper.fold()
    large = keeper.disk_bytes()
    await store.delete(run.id, OWNER)
    assert keeper.free_bytes() > 2_000_000
    left = list(keeper.shrink(1_000_000))
    assert 3 < len(left) < 60, "many pages with each step"
    assert 700_000 < keeper.free_bytes() <= 1_000_000
    list(keeper.shrink(0))
    assert keeper.fold()
    assert keeper.free_bytes() == 0
    assert keeper.disk_bytes() < large - 2_500_000


async def test_nobody_waits_for_the_log_to_be_folded(store: SqlStore, keeper: Retention) -> None:
    await kept(store, OLD)
    with closing(sqlite3.connect(keeper._file.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        await kept(store, OLD)
        assert not keeper.fold()
        reader.execute("ROLLBACK")
    assert keeper.fold()


async def test_a_file_of_before_is_made_new_by_a_vacuum(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("CREATE TABLE words (word TEXT)")
        connection.execute("INSERT INTO words VALUES (?)", (f"{MARK} " * 1000,))
        connection.commit()
        connection.execute("DELETE FROM words")
        connection.commit()
    file = SqliteFile(path)
    file.make()
    assert MARK.encode() in raw(path)
    with closing(Retention(file)) as keeper:
        assert not keeper.shrinks()
        assert list(keeper.shrink(0)) == []
        keeper.vacuum()
        assert keeper.shrinks()
    assert MARK.encode() not in raw(path)
    assert "SQLITE_TMPDIR" not in os.environ


async def test_a_removed_file_is_an_error(path: Path, store: SqlStore, keeper: Retention) -> None:
    await kept(store, OLD)
    path.rename(path.with_name("away.db"))
    with pytest.raises(StoreError, match="removed or replaced"):
        total(keeper.expire(LIMIT))


async def test_a_server_does_it_by_itself(path: Path, store: SqlStore) -> None:
    old, young = await kept(store, OLD, words=MARK), await kept(store, YOUNG)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO events VALUES ('resp_gone', 0, 1, ?)", (b"[]",))
    retiring = Retiring(path, YOUNG - LIMIT, now=lambda: YOUNG)
    try:
        assert await retiring.round() == 2
        assert await there(store, old, young) == [False, True]
        assert MARK.encode() not in raw(path)
        # What a client deletes is out of the files with the next round.
        await store.delete(young.id, OWNER)
        await retiring.round()
        assert young.id.encode() not in raw(path)
    finally:
        await retiring.close()


async def test_a_server_that_keeps_for_ever_deletes_nothing(path: Path, store: SqlStore) -> None:
    run = await kept(store, OLD)
    retiring = Retiring(path, 0)
    assert await retiring.round() == 0
    await retiring.close()
    assert await there(store, run) == [True]


async def test_a_round_that_is_cancelled_leaves_nothing_locked(path: Path, store: SqlStore) -> None:
    for number in range(300):
        await kept(store, OLD + number)
    retiring = Retiring(path, 1.0, now=lambda: YOUNG)
    task = asyncio.create_task(retiring.round())
    while rows(path, "runs") == 300:
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await retiring.close()
    await store.begin(new_run(created_at=YOUNG))


KILLED = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from ouzel.store.retention import Retention
from ouzel.store.sqlite import SqliteFile

file = SqliteFile(Path(sys.argv[1]))
file.make()
left = int(sys.argv[2])
def count(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
with closing(Retention(file)) as keeper:
    keeper._connection.set_trace_callback(count)
    for step in keeper.leftovers(): pass
    for step in keeper.expire(2_000.0): pass
    for step in keeper.shrink(0): pass
    keeper.fold()
"""


async def test_killed_anywhere_it_goes_on_where_it_was(path: Path) -> None:
    store = open_store(path)
    for number in range(40):
        await kept(store, OLD + number)
    young = await kept(store, YOUNG)
    await store.close()
    child = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    codes = []
    for moment in (12, 16, 25, 40, 60, 90, 130, 10_000):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), str(moment)], env=child, timeout=60
        )
        codes.append(done.returncode)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert codes.count(-9) >= 5
    assert codes[-1] == 0
    assert rows(path, "runs") == 1
    assert rows(path, "events") == 2
    store = open_store(path)
    assert await there(store, young) == [True]
    await store.close()
