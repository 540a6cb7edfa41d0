"""What the store promises about batches and their lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ouzel.core.contracts_batches import (
    Batch,
    BatchCounts,
    BatchEnding,
    Batches,
    BatchLine,
    BatchProblem,
)
from ouzel.core.errors import Conflict, NotFound, StoreError
from ouzel.core.turns import Usage
from ouzel.store import SqlStore, open_store
from ouzel.store.batches import SqlBatches
from ouzel.store.batches_sql import BatchStatements
from ouzel.store.codec import DamagedRecord
from ouzel.store.schema import Statement

OWNER, OTHER = "me", "other"


def batch(name: str = "batch_a", at: float = 100.0, owner: str = OWNER, **more: Any) -> Batch:
    plain = Batch(
        id=name,
        owner=owner,
        endpoint="/v1/responses",
        model="m",
        input_file_id="file-1",
        created_at=at,
        expires_at=at + 10,
    )
    return replace(plain, **more)


def waiting(*numbers: int) -> list[BatchLine]:
    return [BatchLine(number, "waiting", b"request %d" % number) for number in numbers]


def done(number: int, status: Any = "done") -> BatchLine:
    return BatchLine(number, status, result=b"result %d" % number)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(tmp_path / "ouzel.db")
    yield opened
    await opened.close()


@pytest.fixture
def batches(store: SqlStore) -> SqlBatches:
    return SqlBatches(store)


def test_it_is_what_the_contract_promises() -> None:
    promised = {name for name in vars(Batches) if not name.startswith("_")}
    assert promised <= set(vars(SqlBatches))


async def test_a_batch_comes_back_as_it_was_kept(batches, store) -> None:
    whole = batch(
        status="finalizing",
        metadata={"a": "b", "nul": "\0", "é": "\U0001f426"},
        output_seconds=3600.0,
        errors=(BatchProblem("code", "message", "param", 7), BatchProblem("other", "m")),
        counts=BatchCounts(9, 5, 3),
        usage=Usage(1, 2, 3, 4),
        in_progress_at=1.5,
        finalizing_at=2.5,
        cancelling_at=3.5,
        ending=BatchEnding("expired", "file-2", None, written=True),
    )
    await batches.create(whole)
    assert await batches.get("batch_a", OWNER) == whole
    assert await SqlBatches(store).get("batch_a", OWNER) == whole
    plain = batch("batch_b")
    await batches.create(plain)
    assert await batches.get("batch_b", OWNER) == plain
    with pytest.raises(StoreError):
        await batches.create(plain)


async def test_others_batches_are_not_there(batches) -> None:
    await batches.create(batch())
    for batch_id, owner in (("batch_a", OTHER), ("batch_b", OWNER), ("\ud800", OWNER), ("", OWNER)):
        with pytest.raises(NotFound):
            await batches.get(batch_id, owner)
        with pytest.raises(NotFound) as caught:
            await batches.page(owner, after=batch_id, limit=1)
        assert caught.value.param == "after"
    with pytest.raises(Conflict):
        await batches.change(batch(owner=OTHER, status="in_progress"), "validating")
    assert (await batches.get("batch_a", OWNER)).status == "validating"


async def test_pages_are_newest_first_and_of_one_owner(batches) -> None:
    for name, at in (("b", 2.0), ("a", 1.0), ("d", 2.0), ("c", 3.0)):
        await batches.create(batch(name, at))
    await batches.create(batch("x", 2.5, OTHER))
    seen, after = [], None
    while True:
        page = await batches.page(OWNER, after=after, limit=2)
        seen += [each.id for each in page.entries]
        if not page.more:
            break
        after = seen[-1]
    assert seen == ["c", "d", "b", "a"]
    assert [each.id for each in (await batches.page(OTHER, after=None, limit=5)).entries] == ["x"]


async def test_a_status_changes_only_from_the_one_that_was_seen(batches) -> None:
    await batches.create(batch())
    running = batch(status="in_progress")
    cancelling = batch(status="cancelling")
    both = await asyncio.gather(
        batches.change(running, "validating"),
        batches.change(cancelling, "validating"),
        return_exceptions=True,
    )
    assert both[0] is None
    assert isinstance(both[1], Conflict)
    assert (await batches.get("batch_a", OWNER)).status == "in_progress"


async def test_live_batches_are_every_owners_oldest_first(batches) -> None:
    states = ("validating", "failed", "in_progress", "finalizing", "completed", "cancelling")
    for number, status in enumerate((*states, "expired", "cancelled")):
        owner = OTHER if number % 2 else OWNER
        await batches.create(batch(f"b{number}", 10.0 - number, owner, status=status))
    assert [each.id for each in await batches.live()] == ["b5", "b3", "b2", "b0"]


async def test_lines_wait_get_a_result_and_go(batches, store) -> None:
    await batches.create(batch())
    assert await batches.last_line("batch_a") == 0
    await batches.add_lines("batch_a", [*waiting(1, 3), done(4, "failed")])
    await batches.add_lines("batch_a", waiting(7))
    assert await batches.last_line("batch_a") == 7
    for after, found in ((0, 1), (1, 3), (3, 7), (7, None)):
        line = await batches.next_line("batch_a", after)
        assert (line and line.number) == found
        assert line is None or line.request == b"request %d" % line.number
    await batches.record("batch_a", done(3))
    with pytest.raises(Conflict):
        await batches.record("batch_a", replace(done(3), result=b"another"))
    with pytest.raises(Conflict):
        await batches.record("batch_a", done(4))
    with pytest.raises(Conflict):
        await batches.record("batch_a", done(99))
    line = await batches.next_line("batch_a", 1)
    assert line is not None
    assert line.number == 7
    lines = await batches.lines("batch_a", after=0, limit=10)
    assert lines == [*waiting(1), done(3), done(4, "failed"), *waiting(7)]
    assert await batches.lines("batch_a", after=1, limit=2) == lines[1:3]
    # The same in the eyes of another process.
    for each in (batches, SqlBatches(store)):
        assert (await each.get("batch_a", OWNER)).counts == BatchCounts(4, 1, 1)
    await batches.drop_lines("batch_a", 4)
    assert await batches.lines("batch_a", after=0, limit=10) == waiting(7)
    await batches.drop_lines("batch_a", 4)


async def test_a_group_of_lines_is_kept_whole_or_not_at_all(batches) -> None:
    await batches.create(batch())
    await batches.add_lines("batch_a", waiting(1, 2))
    with pytest.raises(StoreError):
        await batches.add_lines("batch_a", waiting(3, 2))
    with pytest.raises(StoreError):
        await batches.add_lines("batch_unknown", waiting(1))
    assert await batches.last_line("batch_a") == 2
    assert (await batches.get("batch_a", OWNER)).counts.total == 2


async def test_counts_are_true_while_lines_are_recorded_together(batches, store) -> None:
    await batches.create(batch())
    await batches.add_lines("batch_a", waiting(*range(1, 201)))
    fresh = SqlBatches(store)  # has counted nothing yet

    async def look() -> None:
        for _ in range(20):
            counts = (await fresh.get("batch_a", OWNER)).counts
            assert counts.total == 200
            assert counts.completed + counts.failed <= 200

    await asyncio.gather(
        look(),
        *(fresh.record("batch_a", done(n, "failed" if n % 4 else "done")) for n in range(1, 201)),
    )
    assert (await fresh.get("batch_a", OWNER)).counts == BatchCounts(200, 50, 150)


async def test_the_counts_of_one_that_ends_are_those_it_had(batches) -> None:
    await batches.create(batch())
    await batches.add_lines("batch_a", [*waiting(1), done(2)])
    known = await batches.get("batch_a", OWNER)
    ending = replace(known, status="finalizing", ending=BatchEnding("expired"))
    await batches.change(ending, "validating")
    await batches.drop_lines("batch_a", 10)
    ended = replace(ending, status="expired", ended_at=5.0)
    await batches.change(ended, "finalizing")
    assert (await batches.get("batch_a", OWNER)).counts == BatchCounts(2, 1, 0)


async def test_a_damaged_record_is_told(batches, store) -> None:
    await batches.create(batch())
    with sa.create_engine(f"sqlite:///{store.writer._file.path}").begin() as connection:
        connection.execute(sa.text("UPDATE batches SET body = x'7b7d'"))
    with pytest.raises(DamagedRecord):
        await batches.get("batch_a", OWNER)


async def test_what_was_written_survives(tmp_path: Path) -> None:
    for turn in range(3):
        store = open_store(tmp_path / "ouzel.db")
        batches = SqlBatches(store)
        if not turn:
            await batches.create(batch())
            await batches.add_lines("batch_a", waiting(1, 2, 3))
        await batches.record("batch_a", done(turn + 1))
        assert (await batches.live())[0].counts == BatchCounts(3, turn + 1, 0)
        await store.close()


@pytest.mark.parametrize("dialect", [sqlite.dialect(paramstyle="qmark"), postgresql.dialect()])
def test_every_statement_compiles(dialect) -> None:
    dialect.positional, dialect.paramstyle = True, "format"
    made = BatchStatements(dialect)
    statements = [each for each in vars(made).values() if isinstance(each, Statement)]
    assert len(statements) == 11
    assert set(made.write_order) <= set(statements)
