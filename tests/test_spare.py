"""Room for what can wait: live requests are never held up, and what gives way began last."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest

from ouzel.core.contracts_batches import Spare as Promised
from ouzel.core.errors import TooManyRequests
from ouzel.limits import AtOnce, Spare


def test_it_is_what_the_contract_promises() -> None:
    def check(spare: Promised) -> Promised:
        return spare

    assert check(Spare(4))


@pytest.mark.parametrize(
    ("slots", "most", "allowed"),
    [(1, 0, 1), (2, 0, 1), (4, 0, 3), (4, 2, 2), (4, 9, 3), (0, 0, 1), (1, 5, 1)],
)
async def test_one_slot_is_left_free_where_there_are_several(
    slots: int, most: int, allowed: int
) -> None:
    spare = Spare(slots, most)
    with ExitStack() as stack:
        for _ in range(allowed):
            await spare.room()
            stack.enter_context(spare.hold(lambda: None))
        waiting = asyncio.ensure_future(spare.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert spare.held == allowed
    async with asyncio.timeout(5):
        await waiting
    assert spare.held == 0


async def test_live_requests_take_the_room_of_the_youngest() -> None:
    spare = Spare(4)
    limiter = AtOnce(100, spare)
    gone: list[str] = []
    async with AsyncExitStack() as live:
        with ExitStack() as work:
            for name in "abc":
                await spare.room()
                work.enter_context(spare.hold(lambda name=name: gone.append(name)))
            expected = ["", "c", "cb", "cba", "cba", "cba"]
            for told in expected:
                await live.enter_async_context(limiter.admit("me"))
                assert "".join(gone) == told
            assert (spare.live, spare.held) == (6, 0)
            waiting = asyncio.ensure_future(spare.room())
            await asyncio.sleep(0)
            assert not waiting.done()
    async with asyncio.timeout(5):
        await waiting
    assert (spare.live, spare.held) == (0, 0)


async def test_what_needs_no_admission_takes_room_all_the_same() -> None:
    spare = Spare(2)
    limiter = AtOnce(1, spare)
    gone: list[str] = []
    with spare.hold(lambda: gone.append("a")), limiter.busy():
        assert (spare.live, limiter.running, gone) == (1, 0, [])
        with limiter.busy():
            assert (spare.live, gone) == (2, ["a"])
        async with limiter.admit("me"):
            assert (spare.live, limiter.running) == (2, 1)
    assert (spare.live, spare.held) == (0, 0)


async def test_there_is_room_again_as_soon_as_a_live_request_ends() -> None:
    spare = Spare(1)
    limiter = AtOnce(1, spare)
    async with limiter.admit("me"):
        waiting = asyncio.ensure_future(spare.room())
        with pytest.raises(TooManyRequests):
            await limiter.admit("me").__aenter__()
        assert spare.live == 1  # one that was refused needs no room
        assert not waiting.done()
    async with asyncio.timeout(5):
        await waiting


async def test_what_gave_way_and_ends_later_frees_no_room_twice() -> None:
    spare = Spare(2)
    with spare.hold(lambda: None):
        spare.came()
        spare.came()
        assert spare.held == 0
        spare.went()
        await spare.room()
        with spare.hold(lambda: None):
            assert spare.held == 1
    assert spare.held == 0
