"""Runs batches: checks their files, answers their lines where there is room, makes their ends.

Each batch has a task that takes it from status to status; what failed is tried again a little
later, from the status that was kept last. One more task hands out room: owners take turns, the
batches of an owner take turns, and the lines of a batch come in order. A line that has to give way
to a live request comes again before those behind it. What is kept is in `store`; this file only
knows what is being done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ouzel.answer import Answers
from ouzel.api import write_batches
from ouzel.api.batch_ending import Endings
from ouzel.api.batch_input import InputCheck, Unfit
from ouzel.api.batch_jobs import Attempt, Job, Lines, Rota
from ouzel.api.batch_line import TryAgain, answer_line
from ouzel.api.read_batches import custom_id_of
from ouzel.core.contracts_batches import Batch, Batches, BatchLine, BatchProblem, Spare
from ouzel.core.contracts_files import Files
from ouzel.core.errors import (
    Conflict,
    NotFound,
    OuzelError,
    StoreError,
    TooLarge,
    TooManyRequests,
)

_log = logging.getLogger(__name__)

MOST_LIVE: Final = 1000
"""Batches that have not ended; each has a task."""

_CHECKED_AT_ONCE = 2
"""Files that are being checked; each may have a long line in memory."""

_TRIES = 3
"""Attempts at a line that fails by a mistake of the engine's or ours."""

_FULL_AGAIN = 60.0
"""Seconds until it is tried again to write a file for which the quota has no room."""

_LONGEST_WAIT = 60.0
"""Seconds after which the clock on the wall is looked at again: it may be set."""


