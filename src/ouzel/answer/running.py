"""One run under way: it thinks in one task, and what it says is stored by another.

Readers follow its log and drive nothing: a slow one holds up nobody, and whether one that leaves
ends the run is decided by whoever opened it. How a request got this far is `admitting`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Literal, Protocol

from ouzel.answer.failing import failure_of, unstored
from ouzel.answer.log import Log
from ouzel.answer.spacing import Spacing
from ouzel.core.contracts import Engine
from ouzel.core.errors import OuzelError, StoreError
from ouzel.core.events import (
    Delta,
    Event,
    Failure,
    ItemDone,
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
)
from ouzel.core.items import Item
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.loop.output import Output
from ouzel.loop.run import Task
from ouzel.loop.run import run as run_loop
from ouzel.loop.tally import Tally

_log = logging.getLogger(__name__)
CLOSE_WITHIN = 10.0
"""Seconds that a cancelled engine turn gets to let go before its run ends without it."""

Closed = Callable[["Answer", float, float | None], None]


class Keeps(Protocol):
    """Of a store, what one run needs; see `contracts.Store`."""

    async def append(self, run_id: str, position: int, events: Sequence[Event]) -> None: ...

    async def finish(self, run: Run, position: int, events: Sequence[Event]) -> None: ...


class Answer:
    """One run under way. Whoever opened it `close`s it.

    Args:
        run: the run as it begins.
        engine: thinks.
        store: keeps the events, and has the run already; None keeps nothing.
        closed: called once everything is let go, with the answer, the seconds it took, and those
            until its first piece of output.
        held: is given back at the end.
        output: collects what is said.
        log: what was released before, by another process.

    Attributes:
        run: the run as it is now; final once `RunFinished` was released.
        unkept: the end that could not be stored, and its position.
        forgotten: it was deleted while it ran.
        history: the conversation before its request, once it has begun.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        store: Keeps | None,
        closed: Closed,
        held: AsyncExitStack,
        output: Output | None = None,
        log: Log | None = None,
    ) -> None:
        self.run = run
        self._engine = engine
        self._store = store
        self._tell_closed = closed
        self._held = held
        self._storing = store is not None
        self._output = output or Output()
        self._log = log or Log()
        self._position = len(self._log.events)
        self._pending: list[Event] = []
        self._owed: list[Event] = []
        self._wake = asyncio.Event()
        self._spacing = Spacing()
        self._settled = asyncio.Event()
        self._parted = asyncio.Event()
        self._verdict: Failure | None = None
        self._tally = Tally()
        self._began = time.perf_counter()
        self._first_token: float | None = None
        self._closed = False
        self._concluded = False
        self._left_off = False
        self._patience: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.unkept: tuple[int, tuple[Event, ...]] | None = None
        self.forgotten = False
        self.history: tuple[Item, ...] = ()
        self._keeper = asyncio.create_task(self._keep_up()) if self._storing else None

    @property
    def ended(self) -> bool:
        """Whether `RunFinished` was released."""
        return self._settled.is_set()

    @property
    def output(self) -> Output:
        """What was said so far."""
        return self._output

    @property
    def events(self) -> Sequence[Event]:
        """What was released so far."""
        return self._log.events

    def queue(self) -> None:
        """Say that the run waits for its turn."""
        self._emit(RunQueued())

    def start(self, task: Task, first: Event | None = None) -> None:
        """Begin to think.

        Args:
            task: what is to be done.
            first: said before anything else, instead of `RunStarted`.
        """
        if self._concluded:
            return
        self.history = task.history
        self._emit(first or RunStarted())
        self._task = asyncio.create_task(self._think(task))
        self._task.add_done_callback(self._conclude)

    def batches(self, idle: float | None = None) -> AsyncGenerator[Sequence[Event], None]:
        """Events from the first one on, as many at a time as there are; the last is a
        RunFinished. Arguments and errors as `Log.batches`."""
        return self._log.batches(idle)

    async def whole(self) -> Run:
        """The finished run."""
        await self._settled.wait()
        return self.run

    async def settled(self, within: float) -> Run:
        """The run once it is finished; as it will be, where that takes longer than `within`
        seconds."""
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
        if self._concluded:
            return
        if self._task is None:
            self._end_at_once()
            return
        self._task.cancel()
        if self._patience is None:
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

    def fail(self, error: BaseException) -> None:
        """End the run as `failed` because of an error outside of it; nothing if it has ended."""
        if not isinstance(error, OuzelError):
            _log.error("run %s failed unexpectedly", self.run.id, exc_info=error)
        self._verdict = self._verdict or self._failure(error)
        self.cancel()

    def leave_off(self) -> None:
        """Stop thinking without an end: another process will take the run up again. What was
        said so far is still stored. One that is being stopped already comes to its own end."""
        if self._concluded or self._patience is not None:
            return
        self._left_off = True
        if self._task is None:
            self._say_no_more()
        else:
            self._task.cancel()

    async def parted(self) -> None:
        """Until the run has ended, or was left off and all of it is stored."""
        await self._parted.wait()

    async def close(self) -> None:
        """Let everything go. What was not read is still stored. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._left_off:
                self.cancel()
                if self._task is not None:
                    await asyncio.wait({self._task}, timeout=CLOSE_WITHIN)
                self._give_up()
                await self._settled.wait()
        finally:
            await self._held.aclose()
            self._tell_closed(self, time.perf_counter() - self._began, self._first_token)

    def _emit(self, event: Event) -> None:
        if self._concluded or self._left_off:
            return
        delta = isinstance(event, Delta)
        if delta and self._first_token is None:
            self._first_token = time.perf_counter() - self._began
        if self._keeper is not None:
            if not self._pending:
                self._wake.set()
            self._pending.append(event)
        elif delta:
            self._log.add(event)  # the run does not change by it
        else:
            self._release([event])

    async def _think(self, task: Task) -> None:
        done = await run_loop(self._engine, task, self._output, self._tally, self._emit)
        if self._verdict is None and not self._left_off:
            # In one breath with the last words: an answer is never stored whole without its end.
            end = RunFinished(done.status, done.usage, time.time(), incomplete=done.incomplete)
            self._finish(end)

    def _conclude(self, task: asyncio.Task[None]) -> None:
        """The thinking is over; unless it has come to its end, say what that is."""
        if self._left_off:
            self._say_no_more()
            return
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
            return
        self._finish(finished)

    def _give_up(self) -> None:
        """The engine does not let go of a cancelled turn: the run ends without it."""
        if self._concluded:
            return
        _log.error("run %s: the engine holds on to a cancelled turn", self.run.id)
        self._end_at_once()

    def _end_at_once(self) -> None:
        """End the run without its task; what is open, or was left open, is closed."""
        for event in self._output.close("incomplete"):
            self._emit(event)
        status: Literal["failed", "cancelled"] = "failed" if self._verdict else "cancelled"
        self._finish(RunFinished(status, Usage(), time.time(), self._verdict))

    def _finish(self, finished: RunFinished) -> None:
        self._emit(finished)
        self._say_no_more()
        if self._patience is not None:
            self._patience.cancel()

    def _say_no_more(self) -> None:
        self._concluded = True
        self._wake.set()
        self._spacing.hurry()

    async def _keep_up(self) -> None:
        """Store what is said, and let it out then; the task of a stored run."""
        # One pass of the event loop lets an engine that answers at once do so: one write.
        await asyncio.sleep(0)
        while not self._settled.is_set():
            if not self._pending:
                if self._left_off and self._concluded:
                    self._log.leave_off()
                    self._parted.set()
                    return
                await self._wake.wait()
            self._wake.clear()
            if self._pending:
                await self._spacing.turn()
                await self._store_pending()

    async def _store_pending(self) -> None:
        """Take what is pending, store it, and only then let it out.

        What cannot be stored ends the run. It is let out together with the end, for which the
        store is tried once more: readers are told in any case.
        """
        events, self._pending = self._owed + self._pending, []
        last = events[-1]
        if self._owed and not isinstance(last, RunFinished):
            self._owed = events
            return
        final = self._final(last) if isinstance(last, RunFinished) else None
        if self._storing:
            try:
                await self._keep(events, final)
            except Exception as error:
                if not self.forgotten:
                    events = self._not_kept(error, events)
        self._release(events)

    def _not_kept(self, error: Exception, events: list[Event]) -> list[Event]:
        """What may be let out although it was not stored: nothing, or all with a bad end."""
        if isinstance(error, StoreError):
            _log.error("run %s could not be stored: %s", self.run.id, error.message)
            failure = unstored(error)
        else:
            _log.error("run %s could not be stored", self.run.id, exc_info=error)
            failure = unstored(StoreError("unexpected"))
        last = events[-1]
        if not isinstance(last, RunFinished):
            self._owed = events
            self._verdict = self._verdict or failure
            self.cancel()
            return []
        self._owed = []
        bad = replace(last, status="failed", incomplete=None, failure=failure)
        kept = [*events[:-1], bad]
        self.unkept = (self._position, tuple(kept))
        return kept

    async def _keep(self, events: Sequence[Event], final: Run | None) -> None:
        position = self._position
        # Before the write: one that is cancelled while it waits is still done.
        self._position += len(events)
        assert self._store is not None  # noqa: S101  # it is storing
        try:
            if final is None:
                await self._store.append(self.run.id, position, events)
            else:
                await self._store.finish(final, position, events)
        except BaseException:
            self._position = position
            raise

    def _release(self, events: Sequence[Event]) -> None:
        if not events:
            return
        last = events[-1]
        if isinstance(last, RunFinished):
            self.run = self._final(last)
            self._settled.set()
            self._parted.set()
            self._log.release(events, last=True)
            return
        for event in events:
            if isinstance(event, Delta):
                continue  # nearly all are, and there may be thousands
            if isinstance(event, RunStarted | RunResumed):
                self.run = replace(self.run, status="in_progress")
            elif isinstance(event, ItemDone):
                self.run = replace(self.run, output=(*self.run.output, event.item))
        self._log.release(events, last=False)

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
