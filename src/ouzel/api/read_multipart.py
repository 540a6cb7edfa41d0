"""Reads a form with one file in it (`multipart/form-data`) while it arrives.

Only the framing is python-multipart's; what is bounded, what is refused and when the next piece is
read is decided here. Starlette's own reader of forms is not used: it writes every file to a
temporary folder, which may be memory, before the endpoint hears of the request, it bounds neither
files nor waiting, and does not say which field came first.

It knows no endpoint: names of fields are the caller's.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ouzel.api.read_errors import Path, invalid, literal, unknown
from ouzel.core.errors import RequestError, TooLarge

MOST_FRAME: Final = 1024 * 1024
"""Bytes of a form besides its file: boundaries, headers, other fields, and what comes around."""

_MOST_PARTS = 16
_MOST_FIELD = 4096
"""Bytes of a field that is no file."""
_MOST_HEADERS = 8
_MOST_HEADER = 4096
"""Headers of a part, and bytes of one of them."""
_LONGEST_TYPE = 1024
"""Bytes of the request's content type that are looked at."""

_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
"""RFC 2046, 5.1.1."""

_ESCAPES = ((b"%22", b'"'), (b"%0D", b"\r"), (b"%0A", b"\n"))
"""What browsers and HTTP libraries write in names, as the HTML standard says."""

# The parser notes each malformed byte, and anyone may send as many as they like.
_unheard = logging.getLogger(f"{__name__}.parser")
_unheard.disabled = True


class WrongContentType(RequestError):
    """The body is no form."""

    status = 415


def is_form(content_type: str) -> bool:
    """Whether a request's content type says that its body is a form."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


@dataclass(frozen=True, slots=True)
class _Began:
    """A part of the form begins."""

    name: str
    filename: str | None


class _Ended:
    """A part of the form, or with it the whole body, is over."""


_Event = _Began | _Ended | bytes


class Form:
    """A form with at most one file. Use it as `async with`; errors are RequestErrors.

    Read on with `begin`, then with `content` to the end.

    Args:
        content_type: the request's.
        pieces: its body; closed at the end.
        file: name of the file's field.
        fields: names of the others that there may be.
        most: bytes that the file may have.
        filename_needed: the file must have a name.

    Attributes:
        values: the fields that were read so far.
        filename: the file's name without folders, once it began; None if there is no file.

    Raises:
        WrongContentType: it is no form.
    """

    def __init__(
        self,
        content_type: str,
        pieces: AsyncGenerator[bytes, None],
        *,
        file: str,
        fields: Collection[str] = (),
        most: int,
        filename_needed: bool = True,
    ) -> None:
        self.values: dict[str, str] = {}
        self.filename: str | None = None
        self._pieces = pieces
        self._parts = _Parts(_boundary(content_type))
        self._file, self._fields, self._most = file, fields, most
        self._filename_needed = filename_needed
        self._begun = False

    async def __aenter__(self) -> Form:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pieces.aclose()

    async def begin(self) -> bool:
        """Read up to the file's first byte; whether there is a file. If not, all was read."""
        while isinstance(event := await self._next(), _Began):
            if event.name == self._file:
                self.filename = self._named(event.filename)
                self._begun = True
                return True
            await self._field(event.name)
        return False

    async def content(self) -> AsyncGenerator[bytes, None]:
        """The file's bytes. It ends when all of the body was read and found right.

        So whoever keeps the bytes may keep them for good once this is over, and not before.
        """
        size = 0
        while isinstance(event := await self._next(), bytes):
            size += len(event)
            if size > self._most:
                raise TooLarge(
                    f"The file is larger than the {self._most} bytes that are accepted here.",
                    param=self._file,
                    code="file_too_large",
                )
            yield event
        await self.begin()  # the fields after the file; a second file is refused

    async def _field(self, name: str) -> None:
        if name not in self._fields:
            raise unknown((name,))
        if name in self.values:
            raise invalid((name,), "it was given more than once")
        value = b""
        while isinstance(event := await self._next(), bytes):
            value += event
            if len(value) > _MOST_FIELD:
                raise invalid((name,), f"it has more than {_MOST_FIELD} bytes")
        self.values[name] = _text(value, name)

    def _named(self, given: str | None) -> str:
        if self._begun:
            raise invalid((self._file,), "it was given more than once")
        if self._filename_needed or given:
            return plain_name(given or "", (self._file,))
        return ""

    async def _next(self) -> _Event | None:
        """What comes next; None when all of the body was read."""
        events = self._parts.events
        while not events:
            piece = await anext(self._pieces, None)
            if piece is None:
                if not self._parts.ended:
                    raise _malformed("it breaks off before its closing boundary")
                return None
            self._parts.feed(piece)
        return events.popleft()


