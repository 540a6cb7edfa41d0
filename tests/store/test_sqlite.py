"""The file itself: who may read it, where it cannot be, and what its errors are called."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from store_samples import OWNER, new_run

from ouzel.core.errors import StoreError
from ouzel.store import open_store
from ouzel.store.migrate import migrate
from ouzel.store.sqlite import SqliteFile


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of a user without powers, and that user's rights if the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)


async def test_only_the_user_may_read_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(tmp_path / "home" / "data" / "store.db")
        await store.begin(new_run())
        made = sorted((tmp_path / "home" / "data").iterdir())
        assert [each.name for each in made] == [
            "store.db",
            "store.db-shm",
            "store.db-wal",
            "store.db.lock",
        ]
        assert {mode(each) for each in made} == {0o600}
        assert mode(tmp_path / "home") == mode(tmp_path / "home" / "data") == 0o700
        await store.close()
    finally:
        os.umask(before)


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    migrate(SqliteFile(path))
    assert mode(path) == 0o600
    assert mode(tmp_path) == 0o755, "a folder that was there before is the user's own business"


def test_a_folder_that_may_not_be_written_is_named() -> None:
    with as_nobody() as folder:
        folder.chmod(0o500)
        with pytest.raises(StoreError, match="Permission denied") as caught:
            migrate(SqliteFile(folder / "store.db"))
        folder.chmod(0o700)
    assert str(folder / "store.db") in caught.value.message


def test_a_store_in_a_folder_that_has_become_read_only_is_named() -> None:
    with as_nobody() as folder:
        path = folder / "store.db"
        path.touch(0o400)
        folder.chmod(0o500)
        with pytest.raises(StoreError, match=r"store\.db") as caught:
            migrate(SqliteFile(path))
        folder.chmod(0o700)
    assert "ermission" in caught.value.message or "read-only" in caught.value.message


@pytest.mark.parametrize("place", ["a folder", "below a file", "/proc/store.db"])
def test_a_place_that_cannot_hold_a_file_is_named(tmp_path: Path, place: str) -> None:
    path = tmp_path
    if place == "below a file":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "store.db"
    elif place.startswith("/proc"):
        path = Path(place)
    with pytest.raises(StoreError, match="could not be opened") as caught:
        migrate(SqliteFile(path))
    assert str(path) in caught.value.message


def test_a_name_that_sqlite_would_take_for_something_else_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    migrate(SqliteFile(Path(":memory:")))
    migrate(SqliteFile(Path("file:store.db?mode=memory")))
    assert (tmp_path / ":memory:").stat().st_size > 0
    assert (tmp_path / "file:store.db?mode=memory").stat().st_size > 0


def test_readers_cannot_write(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "store.db")
    migrate(file)
    with (
        closing(file.connect(read_only=True)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM runs")


@pytest.mark.parametrize("fate", ["removed", "replaced"])
async def test_a_file_that_is_taken_away_is_noticed_before_anything_is_lost(
    tmp_path: Path, fate: str
) -> None:
    path = tmp_path / "store.db"
    store = open_store(path)
    run = new_run()
    await store.begin(run)
    assert await store.load(run.id, OWNER) == run
    path.unlink()
    if fate == "replaced":
        path.touch()
    with pytest.raises(StoreError, match="removed or replaced; restart"):
        await store.begin(new_run())
    with pytest.raises(StoreError, match="removed or replaced; restart"):
        await store.load(run.id, OWNER)
    await store.close()


async def test_a_file_that_is_damaged_while_open_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(path)
    for _ in range(50):
        await store.begin(new_run("x" * 2000))
    await store.close()
    store = open_store(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError, match="damaged; restore a backup"):
        await store.load("resp_1", OWNER)
    with pytest.raises(StoreError, match="damaged; restore a backup"):
        await store.begin(new_run())
    await store.close()
