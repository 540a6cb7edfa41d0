"""What the store promises to the rooms that use it."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import OWNER, deltas, end_all, ending, finished, new_run, opening, said

from ouzel.core.contracts import Store
from ouzel.core.errors import NotFound, StoreError
from ouzel.core.events import Event, Failure, ItemDone, ItemStarted, RunFinished
from ouzel.core.items import Reasoning
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.store import SqlStore, open_store
from ouzel.store.sql import DAMAGED

STOPPED = Failure("server_error", "The server was stopped while this response was running.", 500)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(path)
    yield opened
    await opened.close()


async def left(store: SqlStore) -> list[tuple[Run, list[Event]]]:
    """What is found at start-up."""
    return [each async for each in store.interrupted()]


def change(path: Path, sql: str, *row: object) -> None:
    """What no code of ours does to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql, row)


def test_it_is_the_store_of_the_contract(tmp_path: Path) -> None:
    promised = {name for name in vars(Store) if not name.startswith("_")}
    assert promised <= set(vars(SqlStore))


async def test_a_run_is_kept_from_its_first_event_to_its_last(store: SqlStore) -> None:
    run = new_run()
    answer = said("assistant", "Two.")
    first, middle, last = opening(answer), deltas(3), ending(answer)
    await store.begin(run)
    assert await store.load(run.id, OWNER) == run
    assert await store.events(run.id, OWNER) == []
    await store.append(run.id, 0, first)
    await store.append(run.id, 2, middle)
    assert await store.load(run.id, OWNER) == run
    done = finished(run, answer)
    await store.finish(done, 5, last)
    assert await store.load(run.id, OWNER) == done
    assert await store.events(run.id, OWNER) == [*first, *middle, *last]


async def test_a_run_is_still_there_after_closing(path: Path) -> None:
    store = open_store(path)
    run = new_run()
    await store.begin(run)
    await store.append(run.id, 0, deltas(2))
    await store.close()
    store = open_store(path)
    assert await store.load(run.id, OWNER) == run
    assert await store.events(run.id, OWNER) == deltas(2)
    await store.close()


@pytest.mark.parametrize("start", range(9))
async def test_events_are_read_from_any_index_on(store: SqlStore, start: int) -> None:
    run = new_run()
    await store.begin(run)
    for position, count in ((0, 1), (1, 3), (4, 2), (6, 1)):
        await store.append(run.id, position, deltas(count, position))
    assert await store.events(run.id, OWNER, start) == deltas(7)[start:]
    for limit in (1, 2, 3, 7, 100):
        some = await store.events(run.id, OWNER, start, limit)
        assert some == deltas(7)[start : start + limit]


async def test_appending_and_finishing_without_events_writes_none(store: SqlStore) -> None:
    run = new_run()
    await store.begin(run)
    await store.append(run.id, 0, [])
    await store.finish(finished(run), 0, [])
    assert await store.events(run.id, OWNER) == []
    assert (await store.load(run.id, OWNER)).status == "completed"


async def test_the_end_is_kept_whole_or_not_at_all(store: SqlStore) -> None:
    run = new_run()
    await store.begin(run)
    await store.append(run.id, 0, deltas(2))
    with pytest.raises(StoreError, match="it is there already"):
        await store.finish(finished(run), 0, ending(said("assistant", "Two.")))
    assert await store.load(run.id, OWNER) == run
    assert await store.events(run.id, OWNER) == deltas(2)


async def test_an_id_is_taken_once(store: SqlStore) -> None:
    run = new_run()
    await store.begin(run)
    with pytest.raises(StoreError, match=f"keep run {run.id}: it is there already"):
        await store.begin(new_run("another", run_id=run.id, owner="bob"))
    assert await store.load(run.id, OWNER) == run


async def test_a_run_that_was_deleted_takes_no_more_events(store: SqlStore) -> None:
    run = new_run()
    await store.begin(run)
    await store.delete(run.id, OWNER)
    for late in (
        store.append(run.id, 0, deltas(1)),
        store.finish(finished(run), 0, deltas(1)),
        store.finish(finished(run), 0, []),
    ):
        with pytest.raises(StoreError, match="deleted or never begun"):
            await late


