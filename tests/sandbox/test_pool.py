"""Who has an interpreter and who must wait: places, warm ones, and who gives way.

Interpreters are stand-ins here, so that each moment can be chosen; real ones are in
`test_containers.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ouzel.core.errors import ShuttingDown, ToolError
from ouzel.sandbox import pool as module
from ouzel.sandbox.pool import Pool, Seat

GB = 2**30


class Stand:
    """An interpreter that does nothing but live and end."""

    def __init__(self, log: list[str], name: str) -> None:
        self.alive = True
        self._log, self._name = log, name

    async def close(self) -> None:
        await asyncio.sleep(0.001)
        if self.alive:
            self._log.append(f"end {self._name}")
        self.alive = False


class Room:
    """A pool, and what happened in it. `gate` holds up starts until it is opened."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.kernels: list[Stand] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail = False
        self.places: set[str] = set()
        self.pool: Pool

    async def __call__(self, work: Path, memory: int, ahead: bool) -> Stand:
        await self.gate.wait()
        if self.fail:
            raise ToolError("It does not start.")
        self.log.append(f"start {work}" + (" ahead" if ahead else ""))
        self.kernels.append(Stand(self.log, str(work)))
        return self.kernels[-1]

    async def make(self) -> tuple[str, Path]:
        name = f"warm{len(self.kernels)}"
        self.places.add(name)
        return name, Path(name)

    async def remove(self, place: str) -> None:
        self.places.remove(place)

    async def hold(
        self, container: str, *, owner: str = "alice", within: float = 5.0, memory: int = GB
    ) -> Seat:
        deadline = asyncio.get_running_loop().time() + within
        return await self.pool.hold(container, owner, Path(container), memory, deadline)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.002)


@asynccontextmanager
async def a_room(*, most: int, warm: int = 0, grace: float = 0.0) -> AsyncIterator[Room]:
    room = Room()
    room.pool = Pool(room, room, most=most, warm=warm, warm_memory=GB, grace=grace)
    try:
        yield room
    finally:
        room.gate.set()
        await room.pool.close()
        assert not any(kernel.alive for kernel in room.kernels)
        assert room.pool.live == 0


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARM_PAUSE", 0.001)


async def test_an_interpreter_stays_its_containers() -> None:
    async with a_room(most=2) as room:
        first = await room.hold("a")
        room.pool.release(first)
        assert await room.hold("a") is first
        assert (await room.hold("b")) is not first
        assert room.log == ["start a", "start b"]


async def test_a_dead_one_is_replaced() -> None:
    async with a_room(most=1) as room:
        first = await room.hold("a")
        room.kernels[0].alive = False
        room.pool.release(first)
        second = await room.hold("a")
        assert second is not first
        room.kernels[1].alive = False
        room.pool.release(second)
        await room.hold("b")
        assert room.log == ["start a", "start a", "start b"]


async def test_one_that_died_in_silence_is_found() -> None:
    async with a_room(most=1) as room:
        room.pool.release(await room.hold("a"))
        room.kernels[0].alive = False
        room.pool.reap()
        await room.until(lambda: room.pool.live == 0)


async def test_the_one_idle_longest_gives_way() -> None:
    async with a_room(most=2) as room:
        for name in "ab":
            room.pool.release(await room.hold(name))
            await asyncio.sleep(0.005)
        room.pool.release(await room.hold("a"))
        await room.hold("c")
        assert room.log == ["start a", "start b", "end b", "start c"]
        assert room.pool.live == 2


async def test_nobody_gives_way_within_the_grace_or_while_running() -> None:
    async with a_room(most=2, grace=0.2) as room:
        busy = await room.hold("a")
        room.pool.release(await room.hold("b"))
        with pytest.raises(ToolError, match="busy"):
            await room.hold("c", within=0.05)
        await room.hold("c")
        assert room.log == ["start a", "start b", "end b", "start c"]
        with pytest.raises(ToolError, match="busy"):
            await room.hold("d", within=0.3)
        assert busy.usable


