"""Which part of a file a client wants, and whether it has that already: RFC 9110's words for it.

Reads headers and answers with numbers. It knows no file and sends nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"\s*([0-9]*)\s*-\s*([0-9]*)\s*")
_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LONGEST = 18
"""Digits of a number that is taken at its word; no file here has as many bytes."""


class Unsatisfiable(Exception):
    """None of the bytes that were asked for is there."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file: `start` is the first one's place, from 0; `length` is at least 1."""

    start: int
    length: int

    def told(self, size: int) -> str:
        """As `Content-Range` has it; `size` is the whole file's."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def read_range(header: str | None, size: int) -> Span | None:
    """The one range that a `Range` header asks for.

    Args:
        header: its value; None if there is none.
        size: bytes of the whole file.

    Returns:
        None where the whole file is to be sent: no header, another unit than bytes, words that
        make no sense, or several ranges, which RFC 9110 (14.2) lets a server ignore.

    Raises:
        Unsatisfiable: the range begins after the file's end, or asks for the last 0 bytes.
    """
    unit, equals, asked = (header or "").partition("=")
    found = _ONE.fullmatch(asked)
    if unit.strip().lower() != "bytes" or not equals or found is None:
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        length = min(_number(last), size)
        if not length:
            raise Unsatisfiable
        return Span(size - length, length)
    start = _number(first)
    end = min(_number(last), size - 1) if last else size - 1
    if last and _number(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Span(start, end - start + 1)


def still_holds(header: str | None, tag: str) -> bool:
    """Whether a range may be sent: no `If-Range`, or one that names the file as it is now.

    A date never holds: files here have no dates that a client could have read.
    """
    return header is None or header.strip() == tag


def has_already(header: str | None, tag: str) -> bool:
    """Whether `If-None-Match` names the file as it is now (or any, `*`)."""
    if header is None:
        return False
    names = [found.group(0).removeprefix("W/") for found in _TAG.finditer(header)]
    return header.strip() == "*" or tag in names


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _LONGEST else 10**_LONGEST
