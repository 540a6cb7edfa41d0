"""The live interpreters: one for each container that runs code, and some started ahead.

An interpreter belongs to one container for its whole life; a warm one has none yet, and becomes
the first one's who asks. When all places are taken, warm ones give way first, then those that
have been idle the longest. Everything here runs on one event loop.

What a container is and where its files lie, this file does not know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ouzel.core.errors import OuzelError, ShuttingDown, ToolError
from ouzel.sandbox.kernel import Kernel
from ouzel.sandbox.places import Places

logger = logging.getLogger(__name__)

WARM_PAUSE: Final = 0.25
"""Seconds until the next warm interpreter is started: who took the last one comes first."""

WARM_PATIENCE: Final = 5.0
"""Seconds for which starting a warm interpreter is put off while cells run."""

WARM_AGAIN: Final = 30.0
"""Seconds until the next attempt after a warm interpreter did not come up."""

CLOSE_SECONDS: Final = 15.0
"""How long ending an interpreter may take before it is reported."""

BUSY: Final = (
    "The machine is busy: all interpreters are in use and none became free in time. Try again "
    "later, or answer without running code."
)


class Starter(Protocol):
    """Starts interpreters."""

    async def __call__(self, work: Path, memory: int, ahead: bool) -> Kernel:
        """An interpreter in this work folder with so many bytes; `ahead`: nobody waits for it,
        so it may load more than it needs. Raises ToolError."""
        ...


class WarmFolders(Protocol):
    """Makes the places in which interpreters are started ahead."""

    async def make(self) -> tuple[str, Path]:
        """A new place and its work folder. Raises OSError."""
        ...

    async def remove(self, place: str) -> None:
        """Raises OSError."""
        ...


@dataclass(slots=True, eq=False)
class Seat:
    """A live interpreter.

    Args:
        place: where it was started.
        memory: bytes that it may use.
        holder: its container's id; empty for a warm one.
        idle_since: time of the event loop; None while a cell runs.
        ending: the task that ends it.
    """

    kernel: Kernel
    place: str
    memory: int
    holder: str = ""
    idle_since: float | None = None
    ending: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether a cell can be run in it."""
        return self.ending is None and self.kernel.alive


