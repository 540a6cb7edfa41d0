"""`ouzel gc`, `export`, `import` and `backup`: what they say, also beside a server."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from terminals import OUZEL, PATIENCE, environment, run, run_process

from ouzel.core.items import Message, Text, new_id
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.store import open_files, open_store

MARK = "nightjar-4711"
DAY = 86_400.0


@pytest.fixture
def state(home: Path) -> Path:
    """A home with one old and one young response, and a file."""
    asyncio.run(_fill(home / ".ouzel"))
    return home / ".ouzel"


async def _fill(folder: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"some bytes"

    store = open_store(folder / "ouzel.db")
    files = open_files(store, folder / "files")
    for days, words in ((40, MARK), (1, "young")):
        asked = (Message(new_id("msg"), "user", (Text(words),)),)
        request = Request("responses", "scripted", asked, store=True)
        made = time.time() - days * DAY
        await store.begin(Run(new_id("resp"), "local", "scripted", made, request, "completed"))
    await files.create("local", "a.txt", "user_data", chunks())
    await files.close()
    await store.close()


@pytest.fixture
def server(state: Path, script: Path) -> Iterator[None]:
    """A server on that home, which keeps everything."""
    with serving(state, script, "--keep-days", "0"):
        yield


@contextmanager
def serving(state: Path, script: Path, *flags: str) -> Iterator[None]:
    process = subprocess.Popen(
        [*OUZEL, "serve", "--port", "0", "--script", str(script), *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(state.parent),
    )
    assert process.stdout is not None
    try:
        assert any("listens at" in line for line in process.stdout), "the server did not start"
        yield
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(PATIENCE)


def raw(state: Path) -> bytes:
    return b"".join(each.read_bytes() for each in state.glob("ouzel.db*"))


def runs(state: Path) -> int:
    with closing(sqlite3.connect(state / "ouzel.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


def test_a_dry_run_changes_nothing(state: Path) -> None:
    done = run("gc", "--dry-run", home=state.parent)
    assert done.code == 0
    assert re.search(r"WOULD BE DELETED +COUNT +SIZE\nresponses +1 ", done.out)
    assert runs(state) == 2
    assert MARK.encode() in raw(state)


def test_what_is_old_goes_and_the_table_says_so(state: Path) -> None:
    done = run("gc", home=state.parent)
    assert done.code == 0
    assert re.search(r"DELETED +COUNT +SIZE\nresponses +1 ", done.out)
    assert "The database takes" in done.out
    assert runs(state) == 1
    assert MARK.encode() not in raw(state)
    assert re.search(r"responses +0 ", run("gc", home=state.parent).out)


def test_for_ever_is_for_ever(state: Path) -> None:
    done = run("gc", "--keep-days", "0", home=state.parent)
    assert "for ever" in done.err
    assert runs(state) == 2


def test_json_is_for_programs(state: Path) -> None:
    done = run("gc", "--vacuum", "--keep-days", "50", "--json", home=state.parent)
    told = json.loads(done.out)
    assert told["dry_run"] is False
    assert {each["kind"] for each in told["removed"]} >= {"responses", "batches", "files"}
    assert runs(state) == 2


def test_orphans_go_only_when_asked_for(state: Path) -> None:
    blob = next(each for each in (state / "files" / "kept").rglob("file-*"))
    nameless = state / "files" / "kept" / "00" / "00" / ("file-" + "0" * 48)
    nameless.parent.mkdir(parents=True)
    nameless.write_bytes(b"12345")
    assert run("gc", home=state.parent).code == 0
    assert nameless.exists()
    seen = run("gc", "--orphans", "--dry-run", home=state.parent)
    assert re.search(r"unnamed bytes +1 +5 B", seen.out)
    assert nameless.exists()
    blob.unlink()
    done = run("gc", "--orphans", home=state.parent)
    assert re.search(r"unnamed bytes +1 +5 B", done.out)
    assert re.search(r"files without bytes +1 ", done.out)
    assert not nameless.exists()
    with closing(sqlite3.connect(state / "ouzel.db")) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (0,)


@pytest.mark.usefixtures("server")
def test_all_but_the_thorough_works_beside_a_server(state: Path, tmp_path: Path) -> None:
    for thorough in ("--vacuum", "--orphans"):
        refused = run("gc", thorough, home=state.parent)
        assert refused.code == 1
        assert "A server runs" in refused.err
    exported = run("export", str(tmp_path / "mine.tar"), home=state.parent)
    assert exported.code == 0
    copied = run("backup", str(tmp_path / "copy"), home=state.parent)
    assert copied.code == 0
    done = run("gc", home=state.parent)
    assert done.code == 0
    assert "it deletes expired files by itself" in done.err
    assert re.search(r"responses +1 ", done.out)
    assert MARK.encode() not in raw(state)
    refused = run("import", str(tmp_path / "mine.tar"), home=state.parent)
    assert refused.code == 1
    assert "Another Ouzel is serving" in refused.err
    assert runs(state) == 1


def test_a_server_does_it_by_itself(state: Path, script: Path) -> None:
    with serving(state, script):
        deadline = time.monotonic() + PATIENCE
        while MARK.encode() in raw(state):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert runs(state) == 1


def test_an_archive_travels_to_another_home(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.tar"
    done = run("export", str(target), home=state.parent)
    assert "In it: 2 responses, 1 files." in done.out
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    again = run("export", str(target), home=state.parent)
    assert again.code == 1
    assert "there already" in again.err
    other = str(tmp_path / "other")
    taken = run("import", str(target), "--owner", "bob", "--home", other, home=state.parent)
    assert "Taken for bob: 2 responses, 1 files." in taken.out
    again = run("import", str(target), "--owner", "bob", "--home", other, home=state.parent)
    assert "nothing new" in again.out
    assert "2 responses that were there already" in again.err
    refused = run("import", str(target), "--owner", "bob", home=state.parent)
    assert refused.code == 1
    assert "another owner's" in refused.err


def test_an_owner_without_anything_gets_no_archive(state: Path, tmp_path: Path) -> None:
    done = run("export", "--owner", "nobody", str(tmp_path / "no.tar"), home=state.parent)
    assert done.code == 1
    assert "nobody has nothing here" in done.err
    assert not (tmp_path / "no.tar").exists()


def test_a_copy_is_a_home(state: Path, tmp_path: Path) -> None:
    (state / "sealing.keys").write_text("# keys\n")
    (state / "sealing.keys").chmod(0o644)
    target = tmp_path / "backups" / "monday"
    done = run("backup", str(target), home=state.parent)
    assert done.code == 0
    assert "the database and 1 files" in done.out
    assert sorted(each.name for each in target.iterdir()) == ["files", "ouzel.db", "sealing.keys"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "sealing.keys").stat().st_mode) == 0o600
    assert runs(target) == 2
    assert run("gc", "--dry-run", "--home", str(target), home=state.parent).code == 0
    again = run("backup", str(target), home=state.parent)
    assert again.code == 1
    assert "there already" in again.err
    within = run("backup", str(state / "copy"), home=state.parent)
    assert "within the home" in within.err
    assert [each.name for each in target.parent.iterdir()] == ["monday"]


@pytest.mark.parametrize(
    "arguments", [("gc",), ("export", "x.tar"), ("backup", "copy"), ("import", "missing.tar")]
)
def test_without_anything_there_each_says_so(
    arguments: tuple[str, ...], home: Path, tmp_path: Path
) -> None:
    where = [arguments[0], *(str(tmp_path / each) for each in arguments[1:])]
    done = run_process(*where, "--home", str(tmp_path / "empty"), home=home)
    assert done.code == 1
    assert re.search(r"There is no|nothing to back up|No such file", done.err)
    assert "bug" not in done.err
