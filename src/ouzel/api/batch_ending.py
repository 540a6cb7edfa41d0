"""Brings a batch to its end: the files of its results, and its last status.

How it ends is kept before the files are made, their ids included: whoever goes on after a crash
finds a file that is there, and makes one that is not, so that each is made once. Only when the
files are there are the lines forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from ouzel.api import write_batches
from ouzel.api.read_batches import custom_id_of
from ouzel.core.contracts_batches import (
    Batch,
    BatchEnd,
    BatchEnding,
    Batches,
    BatchLine,
    BatchProblem,
)
from ouzel.core.contracts_files import Files
from ouzel.core.errors import NotFound, TooLarge
from ouzel.core.items import new_id
from ouzel.core.turns import Usage

PURPOSE: Final = "batch_output"
_LINES = 50
"""Lines that are read at a time."""

_DROPPED = 1000
"""Lines that are forgotten in one write."""


class Endings:
    """Ends batches.

    Args:
        now: seconds since the epoch.
    """

    def __init__(self, batches: Batches, files: Files, now: Callable[[], float]) -> None:
        self._batches = batches
        self._files = files
        self._now = now

    async def begin(
        self, batch: Batch, end: BatchEnd, problems: tuple[BatchProblem, ...] = ()
    ) -> Batch:
        """Settle how the batch ends; nobody works on its lines any more.

        Raises:
            Conflict: its status is not what `batch` says.
            StoreError: it could not be kept.
        """
        usage, done, others = Usage(), False, False
        if end != "failed" or any(problem.line is not None for problem in problems):
            async with aclosing(self._lines(batch)) as lines:
                async for line in lines:
                    done = done or line.status == "done"
                    others = others or line.status != "done"
                    if line.status == "done" and line.result is not None:
                        usage += write_batches.usage_of(line.result)
        output = new_id("file", "-") if done else None
        error = new_id("file", "-") if others else None
        settled = replace(
            batch,
            ending=BatchEnding(end, output, error),
            usage=usage,
            errors=problems,
        )
        if end in ("completed", "expired"):
            settled = replace(settled, status="finalizing", finalizing_at=self._now())
        await self._batches.change(settled, batch.status)
        return settled

    async def finish(self, batch: Batch) -> Batch:
        """Make the files, and give the batch its last status; from wherever it was left.

        Raises:
            TooLarge: there is no room for a file in the owner's quota. The batch says so, and can
                be tried again.
            StoreError: something could not be kept.
        """
        ending = batch.ending
        if ending is None:
            return batch
        if not ending.written:
            batch = await self._write(batch, ending)
        last = await self._batches.last_line(batch.id)
        for number in range(_DROPPED, last + _DROPPED, _DROPPED):
            await self._batches.drop_lines(batch.id, number)
        ended = replace(batch, status=ending.end, ended_at=self._now())
        await self._batches.change(ended, batch.status)
        return ended

    async def _write(self, batch: Batch, ending: BatchEnding) -> Batch:
        try:
            await self._make(batch, ending.output_id, "output")
            await self._make(batch, ending.error_id, "error")
        except TooLarge as error:
            problem = BatchProblem(
                error.code or "file_too_large",
                f"The results are kept, but cannot be written into a file yet: {error.message}",
            )
            # What a failed batch says of its lines is worth more.
            if ending.end != "failed" and batch.errors != (problem,):
                await self._batches.change(replace(batch, errors=(problem,)), batch.status)
            raise
        errors = batch.errors if ending.end == "failed" else ()
        batch = replace(batch, ending=replace(ending, written=True), errors=errors)
        await self._batches.change(batch, batch.status)
        return batch

    async def _make(self, batch: Batch, file_id: str | None, kind: str) -> None:
        """One of the files, if there is to be one and it is not there."""
        if file_id is None:
            return
        try:
            await self._files.load(file_id, batch.owner)
        except NotFound:
            name = f"{batch.id}_{kind}.jsonl"
            async with aclosing(self._content(batch, kind)) as content:
                await self._files.create(
                    batch.owner, name, PURPOSE, content, batch.output_seconds, file_id
                )

    async def _content(self, batch: Batch, kind: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._lines(batch)) as lines:
            async for line in lines:
                if (line.status == "done") == (kind == "output"):
                    yield _told(batch, line) + b"\n"

    async def _lines(self, batch: Batch) -> AsyncGenerator[BatchLine, None]:
        last = 0
        while found := await self._batches.lines(batch.id, after=last, limit=_LINES):
            for line in found:
                yield line
            last = found[-1].number
            await asyncio.sleep(0)


def _told(batch: Batch, line: BatchLine) -> bytes:
    if line.result is not None:
        return line.result
    end: BatchEnd = batch.ending.end if batch.ending is not None else "cancelled"
    return write_batches.unrun(line.number, custom_id_of(line.request), end)
