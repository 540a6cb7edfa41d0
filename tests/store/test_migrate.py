"""Opening: a new file, an old one, a newer one, somebody else's, and two processes at once."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import filelock
import pytest
from old_records import EVENTS_0001, FILE_0002, RUN_0001, RUN_0002, insert_run

from ouzel.core.errors import StoreError
from ouzel.core.events import ItemDone, RunStarted
from ouzel.store import migrate as migrate_module
from ouzel.store import open_store
from ouzel.store.migrate import migrate
from ouzel.store.schema import SCHEMA_VERSION
from ouzel.store.sqlite import SqliteFile

LATER_STEP = '''
"""A step that a later version might add."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table("birds", sa.Column("name", sa.Text))
    op.add_column("runs", sa.Column("colour", sa.Text))
'''


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found)


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of migrations with one more step, in use as if this were a later version."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate_module.SCRIPTS, scripts)
    (scripts / "versions" / "v0004_birds.py").write_text(LATER_STEP)
    monkeypatch.setattr(migrate_module, "SCRIPTS", scripts)
    monkeypatch.setattr(migrate_module, "SCHEMA_VERSION", "0004")
    return scripts


def test_a_new_file_gets_the_newest_schema(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "store.db"
    migrate(SqliteFile(path))
    assert {"runs", "events", "alembic_version"} <= tables(path)
    assert version(path) == SCHEMA_VERSION


def test_opening_again_needs_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    migrate(SqliteFile(path))
    code = (
        "import sys; from pathlib import Path; from ouzel.store.migrate import migrate; "
        "from ouzel.store.sqlite import SqliteFile; migrate(SqliteFile(Path(sys.argv[1]))); "
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def older_file(path: Path, version: str) -> None:
    """A file as an earlier version made it, with what people keep in it."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        scripts = Path(folder) / "migrations"
        shutil.copytree(migrate_module.SCRIPTS, scripts)
        for step in (scripts / "versions").glob("v*.py"):
            if step.name[1:5] > version:
                step.unlink()
        patch.setattr(migrate_module, "SCRIPTS", scripts)
        patch.setattr(migrate_module, "SCHEMA_VERSION", version)
        migrate(SqliteFile(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(*insert_run(RUN_0001))
        events = ("chatcmpl-1", 0, 3, EVENTS_0001.encode())
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", events)
        if version >= "0002":
            connection.execute(*insert_run(RUN_0002))
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", FILE_0002)


@pytest.mark.parametrize("before", ["0001", "0002"])
async def test_an_old_file_is_brought_forward_with_what_is_in_it(
    tmp_path: Path, before: str
) -> None:
    path = tmp_path / "store.db"
    older_file(path, before)
    assert version(path) == before
    store = open_store(path)
    assert version(path) == SCHEMA_VERSION
    run = await store.load("chatcmpl-1", "alice")
    assert (run.output[0].text, run.request.metadata) == ("Two.", {"topic": "birds"})
    start, done, end = await store.events("chatcmpl-1", "alice")
    assert (start, done, end.status) == (RunStarted(), ItemDone(0, run.output[0]), "completed")
    page = await store.page_runs(
        "alice", model="o4-mini", metadata={"topic": "birds"}, after=None, limit=5, order="asc"
    )
    assert page.entries == (run,)
    assert await store.choices_of("chatcmpl-1", "alice") == (run,)
    if before == "0002":
        assert [item.text for item in await store.history("resp_2", "alice")] == [
            "How many legs?",
            "Two.",
            "How many wings?",
        ]
        assert [(run.id, log) async for run, log in store.interrupted()] == [("resp_2", [])]
        rows = await store.readers.read(
            lambda connection: connection.execute("SELECT * FROM files").fetchall(), "read files"
        )
        assert rows == [FILE_0002]
    # And the new tables take what is new.
    made = await store.conversations.create("alice", {}, run.output)
    assert await store.conversations.history(made.id, "alice") == run.output
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_later_step_finds_what_is_in_the_file(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "store.db"
    migrate(SqliteFile(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(*insert_run(RUN_0001))
    request.getfixturevalue("newer")
    migrate(SqliteFile(path))
    assert version(path) == "0004"
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, colour FROM runs").fetchall()
    assert found == [("chatcmpl-1", None)]


def test_a_step_that_fails_leaves_the_file_as_it_was(newer: Path, tmp_path: Path) -> None:
    step = newer / "versions" / "v0004_birds.py"
    step.write_text(LATER_STEP + '    op.execute("INSERT INTO nowhere VALUES (1)")\n')
    path = tmp_path / "store.db"
    with pytest.raises(StoreError, match=r"migrate .*no such table: nowhere"):
        migrate(SqliteFile(path))
    assert tables(path) == set()
    step.write_text(LATER_STEP)
    migrate(SqliteFile(path))
    assert version(path) == "0004"


def test_a_file_from_a_newer_version_is_left_alone(
    tmp_path: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    migrate(SqliteFile(path))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="written by a newer version of Ouzel") as caught:
        migrate(SqliteFile(path))
    assert str(path) in caught.value.message
    assert version(path) == "0004"


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    with pytest.raises(StoreError, match=r"photos\.db is an SQLite database, but not one of Ouzel"):
        migrate(SqliteFile(path))
    assert tables(path) == {"photos"}


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear ouzel, " * 1000)
    with pytest.raises(StoreError, match=r"letter\.txt: the file is not a database"):
        migrate(SqliteFile(path))
    assert path.read_text().startswith("Dear ouzel")


def test_a_database_whose_pages_are_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    migrate(SqliteFile(path))
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xaa" * 4000)
    with pytest.raises(StoreError, match="damaged; restore a backup"):
        migrate(SqliteFile(path))


def test_six_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    code = (
        "import sys; from pathlib import Path; from ouzel.store.migrate import migrate; "
        "from ouzel.store.sqlite import SqliteFile; sys.stdin.readline(); "
        "migrate(SqliteFile(Path(sys.argv[1])))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(6)
    ]
    ends = [child.communicate(b"go\n", timeout=120) for child in children]
    assert [child.returncode for child in children] == [0] * 6, ends
    assert version(path) == SCHEMA_VERSION


def test_a_process_that_never_ends_opening_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    monkeypatch.setattr(migrate_module, "LOCK_SECONDS", 0.1)
    with (
        filelock.FileLock(f"{path}.lock"),
        pytest.raises(StoreError, match="another process has been opening"),
    ):
        migrate(SqliteFile(path))