class _Parts:
    """Turns pieces of a body into events; the parser calls back within `feed`.

    Attributes:
        events: what was found and not taken yet.
        ended: the closing boundary has come.
    """

    def __init__(self, boundary: bytes) -> None:
        self.events: deque[_Event] = deque()
        self.ended = False
        self._count = 0
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_named,
                "on_header_value": self._header_goes_on,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_ends,
                "on_end": self._all_ends,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_MOST_HEADER,
        )
        self._parser.logger = _unheard

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body. Raises RequestError."""
        try:
            self._parser.write(piece)
        except FormParserError:
            # The parser's words quote bytes and places that mean nothing to the client.
            raise _malformed("its boundaries or the headers of a part are not right") from None

    def _part_begins(self) -> None:
        self._count += 1
        if self._count > _MOST_PARTS:
            raise _malformed(f"it has more than {_MOST_PARTS} parts")
        self._headers = {}

    def _header_named(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_goes_on(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        name = self._header.lower()
        if name in self._headers:
            raise _malformed(f"a part has two headers {literal(name.decode('latin-1'))}")
        self._headers[name] = self._value
        self._header = self._value = b""

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise _malformed("a part has no header 'content-disposition: form-data; name=...'")
        coding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if coding not in (b"binary", b"7bit", b"8bit"):
            raise _malformed("the content-transfer-encoding of a part is not read here")
        filename = options.get(b"filename")
        named = None if filename is None else _text(_unescaped(filename), "filename")
        self.events.append(_Began(_text(_unescaped(options[b"name"]), "name"), named))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(data[start:end])

    def _part_ends(self) -> None:
        self.events.append(_Ended())

    def _all_ends(self) -> None:
        self.ended = True


def plain_name(given: str, path: Path) -> str:
    """A file's name without folders, as clients of any system write them.

    Which of its characters are harmless, and how long it may be, they know who keep the file.

    Raises:
        RequestError: nothing is left that could be a name.
    """
    name = re.split(r"[/\\]", given)[-1]
    if name in ("", ".", ".."):
        raise invalid(path, "expected a file with a name")
    return name


def _boundary(content_type: str) -> bytes:
    if not is_form(content_type):
        given = f", but got {literal(content_type)}" if content_type else ""
        raise WrongContentType(
            f"Invalid content type: expected 'multipart/form-data; boundary=...'{given}.",
            param="content-type",
            code="invalid_content_type",
        )
    options = parse_options_header(
        content_type[:_LONGEST_TYPE].encode("latin-1", "backslashreplace")
    )[1]
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise RequestError(
            "Invalid content type: it needs a boundary of 1 to 70 characters, as RFC 2046 allows "
            "them.",
            param="content-type",
            code="invalid_content_type",
        )
    return boundary


def _unescaped(name: bytes) -> bytes:
    for written, meant in _ESCAPES:
        name = name.replace(written, meant)
    return name


def _text(value: bytes, name: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise invalid((name,), "it is not valid UTF-8") from None
    if "\0" in text:
        raise invalid((name,), "the string holds a NUL character")
    return text


def _malformed(problem: str) -> RequestError:
    return RequestError(
        f"Invalid body: the form (multipart/form-data) is not right: {problem}.",
        code="invalid_form",
    )
