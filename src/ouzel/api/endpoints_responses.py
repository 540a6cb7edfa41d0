"""The Responses API over HTTP: which call does what. JSON is read and written elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer import Answer, Answers
from ouzel.api import read_responses, write_responses
from ouzel.api.endpoints import OWNER, Exchange, as_json, failed, only_query, watched
from ouzel.api.sse import EventStream
from ouzel.core.errors import RequestError


class ResponsesEndpoints:
    """POST /v1/responses and what can be done with a stored response."""

    def __init__(self, answers: Answers, exchange: Exchange) -> None:
        self._answers = answers
        self._exchange = exchange

    async def create(self, request: Request) -> Response:
        asked = await self._exchange.read(request, read_responses.read)
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
        asked = await self._exchange.read(request, read_responses.read_input_tokens)
        tokens = await self._answers.count_tokens(asked, OWNER)
        return as_json(write_responses.input_tokens(tokens))

    async def get(self, request: Request) -> Response:
        query = only_query(request, "include", "include_obfuscation", "stream", "starting_after")
        if query.get("stream", "false").lower() not in ("false", "0"):
            raise RequestError(
                "Unsupported parameter: 'stream' is not supported here yet.",
                param="stream",
                code="unsupported_parameter",
            )
        if "starting_after" in query:
            raise RequestError(
                "'starting_after' needs 'stream=true', which is not supported yet.",
                param="starting_after",
                code="unsupported_parameter",
            )
        run = await self._answers.store.load(request.path_params["response_id"], OWNER)
        return as_json(write_responses.response(run))

    async def delete(self, request: Request) -> Response:
        only_query(request)
        response_id = request.path_params["response_id"]
        await self._answers.delete(response_id, OWNER)
        return as_json(write_responses.deleted(response_id))

    async def cancel(self, request: Request) -> Response:
        only_query(request)
        run = await self._answers.cancel(request.path_params["response_id"], OWNER)
        return as_json(write_responses.response(run))

    async def input_items(self, request: Request) -> Response:
        query = only_query(request, "after", "limit", "order", "include")
        order = _order(query.get("order", "desc"))
        limit = query.get("limit", "20")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:4]) <= 100:
            raise RequestError(
                f"Invalid 'limit': expected an integer from 1 to 100, but got '{limit[:20]}'.",
                param="limit",
                code="invalid_value",
            )
        run = await self._answers.store.load(request.path_params["response_id"], OWNER)
        return as_json(
            write_responses.input_items(
                run.request.input, after=query.get("after"), limit=int(limit), order=order
            )
        )


def _order(given: str) -> Literal["asc", "desc"]:
    if given == "asc":
        return "asc"
    if given == "desc":
        return "desc"
    raise RequestError(
        f"Invalid value: '{given[:20]}'. Supported values are: 'asc' and 'desc'.",
        param="order",
        code="invalid_value",
    )
