"""What the store promises of conversations, and of runs that are added to them."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import OWNER, ending, finished, new_run, said

from ouzel.core.contracts_state import Conversation, Conversations, Order, PageOf
from ouzel.core.errors import NotFound, RequestError, StoreError
from ouzel.core.events import RunStatus
from ouzel.core.items import Compaction, Image, Item, Message, Reasoning, Text
from ouzel.core.runs import Run
from ouzel.store import SqlConversations, SqlStore, codec, open_store

patient = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(path)
    yield opened
    await opened.close()


@pytest.fixture
def conversations(store: SqlStore) -> SqlConversations:
    return store.conversations


def numbered(count: int, first: int = 0) -> list[Item]:
    """Messages whose ids and texts tell their place."""
    return [Message(f"msg_{n}", "user", (Text(f"text {n}"),)) for n in range(first, first + count)]


def in_conversation(made: Conversation, *items: Item, owner: str = OWNER) -> Run:
    """A run of the conversation that has just begun."""
    run = new_run(owner=owner)
    request = dataclasses.replace(
        run.request, conversation_id=made.id, input=items or run.request.input
    )
    return dataclasses.replace(run, request=request)


def change(path: Path, sql: str, *row: object) -> None:
    """What no code of ours does to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql, row)


def test_they_are_the_conversations_of_the_contract() -> None:
    promised = {name for name in vars(Conversations) if not name.startswith("_")}
    assert promised <= set(vars(SqlConversations))


async def test_a_conversation_is_kept_with_its_items(conversations: SqlConversations) -> None:
    items = numbered(3)
    made = await conversations.create(OWNER, {"topic": "birds"}, items)
    assert made.id.startswith("conv_")
    assert made.owner == OWNER
    assert await conversations.get(made.id, OWNER) == made
    assert await conversations.history(made.id, OWNER) == tuple(items)
    assert await conversations.item(made.id, OWNER, "msg_1") == items[1]
    await conversations.add(made.id, OWNER, numbered(2, 3))
    assert await conversations.history(made.id, OWNER) == tuple(numbered(5))


async def test_it_is_still_there_after_closing(path: Path) -> None:
    store = open_store(path)
    items: list[Item] = [
        said("user", "NUL \x00, emoji 🐦, line \u2028"),
        Message("msg_2", "user", (Text("See:"), Image("https://example.com/a.png", detail="low"))),
        Reasoning("rs_1", "thought", ("in short",), sealed="gAAAA"),
        Compaction("cmp_1", "What was said.", "gAAAB"),
    ]
    made = await store.conversations.create(OWNER, {"a": "\x00", "ü": "🐦"}, items)
    await store.close()
    store = open_store(path)
    assert await store.conversations.get(made.id, OWNER) == made
    assert await store.conversations.history(made.id, OWNER) == tuple(items)
    await store.close()


async def test_one_without_items_is_empty(conversations: SqlConversations) -> None:
    made = await conversations.create(OWNER, {}, [])
    assert await conversations.history(made.id, OWNER) == ()
    await conversations.add(made.id, OWNER, [])
    page = await conversations.page(made.id, OWNER, after=None, limit=10, order="asc")
    assert page == PageOf((), False)


async def test_metadata_is_replaced(conversations: SqlConversations) -> None:
    made = await conversations.create(OWNER, {"a": "1", "b": "2"}, numbered(1))
    changed = await conversations.update(made.id, OWNER, {"c": "3"})
    assert changed == dataclasses.replace(made, metadata={"c": "3"})
    assert await conversations.get(made.id, OWNER) == changed
    assert await conversations.history(made.id, OWNER) == tuple(numbered(1))


async def test_an_item_is_taken_out(conversations: SqlConversations) -> None:
    made = await conversations.create(OWNER, {}, numbered(4))
    for gone in ("msg_1", "msg_3"):
        assert await conversations.remove(made.id, OWNER, gone) == made
        for again in (conversations.item, conversations.remove):
            with pytest.raises(NotFound, match=f"Item with id '{gone}' not found"):
                await again(made.id, OWNER, gone)
    # Its id is free again, and its place is not.
    await conversations.add(made.id, OWNER, numbered(1, 1))
    history = await conversations.history(made.id, OWNER)
    assert [item.id for item in history] == ["msg_0", "msg_2", "msg_1"]


async def test_deleting_leaves_nothing_but_the_runs(store: SqlStore, path: Path) -> None:
    made = await store.conversations.create(OWNER, {}, numbered(3))
    other = await store.conversations.create(OWNER, {}, numbered(2))
    run = in_conversation(made)
    await store.begin(run)
    await store.finish(finished(run), 0, [])
    await store.conversations.delete(made.id, OWNER)
    for call in every_call(store.conversations, made.id, OWNER):
        with pytest.raises(NotFound):
            await call()
    assert (await store.load(run.id, OWNER)).status == "completed"
    assert await store.conversations.history(other.id, OWNER) == tuple(numbered(2))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM conversation_items").fetchone() == (2,)


