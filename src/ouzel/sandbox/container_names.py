"""Names of files in containers, and what a file's first bytes say it is.

Names come from clients and from code that a model wrote; both are taken as hostile. This file
touches no disk.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

MOST_NAME_BYTES: Final = 255
"""Longest name that Linux file systems take."""

HEAD_BYTES: Final = 512
"""Bytes from a file's beginning that `media_type` wants to see."""

_ID = re.compile(r"cntr_[0-9a-f]{48}\Z")
# Line and paragraph separators, and marks that make a name read backwards on a screen.
_MISLEADING = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SKIPPED_FOLDERS = frozenset({"__pycache__"})

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"\x1f\x8b", "application/gzip"),
)
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_ZIPPED: Final = {
    "xlsx": _OFFICE + "spreadsheetml.sheet",
    "docx": _OFFICE + "wordprocessingml.document",
    "pptx": _OFFICE + "presentationml.presentation",
}
_TEXTS: Final = {
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "md": "text/markdown",
    "json": "application/json",
    "html": "text/html",
    "htm": "text/html",
    "svg": "image/svg+xml",
    "xml": "application/xml",
    "py": "text/x-python",
}


def is_container_id(text: str) -> bool:
    """Whether this may be a container's id. Only such a text ever becomes part of a path."""
    return _ID.match(text) is not None


def file_id(container_id: str, path: str) -> str:
    """The id of a file: follows from where it is, so nothing has to be kept."""
    digest = hashlib.sha256(f"{container_id}\0{path}".encode()).hexdigest()
    return f"cfile_{digest[:48]}"


def is_shown(name: str) -> bool:
    """Whether a file or folder of this name in a work folder is shown to anybody.

    Hidden ones, caches of bytecode, and names that are not text or would garble a screen are not.
    """
    return not name.startswith(".") and name not in _SKIPPED_FOLDERS and _is_clean(name)


def checked_name(name: str) -> str:
    """A client's name for a file, composed as Unicode wants it (NFC).

    Raises:
        ValueError: it cannot be used; the message is a clause that says why.
    """
    if not name or name in {".", ".."}:
        raise ValueError("it is empty or means a folder")
    if "/" in name or "\\" in name:
        raise ValueError("it has a folder in it; files lie side by side")
    if not _is_clean(name):
        raise ValueError("it has control characters or is not text")
    name = unicodedata.normalize("NFC", name)
    if name.startswith("."):
        raise ValueError("it begins with a dot")
    if name in _SKIPPED_FOLDERS:
        raise ValueError("it is that of a cache folder")
    if len(name.encode()) > MOST_NAME_BYTES:
        raise ValueError(f"it is longer than {MOST_NAME_BYTES} bytes")
    return name


def tamed_name(name: str, taken: frozenset[str] | set[str] = frozenset()) -> str:
    """A usable name, as near to this one as can be, that is not among those `taken`."""
    text = unicodedata.normalize("NFC", name.encode(errors="replace").decode())
    text = "".join("_" if char in "/\\" or not _is_clean(char) else char for char in text)
    if text.startswith(".") or text in _SKIPPED_FOLDERS:
        text = "_" + text
    stem, dot, ending = (text or "file").rpartition(".")
    if not stem or len(ending.encode()) > 32:
        stem, dot, ending = text or "file", "", ""
    number = 1
    while True:
        tail = (f"-{number}" if number > 1 else "") + dot + ending
        room = MOST_NAME_BYTES - len(tail.encode())
        found = stem.encode()[:room].decode(errors="ignore") + tail
        if found not in taken:
            return found
        number += 1


def media_type(name: str, head: bytes) -> str:
    """What a file is, by its first `HEAD_BYTES`; its name only tells kinds of text and of zip
    archives apart."""
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    ending = name.rpartition(".")[2].lower()
    if head.startswith(b"PK\x03\x04"):
        return _ZIPPED.get(ending, "application/zip")
    if not _is_text(head):
        return "application/octet-stream"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "image/svg+xml"
    return _TEXTS.get(ending, "text/plain")


def _is_clean(text: str) -> bool:
    if _MISLEADING.search(text):
        return False
    # Cc: control characters; Cs: halves of characters, which is how Python shows bytes of a file
    # name that are not UTF-8.
    return not any(unicodedata.category(char) in {"Cc", "Cs"} for char in text)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut in two by the end of what was read.
        return len(head) >= HEAD_BYTES and error.start > len(head) - 4
    return True
