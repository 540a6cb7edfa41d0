"""Uploads in parts over HTTP: POST /v1/uploads and what follows until it is a file."""

from __future__ import annotations

from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from ouzel.api import read_files, read_query, write_files
from ouzel.api.endpoints import OWNER, Exchange, as_json, path_id, query
from ouzel.api.endpoints_files import naming, one_file, room
from ouzel.api.read_errors import missing
from ouzel.core.contracts_files import Files
from ouzel.core.errors import TooLarge

_KIND = "Upload"


class UploadsEndpoints:
    """POST /v1/uploads, and parts, completion and cancelling of one.

    Args:
        files: None if this server keeps none.
    """

    def __init__(self, files: Files | None, exchange: Exchange) -> None:
        self._files = files
        self._exchange = exchange

    async def create(self, request: Request) -> Response:
        files = room(self._files)
        asked = await self._exchange.read(request, read_files.read_upload)
        with naming("bytes", TooLarge):
            info = await files.begin_upload(
                OWNER,
                asked.name,
                asked.file.purpose,
                asked.size,
                asked.media_type,
                asked.file.expires_after,
            )
        return as_json(write_files.upload(info))

    async def add_part(self, request: Request) -> Response:
        files = room(self._files)
        read_query.read_nothing(query(request))
        upload_id = path_id(request, _KIND)
        form = one_file(request, "data", read_files.MOST_PART, filename_needed=False)
        async with form:
            if not await form.begin():
                raise missing(("data",))
            async with aclosing(form.content()) as pieces:
                with naming("data", TooLarge):
                    part = await files.add_part(upload_id, OWNER, pieces)
        return as_json(write_files.upload_part(part))

    async def complete(self, request: Request) -> Response:
        files = room(self._files)
        upload_id = path_id(request, _KIND)
        part_ids, md5 = await self._exchange.read(request, read_files.read_complete)
        info = await files.complete_upload(upload_id, OWNER, part_ids, md5)
        return as_json(write_files.upload(info))

    async def cancel(self, request: Request) -> Response:
        files = room(self._files)
        await self._exchange.nothing(request)
        info = await files.cancel_upload(path_id(request, _KIND), OWNER)
        return as_json(write_files.upload(info))
