"""Batches over HTTP: POST and GET /v1/batches, and what can be done with one.

Objects are read and written elsewhere; what happens with a batch is `batch_runner`'s business.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer import Answers
from ouzel.api import read_batches, read_query, write_batches, write_files
from ouzel.api.batch_runner import BatchRunner
from ouzel.api.endpoints import OWNER, Exchange, as_json, path_id, query
from ouzel.api.endpoints_files import naming, room
from ouzel.api.read_errors import literal
from ouzel.core.contracts_batches import Batch
from ouzel.core.contracts_files import Files
from ouzel.core.errors import NotFound, RequestError
from ouzel.core.items import new_id

WINDOW: Final = 24 * 3600.0
"""Seconds in which a batch is to be done; the only window there is."""

_KIND = "Batch"


class BatchesEndpoints:
    """POST and GET /v1/batches, GET and cancel of one.

    Args:
        runner: None if this server runs none.
        files: where input files are; None if this server keeps none.
    """

    def __init__(
        self, runner: BatchRunner | None, files: Files | None, answers: Answers, exchange: Exchange
    ) -> None:
        self._runner = runner
        self._files = files
        self._answers = answers
        self._exchange = exchange

    async def create(self, request: Request) -> Response:
        runner, files = self._room(), room(self._files)
        wanted = await self._exchange.read(request, read_batches.read_create)
        with naming("input_file_id", NotFound):
            file = await files.load(wanted.input_file_id, OWNER)
        if file.purpose != "batch":
            raise RequestError(
                f"Invalid 'input_file_id': the file was uploaded with purpose "
                f"{literal(file.purpose)}; a batch needs one with purpose 'batch'.",
                param="input_file_id",
                code="invalid_value",
            )
        now = runner.now()
        batch = Batch(
            id=new_id("batch"),
            owner=OWNER,
            endpoint=wanted.endpoint,
            model=self._answers.engine.info.model,
            input_file_id=file.id,
            created_at=now,
            expires_at=now + WINDOW,
            metadata=wanted.metadata,
            output_seconds=wanted.output_seconds,
        )
        return as_json(write_batches.batch(await runner.submit(batch)))

    async def page(self, request: Request) -> Response:
        runner = self._room()
        after, limit = read_batches.read_page(query(request))
        found = await runner.batches.page(OWNER, after=after, limit=limit)
        written = [write_batches.batch(each) for each in found.entries]
        return as_json(write_files.page(written, found.more))

    async def get(self, request: Request) -> Response:
        runner = self._room()
        read_query.read_nothing(query(request))
        found = await runner.batches.get(path_id(request, _KIND), OWNER)
        return as_json(write_batches.batch(found))

    async def cancel(self, request: Request) -> Response:
        runner = self._room()
        await self._exchange.nothing(request)
        found = await runner.cancel(path_id(request, _KIND), OWNER)
        return as_json(write_batches.batch(found))

    def _room(self) -> BatchRunner:
        if self._runner is None:
            raise RequestError("This server runs no batches.", code="unsupported")
        return self._runner
