"""The Responses API over HTTP: which call does what. JSON is read and written elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer import Answer, Answers
from ouzel.api import read_query, read_responses, write_responses
from ouzel.api.endpoints import (
    OWNER,
    Exchange,
    answer_within,
    as_json,
    failed,
    path_id,
    query,
    watched,
)
from ouzel.api.sse import EventStream
from ouzel.core.errors import RequestError
from ouzel.core.events import Event

_KIND = "Response"


class ResponsesEndpoints:
    """POST /v1/responses and what can be done with a stored response."""

    def __init__(self, answers: Answers, exchange: Exchange) -> None:
        self._answers = answers
        self._exchange = exchange

    async def create(self, request: Request) -> Response:
        hosted, within = self._answers.hosted, answer_within(request)
        reader = partial(read_responses.read, hosted=hosted, answer_within=within)
        asked = await self._exchange.read(request, reader)
        answer = await self._answers.open(asked.request, OWNER)
        if asked.request.background:
            if asked.stream:
                return EventStream(self._chunks(answer))
            return as_json(write_responses.response(answer.run))
        if asked.stream:
            return EventStream(self._chunks(answer), answer.cancel, answer.close)
        try:
            async with watched(request, (answer,)):
                run = await answer.whole()
        finally:
            await answer.close()
        if run.failure is not None:
            return failed(run.failure)
        return as_json(write_responses.response(run))

    async def _chunks(self, answer: Answer) -> AsyncGenerator[bytes | None, None]:
        stream = write_responses.ResponseStream(answer.run)
        async for chunk in _written(stream, answer.batches(self._exchange.keep_alive)):
            yield chunk

    async def input_tokens(self, request: Request) -> Response:
        reader = partial(read_responses.read_input_tokens, hosted=self._answers.hosted)
        asked = await self._exchange.read(request, reader)
        tokens = await self._answers.count_tokens(asked, OWNER)
        return as_json(write_responses.input_tokens(tokens))

    async def get(self, request: Request) -> Response:
        wanted = read_query.read_retrieve(query(request))
        response_id = path_id(request, _KIND)
        if wanted.stream:
            return await self._resume(response_id, wanted)
        run = await self._answers.load(response_id, OWNER)
        return as_json(write_responses.response(run, include=wanted.include))

    async def _resume(self, response_id: str, wanted: read_query.Retrieve) -> Response:
        """The events of a stored response from some number on; it does not care who reads."""
        keep_alive = self._exchange.keep_alive
        found = await self._answers.follow(response_id, OWNER, keep_alive)
        asked = found.run.request
        # What is asked for now is shown beside what was asked for then.
        run = replace(found.run, request=replace(asked, include=asked.include | wanted.include))
        stream = write_responses.ResponseStream(run, start=wanted.starting_after + 1)
        if not found.ended:
            return EventStream(_written(stream, found.batches))
        chunks = [stream.write(events) async for events in found.batches]
        if wanted.starting_after >= stream.sequence:
            raise RequestError(
                f"The stream of this response ends with the event {stream.sequence - 1}; there is "
                f"none after {wanted.starting_after}.",
                param="starting_after",
                code="invalid_value",
            )
        return EventStream(_given(chunks))

    async def delete(self, request: Request) -> Response:
        await self._exchange.nothing(request)
        response_id = path_id(request, _KIND)
        await self._answers.delete(response_id, OWNER)
        return as_json(write_responses.deleted(response_id))

    async def cancel(self, request: Request) -> Response:
        await self._exchange.nothing(request)
        run = await self._answers.cancel(path_id(request, _KIND), OWNER)
        return as_json(write_responses.response(run))

    async def input_items(self, request: Request) -> Response:
        page = read_query.read_page(query(request))
        run = await self._answers.load(path_id(request, _KIND), OWNER)
        return as_json(
            write_responses.input_items(
                run.request.input,
                after=page.after,
                limit=page.limit,
                order=page.order,
                include=page.include,
            )
        )


async def _written(
    stream: write_responses.ResponseStream, batches: AsyncGenerator[Sequence[Event], None]
) -> AsyncGenerator[bytes | None, None]:
    async with aclosing(batches):
        async for events in batches:
            yield stream.write(events) if events else None


async def _given(chunks: Sequence[bytes]) -> AsyncGenerator[bytes | None, None]:
    for chunk in chunks:
        yield chunk