class Pool:
    """The live interpreters.

    Args:
        most: how many live at once.
        warm: how many of them are started ahead.
        warm_memory: bytes that a warm one may use.
        grace: seconds without a cell after which one gives way.
    """

    def __init__(
        self,
        start: Starter,
        folders: WarmFolders,
        *,
        most: int,
        warm: int,
        warm_memory: int,
        grace: float,
    ) -> None:
        self._start = start
        self._folders = folders
        self._want_warm = min(warm, most)
        self._warm_memory = warm_memory
        self._grace = grace
        self._places = Places(most, self._make_room)
        self._held: dict[str, Seat] = {}
        self._warm: list[Seat] = []
        self._warming: asyncio.Event | None = None
        self._claimed = False
        self._starts: set[asyncio.Task[Kernel]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._running = 0

    def start(self) -> None:
        """Begin to keep warm ones."""
        if self._want_warm and self._keeper is None:
            self._wake.set()
            self._keeper = asyncio.create_task(self._keep_warm())

    async def close(self) -> None:
        """End all of them; nothing is left when it returns."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._places.turn_away(_stopping())
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        for starting in self._starts:
            starting.cancel()
        for seat in [*self._held.values(), *self._warm]:
            self._end(seat)
        while self._starts or self._ends:
            await asyncio.wait(self._starts | self._ends)

    @property
    def live(self) -> int:
        """Interpreters that are there, warm ones included."""
        return len(self._held) + len(self._warm)

    @property
    def warm(self) -> int:
        """Interpreters that wait for a container."""
        return len(self._warm)

    def idle(self) -> Iterator[Seat]:
        """Those of containers in which no cell runs."""
        for seat in list(self._held.values()):
            if seat.idle_since is not None and seat.ending is None:
                yield seat

    def reap(self) -> None:
        """Give the places of those back that died while nothing was asked of them."""
        for seat in [*self.idle(), *self._warm]:
            if seat.ending is None and not seat.kernel.alive:
                self._end(seat)

    async def hold(
        self, container: str, owner: str, work: Path, memory: int, deadline: float
    ) -> Seat:
        """The container's interpreter, for one cell. Whoever has it calls `release`.

        Its `place` is empty if it was started in `work`; otherwise it was started in that place,
        which is the container's from now on.

        Args:
            deadline: time of the event loop.

        Raises:
            ToolError: no place became free in time, or it did not come up.
            ShuttingDown: the pool is being closed.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._hold(container, owner, work, memory)
        except TimeoutError:
            raise ToolError(BUSY) from None

    def release(self, seat: Seat) -> None:
        """A cell is over."""
        self._running -= 1
        seat.idle_since = asyncio.get_running_loop().time()
        if seat.ending is None and not seat.kernel.alive:
            self._end(seat)
        elif self._places.waiting:
            self._make_room()

    async def drop(self, container: str) -> None:
        """End the container's interpreter if it has one; it is gone when this returns."""
        seat = self._held.get(container)
        if seat is not None:
            await asyncio.shield(self._end(seat))

    async def _hold(self, container: str, owner: str, work: Path, memory: int) -> Seat:
        seat = self._held.get(container)
        if seat is not None and seat.usable:
            return self._begin(seat)
        if seat is not None:
            await asyncio.shield(self._end(seat))
        warm = await self._take_warm() if memory == self._warm_memory else None
        seat = warm or await self._start_cold(owner, work, memory)
        seat.holder = container
        self._held[container] = seat
        return self._begin(seat)

    def _begin(self, seat: Seat) -> Seat:
        seat.idle_since = None
        self._running += 1
        return seat

    async def _start_cold(self, owner: str, work: Path, memory: int) -> Seat:
        await self._places.take(owner)
        try:
            return Seat(await self._start_owned(work, memory, False), "", memory)
        except BaseException:
            self._places.give_back()
            raise

    async def _start_owned(self, work: Path, memory: int, ahead: bool) -> Kernel:
        """Start one in a task that `close` knows of."""
        if self._closed:
            raise _stopping()
        starting = asyncio.create_task(self._start(work, memory, ahead))
        self._starts.add(starting)
        starting.add_done_callback(self._starts.discard)
        try:
            return await starting
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                # It came up in the moment in which nobody wanted it any more.
                await starting.result().close()
            if self._closed:
                raise _stopping() from None
            raise

    async def _take_warm(self) -> Seat | None:
        if not self._warm and self._warming is not None and not self._claimed:
            # One that is on its way is there sooner than one that is begun now.
            self._claimed = True
            await self._warming.wait()
        while self._warm:
            seat = self._warm.pop(0)
            self._wake.set()
            if seat.usable:
                return seat
            self._end(seat)
        return None

    def _end(self, seat: Seat) -> asyncio.Task[None]:
        if seat.ending is None:
            seat.ending = asyncio.create_task(self._close_seat(seat))
            self._ends.add(seat.ending)
            seat.ending.add_done_callback(self._ends.discard)
        return seat.ending

    async def _close_seat(self, seat: Seat) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await seat.kernel.close()
            if not seat.holder:
                await self._folders.remove(seat.place)
        except TimeoutError:
            logger.error("An interpreter did not end within %d seconds.", CLOSE_SECONDS)
        except Exception:
            logger.exception("An interpreter could not be ended cleanly.")
        finally:
            if self._held.get(seat.holder) is seat:
                del self._held[seat.holder]
            if seat in self._warm:
                self._warm.remove(seat)
            self._places.give_back()
            self._wake.set()

    def _make_room(self) -> None:
        """End as many as there are waiters, if they may be ended already."""
        seats = [*self._warm, *self._held.values()]
        wanted = self._places.waiting - sum(seat.ending is not None for seat in seats)
        for seat in [seat for seat in self._warm if seat.ending is None][: max(0, wanted)]:
            self._end(seat)
            wanted -= 1
        loop = asyncio.get_running_loop()
        idle = [(seat.idle_since, seat) for seat in self.idle() if seat.idle_since is not None]
        for since, seat in sorted(idle, key=lambda pair: pair[0])[: max(0, wanted)]:
            if since + self._grace > loop.time():
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = loop.call_at(since + self._grace, self._make_room)
                return
            self._end(seat)

    async def _keep_warm(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if len(self._warm) >= self._want_warm:
                continue
            await self._calm()
            if not self._places.take_now():
                continue  # woken again when one is given back
            try:
                await self._start_warm()
            except ShuttingDown:
                return
            except (OuzelError, OSError) as error:
                logger.warning("No interpreter could be started ahead: %s", error)
                await asyncio.sleep(WARM_AGAIN)
            self._wake.set()

    async def _calm(self) -> None:
        """Wait until no cell runs, for a while: they need the processors more."""
        loop = asyncio.get_running_loop()
        until = loop.time() + WARM_PATIENCE
        await asyncio.sleep(WARM_PAUSE)
        while self._running and loop.time() < until:  # noqa: ASYNC110  # no hurry
            await asyncio.sleep(WARM_PAUSE)

    async def _start_warm(self) -> None:
        self._warming, self._claimed = asyncio.Event(), False
        try:
            place, work = await self._folders.make()
            try:
                kernel = await self._start_owned(work, self._warm_memory, True)
            except BaseException:
                await self._folders.remove(place)
                raise
            self._warm.append(Seat(kernel, place, self._warm_memory))
        except BaseException:
            self._places.give_back()
            raise
        finally:
            self._warming.set()
            self._warming = None
        if self._places.waiting:
            self._make_room()


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is being stopped.")
