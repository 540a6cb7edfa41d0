"""POST /v1/responses/compact: a conversation in fewer words, because the client asks for it."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer import Answers
from ouzel.api import read_compact, write_compact
from ouzel.api.endpoints import OWNER, Exchange, answer_within, as_json, watched
from ouzel.core.errors import RequestError


class CompactEndpoint:
    """Nothing of it is stored: what comes of it, the client sends with its next request."""

    def __init__(self, answers: Answers, exchange: Exchange) -> None:
        self._answers = answers
        self._exchange = exchange

    async def create(self, request: Request) -> Response:
        reader = partial(read_compact.read, answer_within=answer_within(request))
        asked = await self._exchange.read(request, reader)
        task = asyncio.create_task(self._answers.compact(asked, OWNER))
        try:
            async with watched(request, (task,)):
                await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            raise RequestError("The client went away before its conversation was compacted.")
        return as_json(write_compact.compacted(task.result()))
