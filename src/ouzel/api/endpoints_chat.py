"""Chat Completions over HTTP: a narrower view of the same runs, one run for each choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer import Answer, Answers
from ouzel.api import read_chat, write_chat
from ouzel.api.endpoints import OWNER, Exchange, answer_within, as_json, failed, watched
from ouzel.api.read_tools import param_in_chat
from ouzel.api.sse import EventStream
from ouzel.core.errors import NotFound, RequestError, StoreError
from ouzel.core.events import Delta, Event, RunFinished
from ouzel.core.request import Request as Asked
from ouzel.core.runs import Run


class ChatEndpoints:
    """POST /v1/chat/completions."""

    def __init__(self, answers: Answers, exchange: Exchange) -> None:
        self._answers = answers
        self._exchange = exchange

    async def create(self, request: Request) -> Response:
        reader = partial(
            read_chat.read, hosted=self._answers.hosted, answer_within=answer_within(request)
        )
        asked = await self._exchange.read(request, reader)
        answers = await self._open(asked)
        if asked.stream:
            return await self._stream(request, asked, answers)
        try:
            async with watched(request, answers):
                runs: list[Run] = []
                for answer in answers:
                    run = await answer.whole()
                    if run.failure is not None:
                        return failed(run.failure)
                    runs.append(run)
        finally:
            await _close(answers)
        return as_json(write_chat.completion(runs))

    async def _open(self, asked: read_chat.ChatRequest) -> list[Answer]:
        answers: list[Answer] = []
        wanted = asked.request
        try:
            for choice in range(asked.n):
                first = answers[0].run.id if answers else None
                answers.append(await self._answers.open(choice_of(wanted, choice, first), OWNER))
                # Files that came along are kept by now, once for all choices.
                wanted = replace(wanted, input=answers[0].run.request.input)
        except BaseException as error:
            await _close(answers)
            await self._forget(answers)
            if isinstance(error, RequestError):
                error.param = asked.place(param_in_chat(error.param))
            raise
        return answers

    async def _forget(self, answers: Sequence[Answer]) -> None:
        """Choices of a completion that never began as a whole are no completion: not kept."""
        for answer in answers:
            if answer.run.request.store:
                with suppress(NotFound, StoreError):
                    await self._answers.delete(answer.run.id, OWNER, "chat")

    async def _stream(
        self, request: Request, asked: read_chat.ChatRequest, answers: list[Answer]
    ) -> Response:
        """Begin the stream once there is something to say, so that early failures are errors.

        Chat Completions has no event for "it has begun": before the first delta a failure can
        still be answered with its HTTP status. After one keep-alive period the stream begins in
        any case.
        """
        batches = merged([answer.batches(self._exchange.keep_alive) for answer in answers])
        early: list[tuple[int, Sequence[Event]]] = []

        async def close() -> None:
            await batches.aclose()
            await _close(answers)

        try:
            async with watched(request, answers):
                async for index, events in batches:
                    early.append((index, events))
                    if not events or any(_says_something(event) for event in events):
                        break
            last = early[-1][1]
            end = last[-1] if last else None
            if isinstance(end, RunFinished) and end.failure and not _spoke(early):
                await close()
                return failed(end.failure)
        except BaseException:
            await close()
            raise
        return EventStream(
            _chunks(asked, answers, early, batches),
            gone=lambda: _cancel(answers),
            close=close,
        )


async def _chunks(
    asked: read_chat.ChatRequest,
    answers: Sequence[Answer],
    early: Sequence[tuple[int, Sequence[Event]]],
    batches: AsyncGenerator[tuple[int, Sequence[Event]]],
) -> AsyncGenerator[bytes | None, None]:
    run = answers[0].run
    stream = write_chat.ChatStream(
        run.id, run.created_at, run.model, asked.n, include_usage=asked.include_usage
    )
    for index, events in early:
        yield stream.write(index, events) if events else None
    async for index, events in batches:
        yield stream.write(index, events) if events else None
    yield stream.done()


async def merged(
    sources: Sequence[AsyncGenerator[Sequence[Event], None]],
) -> AsyncGenerator[tuple[int, Sequence[Event]], None]:
    """The batches of several answers as they come, each with the index of its answer."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as only:
            async for events in only:
                yield 0, events
        return
    queue: asyncio.Queue[tuple[int, Sequence[Event]] | None] = asyncio.Queue()

    async def drain(index: int, source: AsyncGenerator[Sequence[Event], None]) -> None:
        try:
            async for events in source:
                queue.put_nowait((index, events))
        finally:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(drain(*numbered)) for numbered in enumerate(sources)]
    try:
        running = len(tasks)
        while running:
            found = await queue.get()
            if found is None:
                running -= 1
            else:
                yield found
        for task in tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def choice_of(asked: Asked, choice: int, first: str | None) -> Asked:
    """The request for one of several choices: with a seed, each gets one of its own.

    Args:
        first: the run of the first choice; the others are found through it once they are stored.
    """
    asked = replace(asked, choice_of=first)
    seed = asked.sampling.seed
    if seed is None or choice == 0:
        return asked
    seed = (seed + choice + 2**63) % 2**64 - 2**63  # stays in the range that seeds have
    return replace(asked, sampling=replace(asked.sampling, seed=seed))


def _spoke(batches: Sequence[tuple[int, Sequence[Event]]]) -> bool:
    return any(isinstance(event, Delta) for _, events in batches for event in events)


def _says_something(event: Event) -> bool:
    return isinstance(event, Delta | RunFinished)


def _cancel(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.cancel()


async def _close(answers: Sequence[Answer]) -> None:
    for answer in answers:
        await answer.close()
