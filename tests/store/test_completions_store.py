"""Stored Chat Completions: lists, choices, and metadata that changes."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import OWNER, deltas, finished, new_run

from ouzel.core.contracts_state import Order, PageOf, StoredRuns
from ouzel.core.errors import NotFound, RequestError, StoreError
from ouzel.core.events import RunStatus
from ouzel.core.runs import Run
from ouzel.store import SqlStore, completions, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(path)
    yield opened
    await opened.close()


def completion(
    at: float,
    *,
    owner: str = OWNER,
    model: str = "o4-mini",
    served: str = "scripted",
    metadata: Mapping[str, str] | None = None,
    choice_of: str | None = None,
    run_id: str | None = None,
) -> Run:
    """A run of Chat Completions that has just begun."""
    run = new_run(owner=owner, created_at=at, run_id=run_id or f"chatcmpl-{at}")
    request = dataclasses.replace(
        run.request, protocol="chat", model=model, metadata=metadata or {}, choice_of=choice_of
    )
    return dataclasses.replace(run, model=served, request=request)


async def keep(store: SqlStore, run: Run) -> Run:
    """The run, begun and completed."""
    await store.begin(run)
    done = finished(run)
    await store.finish(done, 0, deltas(1))
    return done


async def page(store: SqlStore, owner: str = OWNER, **asked: Any) -> PageOf[Run]:
    """One page of a list; everything, oldest first, if nothing else is asked."""
    defaults = {"model": None, "metadata": {}, "after": None, "limit": 1000, "order": "asc"}
    return await store.page_runs(owner, **(defaults | asked))


def test_it_keeps_stored_runs_as_the_contract_says() -> None:
    promised = {name for name in vars(StoredRuns) if not name.startswith("_")}
    assert promised <= set(vars(SqlStore))


async def test_nothing_is_an_empty_page(store: SqlStore) -> None:
    assert await page(store) == PageOf(())


@pytest.mark.parametrize("status", get_args(RunStatus))
async def test_only_those_with_an_answer_are_there(store: SqlStore, status: RunStatus) -> None:
    run = completion(1.0)
    await store.begin(run)
    if status not in ("queued", "in_progress"):
        await store.finish(dataclasses.replace(finished(run), status=status), 0, [])
    there = status in ("completed", "incomplete")
    assert bool((await page(store)).entries) == there
    for ask in (
        store.choices_of(run.id, OWNER),
        store.change_metadata(run.id, OWNER, {"a": "b"}),
        page(store, after=run.id),
    ):
        if there:
            await ask
        else:
            with pytest.raises(RequestError):
                await ask


async def test_responses_choices_and_others_are_not_listed(store: SqlStore) -> None:
    mine = await keep(store, completion(1.0))
    choice = await keep(store, completion(2.0, choice_of=mine.id))
    theirs = await keep(store, completion(3.0, owner="bob"))
    response = await keep(store, new_run(created_at=4.0))
    assert await page(store) == PageOf((mine,))
    for other in (choice, theirs, response):
        with pytest.raises(NotFound) as caught:
            await store.choices_of(other.id, OWNER)
        assert caught.value.message == f"Chat completion with id '{other.id}' not found."
        with pytest.raises(NotFound):
            await store.change_metadata(other.id, OWNER, {})
        with pytest.raises(RequestError) as refused:
            await page(store, after=other.id)
        assert (refused.value.status, refused.value.param) == (400, "after")
    assert await store.load(theirs.id, "bob") == theirs


@pytest.mark.parametrize("absurd", ["", "x\x00", "chatcmpl-\ud800", "' OR 1=1 --", "c" * 100_000])
async def test_absurd_words_are_not_found(store: SqlStore, absurd: str) -> None:
    await keep(store, completion(1.0))
    with pytest.raises(NotFound):
        await store.choices_of(absurd, OWNER)
    with pytest.raises(NotFound):
        await store.change_metadata(absurd, OWNER, {})
    with pytest.raises(RequestError):
        await page(store, after=absurd)
    assert await page(store, model=absurd) == PageOf(())
    assert await page(store, metadata={absurd: absurd}) == PageOf(())


async def test_filters_leave_what_fits(store: SqlStore) -> None:
    plain = await keep(store, completion(1.0))
    tagged = await keep(store, completion(2.0, metadata={"a": "1", "b": "2"}))
    named = await keep(store, completion(3.0, model="gpt-5", metadata={"a": "1"}))
    served = await keep(store, completion(4.0, model="fast", served="gpt-5"))
    assert (await page(store, metadata={"a": "1"})).entries == (tagged, named)
    assert (await page(store, metadata={"a": "1", "b": "2"})).entries == (tagged,)
    assert (await page(store, metadata={"a": "2"})).entries == ()
    assert (await page(store, model="gpt-5")).entries == (named, served)
    assert (await page(store, model="o4-mini", metadata={})).entries == (plain, tagged)
    assert (await page(store, model="gpt-5", metadata={"a": "1"})).entries == (named,)


async def test_choices_come_in_order_and_go_together(store: SqlStore, path: Path) -> None:
    first = await keep(store, completion(1.0))
    others = [
        await keep(store, completion(at, choice_of=first.id, run_id=f"chatcmpl-{name}"))
        for at, name in ((2.0, "z"), (3.0, "a"), (4.0, "k"))
    ]
    other = await keep(store, completion(5.0))
    begun = completion(6.0, choice_of=first.id)
    await store.begin(begun)
    failed = dataclasses.replace(finished(begun), status="failed")
    await store.finish(failed, 0, [])
    # However one ended: if it were left out, the others would get its number.
    others.append(failed)
    assert await store.choices_of(first.id, OWNER) == (first, *others)
    assert await store.choices_of(other.id, OWNER) == (other,)
    await store.delete(first.id, OWNER)
    for run in (first, *others):
        with pytest.raises(NotFound):
            await store.load(run.id, OWNER)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT DISTINCT run_id FROM events").fetchall() == [(other.id,)]


async def test_another_owners_run_does_not_go_with_one_that_it_names(store: SqlStore) -> None:
    first = await keep(store, completion(1.0))
    theirs = await keep(store, completion(2.0, owner="bob", choice_of=first.id))
    assert await store.choices_of(first.id, OWNER) == (first,)
    await store.delete(first.id, OWNER)
    assert await store.load(theirs.id, "bob") == theirs


async def test_metadata_changes_and_nothing_else(store: SqlStore) -> None:
    run = await keep(store, completion(1.0, metadata={"a": "1"}))
    changed = await store.change_metadata(run.id, OWNER, {"b": "\x00"})
    assert changed.request.metadata == {"b": "\x00"}
    assert await store.load(run.id, OWNER) == changed
    before = dataclasses.replace(changed.request, metadata={"a": "1"})
    assert dataclasses.replace(changed, request=before) == run
    assert (await page(store, metadata={"b": "\x00"})).entries == (changed,)
    assert await store.events(run.id, OWNER) == deltas(1)


async def test_a_damaged_record_is_left_out_of_lists(
    store: SqlStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [await keep(store, completion(float(n), metadata={"a": "1"})) for n in range(4)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET body = 'torn' WHERE id = ?", (runs[1].id,))
        half = b'{"model":"m","request":{"model":"m","metadata":{"a":"1"}}}'
        connection.execute("UPDATE runs SET body = ? WHERE id = ?", (half, runs[2].id))
    expected = (runs[0], runs[3])
    assert (await page(store)).entries == expected
    assert (await page(store, metadata={"a": "1"})).entries == expected
    assert await page(store, after=runs[1].id, limit=1) == PageOf((runs[3],))
    assert runs[1].id in caplog.text
    assert runs[2].id in caplog.text
    with pytest.raises(StoreError, match="damaged"):
        await store.choices_of(runs[1].id, OWNER)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    times=st.lists(st.sampled_from([1.0, 1.5, 2.0, 2.25]), max_size=14),
    wanted=st.sampled_from([None, "0", "1"]),
    limit=st.integers(1, 16),
    order=st.sampled_from(get_args(Order)),
    at_once=st.integers(1, 6),
)
async def test_pages_hold_every_run_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[float],
    wanted: str | None,
    limit: int,
    order: Order,
    at_once: int,
) -> None:
    store = open_store(tmp_path_factory.mktemp("pages") / "store.db")
    runs = [
        await keep(store, completion(at, run_id=f"chatcmpl-{n}", metadata={"n": str(n % 2)}))
        for n, at in enumerate(times)
    ]
    fitting = [run for run in runs if wanted in (None, run.request.metadata["n"])]
    expected = sorted(fitting, key=lambda run: (run.created_at, run.id), reverse=order == "desc")
    metadata = {} if wanted is None else {"n": wanted}
    found: list[Run] = []
    more, after = True, None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completions, "AT_ONCE", at_once)
        while more:
            part = await page(store, after=after, limit=limit, order=order, metadata=metadata)
            found += part.entries
            more = part.more
            assert len(part.entries) <= limit
            assert more == (len(found) < len(expected))
            after = found[-1].id if found else None
    assert found == expected
    await store.close()


async def test_after_closing_every_call_is_refused(path: Path) -> None:
    store = open_store(path)
    run = await keep(store, completion(1.0))
    await store.close()
    for call in (
        page(store),
        page(store, after=run.id),
        store.choices_of(run.id, OWNER),
        store.change_metadata(run.id, OWNER, {}),
    ):
        with pytest.raises(StoreError, match="closed"):
            await call
