"""One run under way: it thinks in a task, and whoever reads it drives what is stored.

How a request got this far is `admitting`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Literal

from ouzel.answer.failing import UNSTORED, failure_of
from ouzel.core.contracts import Engine, Store
from ouzel.core.errors import OuzelError, StoreError
from ouzel.core.events import Delta, Event, Failure, RunFinished, RunStarted
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.loop.output import Output
from ouzel.loop.run import Outcome, Task
from ouzel.loop.run import run as run_loop
from ouzel.loop.tally import Tally

_log = logging.getLogger(__name__)
CLOSE_WITHIN = 10.0
"""Seconds that a cancelled engine turn gets to let go before its run ends without it."""


class Answer:
    """One run under way. Its reader iterates `batches` (or awaits `whole`), then `close`s it.

    Args:
        run: the run as it begins; its request says whether it is stored.
        task: what is to be done.
        engine: thinks.
        store: keeps the events; has the run already.
        closed: called once everything is let go, with the answer, the seconds it took, and those
            until its first piece of output.
        admission: is given back at the end.

    Attributes:
        run: the run as it is now; final once `RunFinished` was released.
        forgotten: it was deleted while it ran.
    """

    def __init__(
        self,
        run: Run,
        task: Task,
        engine: Engine,
        store: Store,
        closed: Callable[[Answer, float, float | None], None],
        admission: AsyncExitStack,
    ) -> None:
        self.run = run
        self._store = store
        self._tell_closed = closed
        self._admission = admission
        self._storing = run.request.store
        self._output = Output()
        self._pending: list[Event] = [RunStarted()]
        self._owed: list[Event] = []
        self._position = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._verdict: Failure | None = None
        self._tally = Tally()
        self._began = time.perf_counter()
        self._first_token: float | None = None
        self._closed = False
        self._concluded = False
        self._patience: asyncio.TimerHandle | None = None
        self.forgotten = False
        self._task = asyncio.create_task(
            run_loop(engine, task, self._output, self._tally, self._emit)
        )
        self._task.add_done_callback(self._conclude)

    @property
    def ended(self) -> bool:
        """Whether `RunFinished` was released."""
        return self._settled.is_set()

    async def batches(self, idle: float | None = None) -> AsyncGenerator[Sequence[Event], None]:
        """Events in order, as many at a time as there are; the last is a RunFinished.

        Args:
            idle: seconds of silence after which an empty batch is given, as a sign of life.
        """
        loop = asyncio.get_running_loop()
        # One pass of the event loop lets an engine that answers at once do so: one batch, one
        # write, instead of two.
        await asyncio.sleep(0)
        while not self._settled.is_set():
            if not self._pending:
                timer = loop.call_later(idle, self._wake.set) if idle else None
                try:
                    await self._wake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
            yield await self._release()

    async def whole(self) -> Run:
        """The finished run, everything in between passed over."""
        async for _ in self.batches():
            pass
        return self.run

    async def settled(self, within: float) -> Run:
        """The run once it is finished, for someone who watches while another reads.

        A reader so slow that this takes more than `within` seconds gets its end later; this is
        how it will be.
        """
        try:
            async with asyncio.timeout(within):
                await self._settled.wait()
        except TimeoutError:
            last = self._pending[-1] if self._pending else None
            if isinstance(last, RunFinished):
                return self._final(last)
            return replace(self.run, status="cancelled")
        return self.run

    def cancel(self) -> None:
        """Stop thinking; the run ends as `cancelled`. Frees the engine's slot at once."""
        self._task.cancel()
        if not self._concluded and self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(CLOSE_WITHIN, self._give_up)

    def abort(self, error: OuzelError) -> None:
        """Stop thinking; the run ends as `failed` because of `error`."""
        self._verdict = self._verdict or self._failure(error)
        self.cancel()

    def forget(self) -> None:
        """Stop thinking and store nothing more."""
        self.forgotten = True
        self._storing = False
        self.cancel()

    async def close(self) -> None:
        """Let everything go. What was not read is still stored. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_WITHIN)
            self._give_up()
            if not self._settled.is_set():
                await self._release()
        finally:
            await self._admission.aclose()
            self._tell_closed(self, time.perf_counter() - self._began, self._first_token)

    def _emit(self, event: Event) -> None:
        if self._concluded:
            return
        if self._first_token is None and isinstance(event, Delta):
            self._first_token = time.perf_counter() - self._began
        self._pending.append(event)
        self._wake.set()

    def _conclude(self, task: asyncio.Task[Outcome]) -> None:
        """The thinking has ended, one way or another: say so."""
        now = time.time()
        if self._verdict is not None:
            finished = RunFinished("failed", Usage(), now, self._verdict)
        elif task.cancelled():
            finished = RunFinished("cancelled", Usage(), now)
        elif (error := task.exception()) is not None:
            if not isinstance(error, OuzelError):
                _log.error("run %s failed unexpectedly", self.run.id, exc_info=error)
            finished = RunFinished("failed", Usage(), now, self._failure(error))
        else:
            outcome = task.result()
            finished = RunFinished(
                outcome.status, outcome.usage, now, incomplete=outcome.incomplete
            )
        self._finish(finished)

    def _give_up(self) -> None:
        """The engine does not let go of a cancelled turn: the run ends without it."""
        if self._concluded:
            return
        _log.error("run %s: the engine holds on to a cancelled turn", self.run.id)
        for event in self._output.close("incomplete"):
            self._emit(event)
        status: Literal["failed", "cancelled"] = "failed" if self._verdict else "cancelled"
        self._finish(RunFinished(status, Usage(), time.time(), self._verdict))

    def _finish(self, finished: RunFinished) -> None:
        self._emit(finished)
        self._concluded = True
        if self._patience is not None:
            self._patience.cancel()

    async def _release(self) -> Sequence[Event]:
        """Take what is pending, store it, and only then let it out.

        What cannot be stored ends the run. It is let out together with the end, for which the
        store is tried once more: the client is told in any case.
        """
        events, self._pending = self._owed + self._pending, []
        self._wake.clear()
        last = events[-1] if events else None
        final = self._final(last) if isinstance(last, RunFinished) else None
        if final is None and self._owed:
            self._owed = events
            return ()
        if events and self._storing:
            try:
                await self._keep(events, final)
            except StoreError as error:
                _log.error("run %s could not be stored: %s", self.run.id, error.message)
                self.abort(error)
                if not isinstance(last, RunFinished):
                    self._owed = events
                    return ()
                last = replace(last, status="failed", incomplete=None, failure=UNSTORED)
                events[-1] = last
                final = self._final(last)
        if final is not None:
            self.run = final
            self._settled.set()
        return events

    async def _keep(self, events: Sequence[Event], final: Run | None) -> None:
        position = self._position
        # Before the write: one that is cancelled while it waits is still done.
        self._position += len(events)
        try:
            if final is None:
                await self._store.append(self.run.id, position, events)
            else:
                await self._store.finish(final, position, events)
        except StoreError:
            self._position = position
            raise

    def _failure(self, error: BaseException) -> Failure:
        return failure_of(error, self.run.request.protocol)

    def _final(self, finished: RunFinished) -> Run:
        counted = finished.status in ("completed", "incomplete")
        return replace(
            self.run,
            status=finished.status,
            output=tuple(self._output.items),
            usage=finished.usage if counted else None,
            failure=finished.failure,
            incomplete=finished.incomplete,
            finished_at=finished.at,
            tally=self._tally.counts(),
        )