async def test_deleting_leaves_nothing(store: SqlStore, path: Path) -> None:
    run, other = new_run("the first"), new_run("the second")
    for each in (run, other):
        await store.begin(each)
        await store.append(each.id, 0, deltas(3))
    await store.delete(run.id, OWNER)
    for read in (store.load, store.events, store.history, store.delete):
        with pytest.raises(NotFound):
            await read(run.id, OWNER)
    assert await store.load(other.id, OWNER) == other
    assert await store.events(other.id, OWNER) == deltas(3)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT run_id FROM events").fetchall() == [(other.id,)]


@pytest.mark.parametrize("verb", ["load", "events", "history", "delete"])
async def test_another_owners_run_is_answered_like_one_that_does_not_exist(
    store: SqlStore, verb: str
) -> None:
    run = new_run()
    await store.begin(run)
    await store.append(run.id, 0, deltas(1))
    done = finished(run)
    await store.finish(done, 1, [])
    answers = []
    for run_id, owner in ((run.id, "bob"), ("resp_0", OWNER)):
        with pytest.raises(NotFound) as caught:
            await getattr(store, verb)(run_id, owner)
        error = caught.value
        answers.append((error.message.replace(run_id, "ID"), error.code, error.param, error.status))
    assert answers[0] == answers[1]
    assert answers[0] == ("Response with id 'ID' not found.", "not_found", None, 404)
    assert await store.load(run.id, OWNER) == finished(
        run, *(await store.load(run.id, OWNER)).output
    )


@pytest.mark.parametrize("run_id", ["", "resp_\x00", "resp_\ud800", "' OR 1=1 --", "r" * 100_000])
async def test_an_absurd_id_is_not_found(store: SqlStore, run_id: str) -> None:
    for read in (store.load, store.events, store.history, store.delete):
        with pytest.raises(NotFound):
            await read(run_id, OWNER)


async def test_another_owner_cannot_end_a_run(store: SqlStore) -> None:
    run = new_run()
    await store.begin(run)
    stolen = finished(dataclasses.replace(run, owner="bob"))
    with pytest.raises(StoreError, match="deleted or never begun"):
        await store.finish(stolen, 0, deltas(1))
    assert await store.load(run.id, OWNER) == run
    assert await store.events(run.id, OWNER) == []


async def line(store: SqlStore, length: int) -> list[Run]:
    """Finished runs, each continuing the one before."""
    runs: list[Run] = []
    for n in range(length):
        run = new_run(f"question {n}", previous_id=runs[-1].id if runs else None)
        await store.begin(run)
        thought = Reasoning(f"rs_{n}", f"thought {n}")
        runs.append(finished(run, thought, said("assistant", f"answer {n}")))
        await store.finish(runs[-1], 0, [])
    return runs


async def test_history_runs_from_the_first_question_to_the_last_answer(store: SqlStore) -> None:
    runs = await line(store, 5)
    expected = [item for run in runs for item in (*run.request.input, *run.output)]
    assert await store.history(runs[-1].id, OWNER) == tuple(expected)
    assert await store.history(runs[1].id, OWNER) == tuple(expected[:6])
    assert await store.history(runs[0].id, OWNER) == tuple(expected[:3])


async def test_history_of_a_run_without_an_answer_is_its_input(store: SqlStore) -> None:
    run = new_run()
    await store.begin(run)
    assert await store.history(run.id, OWNER) == run.request.input


async def test_history_with_a_missing_link_is_not_found(store: SqlStore) -> None:
    runs = await line(store, 4)
    await store.delete(runs[1].id, OWNER)
    with pytest.raises(NotFound, match=runs[1].id):
        await store.history(runs[3].id, OWNER)
    assert len(await store.history(runs[0].id, OWNER)) == 3


async def test_history_does_not_cross_to_another_owner(store: SqlStore) -> None:
    secret = new_run("a secret", owner="bob")
    await store.begin(secret)
    run = new_run(previous_id=secret.id)
    await store.begin(run)
    with pytest.raises(NotFound, match=secret.id):
        await store.history(run.id, OWNER)


async def test_a_ring_of_runs_ends_in_an_error(store: SqlStore) -> None:
    one = new_run(run_id="resp_1", previous_id="resp_2")
    two = new_run(run_id="resp_2", previous_id="resp_1")
    for run in (one, two):
        await store.begin(run)
    with pytest.raises(StoreError, match="continues more than"):
        await store.history("resp_1", OWNER)


