"""The embedded engine: starts, watches and restarts the process that computes.

When a life of the process ends, or it stops answering, the next one is begun after a pause;
meanwhile turns are refused, and nothing else in the server notices. How a life begins and what
belongs to it is `local_life`'s matter, the process itself `local_child`'s, what runs in it
`worker`'s; how many threads and slots it gets, `machine` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ouzel.core.contracts import EngineInfo, EngineState, ToolStyle
from ouzel.core.errors import EngineError, EngineUnavailable
from ouzel.core.request import Sampling
from ouzel.core.turns import EngineDelta, Halt, Pace, Turn
from ouzel.engines.local_life import CONNECTIONS, FAREWELL, Birth, Life, begin
from ouzel.engines.machine import Overrides
from ouzel.engines.pace import PaceMeter
from ouzel.engines.upstream import TIMEOUTS, Timeouts, UpstreamEngine

__all__ = ["LocalEngine", "Overrides", "Restarts", "Timeouts"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Restarts:
    """When a process that ended is started again.

    Args:
        first: seconds before the first new start; doubled for each further one.
        longest: seconds between two starts at most.
        stable: seconds of life after which the count begins anew.
        attempts: starts that may fail one after the other before the engine is given up.
    """

    first: float = 0.5
    longest: float = 30.0
    stable: float = 60.0
    attempts: int = 5


AS_FITS: Final = Overrides()
AS_THE_API: Final = Sampling(temperature=1.0, top_p=1.0)
TRY_AGAIN: Final = Restarts()

SUPPOSED: Final = Pace(prefill=50.0, decode=20.0)
"""The pace that is told until the first answers were measured, which are at the start."""

REFRESH: Final = 5.0
"""Seconds for which facts that change (resident memory) are kept."""


class LocalEngine:
    """Implements `core.contracts.Engine` with llama.cpp in a process of its own.

    Args:
        path: a GGUF file, the first one where the weights are split.
        served_as: the name that clients see.
        home: folder for state; the process's log is `logs/engine.log` in it, what was found out
            about the weights `engine.json`.
        overrides: what the user decided about threads, slots and context.
        timeouts: how long an answer may take.
        hung_after: seconds without a sign of life after which the process is killed.
        restarts: when it is started again.
        tool_style: how the model is brought to call tools, where the user says so.
        expects: how the catalogue says that it is; `native` holds only if a call is really made
            when that is tried at the start.
        warm: turns whose prompts every slot should hold before the first request, the most
            needed first; see `local_prefix`.
        defaults: the sampling where a request leaves it open; temperature and top_p are set.
    """

    def __init__(
        self,
        path: Path,
        *,
        served_as: str,
        home: Path,
        overrides: Overrides = AS_FITS,
        timeouts: Timeouts = TIMEOUTS,
        hung_after: float = 15.0,
        restarts: Restarts = TRY_AGAIN,
        tool_style: ToolStyle | None = None,
        expects: ToolStyle | None = None,
        warm: Sequence[Turn] = (),
        defaults: Sampling = AS_THE_API,
    ) -> None:
        self._meter = PaceMeter(SUPPOSED)
        self._birth = Birth(
            path.absolute(),
            served_as,
            home.absolute(),
            overrides,
            timeouts,
            self._meter,
            tool_style=tool_style,
            expected=expects,
            warm=tuple(warm),
            defaults=defaults,
        )
        self._hung_after = hung_after
        self._restarts = restarts
        self._state: EngineState = "starting"
        self._trouble = "it was not started"
        self._back_at = 0.0
        self._life: Life | None = None
        self._info: EngineInfo | None = None
        self._info_until = 0.0
        self._created_at = 0.0
        self._restarted = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        """See the contract."""
        if self._state == "ready" and self._life is not None:
            return self._life.speaker.state
        return self._state

    @property
    def info(self) -> EngineInfo:
        """See the contract; it stays while the process is restarted."""
        now = time.monotonic()
        if self._life is not None and now >= self._info_until:
            self._info = self._life.info(self._birth, self._created_at, self._restarted)
            self._info_until = now + REFRESH
        if self._info is None:
            raise self._unavailable()
        return self._info

    @property
    def pid(self) -> int | None:
        """The process that computes, None while there is none."""
        return None if self._life is None else self._life.child.pid

    @property
    def pace(self) -> Pace:
        """See the contract. As llama.cpp times itself; it outlives the process."""
        return self._meter.pace

    async def start(self) -> None:
        """Load the weights in a new process.

        Call it in a thread that lives as long as the engine shall: on Linux the process ends
        with the thread that started it.

        Raises:
            EngineError: they cannot be loaded, or `stop` was called meanwhile.
        """
        if self._supervisor is not None:
            raise EngineError("The engine was started already.")
        self._state, self._trouble = "starting", "its weights are being loaded"
        self._ready.clear()
        supervisor = self._supervisor = asyncio.create_task(self._supervise(), name="engine")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({supervisor, ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            ready.cancel()
        if self._ready.is_set():
            return
        if supervisor.cancelled() or self._supervisor is not supervisor:
            raise EngineError("The engine was stopped while it started.")
        self._supervisor = None
        self._state = "failed"
        failure = supervisor.exception()
        if failure is None:
            raise EngineError("The engine ended while it started.")
        self._trouble = str(failure).rstrip(".")
        raise failure

    async def stop(self) -> None:
        """See the contract. The process is gone when this returns, also during `start`."""
        self._state, self._trouble = "stopped", "it was stopped"
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            # Should the caller be cancelled now, the process is still taken down.
            await asyncio.shield(asyncio.gather(supervisor, return_exceptions=True))

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        """See the contract."""
        async with (
            self._turn() as speaker,
            contextlib.aclosing(speaker.stream(turn, halt)) as deltas,
        ):
            async for delta in deltas:
                yield delta

    async def count_tokens(self, turn: Turn) -> int:
        """See the contract."""
        async with self._turn() as speaker:
            return await speaker.count_tokens(turn)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[UpstreamEngine]:
        """Who speaks to the process that lives now. Raises EngineUnavailable."""
        patience = self._birth.timeouts.first_token
        if self._state == "ready" and self._room.locked():
            _log.info("%d turns are under way; another waits.", CONNECTIONS)
        try:
            async with asyncio.timeout(patience):
                await self._room.acquire()
        except TimeoutError:
            raise EngineUnavailable(
                f"{CONNECTIONS} turns are under way and none ended within {patience:g} s "
                "(first_token_timeout)."
            ) from None
        try:
            if self._state != "ready" or self._life is None:
                raise self._unavailable()
            yield self._life.speaker
        except EngineUnavailable:
            if self._state != "ready":  # more is known here than that a connection broke
                raise self._unavailable() from None
            raise
        finally:
            self._room.release()

    def _unavailable(self) -> EngineUnavailable:
        again = self._back_at - time.monotonic()
        return EngineUnavailable(
            f"The engine is {self._state}: {self._trouble}.",
            retry_after=60.0 if self._state == "failed" else min(60.0, max(1.0, again)),
        )

    async def _supervise(self) -> None:
        """Keep the engine alive until cancelled. Raises what the first life fails with."""
        try:
            await self._lives()
        except Exception as error:
            self._state = "failed"
            if not self._ready.is_set():
                raise
            self._trouble = f"its supervision failed ({type(error).__name__})"
            _log.exception("The engine is no longer supervised, and takes no turns.")

    async def _lives(self) -> None:
        """Begin one life after the other."""
        failed, pause = 0, self._restarts.first
        while True:
            try:
                life = await begin(self._birth)
            except EngineError as error:
                if not self._ready.is_set():
                    raise
                failed += 1
                trouble, took = error.message.rstrip("."), 0.0
            else:
                failed = 0
                took = life.took
                self._birth = replace(self._birth, findings=life.findings)
                born = time.monotonic()
                trouble = await self._live(life)
                if time.monotonic() - born >= self._restarts.stable:
                    pause = self._restarts.first
            self._trouble = trouble
            if failed >= self._restarts.attempts:
                self._state = "failed"
                _log.error("The engine is given up after %d attempts: %s.", failed, trouble)
                return
            self._state = "restarting"
            self._back_at = time.monotonic() + pause + took
            _log.warning("The engine starts again in %.1f s: %s.", pause, trouble)
            await asyncio.sleep(pause)
            pause = min(self._restarts.longest, 2 * pause)
            self._restarted += 1

    async def _live(self, life: Life) -> str:
        """Take turns until the life is over; returns why it is."""
        grace = FAREWELL
        try:
            self._created_at = self._created_at or self._birth.path.stat().st_mtime
            self._life, self._info_until = life, 0.0
            self._state, self._trouble = "ready", "its process has just ended"
            self._ready.set()
            _log.info("The engine is ready after %.1f s, in process %d.", life.took, life.child.pid)
            trouble = await life.over(self._hung_after)
            grace = 0.0
            return trouble
        finally:
            if self._state == "ready":
                self._state = "restarting"
            self._life = None
            await life.end(grace)
