"""Pages of files: every file once, in order, whatever comes and goes; and fast for very many."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from files_samples import OTHER, OWNER, Clock, chunks, keep, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ouzel.core.contracts_files import Order
from ouzel.core.errors import NotFound
from ouzel.core.files import FileInfo
from ouzel.store import SqlFiles

PURPOSES = ("assistants", "user_data", "vision")
MANY = 100_000


async def walk(
    files: SqlFiles, limit: int, order: Order, purpose: str | None = None
) -> list[FileInfo]:
    """All pages, one after another."""
    found: list[FileInfo] = []
    more = True
    while more:
        after = found[-1].id if found else None
        page, more = await files.page(OWNER, purpose=purpose, after=after, limit=limit, order=order)
        assert len(page) == limit or not more
        found += page
    return found


FILE = st.tuples(
    st.sampled_from([OWNER, OWNER, OTHER]),
    st.sampled_from(PURPOSES),
    st.integers(0, 2),  # seconds since the one before: some come at the same moment
    st.sampled_from([None, None, 1.0, 1000.0]),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    made=st.lists(FILE, max_size=25),
    limit=st.integers(1, 9),
    order=st.sampled_from(["asc", "desc"]),
    purpose=st.sampled_from([None, *PURPOSES]),
)
async def test_pages_show_every_file_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[str, str, int, float | None]],
    limit: int,
    order: Order,
    purpose: str | None,
) -> None:
    clock = Clock()
    async with opened(tmp_path_factory.mktemp("pages"), None, clock) as (files, _):
        kept = []
        for owner, use, seconds, life in made:
            clock.at += seconds
            kept.append(await files.create(owner, "f", use, chunks(b"x"), life))
        expected = [
            each
            for each in kept
            if each.owner == OWNER
            and purpose in (None, each.purpose)
            and (each.expires_at is None or each.expires_at > clock.at)
        ]
        expected.sort(key=lambda each: (each.created_at, each.id), reverse=order == "desc")
        assert await walk(files, limit, order, purpose) == expected


async def test_what_comes_and_goes_between_pages_disturbs_nobody(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, None, clock) as (files, _):
        made = []
        for _ in range(6):
            clock.at += 1
            made.append(await keep(files))
        page, more = await files.page(OWNER, limit=2)
        assert (page, more) == (made[:3:-1], True)
        await files.delete(made[3].id, OWNER)
        clock.at += 1
        await keep(files)
        page, more = await files.page(OWNER, after=page[-1].id, limit=2)
        assert (page, more) == ([made[2], made[1]], True)
        await files.delete(made[1].id, OWNER)
        with pytest.raises(NotFound):
            await files.page(OWNER, after=made[1].id)
        assert await files.page(OWNER, purpose="\ud800") == ([], False)
        assert await files.page("\0", purpose="x'; --") == ([], False)


async def test_a_page_of_very_many_files_reads_no_more_than_it_shows(tmp_path: Path) -> None:
    """Counted in SQLite's own steps, which do not depend on how busy the machine is."""
    async with opened(tmp_path) as (files, store):
        with closing(sqlite3.connect(tmp_path / "ouzel.db")) as connection, connection:
            connection.executemany(
                "INSERT INTO files VALUES (?, ?, 'f', 1, ?, 'text/plain', ?, NULL)",
                (
                    (f"file-{n:06}", OWNER, PURPOSES[n % 50 == 0], float(n // 3))
                    for n in range(MANY)
                ),
            )
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        def watch(connection: sqlite3.Connection) -> None:
            connection.set_progress_handler(count, 100)

        # Both readers, each in its thread.
        for _ in range(20):
            await asyncio.gather(*(store.readers.read(watch, "watch") for _ in range(4)))
        for after in (None, "file-000002", "file-050000", "file-099998"):
            for purpose in (None, "user_data"):
                for order in ("asc", "desc"):
                    page, more = await files.page(
                        OWNER, after=after, purpose=purpose, limit=20, order=order
                    )
                    assert len(page) == 20 or not more
        assert 0 < steps < 200, "hundreds of steps for a page, not hundreds of thousands"
        everything = await walk(files, 10_000, "asc")
        assert [each.id for each in everything] == [f"file-{n:06}" for n in range(MANY)]
