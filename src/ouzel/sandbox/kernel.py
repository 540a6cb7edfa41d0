"""A Python kernel in a jail: started once, cells run in it one after another, ended for good.

ipykernel runs inside, in the interpreter's own environment; here is its client. Whatever a kernel
does is taken as the code's doing: what it sends is bounded and may be junk, it may fall silent, die
or go on after a cell has ended. Each of these ends a cell properly and at most costs the kernel.
Containers, and who may run how many kernels, this file does not know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ouzel.sandbox.environment import Interpreter
from ouzel.sandbox.jail import Jail, Limits
from ouzel.sandbox.kernel_cell import Cell
from ouzel.sandbox.kernel_link import KernelFailed, Link, open_link
from ouzel.sandbox.outputs import KernelEnd, KernelEvent
from ouzel.sandbox.watch import IDLE_TICK, CellLimits, Verdict, over, trim, watch

__all__ = ["Kernel", "KernelFailed"]

GRACE: Final = 2.0
"""Seconds that a cell gets to end after it was interrupted, until its kernel is killed."""
GONE_WITHIN: Final = 10.0
"""Seconds until nothing is left of a killed sandbox."""
UP_WITHIN: Final = 30.0
"""Seconds until a kernel listens; 0.5 is usual, and a busy machine may take much longer."""

PRELOAD: Final = ("numpy", "pandas", "matplotlib.pyplot")
"""What most cells import, and what takes longest; in this order."""


class Kernel:
    """One kernel. Made by `start`; whoever has it closes it.

    Attributes:
        work: its work folder.
        fresh: no cell was run in it yet.
    """

    def __init__(self, link: Link, work: Path) -> None:
        self.work = work
        self.fresh = True
        self._link = link
        self._guard: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        jail: Jail,
        interpreter: Interpreter,
        work: Path,
        limits: Limits,
        *,
        preload: bool = True,
        within: float = UP_WITHIN,
    ) -> Kernel:
        """Start one; it takes cells when this returns.

        Args:
            work: its work folder; shown to the code as the jail does that.
            preload: import what most cells need, beside the first of them.
            within: seconds.

        Raises:
            KernelFailed: it did not come up; nothing of it is left.
        """
        modules = PRELOAD if preload else ()
        return cls(await open_link(jail, interpreter, work, limits, modules, within=within), work)

    @property
    def alive(self) -> bool:
        """Whether it can take another cell."""
        return self._link.alive

    @property
    def preloaded(self) -> bool:
        """Whether its background import of the big packages is over."""
        return self._link.preloaded

    @property
    def why_dead(self) -> str:
        """What it died of, as a clause; empty while it lives."""
        return self._link.why

    async def execute(
        self, code: str, *, within: float, allow: CellLimits
    ) -> AsyncGenerator[KernelEvent, None]:
        """Run a cell; yields what it says as it comes, then exactly one KernelEnd.

        Closing the generator interrupts the cell, and kills the kernel if it does not heed.

        Args:
            within: seconds, after which it is interrupted.
        """
        assert self._link.cell is None, "one cell at a time"  # noqa: S101  # our own mistake
        await self._stop_guard()
        if not self.alive:
            yield KernelEnd("died", error=self.why_dead or "it had ended")
            return
        self.fresh = False
        began_ns = time.time_ns()
        cell = await self._link.run(code, allow)
        keeping = asyncio.create_task(self._keep(cell, within, allow))
        removed: tuple[str, ...] = ()
        try:
            while (event := await cell.next()) is not None:
                yield event
        finally:
            try:
                removed = await self._settle(cell, keeping, allow, began_ns)
            finally:
                self._link.cell = None
                if self.alive:
                    self._guard = asyncio.create_task(self._guard_idle(allow, began_ns))
        yield self._end(cell, removed)

    async def interrupt(self) -> None:
        """Have the running cell interrupted, if there is one; returns at once."""
        if self._link.cell is not None:
            self._link.cell.stop("it was interrupted")

    async def close(self) -> None:
        """Kill it and wait until nothing of it is left; may be called again. `work` stays.

        Raises:
            TimeoutError: something is left, which no sandbox should come to.
        """
        self._link.kill("it was closed")
        await self._stop_guard()
        await self._link.close(GONE_WITHIN)

    async def _keep(self, cell: Cell, within: float, allow: CellLimits) -> None:
        """See that the cell ends: interrupt it when it must, and kill what does not heed."""
        verdict = await self._watch(allow, cell.began + within, cell.alarm)
        if verdict is None or not verdict.kill:
            cell.stop(verdict.reason if verdict else "")
            await self._link.interrupt()
            ignored = f"{cell.trouble} and went on although it was interrupted"
            verdict = await self._watch(allow, time.monotonic() + GRACE, None)
            if verdict is None or not verdict.kill:
                verdict = Verdict(ignored, kill=True)
        self._link.kill(verdict.reason)

    async def _watch(
        self, allow: CellLimits, until: float, alarm: asyncio.Event | None
    ) -> Verdict | None:
        folders = (self.work, self._link.folder)
        return await watch(self._link.usage, folders, allow, until=until, alarm=alarm)

    async def _settle(
        self, cell: Cell, keeping: asyncio.Task[None], allow: CellLimits, began_ns: int
    ) -> tuple[str, ...]:
        """After this the cell does not run, and the work folder keeps its limits; what was removed
        for that."""
        try:
            if not cell.over.is_set():
                cell.stop("nobody waited for it any more")
                with suppress(TimeoutError):
                    async with asyncio.timeout(2 * GRACE):
                        await cell.over.wait()
        finally:
            keeping.cancel()
            if not cell.over.is_set():
                self._link.kill("nobody waited for it any more")
        await asyncio.gather(keeping, return_exceptions=True)
        if self.alive:
            # It may have ended between two looks at what it wrote.
            folders = (self.work, self._link.folder)
            trouble = await asyncio.to_thread(over, folders, allow)
            if not trouble:
                return ()
            self._link.kill(trouble)
        return await self._bury(allow, began_ns)

    async def _bury(self, allow: CellLimits, since_ns: int) -> tuple[str, ...]:
        await self._link.gone(GONE_WITHIN)
        return await asyncio.to_thread(trim, self.work, allow, since_ns)

    async def _guard_idle(self, allow: CellLimits, since_ns: int) -> None:
        """Between cells, where threads and processes of the last ones may go on."""
        link = self._link
        folders = (self.work, link.folder)
        verdict = await watch(link.usage, folders, allow, tick=IDLE_TICK, alarm=link.over)
        if verdict is not None:
            link.kill(f"{verdict.reason} after its cell had ended")
            await self._bury(allow, since_ns)

    async def _stop_guard(self) -> None:
        """Once it has begun to clean up, it is waited for."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if self.alive:
            guard.cancel()
        try:
            await asyncio.wait((guard,))
        finally:
            guard.cancel()

    def _end(self, cell: Cell, removed: tuple[str, ...]) -> KernelEnd:
        reply = cell.reply
        traceback = reply.traceback if reply is not None else ""
        if not self.alive:
            return KernelEnd(
                "died", self.why_dead or "it ended", "", cell.seconds, cell.cut, removed
            )
        if cell.trouble:
            return KernelEnd("interrupted", cell.trouble, traceback, cell.seconds, cell.cut)
        if reply is None or not reply.ok:
            error = reply.error if reply is not None else ""
            return KernelEnd("error", error, traceback, cell.seconds, cell.cut)
        return KernelEnd("ok", seconds=cell.seconds, cut=cell.cut)
