"""Batches: many requests in one file, answered when there is room. Nouns, and the promises.

A batch has lines, numbered as in the file that the client handed over. A line waits until it is
answered; then its result is kept for good, in one stroke with its status. What is in a line and in
its result is bytes here: only `api` reads and writes wire JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ouzel.core.contracts_state import PageOf
from ouzel.core.turns import Usage

BatchEnd = Literal["failed", "completed", "expired", "cancelled"]
BatchStatus = Literal["validating", "in_progress", "finalizing", "cancelling"] | BatchEnd
LineStatus = Literal["waiting", "done", "failed"]


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """Why a batch has failed, or cannot end yet.

    Args:
        line: number of the line in the input file, from 1, where it is one line's.
    """

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """How many lines there are, and how many of them have which result."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def waiting(self) -> int:
        """Lines without a result."""
        return self.total - self.completed - self.failed


@dataclass(frozen=True, slots=True)
class BatchEnding:
    """How a batch ends. It is kept before the files are made, so that each is made once.

    Args:
        end: the status that it will have.
        output_id: the id that the file of results has or will have; None if there is none.
        error_id: the same for the lines that failed or did not run.
        written: the files are there.
    """

    end: BatchEnd
    output_id: str | None = None
    error_id: str | None = None
    written: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it is now.

    Args:
        id: `batch_` and random bits.
        endpoint: path of the call that each line is for.
        model: the served model's own name.
        created_at: seconds since the epoch, like all times here.
        expires_at: when lines that still wait are given up.
        output_seconds: how long its files are kept; None for ever.
        counts: true at any time while it is live, and final once there is an `ending`.
        usage: tokens of all results, once there is an `ending`.
        ended_at: when it reached its last status.
    """

    id: str
    owner: str
    endpoint: str
    model: str
    input_file_id: str
    created_at: float
    expires_at: float
    status: BatchStatus = "validating"
    metadata: Mapping[str, str] | None = None
    output_seconds: float | None = None
    errors: tuple[BatchProblem, ...] = ()
    counts: BatchCounts = field(default_factory=BatchCounts)
    usage: Usage | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    ended_at: float | None = None
    ending: BatchEnding | None = None


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line.

    Args:
        number: in the input file, from 1.
        request: as the client wrote it; empty where it was not worth keeping.
        result: what the client will read of it, without a line end; None as long as it waits.
    """

    number: int
    status: LineStatus
    request: bytes = field(default=b"", repr=False)
    result: bytes | None = field(default=None, repr=False)


class Batches(Protocol):
    """Keeps batches. Every method may raise StoreError.

    When a writing method returns, what it wrote survives the death of this process.
    """

    async def create(self, batch: Batch) -> None:
        """Keep a new batch."""
        ...

    async def get(self, batch_id: str, owner: str) -> Batch:
        """The batch. Raises NotFound, also for someone else's."""
        ...

    async def page(self, owner: str, *, after: str | None, limit: int) -> PageOf[Batch]:
        """The owner's batches, newest first. Raises NotFound (`param` is `after`) if there is no
        such batch."""
        ...

    async def live(self) -> list[Batch]:
        """Every owner's batches that have not ended, oldest first."""
        ...

    async def change(self, batch: Batch, was: BatchStatus) -> None:
        """Keep the batch as it is now. Raises Conflict if its status is not `was` any more."""
        ...

    async def last_line(self, batch_id: str) -> int:
        """The highest number of a line that is kept; 0 for none."""
        ...

    async def add_lines(self, batch_id: str, lines: Sequence[BatchLine]) -> None:
        """Keep lines, all or none."""
        ...

    async def next_line(self, batch_id: str, after: int) -> BatchLine | None:
        """The first line that waits, behind this number."""
        ...

    async def record(self, batch_id: str, line: BatchLine) -> None:
        """Keep a line's result and status, both or neither. Raises Conflict if it does not wait."""
        ...

    async def lines(self, batch_id: str, *, after: int, limit: int) -> list[BatchLine]:
        """Lines behind this number, in order."""
        ...

    async def drop_lines(self, batch_id: str, up_to: int) -> None:
        """Forget the lines up to this number; for a batch whose files are written."""
        ...


class Spare(Protocol):
    """Room that no live request needs."""

    async def room(self) -> None:
        """Returns when there is room for one more piece of work that can wait."""
        ...

    def hold(self, give_way: Callable[[], None]) -> AbstractContextManager[None]:
        """Take that room, right after `room` has returned; given back when the block ends.

        Args:
            give_way: called when a live request needs the room: the work is to end at once, and
                may be tried again later. Must not block, nor raise.
        """
        ...