class BatchRunner:
    """Everything that is done for batches. `start` it, and `close` it.

    Args:
        spare: says when there is room for a line.
        longest: bytes that a line may have.
        within: seconds that a line may take; 0 sets no limit.
        now: seconds since the epoch.
        again: seconds until what failed is tried again.
    """

    def __init__(
        self,
        batches: Batches,
        files: Files,
        answers: Answers,
        spare: Spare,
        *,
        longest: int = 32 * 2**20,
        within: float = 3600.0,
        now: Callable[[], float] = time.time,
        again: float = 2.0,
    ) -> None:
        self.batches = batches
        self.now = now
        self._files = files
        self._answers = answers
        self._spare = spare
        self._longest = longest
        self._within = within
        self._again = again
        self._endings = Endings(batches, files, now)
        self._rota = Rota()
        self._jobs: dict[str, Job] = {}
        self._checking = asyncio.Semaphore(_CHECKED_AT_ONCE)
        self._paused_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """Go on with what another process has left. Raises StoreError."""
        for batch in await self.batches.live():
            self._take_up(batch)
        self._spawn(self._hand_out())

    async def close(self) -> None:
        """Stop; the lines that are being answered will be answered by another process."""
        self._closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def submit(self, batch: Batch) -> Batch:
        """Begin with a new batch. Raises TooManyRequests, StoreError."""
        if len(self._jobs) >= MOST_LIVE:
            raise TooManyRequests(
                f"There are {MOST_LIVE} batches that have not ended, as many as this server "
                "takes. Try again when one has ended.",
                retry_after=60.0,
            )
        await self.batches.create(batch)
        if not self._closing:
            self._take_up(batch)
        return batch

    async def cancel(self, batch_id: str, owner: str) -> Batch:
        """Let a batch end with the results that it has. The batch as it then is.

        Raises:
            NotFound: there is no such batch.
            Conflict: it is too late.
            StoreError: it could not be kept.
        """
        while True:
            batch = await self.batches.get(batch_id, owner)
            if batch.status in ("cancelling", "cancelled"):
                return batch
            if batch.status not in ("validating", "in_progress") or batch.ending is not None:
                raise Conflict(
                    f"A batch with status '{batch.status}' cannot be cancelled.",
                    code="batch_not_cancellable",
                )
            cancelling = replace(batch, status="cancelling", cancelling_at=self.now())
            with suppress(Conflict):  # it went on meanwhile: look again
                await self.batches.change(cancelling, batch.status)
                job = self._jobs.get(batch_id)
                if job is not None:
                    job.cancel()
                return cancelling

    # One batch, from status to status.

    def _take_up(self, batch: Batch) -> None:
        job = self._jobs[batch.id] = Job(batch)
        self._spawn(self._drive(job))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, job: Job) -> None:
        while True:
            pause = self._again
            try:
                if await self._step(job):
                    break
                continue
            except NotFound:
                break  # somebody has deleted it
            except Conflict:
                continue  # its status was changed meanwhile
            except TooLarge:
                pause = _FULL_AGAIN
            except OuzelError as error:
                _log.warning("batch %s: %s", job.id, error.message)
            except Exception:
                _log.exception("batch %s", job.id)
            await asyncio.sleep(pause)
        self._jobs.pop(job.id, None)

    async def _step(self, job: Job) -> bool:
        """What is to be done next with it. Whether that was the last."""
        batch = await self.batches.get(job.id, job.owner)
        if batch.ending is not None:
            if batch.ended_at is None:
                await self._endings.finish(batch)
            return True
        match batch.status:
            case "validating":
                async with self._checking:
                    await self._check(job, batch)
            case "in_progress":
                await self._run(job, batch)
            case "cancelling":
                await self._endings.begin(batch, "cancelled")
            case _:
                return True
        return False

    async def _check(self, job: Job, batch: Batch) -> None:
        check = InputCheck(
            self.batches, self._answers, batch, self._longest, lambda: job.is_cancelled
        )
        try:
            async with AsyncExitStack() as stack:
                content = await self._files.open(batch.input_file_id, batch.owner)
                stack.callback(content.close)
                await check.run(content)
        except NotFound:
            gone = BatchProblem(
                "input_file_not_found",
                "The input file was deleted before it was read.",
                "input_file_id",
            )
            await self._endings.begin(batch, "failed", (gone,))
        except Unfit as error:
            batch = await self.batches.get(batch.id, batch.owner)  # with its counts
            if batch.status == "validating":
                await self._endings.begin(batch, "failed", error.problems)
        else:
            running = replace(batch, status="in_progress", in_progress_at=self.now())
            if not job.is_cancelled:
                await self.batches.change(running, "validating")

    async def _run(self, job: Job, batch: Batch) -> None:
        """Have the lines answered until all are, it is cancelled, or its time is over."""
        lines = job.lines = Lines(batch, self._rota.wake)
        self._rota.add(lines)
        try:
            while not (lines.over.is_set() or job.is_cancelled):
                left = batch.expires_at - self.now()
                if left <= 0:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LONGEST_WAIT)):
                        await lines.over.wait()
        finally:
            self._rota.remove(lines)
            await lines.stop()
        batch = await self.batches.get(job.id, job.owner)
        if batch.status != "in_progress":
            return
        await self._endings.begin(batch, "expired" if batch.counts.waiting else "completed")

    # The lines of all batches.

    async def _hand_out(self) -> None:
        while True:
            try:
                lines = await self._rota.turn()
                line = await lines.next(self.batches)
                if line is None:
                    continue
                await self._room()
                if not lines.over.is_set():
                    self._begin(lines, lines.sooner(line))
            except OuzelError as error:
                _log.warning("batches: %s", error.message)
                await asyncio.sleep(self._again)
            except Exception:
                _log.exception("batches")
                await asyncio.sleep(self._again)

    async def _room(self) -> None:
        """Wait for room, and for the end of a pause."""
        loop = asyncio.get_running_loop()
        pause = self._paused_until - loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        await self._spare.room()
        if self._paused_until > loop.time():
            await self._room()

    def _begin(self, lines: Lines, line: BatchLine) -> None:
        """Take the room that there is: nothing was awaited since it was found."""
        attempt = lines.begin(line, partial(self._work, lines))
        room = ExitStack()
        room.enter_context(self._spare.hold(attempt.give_way))
        if attempt.task is not None:
            attempt.task.add_done_callback(lambda _: room.close())

    async def _work(self, lines: Lines, attempt: Attempt) -> float | None:
        """Answer a line and keep its result; None, or when to try again."""
        batch, line = lines.batch, attempt.line
        last = lines.tries_of(line) >= _TRIES - 1
        try:
            async with asyncio.timeout(self._within or None):
                answered = await answer_line(self._answers, batch, line, last)
        except TryAgain as error:
            return self._later(lines, line, error)
        except TimeoutError:
            result = write_batches.too_slow(line.number, custom_id_of(line.request), self._within)
            answered = replace(line, status="failed", result=result)
        attempt.answered = True
        while True:
            attempt.keeping = True
            try:
                await self.batches.record(batch.id, answered)
                return None
            except Conflict:
                return None
            except StoreError as error:
                # It waits with its result in its hands, and in its room: nothing more is begun
                # that could not be kept.
                _log.warning("batch %s: %s", batch.id, error.message)
            finally:
                attempt.keeping = False
            await asyncio.sleep(self._again)

    def _later(self, lines: Lines, line: BatchLine, error: TryAgain) -> float:
        if not error.everything:
            lines.tried(line)
            return error.after
        # A server that stops takes nothing more; `close` is on its way.
        after = _LONGEST_WAIT if error.stopping else error.after
        until = asyncio.get_running_loop().time() + after
        self._paused_until = max(self._paused_until, until)
        return 0.0
