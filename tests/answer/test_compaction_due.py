"""When a conversation is compacted, how much is kept of it, and when it is refused."""

from __future__ import annotations

import pytest

from doubles import scripted
from ouzel.answer import NOW, compacting
from ouzel.core.errors import ContextLengthExceeded, RequestError
from ouzel.core.items import Compaction, Item, Message, Text
from ouzel.core.request import Request
from ouzel.loop import compacted, context
from ouzel.loop.compacted import Left, Line
from ouzel.loop.toolbox import NO_TOOLS

WINDOW = 1000


def said(words: int, role: str = "user") -> Message:
    """A message of so many tokens, as the scripted engine counts them: its words and one."""
    return Message("msg", role, (Text("word " * (words - 1)),))


def turns(rounds: int, words: int = 50) -> list[Item]:
    return [said(words, role) for _ in range(rounds) for role in ("user", "assistant")]


async def due(items: list[Item], *, seal=str.upper, **asked):
    engine = scripted(window=WINDOW)
    await engine.start()
    request = Request("responses", "m", tuple(items[-1:]), **asked)
    turn = context.assemble(request, items[:-1], style="native")
    return await compacting.due(engine, request, tuple(items), turn, NO_TOOLS, "native", seal)


@pytest.mark.parametrize("asked", [{"truncation": "auto"}, {"compact_at": 0}, {"compact_at": 800}])
async def test_what_fits_is_left_as_it_is(asked):
    assert await due([*turns(6), said(50)], **asked) is None


@pytest.mark.parametrize(
    ("rounds", "asked", "wanted"),
    [
        (7, {"truncation": "auto"}, False),  # 750 tokens, and a quarter of the window is left
        (8, {"truncation": "auto"}, True),
        (8, {"truncation": "auto", "max_output_tokens": 100}, False),
        (9, {"truncation": "auto", "max_output_tokens": 100}, True),
        (7, {"compact_at": 0}, False),
        (8, {"compact_at": 0}, True),
        (5, {"compact_at": 600}, False),
        (6, {"compact_at": 600}, True),
        # A limit beyond the window means the window.
        (8, {"compact_at": 100_000}, True),
        (0, {"compact_at": NOW}, True),
        (8, {}, False),
    ],
)
async def test_it_is_due_above_the_limit(rounds, asked, wanted):
    assert (await due([*turns(rounds), said(50)], **asked) is not None) is wanted


async def test_afterwards_the_prompt_has_most_of_what_it_may_have():
    plan = await due([*turns(8), said(50)], compact_at=600)
    assert plan.prompt == 360
    assert plan.room == 310
    assert plan.most == 750
    assert plan.seal("a") == "A"
    # A token is a word of five characters here, and each message counts as one more.
    assert plan.tokens_a_character == pytest.approx(850 / (17 * 49 * 5), rel=0.01)


async def test_something_is_kept_where_the_last_message_alone_fills_most_of_it():
    plan = await due([*turns(4), said(500)], compact_at=600)
    assert plan.room == 90
    plan = await due([*turns(4), said(740)], truncation="auto")
    assert plan.room == 10
    plan = await due([*turns(4), said(900)], truncation="auto")
    assert (plan.room, plan.most) == (0, 900)


async def test_it_is_put_off_while_little_would_be_gained():
    left = compacted.write(Left(lines=(Line("word " * 100),)))
    items = [Compaction("cmp", left), *turns(1), said(500)]
    assert await due(items, compact_at=600) is not None
    assert await due([Compaction("cmp", left), said(500)], compact_at=600) is None


@pytest.mark.parametrize("asked", [{"truncation": "auto"}, {"compact_at": 0}, {"compact_at": NOW}])
async def test_a_message_that_does_not_fit_alone_is_refused(asked):
    with pytest.raises(ContextLengthExceeded) as caught:
        await due([*turns(4), said(1200)], **asked)
    assert "1000" in caught.value.message
    assert "1200" in caught.value.message


async def test_nothing_is_compacted_that_was_not_to_be():
    with pytest.raises(ContextLengthExceeded) as caught:
        await due([*turns(10), said(50)])
    assert "1050" in caught.value.message


async def test_without_keys_it_has_to_be_stored():
    plan = await due([*turns(8), said(50)], seal=None, compact_at=0, store=True)
    assert plan.seal("a") == ""
    with pytest.raises(RequestError, match="no key"):
        await due([*turns(8), said(50)], seal=None, compact_at=0)
    assert await due([*turns(2), said(50)], seal=None, compact_at=0) is None
