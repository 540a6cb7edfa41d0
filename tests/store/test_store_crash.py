"""Real processes that are killed: what was acknowledged is there, and the file is whole."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import OWNER, deltas, end_all

from ouzel.core.errors import NotFound
from ouzel.core.events import Failure, RunFinished
from ouzel.store import open_store

# Children find what this process finds, and the samples beside this file.
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
STOPPED = Failure("server_error", "The server was stopped while this response was running.", 500)

WRITING = """
import asyncio, os, sys
from pathlib import Path
from ouzel.store import open_store
from store_samples import deltas, ending, finished, new_run, said

def acknowledged(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def client(store):
    while True:
        run = new_run()
        await store.begin(run)
        acknowledged("begun", run.id)
        for position in range(0, 12, 3):
            await store.append(run.id, position, deltas(3, position))
            acknowledged("appended", run.id, position + 3)
        await store.finish(finished(run), 12, deltas(2, 12))
        acknowledged("finished", run.id, 14)

async def main():
    store = open_store(Path(sys.argv[1]))
    await asyncio.gather(*(client(store) for _ in range(16)))

asyncio.run(main())
"""

CONVERSING = """
import asyncio, dataclasses, os, sys
from pathlib import Path
from ouzel.store import open_store
from store_samples import OWNER, deltas, finished, new_run, said

def acknowledged(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def client(store):
    while True:
        made = await store.conversations.create(OWNER, {}, [said("user", "0"), said("user", "1")])
        acknowledged("created", made.id, 2)
        for count in range(2, 10, 4):
            await store.conversations.add(
                made.id, OWNER, [said("user", str(count)), said("user", str(count + 1))]
            )
            acknowledged("added", made.id, count + 2)
            run = new_run(str(count + 2))
            request = dataclasses.replace(run.request, conversation_id=made.id)
            run = dataclasses.replace(run, request=request)
            await store.begin(run)
            await store.finish(finished(run, said("assistant", str(count + 3))), 0, deltas(2))
            acknowledged("finished", made.id, count + 4, run.id)
        if made.id[-1] in '0123':
            await store.conversations.delete(made.id, OWNER)
            acknowledged("deleted", made.id, 0)

async def main():
    store = open_store(Path(sys.argv[1]))
    await asyncio.gather(*(client(store) for _ in range(16)))

asyncio.run(main())
"""

ADDED_WITHOUT_END = """
SELECT runs.id FROM runs JOIN conversation_items
    ON item_id = json_extract(CAST(runs.body AS TEXT), '$.request.input[0].id')
WHERE status = 'in_progress'
"""
"""Runs that are in a conversation already, and have not ended."""

# Forks, so that a process need not start for each of the moments. The child kills itself when
# SQLite is about to run its n-th statement; the parent then opens what it left.
OPENING = """
import json, os, signal, sys
from pathlib import Path
import alembic.command, alembic.config, alembic.autogenerate
from ouzel.store.migrate import migrate
from ouzel.store.sqlite import SqliteFile

class Mortal(SqliteFile):
    def __init__(self, path, statements):
        super().__init__(path)
        self.left = statements
    def connect(self, **options):
        connection = super().connect(**options)
        connection.set_trace_callback(self.count)
        return connection
    def count(self, statement):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

killed = 0
while True:
    path = Path(sys.argv[1]) / f"{killed}.db"
    child = os.fork()
    if child == 0:
        migrate(Mortal(path, killed + 1))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    migrate(SqliteFile(path))
    connection = SqliteFile(path).connect()
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]
    connection.close()
    if os.WIFEXITED(status):
        print(json.dumps({"killed": killed, "status": os.WEXITSTATUS(status)}))
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    killed += 1
"""


def read_until_killed(child: subprocess.Popen[str], lines: int) -> list[list[str]]:
    """Everything the child was told is kept; it dies after so many lines, or a few more."""
    assert child.stdout is not None
    found = [child.stdout.readline().split() for _ in range(lines)]
    child.kill()
    found += [line.split() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    return found


async def test_what_was_acknowledged_survives_kill_9_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    begun: set[str] = set()
    reached: dict[str, int] = {}
    ended: set[str] = set()
    for lines in (1, 40, 333, 1000, 2500):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITING, path],
            stdout=subprocess.PIPE,
            text=True,
            env=CHILD,
        )
        for word, run_id, *count in read_until_killed(child, lines):
            begun.add(run_id)
            if count:
                reached[run_id] = int(count[0])
            if word == "finished":
                ended.add(run_id)

        store = open_store(path)
        for run_id in begun:
            run = await store.load(run_id, OWNER)
            events = await store.events(run_id, OWNER)
            if run.status == "failed":  # by an earlier round of this test
                assert isinstance(events.pop(), RunFinished)
            assert events == deltas(len(events))
            assert len(events) >= reached.get(run_id, 0)
            assert run_id not in ended or run.status == "completed"
        live = {run.id: events async for run, events in store.interrupted()}
        assert all(len(events) >= reached.get(run_id, 0) for run_id, events in live.items())
        assert await end_all(store, STOPPED) == len(live)
        assert ended.isdisjoint(live)
        await store.close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            states = dict(connection.execute("SELECT status, count(*) FROM runs GROUP BY status"))
        assert set(states) <= {"completed", "failed"}
        assert states.get("completed", 0) >= len(ended)
    assert len(begun) > 100
    assert len(ended) > 100


async def test_conversations_survive_kill_9_and_no_turn_is_half_there(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    reached: dict[str, int] = {}
    deleted: set[str] = set()
    turns: list[tuple[str, str, str]] = []
    for lines in (1, 60, 500, 1500):
        child = subprocess.Popen(
            [sys.executable, "-c", CONVERSING, path], stdout=subprocess.PIPE, text=True, env=CHILD
        )
        for word, conversation_id, count, *run_id in read_until_killed(child, lines):
            reached[conversation_id] = int(count)
            if word == "deleted":
                deleted.add(conversation_id)
            turns += [(conversation_id, count, each) for each in run_id]

        store = open_store(path)
        for conversation_id, count in reached.items():
            if conversation_id in deleted:
                with pytest.raises(NotFound):
                    await store.conversations.get(conversation_id, OWNER)
                continue
            try:
                items = await store.conversations.history(conversation_id, OWNER)
            except NotFound:
                # Its deletion was on the disk, and nobody was told.
                assert conversation_id[-1] in "0123"
                continue
            assert [item.text for item in items] == [str(n) for n in range(len(items))]
            assert len(items) % 2 == 0, "a question and its answer are there together"
            assert len(items) >= count
        for _, _, run_id in turns:
            assert (await store.load(run_id, OWNER)).status == "completed"
        await store.close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            added = connection.execute(ADDED_WITHOUT_END).fetchall()
        assert added == []
    assert len(deleted) > 20
    assert len(turns) > 200


@pytest.mark.filterwarnings("ignore:This process")
def test_dying_at_any_statement_of_the_first_opening_does_no_harm(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENING, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["status"] == 0
    assert result["killed"] > 10
