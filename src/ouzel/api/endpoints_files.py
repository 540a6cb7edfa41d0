"""Files over HTTP: POST, GET, DELETE below /v1/files. Bytes go by and are never all here.

Forms are read, and objects written, elsewhere; where files lie, the store knows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from starlette.requests import Request
from starlette.responses import Response

from ouzel.api import read_files, read_query, write_files
from ouzel.api.endpoints import OWNER, Exchange, as_json, path_id, query
from ouzel.api.read_errors import missing
from ouzel.api.read_files import FileWanted
from ouzel.api.read_multipart import MOST_FRAME, Form
from ouzel.api.transfer import arriving, download, pieces_of
from ouzel.core.contracts_files import Files
from ouzel.core.errors import NotFound, RequestError, TooLarge
from ouzel.core.files import FileInfo

_KIND = "File"
_ARRIVING = f"{OWNER} (arriving)"
"""Owns files of which is not known yet what they shall be; no client can be this one."""

_ARRIVES_WITHIN = 3600.0
"""Seconds after which such a file goes by itself, should this process die before it takes it."""


class FilesEndpoints:
    """POST and GET /v1/files, and what can be done with one file.

    Args:
        files: None if this server keeps none.
        max_file: bytes that a file may have.
    """

    def __init__(self, files: Files | None, exchange: Exchange, max_file: int) -> None:
        self._files = files
        self._exchange = exchange
        self._max_file = max_file

    async def create(self, request: Request) -> Response:
        files = room(self._files)
        read_query.read_nothing(query(request))
        fields = read_files.FILE_FIELDS
        async with one_file(request, "file", self._max_file, fields) as form:
            if not await form.begin():
                raise missing(("file",))
            # The SDKs send all fields first. Others may not, and then nothing is known of the file
            # before its last byte has come: it is kept aside until then.
            known = None
            if read_files.is_whole(form.values):
                known = read_files.read_file(form.values)
            with naming("file", TooLarge):
                kept = await _keep(files, form, known)
            wanted = read_files.read_file(form.values)
        if known != wanted:
            kept = await _as_wanted(files, kept, wanted)
        return as_json(write_files.file(kept))

    async def page(self, request: Request) -> Response:
        files = room(self._files)
        asked = read_files.read_files_page(query(request))
        with naming("after", NotFound):
            found, more = await files.page(
                OWNER,
                purpose=asked.only,
                after=asked.after,
                limit=asked.limit,
                order=asked.order,
            )
        return as_json(write_files.page([write_files.file(info) for info in found], more))

    async def get(self, request: Request) -> Response:
        files = room(self._files)
        read_query.read_nothing(query(request))
        return as_json(write_files.file(await files.load(path_id(request, _KIND), OWNER)))

    async def delete(self, request: Request) -> Response:
        files = room(self._files)
        await self._exchange.nothing(request)
        file_id = path_id(request, _KIND)
        await files.delete(file_id, OWNER)
        return as_json(write_files.deleted(file_id, "file"))

    async def content(self, request: Request) -> Response:
        files = room(self._files)
        read_query.read_nothing(query(request))
        file_id = path_id(request, _KIND)
        return download(request, file_id, await files.open(file_id, OWNER))


async def _keep(files: Files, form: Form, known: FileWanted | None) -> FileInfo:
    async with aclosing(_checked(form)) as pieces:
        name = form.filename or ""
        if known is None:
            return await files.create(_ARRIVING, name, "user_data", pieces, _ARRIVES_WITHIN)
        return await files.create(OWNER, name, known.purpose, pieces, known.expires_after)


async def _checked(form: Form) -> AsyncGenerator[bytes, None]:
    """The file; fails before its end if the fields around it are not right."""
    async with aclosing(form.content()) as pieces:
        async for piece in pieces:
            yield piece
    read_files.read_file(form.values)


async def _as_wanted(files: Files, kept: FileInfo, wanted: FileWanted) -> FileInfo:
    """The same file once more, as the fields that came after it say; the first one goes."""
    try:
        content = await files.open(kept.id, kept.owner)
        try:
            async with aclosing(pieces_of(content)) as pieces:
                with naming("file", TooLarge):
                    return await files.create(
                        OWNER, kept.name, wanted.purpose, pieces, wanted.expires_after
                    )
        finally:
            content.close()
    finally:
        await files.delete(kept.id, kept.owner)


# What the endpoints of uploads and containers share with these.


def room(files: Files | None) -> Files:
    """The files. Raises RequestError: this server keeps none."""
    if files is None:
        raise RequestError("This server keeps no files.", code="unsupported")
    return files


def one_file(
    request: Request,
    name: str,
    most: int,
    fields: tuple[str, ...] = (),
    *,
    filename_needed: bool = True,
) -> Form:
    """The form in a request, with a file of at most so many bytes as the field `name`."""
    pieces = arriving(request, most + MOST_FRAME)
    content_type = request.headers.get("content-type", "")
    return Form(
        content_type, pieces, file=name, fields=fields, most=most, filename_needed=filename_needed
    )


@contextmanager
def naming(param: str, kind: type[RequestError], instead_of: str | None = None) -> Iterator[None]:
    """Errors of this kind that name no parameter name this one.

    Args:
        instead_of: the contract's word for what the client knows as `param`: errors of any kind
            that name it name `param`.
    """
    try:
        yield
    except RequestError as error:
        unnamed = error.param is None and isinstance(error, kind)
        if unnamed or (instead_of is not None and error.param == instead_of):
            error.param = param
        raise
