"""A full disk, really: a small file system of its own, in a process that may mount one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import OWNER, deltas, finished, new_run, said

from mounts import own_mounts
from ouzel.core.errors import StoreError, StoreFull
from ouzel.store import SqlStore
from ouzel.store.migrate import migrate
from ouzel.store.sqlite import SqliteFile

# Children find what this process finds, and the samples beside this file.
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

FILLING = """
import asyncio, json, os, sqlite3, sys
from pathlib import Path
from ouzel.core.errors import StoreError
from ouzel.store import open_store
from store_samples import OWNER, deltas, finished, new_run

folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(1024 * 1024))

async def fill(store):
    kept, refused = [], []
    async def client():
        while not refused:
            run = new_run("x" * 9000)
            try:
                await store.begin(run)
                await store.append(run.id, 0, deltas(5))
                await store.finish(finished(run), 5, deltas(5, 5))
            except StoreError as error:
                refused.append(error.message)
            else:
                kept.append(run)
    await asyncio.gather(*(client() for _ in range(8)))
    return kept, refused

async def check(store, kept):
    for run in kept:
        assert (await store.load(run.id, OWNER)).request == run.request
        assert await store.events(run.id, OWNER) == deltas(10)

async def main():
    store = open_store(folder / "store.db")
    kept, refused = await fill(store)
    await check(store, kept)
    first = len(kept)
    ballast.unlink()
    more, again = await fill(store)
    await check(store, kept + more)
    await store.close()
    try:
        for n in range(1000):
            (folder / f"more{n}").write_bytes(bytes(4096))
    except OSError:
        pass
    try:
        open_store(folder / "another.db")
    except StoreError as error:
        unopened = error.message
    for rest in folder.glob("more*"):
        rest.unlink()
    store = open_store(folder / "store.db")
    await check(store, kept + more)
    await store.close()
    connection = sqlite3.connect(folder / "store.db")
    whole = connection.execute("PRAGMA integrity_check").fetchall()
    print(json.dumps([first, len(more), sorted({*refused, *again}), unopened, whole]))

asyncio.run(main())
"""


async def test_a_full_file_system_is_an_error_in_words_until_there_is_space(
    tmp_path: Path,
) -> None:
    command = own_mounts()
    if not command:
        pytest.skip("no file system can be mounted here; the next test fills a file instead")
    script = f"mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec {sys.executable} - {tmp_path}"
    done = subprocess.run(
        [*command, "sh", "-c", script],
        input=FILLING,
        capture_output=True,
        text=True,
        env=CHILD,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, more, refused, unopened, whole = json.loads(done.stdout)
    assert first > 5
    assert more > 3, "it worked again as soon as there was space"
    assert refused
    assert all("the disk is full" in message for message in refused), refused
    assert "could not be opened" in unopened or "the disk" in unopened
    assert whole == [["ok"]]


class SmallFile(SqliteFile):
    """A database that may not grow beyond so many pages."""

    pages = 60

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = super().connect(read_only=read_only)
        connection.execute(f"PRAGMA max_page_count={self.pages}")
        return connection


async def test_a_full_file_refuses_what_does_not_fit_and_keeps_the_rest(tmp_path: Path) -> None:
    file = SmallFile(tmp_path / "store.db")
    migrate(file)
    store = SqlStore(file)
    big = [new_run("x" * 20_000) for _ in range(20)]
    outcomes = await asyncio.gather(*(store.begin(run) for run in big), return_exceptions=True)
    kept = [run for run, outcome in zip(big, outcomes, strict=True) if outcome is None]
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(kept) > 3
    assert len(refused) > 3
    assert all(isinstance(each, StoreError) for each in refused)
    assert all("the disk is full; free some space" in str(each) for each in refused)
    for run in kept:
        assert await store.load(run.id, OWNER) == run
    with pytest.raises(StoreError, match="disk is full"):
        await store.append(kept[0].id, 0, deltas(50_000))
    # Room comes back: here by forgetting, on a real disk in many ways.
    for run in kept[1:3]:
        await store.delete(run.id, OWNER)
    await store.append(kept[0].id, 0, deltas(50))
    await store.finish(finished(kept[0]), 50, deltas(1, 50))
    assert await store.events(kept[0].id, OWNER) == deltas(51)
    await store.close()


async def test_a_turn_of_a_conversation_that_does_not_fit_is_kept_in_no_part(
    tmp_path: Path,
) -> None:
    file = SmallFile(tmp_path / "store.db")
    file.pages = 120
    migrate(file)
    store = SqlStore(file)
    conversations = store.conversations
    first = said("user", "the first")
    made = await conversations.create(OWNER, {"a": "1"}, [first])
    run = new_run("short")
    request = dataclasses.replace(run.request, conversation_id=made.id)
    run = dataclasses.replace(run, request=request)
    await store.begin(run)
    ballast = [new_run("x" * 20_000) for _ in range(40)]
    await asyncio.gather(*(store.begin(each) for each in ballast), return_exceptions=True)
    large = said("assistant", "y" * 40_000)
    for write in (
        store.finish(finished(run, large), 0, deltas(2)),
        conversations.add(made.id, OWNER, [said("user", "small"), large]),
        conversations.create(OWNER, {}, [large]),
    ):
        with pytest.raises(StoreFull, match="the disk is full"):
            await write
    assert await conversations.history(made.id, OWNER) == (first,)
    assert await store.load(run.id, OWNER) == run
    assert await store.events(run.id, OWNER) == []
    # What is there can still be given up, and then there is room again.
    for each in ballast[:6]:
        await store.delete(each.id, OWNER)
    await store.finish(finished(run, large), 0, deltas(2))
    expected = (first, *run.request.input, large)
    assert await conversations.history(made.id, OWNER) == expected
    await store.close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
