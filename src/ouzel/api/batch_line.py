"""Answers one line of a batch, as the endpoint answers the same body over HTTP.

What is not the line's own fault (the engine is not there, the disk is full, the server stops) is
no result: the line is to be tried again, and nothing of the attempt is left. When and in which
order lines are answered, it does not know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypeVar

from ouzel.answer import Answer, Answers
from ouzel.api import failures, write_batches, write_chat, write_responses
from ouzel.api.endpoints_chat import choice_of
from ouzel.api.read_batches import Asked, read_line, read_request
from ouzel.api.read_tools import param_in_chat
from ouzel.core.contracts_batches import Batch, BatchLine
from ouzel.core.errors import (
    Conflict,
    EngineUnavailable,
    OuzelError,
    RequestError,
    ShuttingDown,
    StoreError,
    TooManyRequests,
)
from ouzel.core.events import Failure
from ouzel.core.items import new_id
from ouzel.core.request import Request
from ouzel.core.runs import Run

_log = logging.getLogger(__name__)

_PAUSE: Final = 2.0
"""Seconds until something that went wrong by no fault of the line is tried again."""

BIG: Final = 256 * 1024
"""Bytes from which a line is read in a thread."""

P = ParamSpec("P")
T = TypeVar("T")

_PASSING = frozenset({"engine_unavailable", "insufficient_storage", "server_shutting_down"})
"""Codes of failures that say nothing of the line."""


class TryAgain(Exception):
    """The line has no result yet, by no fault of its own.

    Args:
        after: seconds until it makes sense.
        everything: other lines would meet the same.
        stopping: the server is.
    """

    def __init__(self, after: float, *, everything: bool = True, stopping: bool = False) -> None:
        super().__init__(after)
        self.after = after
        self.everything = everything
        self.stopping = stopping


class Failed(Exception):
    """A run has failed, and not in passing."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


async def answer_line(answers: Answers, batch: Batch, line: BatchLine, last: bool) -> BatchLine:
    """The line with its result. If this is cancelled, nothing of the answer is left.

    Args:
        last: it was tried often enough: what fails now has failed.

    Raises:
        TryAgain: nothing is left of this attempt.
    """
    big = len(line.request) > BIG
    wanted = await _read(big, read_line, line.request, batch.endpoint)
    request_id = new_id("req")
    status: int
    body: dict[str, Any]
    try:
        asked = await _read(big, read_request, batch.endpoint, wanted.body, answers.hosted)
        body = await _answer(answers, asked, batch.owner, last)
        result = write_batches.answered(wanted.custom_id, request_id, body)
        return replace(line, status="done", result=result)
    except Failed as error:
        status, body, _ = failures.of_failure(error.failure)
    except OuzelError as error:
        _again_if_passing(error)
        status, body, _ = failures.error_body(error, request_id)
    except TryAgain:
        raise
    except Exception as error:
        _log.error("batch %s, line %d failed", batch.id, line.number, exc_info=error)
        status, body, _ = failures.error_body(error, request_id)
    result = write_batches.refused(line.number, wanted.custom_id, request_id, status, body)
    return replace(line, status="failed", result=result)


async def _read(big: bool, reader: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """What a reader says; of a big line in a thread, so that nobody else has to wait."""
    return await asyncio.to_thread(reader, *args, **more) if big else reader(*args, **more)


def _again_if_passing(error: OuzelError) -> None:
    """Raises TryAgain for what is not the line's fault."""
    match error:
        case EngineUnavailable() | TooManyRequests():
            raise TryAgain(error.retry_after) from error
        case ShuttingDown():
            raise TryAgain(_PAUSE, stopping=True) from error
        case StoreError():
            raise TryAgain(_PAUSE) from error
        case Conflict(code="conversation_locked"):
            raise TryAgain(_PAUSE, everything=False) from error


async def _answer(answers: Answers, asked: Asked, owner: str, last: bool) -> dict[str, Any]:
    """The object that answers it. Raises Failed, TryAgain, and as `Answers.open`."""
    runs: list[Run] = []
    wanted = asked.request
    try:
        # One choice after the other: there is room for one.
        for number in range(asked.n):
            first = runs[0].id if runs else None
            runs.append(await _run(answers, choice_of(wanted, number, first), owner))
            _look(runs[-1].failure, last)
            # Files that came along are kept by now, once for all choices.
            wanted = replace(wanted, input=runs[0].request.input)
    except Failed:
        raise
    except RequestError as error:
        if asked.chat is not None:
            error.param = asked.chat.place(param_in_chat(error.param))
        raise
    except BaseException:
        await _forget(answers, *runs)
        raise
    if asked.chat is not None:
        return write_chat.completion(runs)
    return write_responses.response(runs[0])


def _look(failure: Failure | None, last: bool) -> None:
    """Raises TryAgain or Failed, if it has failed."""
    if failure is None:
        return
    if failure.code in _PASSING:
        stopping = failure.code == "server_shutting_down"
        raise TryAgain(failure.retry_after or _PAUSE, stopping=stopping)
    # A mistake of ours or of the engine may not happen again.
    if failure.status >= 500 and not last:
        raise TryAgain(_PAUSE, everything=False)
    raise Failed(failure)


async def _run(answers: Answers, request: Request, owner: str) -> Run:
    """One run from start to end."""
    answer = await _opened(answers, request, owner)
    try:
        return await answer.whole()
    except asyncio.CancelledError:
        await _forget(answers, answer.run)
        raise
    finally:
        await answer.close()


async def _opened(answers: Answers, request: Request, owner: str) -> Answer:
    """The answer; half an opening is seen through to its end, so that its run is known."""
    opening = asyncio.ensure_future(answers.open(request, owner, admission=nullcontext()))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait((opening,))
        if not opening.cancelled() and opening.exception() is None:
            answer = opening.result()
            await _forget(answers, answer.run)
            await answer.close()
        raise


async def _forget(answers: Answers, *runs: Run) -> None:
    """Runs that were stored and are no result of anything."""
    for run in runs:
        if run.request.store:
            with suppress(OuzelError):
                await answers.delete(run.id, run.owner, run.request.protocol)
