"""Takes the input file of a batch apart: each line is checked, and copied for the batch to keep.

It reads a file of any size piece by piece, in the event loop, and lets others go on after every
line. A file that is read again after a crash gives the same lines; those that are kept already
are not kept twice. How a line is answered, it does not know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from ouzel.answer import Answers
from ouzel.api import failures, write_batches
from ouzel.api.batch_line import BIG
from ouzel.api.read_batches import custom_id_of, read_line, read_request
from ouzel.api.transfer import pieces_of
from ouzel.core.contracts_batches import Batch, Batches, BatchLine, BatchProblem
from ouzel.core.errors import RequestError
from ouzel.core.files import Content
from ouzel.core.items import new_id

_log = logging.getLogger(__name__)

MOST_LINES: Final = 50_000
MOST_BYTES: Final = 200 * 1024 * 1024
"""Requests and bytes of an input file, as the API reference limits them."""

MOST_PROBLEMS: Final = 100
"""Wrong lines that the batch itself tells of; its error file has all."""

_TOGETHER = 100
_TOGETHER_BYTES = 2**20
"""Lines, and bytes of them, that are kept in one write."""

_BOM = b"\xef\xbb\xbf"


class Unfit(Exception):
    """The whole file cannot be a batch's input.

    Args:
        problems: why, as the client is told.
    """

    def __init__(self, *problems: BatchProblem) -> None:
        super().__init__(*problems)
        self.problems = problems


@dataclass(slots=True)
class Findings:
    """What was seen in a file; `problems` are the first of its wrong lines."""

    lines: int = 0
    wrong: int = 0
    problems: list[BatchProblem] = field(default_factory=list)


class InputCheck:
    """Checks and copies the lines of one batch.

    Args:
        answers: knows models and tools.
        longest: bytes that a line may have: those of a request over HTTP.
        stopped: says whether the client has cancelled the batch.
    """

    def __init__(
        self,
        batches: Batches,
        answers: Answers,
        batch: Batch,
        longest: int,
        stopped: Callable[[], bool],
    ) -> None:
        self._batches = batches
        self._answers = answers
        self._batch = batch
        self._longest = longest
        self._stopped = stopped
        self._seen: set[str] = set()
        self._found = Findings()

    async def run(self, content: Content) -> Findings:
        """Check all lines. A batch that is cancelled meanwhile gets no further.

        Raises:
            Unfit: the file is too large, has too many lines or none, or none that is right.
            StoreError: a line could not be kept.
        """
        if content.size > MOST_BYTES:
            raise Unfit(
                BatchProblem(
                    "file_too_large",
                    f"The input file has {content.size} bytes; at most {MOST_BYTES} are taken.",
                    "input_file_id",
                )
            )
        kept = await self._batches.last_line(self._batch.id)
        group: list[BatchLine] = []
        size = 0
        async with aclosing(raw_lines(content, self._longest)) as lines:
            async for number, raw in lines:
                if self._stopped():
                    break
                line = await self._check(number, raw)
                if number > kept:
                    group.append(line)
                    size += len(line.request) + len(line.result or b"")
                if len(group) >= _TOGETHER or size >= _TOGETHER_BYTES:
                    await self._batches.add_lines(self._batch.id, group)
                    group, size = [], 0
                await asyncio.sleep(0)
        if group:
            await self._batches.add_lines(self._batch.id, group)
        if not self._stopped():
            self._judge()
        return self._found

    def _judge(self) -> None:
        found = self._found
        if not found.lines:
            problem = BatchProblem("empty_file", "The input file has no requests.", "input_file_id")
            raise Unfit(problem)
        if found.wrong < found.lines:
            return
        if found.wrong > len(found.problems):
            found.problems.append(
                BatchProblem(
                    "more_errors",
                    f"{found.wrong - len(found.problems)} further lines are wrong; the error file "
                    "has all.",
                )
            )
        raise Unfit(*found.problems)

    async def _check(self, number: int, raw: bytes | None) -> BatchLine:
        self._found.lines += 1
        if self._found.lines > MOST_LINES:
            message = f"The input file has more than the {MOST_LINES} requests that are taken."
            raise Unfit(BatchProblem("too_many_requests", message, "input_file_id"))
        if raw is not None and len(raw) > BIG:
            line, problem = await asyncio.to_thread(self._line, number, raw)
        else:
            line, problem = self._line(number, raw)
        if problem is not None:
            self._found.wrong += 1
            if len(self._found.problems) < MOST_PROBLEMS:
                self._found.problems.append(problem)
        return line

    def _line(self, number: int, raw: bytes | None) -> tuple[BatchLine, BatchProblem | None]:
        """The line as it is kept, and what is wrong with it."""
        if raw is None:
            told = f"This line has more than the {self._longest} bytes that are taken."
            return _wrong(number, None, RequestError(told, code="line_too_large"))
        try:
            wanted = read_line(raw, self._batch.endpoint)
            self._take(wanted.custom_id)
        except RequestError as error:
            return _wrong(number, custom_id_of(raw), error)
        try:
            asked = read_request(self._batch.endpoint, wanted.body, self._answers.hosted)
            self._answers.resolve(asked.request.model)
        except Exception as error:
            # As the endpoint would answer it over HTTP.
            request_id = new_id("req")
            status, body, _ = failures.error_body(error, request_id)
            result = write_batches.refused(number, wanted.custom_id, request_id, status, body)
            line = BatchLine(number, "failed", result=result)
            if isinstance(error, RequestError):
                return line, _problem(error, number)
            _log.exception("batch %s, line %d", self._batch.id, number)
            told = f"The line could not be read. If you report this, include {request_id}."
            return line, BatchProblem("server_error", told, None, number)
        return BatchLine(number, "waiting", raw), None

    def _take(self, custom_id: str) -> None:
        if custom_id in self._seen:
            raise RequestError(
                "An earlier line has the same 'custom_id'; each needs one of its own.",
                param="custom_id",
                code="duplicate_custom_id",
            )
        self._seen.add(custom_id)


def _problem(error: RequestError, number: int) -> BatchProblem:
    return BatchProblem(error.code or "invalid_request", error.message, error.param, number)


def _wrong(
    number: int, custom_id: str | None, error: RequestError
) -> tuple[BatchLine, BatchProblem]:
    problem = _problem(error, number)
    told = write_batches.unreadable(custom_id, problem)
    return BatchLine(number, "failed", result=told), problem


async def raw_lines(
    content: Content, longest: int
) -> AsyncGenerator[tuple[int, bytes | None], None]:
    """The lines of a file that are not blank, each with its number, from 1.

    Ends of lines are LF or CRLF; a mark of UTF-8 at the start is passed over.

    Args:
        longest: bytes; None is given for a line that has more, of which no more is kept in memory.
    """
    held: list[bytes] = []
    number, size = 1, 0

    def whole() -> bytes | None:
        if size > longest:
            return None
        line = b"".join(held)
        return (line.removeprefix(_BOM) if number == 1 else line).strip()

    async with aclosing(pieces_of(content)) as pieces:
        async for piece in pieces:
            for place, part in enumerate(piece.split(b"\n")):
                if place:
                    line = whole() if size else b""
                    if line != b"":
                        yield number, line
                    number, held, size = number + 1, [], 0
                size += len(part)
                if size > longest:
                    held = []
                else:
                    held.append(part)
    line = whole()
    if line != b"":
        yield number, line