def every_call(
    conversations: SqlConversations, conversation_id: str, owner: str, item_id: str = "msg_0"
) -> list[Callable[[], Awaitable[object]]]:
    """Whatever can be asked of a conversation."""
    where = (conversation_id, owner)
    return [
        lambda: conversations.get(*where),
        lambda: conversations.update(*where, {"a": "b"}),
        lambda: conversations.delete(*where),
        lambda: conversations.add(*where, numbered(1, 90)),
        lambda: conversations.add(*where, numbered(1, 90), skip_known=True),
        lambda: conversations.add(*where, []),
        lambda: conversations.page(*where, after=None, limit=5, order="asc"),
        lambda: conversations.page(*where, after=item_id, limit=5, order="asc"),
        lambda: conversations.item(*where, item_id),
        lambda: conversations.remove(*where, item_id),
        lambda: conversations.history(*where),
    ]


async def test_another_owners_is_answered_like_one_that_does_not_exist(
    conversations: SqlConversations,
) -> None:
    made = await conversations.create(OWNER, {"a": "1"}, numbered(2))
    foreign = every_call(conversations, made.id, "bob")
    unknown = every_call(conversations, "conv_0", OWNER)
    for one, other in zip(foreign, unknown, strict=True):
        answers = []
        for call, conversation_id in ((one, made.id), (other, "conv_0")):
            with pytest.raises(NotFound) as caught:
                await call()
            error = caught.value
            answers.append((error.message.replace(conversation_id, "ID"), error.code, error.param))
        assert (
            answers[0] == answers[1] == ("Conversation with id 'ID' not found.", "not_found", None)
        )
    assert await conversations.get(made.id, OWNER) == made
    assert await conversations.history(made.id, OWNER) == tuple(numbered(2))


@pytest.mark.parametrize("absurd", ["", "x\x00", "conv_\ud800", "' OR 1=1 --", "c" * 100_000])
async def test_absurd_ids_are_not_found(conversations: SqlConversations, absurd: str) -> None:
    for call in every_call(conversations, absurd, OWNER):
        with pytest.raises(NotFound):
            await call()
    made = await conversations.create(OWNER, {}, numbered(1))
    for ask in (conversations.item, conversations.remove):
        with pytest.raises(NotFound):
            await ask(made.id, OWNER, absurd)
    with pytest.raises(RequestError) as caught:
        await conversations.page(made.id, OWNER, after=absurd, limit=1, order="asc")
    assert (caught.value.status, caught.value.param) == (400, "after")


async def test_items_of_another_conversation_are_not_found(
    conversations: SqlConversations,
) -> None:
    one = await conversations.create(OWNER, {}, numbered(2))
    other = await conversations.create("bob", {}, numbered(2, 2))
    with pytest.raises(NotFound):
        await conversations.item(one.id, OWNER, "msg_2")
    with pytest.raises(NotFound):
        await conversations.remove(one.id, OWNER, "msg_2")
    with pytest.raises(RequestError, match="msg_2"):
        await conversations.page(one.id, OWNER, after="msg_2", limit=5, order="asc")
    assert len(await conversations.history(other.id, "bob")) == 2


async def test_an_id_that_is_there_already_is_refused_with_all_that_came_with_it(
    conversations: SqlConversations,
) -> None:
    made = await conversations.create(OWNER, {}, numbered(3))
    for items in (numbered(2, 2), [*numbered(1, 5), *numbered(1, 5)]):
        with pytest.raises(RequestError) as caught:
            await conversations.add(made.id, OWNER, items)
        assert (caught.value.status, caught.value.param) == (400, "items")
        assert caught.value.code == "duplicate_item"
    with pytest.raises(RequestError, match="msg_7"):
        await conversations.create(OWNER, {}, [*numbered(8), *numbered(1, 7)])
    assert await conversations.history(made.id, OWNER) == tuple(numbered(3))


async def test_what_is_known_can_be_left_out(conversations: SqlConversations) -> None:
    made = await conversations.create(OWNER, {}, numbered(3))
    changed = Message("msg_1", "user", (Text("something else"),))
    more = [changed, *numbered(2, 2), *numbered(1, 3)]
    await conversations.add(made.id, OWNER, more, skip_known=True)
    assert await conversations.history(made.id, OWNER) == tuple(numbered(4))


