"""Who gets the next place: owners in turn, nobody twice, none lost."""

from __future__ import annotations

import asyncio

import pytest

from ouzel.core.errors import ShuttingDown
from ouzel.sandbox.places import Places


def nothing() -> None:
    pass


async def queue_up(places: Places, owners: str, served: list[str]) -> list[asyncio.Task[None]]:
    """One waiter for each letter, in this order."""

    async def wait(owner: str) -> None:
        await places.take(owner)
        served.append(owner)

    tasks = [asyncio.create_task(wait(owner)) for owner in owners]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_owners_are_served_in_turn() -> None:
    places, served = Places(1, nothing), list[str]()
    await places.take("x")
    tasks = await queue_up(places, "aaaabbc", served)
    assert places.waiting == 7
    for _ in tasks:
        places.give_back()
        await asyncio.sleep(0.001)
    assert "".join(served) == "abcabaa"
    assert (places.free, places.waiting) == (0, 0)


async def test_who_comes_late_does_not_overtake() -> None:
    places, served = Places(1, nothing), list[str]()
    await places.take("x")
    await queue_up(places, "a", served)
    places.give_back()
    assert not places.take_now()
    await asyncio.sleep(0.001)
    assert served == ["a"]
    places.give_back()
    assert places.take_now()


async def test_room_is_asked_for_only_when_there_is_none() -> None:
    asked = []
    places = Places(1, lambda: asked.append(places.waiting))
    await places.take("a")
    assert asked == []
    (task,) = await queue_up(places, "b", [])
    assert asked == [1]
    places.give_back()
    await task


async def test_room_may_be_made_at_once() -> None:
    def end_somebody() -> None:
        places.give_back()

    places = Places(1, end_somebody)
    await places.take("a")
    async with asyncio.timeout(1):
        await places.take("b")
    assert places.free == 0


async def test_a_waiter_that_gives_up_takes_nothing_with_it() -> None:
    places, served = Places(1, nothing), list[str]()
    await places.take("x")
    first, second = await queue_up(places, "ab", served)
    first.cancel()
    await asyncio.sleep(0)
    places.give_back()
    await second
    assert served == ["b"]
    # Granted and given up in the same moment: the place goes on to the next.
    third, fourth = await queue_up(places, "cd", served)
    places.give_back()
    third.cancel()
    await asyncio.gather(third, fourth, return_exceptions=True)
    assert third.cancelled()
    assert served == ["b", "d"]
    places.give_back()
    assert places.free == 1


async def test_a_waiter_whose_time_is_up_is_forgotten() -> None:
    places = Places(1, nothing)
    await places.take("x")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await places.take("a")
    assert places.waiting == 0
    places.give_back()
    assert places.free == 1


async def test_waiters_are_turned_away() -> None:
    places = Places(1, nothing)
    await places.take("x")
    tasks = await queue_up(places, "ab", [])
    places.turn_away(ShuttingDown("The server is being stopped."))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [ShuttingDown, ShuttingDown]
    places.give_back()
    assert places.free == 1


def test_there_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Places(0, nothing)
