"""The Responses API over HTTP: which call does what. JSON is read and written elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator
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
        async for events in answer.batches(self._exchange.keep_alive):
            yield stream.write(events) if events else None

    async def input_tokens(self, request: Request) -> Response:
        reader = partial(read_responses.read_input_tokens, hosted=self._answers.hosted)
        asked = await self._exchange.read(request, reader)
        tokens = await self._answers.count_tokens(asked, OWNER)
        return as_json(write_responses.input_tokens(tokens))

    async def get(self, request: Request) -> Response:
        include = read_query.read_retrieve(query(request))
        run = await self._answers.load(path_id(request, _KIND), OWNER)
        return as_json(write_responses.response(run, include=include))

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