async def test_of_two_that_add_one_id_at_once_one_is_refused(
    conversations: SqlConversations,
) -> None:
    made = await conversations.create(OWNER, {}, [])
    outcomes = await asyncio.gather(
        *(conversations.add(made.id, OWNER, numbered(3)) for _ in range(5)),
        return_exceptions=True,
    )
    assert outcomes.count(None) == 1
    refused = [each for each in outcomes if each is not None]
    assert all(isinstance(each, RequestError) and each.param == "items" for each in refused)
    assert await conversations.history(made.id, OWNER) == tuple(numbered(3))


async def test_one_that_is_deleted_while_items_come_is_not_found(
    conversations: SqlConversations,
) -> None:
    for _ in range(10):
        made = await conversations.create(OWNER, {}, [])
        added, deleted = await asyncio.gather(
            conversations.add(made.id, OWNER, numbered(2)),
            conversations.delete(made.id, OWNER),
            return_exceptions=True,
        )
        assert deleted is None
        assert added is None or isinstance(added, NotFound)
        with pytest.raises(NotFound):
            await conversations.get(made.id, OWNER)


async def test_what_many_add_at_once_stays_together(conversations: SqlConversations) -> None:
    made = await conversations.create(OWNER, {}, [])
    await asyncio.gather(
        *(conversations.add(made.id, OWNER, numbered(5, 10 * n)) for n in range(40))
    )
    history = [int(item.id.removeprefix("msg_")) for item in await history_of(conversations, made)]
    blocks = [history[at : at + 5] for at in range(0, 200, 5)]
    assert sorted(blocks) == [list(range(10 * n, 10 * n + 5)) for n in range(40)]


async def history_of(conversations: SqlConversations, made: Conversation) -> tuple[Item, ...]:
    return await conversations.history(made.id, OWNER)


async def test_what_is_read_belongs_together_whatever_is_written_meanwhile(
    conversations: SqlConversations, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await conversations.create(OWNER, {}, numbered(3))
    decode = codec.decode_metadata

    def meanwhile(body: bytes) -> Mapping[str, str]:
        """Between the look for the conversation and the look at its items, all of it goes."""
        change(path, "DELETE FROM conversations")
        change(path, "DELETE FROM conversation_items")
        return decode(body)

    monkeypatch.setattr(codec, "decode_metadata", meanwhile)
    assert await conversations.history(made.id, OWNER) == tuple(numbered(3))
    with pytest.raises(NotFound):
        await conversations.history(made.id, OWNER)


async def test_a_damaged_item_is_an_error_until_it_is_taken_out(
    conversations: SqlConversations, path: Path
) -> None:
    made = await conversations.create(OWNER, {}, numbered(3))
    change(path, "UPDATE conversation_items SET body = 'torn' WHERE item_id = 'msg_1'")
    with pytest.raises(StoreError, match="stored item is damaged"):
        await conversations.history(made.id, OWNER)
    assert await conversations.item(made.id, OWNER, "msg_2") == numbered(1, 2)[0]
    await conversations.remove(made.id, OWNER, "msg_1")
    assert [item.id for item in await history_of(conversations, made)] == ["msg_0", "msg_2"]
    change(path, "UPDATE conversations SET metadata = '[]'")
    with pytest.raises(StoreError, match="stored conversation is damaged"):
        await conversations.get(made.id, OWNER)


async def test_what_json_cannot_hold_is_refused_and_nothing_kept(
    conversations: SqlConversations,
) -> None:
    made = await conversations.create(OWNER, {}, [])
    with pytest.raises(StoreError, match="surrogate"):
        await conversations.add(made.id, OWNER, [*numbered(1), said("user", "\ud800")])
    assert await conversations.history(made.id, OWNER) == ()


async def test_after_closing_every_call_is_refused(path: Path) -> None:
    store = open_store(path)
    made = await store.conversations.create(OWNER, {}, numbered(1))
    await store.close()
    for call in every_call(store.conversations, made.id, OWNER):
        with pytest.raises(StoreError, match="closed"):
            await call()
    with pytest.raises(StoreError, match="closed"):
        await store.conversations.create(OWNER, {}, [])


# Pages -------------------------------------------------------------------------------------------


@patient
@given(
    count=st.integers(0, 25),
    gone=st.sets(st.integers(0, 24)),
    limit=st.integers(1, 30),
    order=st.sampled_from(get_args(Order)),
)
async def test_pages_hold_every_item_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    gone: set[int],
    limit: int,
    order: Order,
) -> None:
    store = open_store(tmp_path_factory.mktemp("pages") / "store.db")
    conversations = store.conversations
    made = await conversations.create(OWNER, {}, numbered(count))
    await conversations.create(OWNER, {}, numbered(30))  # never seen
    for n in gone & set(range(count)):
        await conversations.remove(made.id, OWNER, f"msg_{n}")
    expected = [each for n, each in enumerate(numbered(count)) if n not in gone]
    if order == "desc":
        expected.reverse()
    found: list[Item] = []
    more, after = True, None
    while more:
        page = await conversations.page(made.id, OWNER, after=after, limit=limit, order=order)
        found += page.entries
        more = page.more
        assert len(page.entries) <= limit
        assert more == (len(found) < len(expected))
        after = found[-1].id if found else None
    assert found == expected
    await store.close()