async def test_waiters_are_served_owner_by_owner() -> None:
    async with a_room(most=1) as room:
        seat = await room.hold("x", owner="x")
        served: list[str] = []

        async def use(container: str, owner: str) -> None:
            mine = await room.hold(container, owner=owner)
            served.append(container)
            room.pool.release(mine)

        asked = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")]
        tasks = []
        for container, owner in asked:
            tasks.append(asyncio.create_task(use(container, owner)))
            await asyncio.sleep(0)
        room.pool.release(seat)
        await asyncio.gather(*tasks)
        assert served == ["a1", "b1", "c1", "a2", "a3"]


async def test_a_warm_one_is_taken_once_and_replaced() -> None:
    async with a_room(most=4, warm=1) as room:
        room.pool.start()
        await room.until(lambda: room.pool.warm == 1)
        first = await room.hold("a")
        assert (first.place, first.holder) == ("warm0", "a")
        room.pool.release(first)
        await room.until(lambda: room.pool.warm == 1)
        second = await room.hold("b")
        assert second.kernel is not first.kernel
        assert room.log[:2] == ["start warm0 ahead", "start warm1 ahead"]
        assert {"warm0", "warm1"} <= room.places


async def test_one_that_is_being_warmed_is_waited_for() -> None:
    async with a_room(most=4, warm=1) as room:
        room.gate.clear()
        room.pool.start()
        await room.until(lambda: bool(room.places))
        holding = asyncio.create_task(room.hold("a"))
        other = asyncio.create_task(room.hold("b"))
        await asyncio.sleep(0.01)
        room.gate.set()
        assert (await holding).place == "warm0"
        assert (await other).place == ""


async def test_a_warm_one_with_other_memory_is_left() -> None:
    async with a_room(most=4, warm=1) as room:
        room.pool.start()
        await room.until(lambda: room.pool.warm == 1)
        assert (await room.hold("a", memory=4 * GB)).place == ""
        assert room.pool.warm == 1


async def test_a_warm_one_gives_way_first_and_leaves_no_folder() -> None:
    async with a_room(most=2, warm=1) as room:
        room.pool.release(await room.hold("a"))
        room.pool.start()
        await room.until(lambda: room.pool.warm == 1)
        assert (await room.hold("b", memory=4 * GB)).usable
        assert "end a" not in room.log
        assert room.places == set()
        assert room.pool.warm == 0


async def test_a_dead_warm_one_is_not_handed_out() -> None:
    async with a_room(most=4, warm=1) as room:
        room.pool.start()
        await room.until(lambda: room.pool.warm == 1)
        room.kernels[0].alive = False
        assert (await room.hold("a")).kernel is not room.kernels[0]


async def test_a_start_that_fails_gives_its_place_back(caplog: pytest.LogCaptureFixture) -> None:
    async with a_room(most=1, warm=1) as room:
        room.fail = True
        for _ in range(2):
            with pytest.raises(ToolError, match="does not start"):
                await room.hold("a")
        with caplog.at_level(logging.WARNING):
            room.pool.start()
            await room.until(lambda: "started ahead" in caplog.text)
        assert room.places == set()
        room.fail = False
        await room.hold("a")


async def test_who_gives_up_while_it_starts_loses_nothing() -> None:
    async with a_room(most=1) as room:
        room.gate.clear()
        with pytest.raises(ToolError, match="busy"):
            await room.hold("a", within=0.01)
        room.gate.set()
        await room.hold("b")


async def test_dropping_ends_it_even_in_mid_cell() -> None:
    async with a_room(most=1) as room:
        seat = await room.hold("a")
        await room.pool.drop("a")
        assert not room.kernels[0].alive
        room.pool.release(seat)
        await room.pool.drop("a")
        await room.hold("b")


async def test_closing_ends_everything_and_turns_waiters_away() -> None:
    async with a_room(most=2, warm=1) as room:
        await room.hold("a")
        room.gate.clear()
        starting = asyncio.create_task(room.hold("b"))
        waiting = asyncio.create_task(room.hold("c"))
        await asyncio.sleep(0.01)
        await room.pool.close()
        found = await asyncio.gather(starting, waiting, return_exceptions=True)
        assert [type(each) for each in found] == [ShuttingDown, ShuttingDown]
        with pytest.raises(ShuttingDown):
            await room.hold("d")
