"""What the store promises about files: kept, found, listed, opened, deleted, expired."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from files_samples import (
    OTHER,
    OWNER,
    Clock,
    body_of,
    chunks,
    drafts,
    keep,
    on_disk,
    opened,
    zeros,
)
from sqlalchemy.dialects import postgresql, sqlite

from ouzel.core.contracts_files import Files
from ouzel.core.errors import NotFound, RequestError, StoreError, TooLarge
from ouzel.core.files import Content
from ouzel.store import FileLimits, SqlFiles, open_files, open_store
from ouzel.store.files_sql import FileStatements
from ouzel.store.migrate import migrate
from ouzel.store.schema import Statement
from ouzel.store.sqlite import SqliteFile


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def files(tmp_path: Path, clock: Clock) -> AsyncIterator[SqlFiles]:
    async with opened(tmp_path, FileLimits(file=3 * 2**20, quota=5 * 2**20), clock) as (made, _):
        yield made


def test_it_is_what_the_contract_promises() -> None:
    promised = {name for name in vars(Files) if not name.startswith("_")}
    assert promised <= set(vars(SqlFiles))


async def test_a_file_is_kept_as_it_came(files: SqlFiles, tmp_path: Path, clock: Clock) -> None:
    body = b"name,legs\nouzel,2\n"
    file = await files.create(
        OWNER, "C:\\birds\\legs.csv", "assistants", chunks(body[:7], b"", body[7:])
    )
    assert (file.name, file.size, file.purpose) == ("legs.csv", len(body), "assistants")
    assert (file.media_type, file.created_at, file.expires_at) == ("text/csv", clock.at, None)
    assert file.id.startswith("file-")
    assert await files.load(file.id, OWNER) == file
    assert await body_of(files, file) == body
    assert on_disk(tmp_path) == {file.id: len(body)}


async def test_a_large_file_comes_through_whole(files: SqlFiles) -> None:
    body = os.urandom(3 * 2**20)
    pieces = [body[at : at + 70_001] for at in range(0, len(body), 70_001)]
    file = await files.create(OWNER, "noise", "user_data", chunks(*pieces))
    assert await body_of(files, file) == body
    assert file.media_type == "application/octet-stream"


async def test_an_empty_file_is_a_file(files: SqlFiles) -> None:
    file = await files.create(OWNER, "nothing.txt", "user_data", chunks())
    assert (file.size, await body_of(files, file)) == (0, b"")


async def test_only_the_user_of_the_server_can_read_what_is_kept(
    files: SqlFiles, tmp_path: Path
) -> None:
    await keep(files)
    top = tmp_path / "files"
    for each in (top, *top.rglob("*")):
        mode = each.stat().st_mode
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), each


async def test_it_is_all_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as (files, _):
        file = await keep(files, b"once")
    async with opened(tmp_path) as (files, _):
        assert await files.load(file.id, OWNER) == file
        assert await body_of(files, file) == b"once"


async def test_a_file_that_is_too_large_leaves_nothing(files: SqlFiles, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="larger than 3 MB") as caught:
        await files.create(OWNER, "big", "user_data", zeros(3 * 2**20 + 1))
    assert (caught.value.code, caught.value.param) == ("file_too_large", "file")
    assert on_disk(tmp_path) == {}
    # Nor does it count.
    exact = await files.create(OWNER, "big", "user_data", zeros(3 * 2**20))
    assert exact.size == 3 * 2**20
    await files.create(OWNER, "rest", "user_data", zeros(2 * 2**20))


async def test_only_as_much_is_read_as_may_come(files: SqlFiles) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(1024)

    with pytest.raises(TooLarge):
        await files.create(OWNER, "endless", "user_data", endless())
    assert asked == 3 * 1024 + 1


async def test_sweeping_leaves_alone_what_arrives(files: SqlFiles, tmp_path: Path) -> None:
    (tmp_path / "files" / "drafts" / "file-left").write_bytes(b"left")
    (tmp_path / "files" / "drafts" / "somebody's folder").mkdir()

    async def swept() -> AsyncIterator[bytes]:
        yield bytes(2 * 2**20)
        assert await files.sweep() == 1
        yield b"end"

    file = await files.create(OWNER, "f", "user_data", swept())
    assert on_disk(tmp_path) == {file.id: 2 * 2**20 + 3}


async def test_a_client_that_goes_away_leaves_nothing(files: SqlFiles, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * 2**20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await files.create(OWNER, "half", "user_data", broken())
    assert on_disk(tmp_path) == {}
    assert await files.page(OWNER) == ([], False)


@pytest.mark.parametrize("yields", range(0, 40, 3))
async def test_a_cancelled_upload_is_kept_whole_or_not_at_all(
    files: SqlFiles, tmp_path: Path, yields: int
) -> None:
    pause = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(600 * 1024)
            if yields == 0:
                pause.set()
                await asyncio.sleep(3600)

    task = asyncio.create_task(files.create(OWNER, "f", "user_data", slow()))
    if yields == 0:
        await pause.wait()
    # Not a time: so many steps of the loop, each at least as long as a thread's answer takes.
    for _ in range(yields):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.wait([task])
    kept, _ = await files.page(OWNER)
    assert on_disk(tmp_path) == {each.id: 4 * 600 * 1024 for each in kept}
    assert drafts(tmp_path) == []
    assert task.cancelled() or kept
    # What did not stay does not count.
    for each in kept:
        await files.delete(each.id, OWNER)
    await files.create(OWNER, "a", "user_data", zeros(3 * 2**20))
    await files.create(OWNER, "b", "user_data", zeros(2 * 2**20))


async def test_a_caller_cancelled_while_it_opens_leaks_no_descriptor(files: SqlFiles) -> None:
    file = await keep(files)
    for delay in range(60):
        task = asyncio.create_task(files.open(file.id, OWNER))
        for _ in range(delay):
            await asyncio.sleep(0.0001)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result().close()
    assert not [each for each in psutil.Process().open_files() if file.id in each.path]


FOREIGN: list[Callable[[SqlFiles, str, str], object]] = [
    lambda files, file, owner: files.load(file, owner),
    lambda files, file, owner: files.open(file, owner),
    lambda files, file, owner: files.delete(file, owner),
    lambda files, file, owner: files.page(owner, after=file),
]


@pytest.mark.parametrize("ask", FOREIGN)
async def test_anothers_file_is_as_one_that_is_not_there(files: SqlFiles, ask: object) -> None:
    file = await keep(files)
    said = []
    for file_id, owner in ((file.id, OTHER), ("file-0", OWNER), ("\ud800", OWNER), ("\0", OWNER)):
        with pytest.raises(NotFound) as caught:
            await ask(files, file_id, owner)  # type: ignore[operator]
        said.append((caught.value.message.replace(file_id, "ID"), caught.value.code))
    assert set(said) == {("File with id 'ID' not found.", "not_found")}
    assert await body_of(files, file) == b"hello"


async def test_a_deleted_file_is_gone_but_who_reads_it_reads_on(
    files: SqlFiles, tmp_path: Path
) -> None:
    file = await keep(files, b"x" * 100_000)
    content = await files.open(file.id, OWNER)
    await files.delete(file.id, OWNER)
    assert on_disk(tmp_path) == {}
    assert await content.read(99_990, 100) == b"x" * 10
    content.close()
    for ask in (files.load, files.open, files.delete):
        with pytest.raises(NotFound):
            await ask(file.id, OWNER)


async def test_of_many_who_delete_a_file_one_succeeds(files: SqlFiles, tmp_path: Path) -> None:
    for _ in range(10):
        file = await keep(files)
        done = await asyncio.gather(
            *(files.delete(file.id, OWNER) for _ in range(8)), return_exceptions=True
        )
        assert done.count(None) == 1
        assert sum(isinstance(each, NotFound) for each in done) == 7
        assert on_disk(tmp_path) == {}


async def test_opening_while_it_is_deleted_finds_it_or_not(files: SqlFiles) -> None:
    for _ in range(30):
        file = await keep(files)
        found, _ = await asyncio.gather(
            files.open(file.id, OWNER), files.delete(file.id, OWNER), return_exceptions=True
        )
        assert isinstance(found, Content | NotFound)
        if isinstance(found, Content):
            assert await found.read(0, 9) == b"hello"
            found.close()


async def test_an_expired_file_is_gone_at_once_and_its_bytes_soon(
    files: SqlFiles, tmp_path: Path, clock: Clock
) -> None:
    short = [
        await files.create(OWNER, f"{n}", "user_data", chunks(b"short"), expires_after=60)
        for n in range(3)
    ]
    longer = await files.create(OTHER, "long", "user_data", chunks(b"long"), expires_after=61)
    ever = await keep(files, b"ever")
    assert short[0].expires_at == clock.at + 60
    assert await files.expire() == 0
    clock.at += 60
    for ask in (files.load, files.open, files.delete):
        with pytest.raises(NotFound):
            await ask(short[1].id, OWNER)
    assert await files.page(OWNER) == ([ever], False)
    assert await files.load(longer.id, OTHER) == longer
    assert await files.expire() == 3
    assert on_disk(tmp_path) == {longer.id: 4, ever.id: 4}
    clock.at += 1
    assert await files.expire() == 1
    assert await files.expire() == 0
    assert on_disk(tmp_path) == {ever.id: 4}


async def test_hundreds_expire_together_and_their_space_comes_back(
    tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path, FileLimits(quota=250), clock) as (files, _):
        await asyncio.gather(
            *(files.create(OWNER, "f", "user_data", chunks(b"1"), 5) for _ in range(250))
        )
        clock.at += 5
        assert await files.expire() == 250
        assert (await files.create(OWNER, "f", "user_data", zeros(250))).size == 250


async def test_bytes_that_were_taken_away_are_an_error_in_words(
    files: SqlFiles, tmp_path: Path
) -> None:
    file, cut = await keep(files), await keep(files)
    next((tmp_path / "files").rglob(file.id)).unlink()
    with pytest.raises(StoreError, match="missing on disk"):
        await files.open(file.id, OWNER)
    next((tmp_path / "files").rglob(cut.id)).write_bytes(b"he")
    with pytest.raises(StoreError, match="2 of 5 are there"):
        await files.open(cut.id, OWNER)
    await files.delete(file.id, OWNER)
    await files.delete(cut.id, OWNER)
    assert on_disk(tmp_path) == {}


async def test_a_link_in_the_place_of_a_file_is_not_followed(
    files: SqlFiles, tmp_path: Path
) -> None:
    file = await keep(files)
    place = next((tmp_path / "files").rglob(file.id))
    place.unlink()
    place.symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="cannot be opened"):
        await files.open(file.id, OWNER)


async def test_a_row_that_cannot_be_written_leaves_no_bytes(
    files: SqlFiles, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "ouzel.db", isolation_level=None)) as connection:
        connection.execute("ALTER TABLE files RENAME TO elsewhere")
        with pytest.raises(StoreError):
            await files.create(OTHER, "f", "user_data", zeros(100))
        connection.execute("ALTER TABLE elsewhere RENAME TO files")
    await files.sweep()
    assert on_disk(tmp_path) == {}
    await files.create(OTHER, "f", "user_data", zeros(3 * 2**20))
    await files.create(OTHER, "f", "user_data", zeros(2 * 2**20))


async def test_a_folder_that_cannot_be_used_is_an_error_in_words(tmp_path: Path) -> None:
    store = open_store(tmp_path / "ouzel.db")
    (tmp_path / "files").write_text("not a folder")
    with pytest.raises(StoreError, match=r"could not use .*files: .+"):
        open_files(store, tmp_path / "files")
    await store.close()


async def test_after_closing_nothing_is_taken(tmp_path: Path) -> None:
    async with opened(tmp_path) as (files, _):
        file = await keep(files)
    await files.close()
    with pytest.raises(StoreError, match="closed"):
        await keep(files)
    with pytest.raises(StoreError, match="closed"):
        await files.load(file.id, OWNER)
    assert on_disk(tmp_path) == {file.id: 5}


async def test_an_impossible_name_is_refused_before_anything_comes(files: SqlFiles) -> None:
    with pytest.raises(RequestError) as caught:
        await files.create(OWNER, "birds/..", "user_data", zeros(2**40))
    assert (caught.value.param, caught.value.code) == ("file", "invalid_value")


@pytest.mark.parametrize(
    "dialect", [sqlite.dialect(paramstyle="qmark"), postgresql.dialect(paramstyle="format")]
)
def test_every_statement_compiles_with_places_for_all_its_values(
    dialect: sa.engine.Dialect,
) -> None:
    statements = FileStatements(dialect)
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    found = [each for each in vars(statements).values() if isinstance(each, Statement)]
    assert set(statements.write_order) < set(found)
    for each in (*found, *statements.select_pages.values()):
        assert each.sql.count(mark) == len(each.names)
        assert not any(name.startswith("param_") for name in each.names)


def test_no_statement_reads_a_whole_table_or_sorts(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "store.db")
    migrate(file)
    statements = FileStatements(sqlite.dialect(paramstyle="qmark"))
    found = [each for each in vars(statements).values() if isinstance(each, Statement)]
    with closing(file.connect()) as database:
        for each in (*found, *statements.select_pages.values()):
            row = each.row(**dict.fromkeys(each.names, 0))
            plan = database.execute(f"EXPLAIN QUERY PLAN {each.sql}", row).fetchall()
            steps = "\n".join(step[3] for step in plan)
            assert "SCAN files" not in steps, each.sql
            assert "SCAN upload" not in steps, each.sql
            assert "TEMP B-TREE" not in steps, each.sql
