"""What a file is, told from its first bytes; its name only decides where bytes leave it open.

A name cannot make a picture of a program: what has no known signature and is no text is
`application/octet-stream`, whatever it is called. Signatures are those of the formats' own
specifications.

This file does not read files and knows nothing of who asks.
"""

from __future__ import annotations

import csv
import json
import re
import struct

HEAD_BYTES = 8192
"""First bytes of a file that its type is told from."""

UNKNOWN = "application/octet-stream"

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (b"PK\x05\x06", "application/zip"),
)

_OFFICE = "application/vnd.openxmlformats-officedocument."
_OFFICE_FOLDERS = (
    (b"xl/", ".xlsx", f"{_OFFICE}spreadsheetml.sheet"),
    (b"word/", ".docx", f"{_OFFICE}wordprocessingml.document"),
    (b"ppt/", ".pptx", f"{_OFFICE}presentationml.presentation"),
)
_ENTRY = b"PK\x03\x04"

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}

_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PREAMBLE = re.compile(
    r"(?:\s++|<\?.*?\?>|<!--.*?-->|<!doctype[^>\[]*+(?:\[.*?\]\s*+)?+>)*+", re.S | re.I
)
_TAG = re.compile(r"<([a-z_][\w.:-]*+)", re.I)
_HTML_TAGS = {"html", "head", "body"}
_TOKEN = re.compile(
    r'\s++|[][{},:]|"(?:[^"\\\x00-\x1f]++|\\.)*+"|-?\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+'
    r"|true\b|false\b|null\b"
)
_CUT_TOKEN = re.compile(r'"[^\x00-\x1f]*+|-?[\d.eE+-]*+|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?')

_MAX_CSV_ROWS = 50


def sniff(head: bytes, name: str = "") -> str:
    """The media type of a file.

    Args:
        head: its first HEAD_BYTES bytes, or all of it if there are fewer.
        name: what it is called.
    """
    head = head[:HEAD_BYTES]
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head.startswith(_ENTRY):
        return _archive(head, name.lower())
    if found := _picture(head):
        return found
    # Some writers put a few bytes before it, and readers take them.
    if b"%PDF-" in head[:1024]:
        return "application/pdf"
    cut = len(head) == HEAD_BYTES
    text = _text(head, cut)
    return UNKNOWN if text is None else _kind_of_text(text, name.lower(), cut)


def _picture(head: bytes) -> str | None:
    """Formats whose signature is not in one piece."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, _box_end(head), 4)}
        if brands & {b"avif", b"avis"}:
            return "image/avif"
        if brands & _HEIC:
            return "image/heic"
    if head[:2] == b"BM" and len(head) >= 18:
        (header,) = struct.unpack_from("<I", head, 14)
        if head[6:10] == bytes(4) and header in _BMP_HEADERS:
            return "image/bmp"
    return None


def _box_end(head: bytes) -> int:
    (size,) = struct.unpack_from(">I", head)
    return min(int(size), len(head), 256)


def _archive(head: bytes, name: str) -> str:
    """A ZIP, or one of the document formats that are ZIPs, by the names of its first entries."""
    entries: list[bytes] = []
    at = 0
    while at >= 0:
        length = int.from_bytes(head[at + 26 : at + 28], "little")
        entries.append(head[at + 30 : at + 30 + length])
        at = head.find(_ENTRY, at + 4)
    for folder, _, media_type in _OFFICE_FOLDERS:
        if any(each.startswith(folder) for each in entries):
            return media_type
    if any(each.startswith((b"[Content_Types].xml", b"_rels/", b"docProps/")) for each in entries):
        # One of them, but what tells which lies further on.
        for _, ending, media_type in _OFFICE_FOLDERS:
            if name.endswith(ending):
                return media_type
    return "application/zip"


def _text(head: bytes, cut: bool) -> str | None:
    """The head as text; None if it is none. The last character may be cut through."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = head[: len(head) // 2 * 2].decode("utf-16")
        except UnicodeDecodeError as error:
            if not cut or error.start < len(head) - 4:
                return None
            text = head[: error.start].decode("utf-16")
    else:
        try:
            text = head.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # Positions count from behind the mark at the start, if there is one.
            if not cut or error.reason != "unexpected end of data":
                return None
            text = head.decode("utf-8-sig", "ignore")
    return None if _NOT_TEXT.search(text) else text


def _kind_of_text(text: str, name: str, cut: bool) -> str:
    start = text.lstrip()
    if start.startswith("<") and (found := _markup(start, name)):
        return found
    if name.endswith((".jsonl", ".ndjson")) and _is_json_lines(start, cut, least=1):
        return "application/jsonl"
    if start.startswith(("{", "[")):
        if _is_json(start, cut):
            return "application/json"
        if _is_json_lines(start, cut, least=2):
            return "application/jsonl"
    if name.endswith(".csv") or (not name.endswith(".md") and _is_table(text, cut)):
        return "text/csv"
    if name.endswith(".tsv"):
        return "text/tab-separated-values"
    return "text/markdown" if name.endswith(".md") else "text/plain"


def _markup(text: str, name: str) -> str | None:
    """HTML, SVG or another XML, by its first tag; None if it is not clear that it is one."""
    if re.match(r"<!doctype\s+html\b", text, re.I):
        return "text/html"
    before = _PREAMBLE.match(text)
    tag = _TAG.match(text, before.end() if before else 0)
    first = tag[1].lower() if tag else ""
    if first in _HTML_TAGS:
        return "text/html"
    if first == "svg" or first.endswith(":svg"):
        return "image/svg+xml"
    if text.startswith("<?xml") or (first and name.endswith(".xml")):
        return "application/xml"
    return "text/html" if first and name.endswith((".html", ".htm")) else None


def _is_json(text: str, cut: bool) -> bool:
    """Whether it is JSON, or the beginning of JSON that goes on."""
    if not cut:
        return _reads(text)
    if _starts_with_lines(text):
        return False
    at = 0
    while found := _TOKEN.match(text, at):
        at = found.end()
    return at == len(text) or _CUT_TOKEN.fullmatch(text, at) is not None


def _starts_with_lines(text: str) -> bool:
    """Whether its first line is a JSON value by itself, and another follows it."""
    first, _, rest = text.partition("\n")
    return bool(rest.strip()) and _reads(first)


def _is_json_lines(text: str, cut: bool, *, least: int) -> bool:
    lines = text.split("\n")
    if cut:
        lines = lines[:-1] or lines
    lines = [line for line in lines if line.strip()]
    if cut and len(lines) == 1:
        return least == 1  # one line that is longer than what we have of it
    return len(lines) >= least and all(_reads(line) for line in lines)


def _reads(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_table(text: str, cut: bool) -> bool:
    """Whether three rows or more have the same number of fields, at least two, with commas."""
    lines = text.splitlines()
    if cut:
        lines = lines[:-1]
    try:
        rows = [row for row in csv.reader(lines[:_MAX_CSV_ROWS], strict=True) if row]
    except csv.Error:
        return False
    return len(rows) >= 3 and len(rows[0]) >= 2 and len({len(row) for row in rows}) == 1