async def test_a_damaged_record_is_named_and_harms_no_other(store: SqlStore, path: Path) -> None:
    run, other = new_run(), new_run()
    for each in (run, other):
        await store.begin(each)
        await store.append(each.id, 0, deltas(2))
    change(path, "UPDATE runs SET body = '{\"id\": 1}' WHERE id = ?", run.id)
    with pytest.raises(StoreError, match="stored run is damaged"):
        await store.load(run.id, OWNER)
    change(path, "UPDATE events SET body = '[{}]' WHERE run_id = ?", run.id)
    with pytest.raises(StoreError, match="stored event is damaged"):
        await store.events(run.id, OWNER)
    assert await store.load(other.id, OWNER) == other
    assert await store.events(other.id, OWNER) == deltas(2)


async def test_a_part_of_a_log_is_read_without_the_rest(store: SqlStore, path: Path) -> None:
    run = new_run()
    await store.begin(run)
    for position in range(0, 100, 10):
        await store.append(run.id, position, deltas(10, position))
    # Whoever reads these would notice.
    change(path, "UPDATE events SET body = 'torn' WHERE position NOT IN (40, 50)")
    assert await store.events(run.id, OWNER, 45, 10) == deltas(10, 45)
    with pytest.raises(StoreError, match="damaged"):
        await store.events(run.id, OWNER, 45, 16)


@pytest.mark.parametrize("lost", [0, 2, 4])
async def test_a_gap_in_the_events_is_noticed(store: SqlStore, path: Path, lost: int) -> None:
    run = new_run()
    await store.begin(run)
    for position in (0, 2, 4, 6):
        await store.append(run.id, position, deltas(2, position))
    change(path, "DELETE FROM events WHERE position = ?", lost)
    with pytest.raises(StoreError, match=f"missing near index {lost}"):
        await store.events(run.id, OWNER, lost)
    assert await store.events(run.id, OWNER, 6) == deltas(2, 6)


async def test_a_text_of_every_kind_of_character_comes_back(store: SqlStore) -> None:
    run = new_run("NUL \x00, emoji 🐦, combining é, bidi \u202e, line \u2028, quote \" ' \\")
    await store.begin(run)
    assert await store.load(run.id, OWNER) == run


async def test_a_run_of_several_megabytes_is_kept(store: SqlStore) -> None:
    run = new_run("ä" * 8_000_000)
    await store.begin(run)
    assert await store.load(run.id, OWNER) == run


async def test_a_run_that_json_cannot_hold_is_refused_before_it_is_queued(store: SqlStore) -> None:
    with pytest.raises(StoreError, match="surrogate"):
        await store.begin(new_run("\ud800"))
    run = new_run()
    await store.begin(run)
    with pytest.raises(StoreError, match="surrogate"):
        await store.append(run.id, 0, [ItemStarted(0, said("assistant", "\ud800"))])
    assert await store.events(run.id, OWNER) == []


async def test_a_hundred_runs_at_once_do_not_mix(store: SqlStore) -> None:
    async def one(n: int) -> None:
        run = new_run(f"question {n}")
        await store.begin(run)
        for position in range(0, 20, 4):
            await store.append(run.id, position, deltas(4, 1000 * n + position))
            # What was acknowledged is seen at once, by every reader.
            assert len(await store.events(run.id, OWNER)) == position + 4
        done = finished(run, said("assistant", f"answer {n}"))
        await store.finish(done, 20, deltas(1, 1000 * n + 20))
        assert await store.load(run.id, OWNER) == done
        assert await store.events(run.id, OWNER) == deltas(21, 1000 * n)

    await asyncio.gather(*(one(n) for n in range(100)))


async def test_runs_left_by_a_dead_process_are_found_and_ended(store: SqlStore) -> None:
    answer = said("assistant", "Two.")
    bare = new_run("bare", created_at=1.0)
    half = new_run("half", created_at=2.0, owner="bob")
    queued = dataclasses.replace(new_run("queued", created_at=3.0), status="queued")
    whole = new_run("whole", created_at=4.0)
    for run in (bare, half, queued, whole):
        await store.begin(run)
    log = [*opening(answer), *deltas(2), ItemDone(0, answer), ItemStarted(1, said("assistant", ""))]
    await store.append(half.id, 0, log[:3])
    await store.append(half.id, 3, log[3:])
    await store.finish(finished(whole), 0, ending(answer))
    kept = await store.load(whole.id, OWNER)

    found = await left(store)
    assert found == [(bare, []), (half, log), (queued, [])]
    assert await end_all(store, STOPPED) == 3
    assert await left(store) == []
    assert await end_all(store, STOPPED) == 0

    for run, output, before in ((bare, (), []), (half, (answer,), log), (queued, (), [])):
        ended = await store.load(run.id, run.owner)
        assert (ended.status, ended.failure, ended.output) == ("failed", STOPPED, output)
        assert ended.finished_at is not None
        *earlier, last = await store.events(run.id, run.owner)
        assert earlier == before
        assert last == RunFinished("failed", Usage(), ended.finished_at, STOPPED)
    assert await store.load(whole.id, OWNER) == kept


