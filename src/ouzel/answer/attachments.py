"""Files in the messages of a request: kept, found, and made readable for the model.

What comes as data is kept as a file of the client's and goes by its id from then on, so that a run
that is stored or continued holds no copy. A model without a tool that opens files can read plain
text only: that is shown to it, anything else is refused. How a file is shown, and how it gets into
a container, this file does not know.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final, Literal

from ouzel.core.contracts_files import Files
from ouzel.core.errors import NotFound, RequestError, TooLarge
from ouzel.core.files import FileInfo
from ouzel.core.items import File, Item, Message, Part
from ouzel.core.request import HostedTool, Request

MOST_FILES: Final = 64
"""Files in the messages of one request; ours to choose, it bounds our work."""

MOST_SHOWN: Final = 200_000
"""Bytes of a plain text that the model is shown: some 50,000 tokens."""

KEPT_FOR: Final = 30 * 24 * 3600.0
"""Seconds after which a file that came as data is forgotten."""

OPENS_FILES: Final = frozenset({"code_interpreter"})
"""Types of the tools that open files by themselves."""

_PIECE: Final = 1 << 20
"""Base64 characters that are decoded at a time; a multiple of 4."""


async def attach(
    request: Request, owner: str, files: Files | None, *, keep: bool = True
) -> Request:
    """The request with every file of its messages kept and named.

    Args:
        files: where they are; None if this server keeps none.
        keep: write down what came as data; without, it is only looked at (to count tokens).

    Raises:
        RequestError: a file that is not there or that the model cannot be shown, with the place
            as Responses have it in `param`: `input[0].content[1].file_id`.
        TooLarge: it is larger than a file may be, or there is no room for it.
        StoreError: it cannot be kept.
    """
    opened = any(isinstance(t, HostedTool) and t.type in OPENS_FILES for t in request.tools)
    attaching = _Attaching(owner, files, "never" if opened else "always", keep)
    items = await attaching.items(request.input, "input")
    return request if items is request.input else replace(request, input=items)


async def attach_to_conversation(
    items: tuple[Item, ...], owner: str, files: Files | None
) -> tuple[Item, ...]:
    """Items of a conversation with every file of their messages kept and named.

    Nobody knows yet which tools the responses in it will have: what is plain text will be shown to
    the model, anything else is left to a tool. Raises as `attach`, with a `param` in `items`.
    """
    return await _Attaching(owner, files, "if readable", True).items(items, "items")


def _parts(item: Item) -> tuple[Part, ...]:
    return item.parts if isinstance(item, Message) else ()


_SEEN: OrderedDict[str, str] = OrderedDict()
"""Fingerprint of what came as data -> id of the file as which it was kept. Stateless clients send
the same file with every request; after a restart it is kept once more."""

_MOST_SEEN: Final = 4096


def _fingerprint(owner: str, part: File) -> str:
    return hashlib.sha256("\0".join((owner, part.name, part.data)).encode()).hexdigest()


def _remember(seen: str, file_id: str) -> None:
    _SEEN[seen] = file_id
    _SEEN.move_to_end(seen)
    while len(_SEEN) > _MOST_SEEN:
        _SEEN.popitem(last=False)


class _Attaching:
    """The files of one request.

    Args:
        show: whether the model is shown what is in them: `always` refuses what cannot be shown.
    """

    def __init__(
        self,
        owner: str,
        files: Files | None,
        show: Literal["always", "if readable", "never"],
        keep: bool,
    ) -> None:
        self._owner = owner
        self._files = files
        self._show = show
        self._keep = keep

    async def items(self, items: tuple[Item, ...], where: str) -> tuple[Item, ...]:
        """The items with their files kept and named; `where` they stand in the body."""
        wanted = [part for item in items for part in _parts(item) if isinstance(part, File)]
        if not wanted:
            return items
        if len(wanted) > MOST_FILES:
            raise RequestError(
                f"Too many files: the messages hold {len(wanted)}, and may hold {MOST_FILES}.",
                param=where,
                code="invalid_value",
            )
        found = []
        for index, item in enumerate(items):
            if isinstance(item, Message) and any(isinstance(part, File) for part in item.parts):
                item = replace(item, parts=await self.parts(item.parts, f"{where}[{index}]"))
            found.append(item)
        return tuple(found)

    async def parts(self, parts: tuple[Part, ...], where: str) -> tuple[Part, ...]:
        found: list[Part] = []
        for index, part in enumerate(parts):
            if isinstance(part, File):
                place = f"{where}.content[{index}]"
                if not part.file_id:  # the data may be empty
                    part = await self._sent(part, f"{place}.file_data")
                else:
                    part = await self._kept(part, f"{place}.file_id")
            found.append(part)
        return tuple(found)

    async def _sent(self, part: File, param: str) -> File:
        """A file that came as data."""
        shown = ""
        if self._show != "never":
            shown = self._readable(await asyncio.to_thread(_beginning, part.data), part.name, param)
        if self._files is None:
            if self._show == "never" or (part.data and not shown):
                raise _no_files(param)
            return File(name=part.name, shown=shown)
        if not self._keep:
            return File(name=part.name, shown=shown)
        seen = await asyncio.to_thread(_fingerprint, self._owner, part)
        if info := await self._known(self._files, seen):
            return File(info.id, info.name, shown=shown)
        pieces = _pieces(part.data)
        try:
            info = await self._files.create(
                self._owner, part.name, "user_data", pieces, expires_after=KEPT_FOR
            )
        except TooLarge as error:
            error.param = param
            raise
        finally:
            await pieces.aclose()
        _remember(seen, info.id)
        return File(info.id, info.name, shown=shown)

    async def _known(self, files: Files, seen: str) -> FileInfo | None:
        """The file as which the same was kept before, if it still is for a while."""
        try:
            info = await files.load(_SEEN[seen], self._owner)
        except (KeyError, NotFound):
            return None
        soon = time.time() + KEPT_FOR / 2
        return info if info.expires_at is None or info.expires_at > soon else None

    async def _kept(self, part: File, param: str) -> File:
        """A file that goes by its id."""
        if self._files is None:
            raise _no_files(param)
        try:
            info = await self._files.load(part.file_id, self._owner)
            name = part.name or info.name
            shown = ""
            if self._show != "never":
                content = await self._files.open(part.file_id, self._owner)
                try:
                    start = await content.read(0, MOST_SHOWN + 1)
                finally:
                    content.close()
                shown = self._readable(start, name, param)
        except NotFound as error:
            # Of an object that a body names, not of the one that was called: 400, not 404.
            raise RequestError(
                f"There is no file with the id '{part.file_id}'.",
                param=param,
                code="file_not_found",
            ) from error
        return File(part.file_id, name, shown=shown)

    def _readable(self, start: bytes, name: str, param: str) -> str:
        try:
            return _readable(start, name, param)
        except RequestError:
            if self._show == "if readable":
                return ""
            raise


def _readable(start: bytes, name: str, param: str) -> str:
    """A file's text.

    Args:
        start: its content, or more than MOST_SHOWN bytes of it.

    Raises:
        RequestError: it is too long or no plain text.
    """
    try:
        text = start.decode("utf-8-sig") if len(start) <= MOST_SHOWN else ""
    except UnicodeDecodeError:
        text = ""
    if (start and not text) or "\0" in text:
        raise RequestError(
            f"The file '{name}' cannot be shown to the model, which reads plain text of up to "
            f"{MOST_SHOWN // 1000} kB. Offer the tool 'code_interpreter', which opens other files.",
            param=param,
            code="unsupported_value",
        )
    return text


def _beginning(data: str) -> bytes:
    """The first bytes of base64 text, enough to see that there are too many."""
    return base64.b64decode(data[: (MOST_SHOWN // 3 + 2) * 4])


async def _pieces(data: str) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), _PIECE):
        yield await asyncio.to_thread(base64.b64decode, data[start : start + _PIECE])


def _no_files(param: str) -> RequestError:
    return RequestError(
        "Unsupported value: this server keeps no files.", param=param, code="unsupported_value"
    )
