"""Processes killed while files come and go: kept files are whole, and the rest is gone."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from files_samples import OWNER, body_of, drafts, keep, on_disk, opened

from ouzel.core.errors import NotFound

# Children find what this process finds, and the samples beside this file.
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

# Eight clients at once keep files, delete some, and send others in parts. What was answered is
# written down at once: the name of a file is the checksum of what is in it.
BUSY = """
import asyncio, hashlib, os, random, sys
from pathlib import Path
from files_samples import OWNER, chunks, opened

def told(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def client(files, at):
    dice = random.Random(at)
    while True:
        pieces = [dice.randbytes(dice.randrange(1, 400_000)) for _ in range(dice.randrange(1, 7))]
        name = hashlib.sha256(b"".join(pieces)).hexdigest()
        if at % 2:
            file = await files.create(OWNER, name, "user_data", chunks(*pieces))
        else:
            size = sum(map(len, pieces))
            upload = await files.begin_upload(OWNER, name, "user_data", size, "a/b")
            parts = [await files.add_part(upload.id, OWNER, chunks(each)) for each in pieces]
            told("begun", upload.id)
            done = await files.complete_upload(upload.id, OWNER, tuple(p.id for p in parts))
            file = done.file
        told("kept", file.id)
        if dice.random() < 0.5:
            told("going", file.id)
            await files.delete(file.id, OWNER)
            told("gone", file.id)

async def main():
    async with opened(Path(sys.argv[1])) as (files, _):
        await asyncio.gather(*(client(files, at) for at in range(8)))

asyncio.run(main())
"""

# Forks, so that a process need not start for each of the moments. The child kills itself when it
# is about to take its n-th step on disk or in the database; the parent looks at what it left.
STEPS = """
import asyncio, json, os, shutil, signal, sys
from pathlib import Path
from files_samples import OWNER, chunks, drafts, keep, on_disk, opened
from ouzel.store import sql, sqlite
from ouzel.store.migrate import migrate

top = Path(sys.argv[1])
left = -1
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}

def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def watch(event, args):
    if event in EVENTS and left > 0 and "/files/" in str(args[0]):
        step()

class Mortal(sqlite.SqliteFile):
    def connect(self, **options):
        connection = super().connect(**options)
        connection.set_trace_callback(step)
        return connection

async def work(folder):
    global left
    async with opened(folder) as (files, _):
        left = int(os.environ["STEP"])
        gone = await keep(files)
        await files.delete(gone.id, OWNER)
        upload = await files.begin_upload(OWNER, "f", "user_data", 10, "a/b")
        parts = [await files.add_part(upload.id, OWNER, chunks(each)) for each in (b"01234",) * 2]
        await files.complete_upload(upload.id, OWNER, tuple(each.id for each in parts))
        upload = await files.begin_upload(OWNER, "f", "user_data", 10, "a/b")
        await files.add_part(upload.id, OWNER, chunks(b"01234"))
        await files.cancel_upload(upload.id, OWNER)
        left = -1

async def check(folder):
    async with opened(folder) as (files, store):
        def rows(connection):
            sql = "SELECT id, size FROM files UNION SELECT id, size FROM upload_parts"
            return dict(connection.execute(sql).fetchall())
        found = await store.readers.read(rows, "look")
        assert found == on_disk(folder), (found, on_disk(folder))
        assert drafts(folder) == []
        return sorted(found.values())

migrate(sqlite.SqliteFile(top / "new.db"))
sys.addaudithook(watch)
seen = []
while True:
    folder = top / str(len(seen))
    folder.mkdir()
    shutil.copy(top / "new.db", folder / "ouzel.db")
    os.environ["STEP"] = str(len(seen) + 1)
    child = os.fork()
    if child == 0:
        sql.SqliteFile = Mortal
        asyncio.run(work(folder))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    seen.append(asyncio.run(check(folder)))
    if os.WIFEXITED(status):
        print(json.dumps({"seen": seen, "status": os.WEXITSTATUS(status)}))
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


async def test_what_was_acknowledged_survives_kill_9_and_nothing_else_stays(
    tmp_path: Path,
) -> None:
    kept: set[str] = set()
    going: set[str] = set()
    gone: set[str] = set()
    for lines in (1, 30, 100, 201):
        child = subprocess.Popen(
            [sys.executable, "-c", BUSY, tmp_path], stdout=subprocess.PIPE, text=True, env=CHILD
        )
        assert child.stdout is not None
        told = [child.stdout.readline().split() for _ in range(lines)]
        child.kill()
        told += [line.split() for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        for word, file_id in told:
            {"kept": kept, "going": going, "gone": gone, "begun": set()}[word].add(file_id)

        async with opened(tmp_path) as (files, _):
            found = {each.id: each for each in (await files.page(OWNER))[0]}
            assert kept - going <= set(found)
            assert not gone & set(found)
            for file_id in gone:
                with pytest.raises(NotFound):
                    await files.open(file_id, OWNER)
            for each in found.values():
                assert hashlib.sha256(await body_of(files, each)).hexdigest() == each.name
            with closing(sqlite3.connect(tmp_path / "ouzel.db")) as connection:
                parts = dict(connection.execute("SELECT id, size FROM upload_parts"))
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert on_disk(tmp_path) == {each.id: each.size for each in found.values()} | parts
            assert drafts(tmp_path) == []
    assert len(kept) > 30
    assert len(gone) > 5


@pytest.mark.filterwarnings("ignore:This process")
def test_dying_at_any_step_leaves_bytes_and_rows_that_agree(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS, tmp_path],
        capture_output=True,
        text=True,
        env=CHILD,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == 0
    seen = result["seen"]
    assert len(seen) > 60
    assert seen[0] == []
    assert seen[-1] == [10]
    # Every state between was met, and none that is not one.
    assert {tuple(each) for each in seen} == {(), (5,), (5, 5), (10,), (5, 10)}


async def test_what_is_half_written_goes_at_the_next_start_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (files, _):
        file = await keep(files)
    (tmp_path / "files" / "drafts" / ("file-" + "0" * 48)).write_bytes(b"half")
    async with opened(tmp_path) as (files, _):
        assert on_disk(tmp_path) == {file.id: 5}
    # A database that was moved away, because of a mishap perhaps, must not cost the files.
    aside = tmp_path / "aside"
    aside.mkdir()
    for each in tmp_path.glob("ouzel.db*"):
        each.rename(aside / each.name)
    async with opened(tmp_path) as (files, _):
        assert await files.page(OWNER) == ([], False)
    for each in aside.iterdir():
        each.rename(tmp_path / each.name)
    async with opened(tmp_path) as (files, _):
        assert await body_of(files, file) == b"hello"