# Runs that are added -----------------------------------------------------------------------------


async def test_a_run_that_ends_is_added_with_its_input_and_output(store: SqlStore) -> None:
    made = await store.conversations.create(OWNER, {}, numbered(2))
    question, thought, answer = said("user", "?"), Reasoning("rs_1", "hm"), said("assistant", "!")
    run = in_conversation(made, question)
    await store.begin(run)
    assert await store.conversations.history(made.id, OWNER) == tuple(numbered(2))
    done = finished(run, thought, answer)
    await store.finish(done, 0, ending(answer))
    expected = (*numbered(2), question, thought, answer)
    assert await store.conversations.history(made.id, OWNER) == expected
    assert await store.load(run.id, OWNER) == done
    assert len(await store.events(run.id, OWNER)) == 2


@pytest.mark.parametrize("status", get_args(RunStatus))
async def test_only_runs_that_ended_well_are_added(store: SqlStore, status: RunStatus) -> None:
    made = await store.conversations.create(OWNER, {}, [])
    run = in_conversation(made)
    await store.begin(run)
    await store.finish(dataclasses.replace(finished(run), status=status), 0, [])
    added = await store.conversations.history(made.id, OWNER)
    assert bool(added) == (status in ("completed", "incomplete"))


async def test_items_that_a_client_gives_back_are_not_added_twice(store: SqlStore) -> None:
    made = await store.conversations.create(OWNER, {}, numbered(3))
    again, new = numbered(1, 1)[0], said("user", "new")
    run = in_conversation(made, again, new, new)
    await store.begin(run)
    done = finished(run)
    await store.finish(done, 0, [])
    expected = (*numbered(3), new, *done.output)
    assert await store.conversations.history(made.id, OWNER) == expected
    assert await store.load(run.id, OWNER) == done


async def test_a_run_whose_conversation_is_gone_or_foreign_ends_all_the_same(
    store: SqlStore,
) -> None:
    gone = await store.conversations.create(OWNER, {}, numbered(1))
    foreign = await store.conversations.create("bob", {}, numbered(1))
    runs = [in_conversation(each) for each in (gone, foreign)]
    for run in runs:
        await store.begin(run)
    await store.conversations.delete(gone.id, OWNER)
    for run in runs:
        await store.finish(finished(run), 0, ending(said("assistant", "Two.")))
        assert (await store.load(run.id, OWNER)).status == "completed"
        assert len(await store.events(run.id, OWNER)) == 2
    assert await store.conversations.history(foreign.id, "bob") == tuple(numbered(1))


async def test_a_run_that_cannot_be_kept_adds_nothing(store: SqlStore) -> None:
    made = await store.conversations.create(OWNER, {}, [])
    run = in_conversation(made)
    await store.begin(run)
    await store.append(run.id, 0, ending(said("assistant", "Two.")))
    with pytest.raises(StoreError, match="it is there already"):
        await store.finish(finished(run), 0, ending(said("assistant", "Two.")))
    await store.delete(run.id, OWNER)
    with pytest.raises(StoreError, match="deleted or never begun"):
        await store.finish(finished(run), 2, [])
    assert await store.conversations.history(made.id, OWNER) == ()


async def test_runs_of_many_conversations_that_end_at_once_do_not_mix(store: SqlStore) -> None:
    made = await asyncio.gather(*(store.conversations.create(OWNER, {}, []) for _ in range(10)))

    async def turn(number: int) -> None:
        conversation = made[number % 10]
        run = in_conversation(conversation, said("user", f"{number}"))
        await store.begin(run)
        await store.finish(finished(run, said("assistant", f"{number}")), 0, [])

    # Five of each at once: not what the answer room does, and still whole.
    await asyncio.gather(*(turn(number) for number in range(50)))
    for at, conversation in enumerate(made):
        items = await history_of(store.conversations, conversation)
        texts = [item.text for item in items if isinstance(item, Message)]
        assert texts[::2] == texts[1::2], "each question is followed by its answer"
        assert sorted(map(int, texts[::2])) == list(range(at, 50, 10))
