"""Containers over HTTP: POST, GET, DELETE below /v1/containers, and the files in them.

Whether and how code is run in one, the sandbox knows. What code left there is handed out as it is,
never as a page of this server (`transfer.py`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from ouzel.api import read_files, read_query, write_files
from ouzel.api.endpoints import OWNER, Exchange, as_json, path_id, query
from ouzel.api.endpoints_files import naming, one_file, room
from ouzel.api.read_errors import literal, missing, not_together
from ouzel.api.read_multipart import Form, is_form
from ouzel.api.transfer import download, pieces_of
from ouzel.core.contracts_files import Containers, Files
from ouzel.core.errors import NotFound, RequestError, TooLarge
from ouzel.core.files import ContainerFile

_KIND = "Container"
_FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")


class ContainersEndpoints:
    """POST and GET /v1/containers, and what can be done with one and its files.

    Args:
        containers: None if no code is run here.
        files: what may be copied into containers; None if there are none.
        max_file: bytes that a file may have that a client puts into a container.
        why_none: what is said where `containers` is None.
    """

    def __init__(
        self,
        containers: Containers | None,
        files: Files | None,
        exchange: Exchange,
        max_file: int,
        why_none: str,
    ) -> None:
        self._containers = containers
        self._files = files
        self._exchange = exchange
        self._max_file = max_file
        self._why_none = why_none

    async def create(self, request: Request) -> Response:
        containers = self._room()
        spec = await self._exchange.read(request, read_files.read_container)
        with naming("file_ids", TooLarge):
            return as_json(write_files.container(await containers.create(OWNER, spec)))

    async def page(self, request: Request) -> Response:
        containers = self._room()
        asked = read_files.read_containers_page(query(request))
        with naming("after", NotFound, "container_id"):
            found, more = await containers.page(
                OWNER, name=asked.only, after=asked.after, limit=asked.limit, order=asked.order
            )
        return as_json(write_files.page([write_files.container(info) for info in found], more))

    async def get(self, request: Request) -> Response:
        containers = self._room()
        read_query.read_nothing(query(request))
        return as_json(write_files.container(await containers.load(path_id(request, _KIND), OWNER)))

    async def delete(self, request: Request) -> Response:
        containers = self._room()
        await self._exchange.nothing(request)
        container_id = path_id(request, _KIND)
        await containers.delete(container_id, OWNER)
        return as_json(write_files.deleted(container_id, "container.deleted"))

    # Files.

    async def put_file(self, request: Request) -> Response:
        """The client's own bytes as a form, or one of its files by id, as JSON or as a form."""
        containers = self._room()
        container_id = path_id(request, _KIND)
        if not is_form(request.headers.get("content-type", "")):
            file_id = await self._exchange.read(request, read_files.read_container_file)
            return as_json(write_files.container_file(await self._copy(container_id, file_id)))
        read_query.read_nothing(query(request))
        async with one_file(request, "file", self._max_file, ("file_id",)) as form:
            if not await form.begin():
                if not form.values:
                    raise missing(("file",))
                file_id = read_files.read_container_file(form.values)
                return as_json(write_files.container_file(await self._copy(container_id, file_id)))
            async with aclosing(_alone(form)) as pieces:
                with naming("file", TooLarge, "name"):
                    put = await containers.put(container_id, OWNER, form.filename or "", pieces)
        return as_json(write_files.container_file(put))

    async def _copy(self, container_id: str, file_id: str) -> ContainerFile:
        containers, files = self._room(), room(self._files)
        with naming("file_id", NotFound):
            content = await files.open(file_id, OWNER)
        try:
            async with aclosing(pieces_of(content)) as pieces:
                with naming("file_id", TooLarge, "name"):
                    return await containers.put(container_id, OWNER, content.name, pieces)
        finally:
            content.close()

    async def page_of_files(self, request: Request) -> Response:
        containers = self._room()
        asked = read_files.read_container_files_page(query(request))
        found = await containers.files(path_id(request, _KIND), OWNER)
        if asked.order == "desc":
            found.reverse()
        start = 0
        if asked.after is not None:
            start = _place(found, asked.after) + 1
        chosen = found[start : start + asked.limit]
        more = start + asked.limit < len(found)
        return as_json(
            write_files.page([write_files.container_file(info) for info in chosen], more)
        )

    async def get_file(self, request: Request) -> Response:
        containers = self._room()
        read_query.read_nothing(query(request))
        container_id, file_id = path_id(request, _KIND), _file_id(request)
        info, content = await containers.open(container_id, OWNER, file_id)
        content.close()
        return as_json(write_files.container_file(info))

    async def delete_file(self, request: Request) -> Response:
        containers = self._room()
        await self._exchange.nothing(request)
        container_id, file_id = path_id(request, _KIND), _file_id(request)
        await containers.delete_file(container_id, OWNER, file_id)
        return as_json(write_files.deleted(file_id, "container.file.deleted"))

    async def content(self, request: Request) -> Response:
        containers = self._room()
        read_query.read_nothing(query(request))
        container_id, file_id = path_id(request, _KIND), _file_id(request)
        _, content = await containers.open(container_id, OWNER, file_id)
        return download(request, file_id, content, changes=True)

    def _room(self) -> Containers:
        if self._containers is None:
            raise RequestError(self._why_none, code="unsupported")
        return self._containers


async def _alone(form: Form) -> AsyncGenerator[bytes, None]:
    """The file; fails before its end if a file was named besides."""
    async with aclosing(form.content()) as pieces:
        async for piece in pieces:
            yield piece
    if form.values:
        raise not_together(("file_id",), "Send either 'file' or 'file_id', not both.")


def _file_id(request: Request) -> str:
    found: str = request.path_params["file_id"]
    if not _FILE_ID.fullmatch(found):
        raise NotFound(f"File with id {literal(found)} not found.", code="not_found")
    return found


def _place(found: list[ContainerFile], file_id: str) -> int:
    ids = [info.id for info in found]
    if file_id not in ids:
        message = f"There is no file with id {literal(file_id)} in this container."
        raise NotFound(message, param="after", code="not_found")
    return ids.index(file_id)