async def test_interrupted_runs_may_be_ended_while_they_are_read(store: SqlStore) -> None:
    answer = said("assistant", "Two.")
    runs = [new_run(f"question {n}", created_at=float(n)) for n in range(50)]
    await asyncio.gather(*(store.begin(run) for run in runs))
    await asyncio.gather(*(store.append(run.id, 0, deltas(3)) for run in runs))
    seen: list[str] = []
    async for run, events in store.interrupted():
        seen.append(run.id)
        assert events == deltas(3)
        await store.append(run.id, 3, deltas(1, 3))
        await store.finish(finished(run, answer), 4, ending(answer))
        if len(seen) == 1:  # what ends or goes meanwhile is not met
            await store.finish(finished(runs[7]), 3, [])
            await store.delete(runs[8].id, OWNER)
            await store.begin(new_run("late"))
    assert seen == [run.id for n, run in enumerate(runs) if n not in (7, 8)]
    assert [run.request.input[0].text for run, _ in await left(store)] == ["late"]


async def test_one_damaged_record_does_not_keep_the_others_running(
    store: SqlStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound, no_run, no_events, gap, bare = (new_run(created_at=float(n)) for n in range(5))
    for run in (sound, no_run, no_events, gap):
        await store.begin(run)
        await store.append(run.id, 0, deltas(2))
        await store.append(run.id, 2, deltas(2, 2))
    await store.begin(bare)
    for run in (no_run, bare):
        change(path, "UPDATE runs SET body = 'torn' WHERE id = ?", run.id)
    change(path, "UPDATE events SET body = 'torn' WHERE run_id = ?", no_events.id)
    change(path, "DELETE FROM events WHERE run_id = ? AND position = 0", gap.id)
    assert await left(store) == [(sound, deltas(4))]
    # The others are ended already, for good.
    assert await left(store) == [(sound, deltas(4))]
    for run in (no_events, gap):
        ended = await store.load(run.id, OWNER)
        assert (ended.status, ended.failure, ended.output) == ("failed", DAMAGED, ())
        assert await store.events(run.id, OWNER, 4) == [
            RunFinished("failed", Usage(), ended.finished_at or 0.0, DAMAGED)
        ]
    for run in (no_run, bare):
        assert f"interrupted run {run.id}" in caplog.text
        with pytest.raises(StoreError, match="damaged"):
            await store.load(run.id, OWNER)
    assert await end_all(store, STOPPED) == 1
    assert (await store.load(sound.id, OWNER)).failure == STOPPED


async def test_after_closing_every_call_is_refused(path: Path) -> None:
    store = open_store(path)
    run = new_run()
    await store.begin(run)
    await store.close()
    await store.close()
    await asyncio.gather(store.close(), store.close())
    for call in (
        store.begin(new_run()),
        store.append(run.id, 0, deltas(1)),
        store.finish(finished(run), 0, []),
        store.load(run.id, OWNER),
        store.events(run.id, OWNER),
        store.history(run.id, OWNER),
        store.delete(run.id, OWNER),
        left(store),
    ):
        with pytest.raises(StoreError, match="closed"):
            await call
    assert not path.with_name("store.db-wal").exists(), "the log is folded into the file"


async def test_closing_writes_all_that_was_handed_in(path: Path) -> None:
    store = open_store(path)
    runs = [new_run(f"question {n}") for n in range(200)]
    writing = [asyncio.create_task(store.begin(run)) for run in runs]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writing)
    store = open_store(path)
    assert await asyncio.gather(*(store.load(run.id, OWNER) for run in runs)) == runs
    await store.close()


def test_two_stores_may_share_a_file(path: Path) -> None:
    async def both() -> None:
        first, second = open_store(path), open_store(path)
        runs = [new_run(f"question {n}") for n in range(40)]
        await asyncio.gather(
            *(store.begin(run) for store, run in zip([first, second] * 20, runs, strict=True))
        )
        for store in (second, first):
            assert await asyncio.gather(*(store.load(run.id, OWNER) for run in runs)) == runs
        await first.close()
        await second.close()

    asyncio.run(both())
