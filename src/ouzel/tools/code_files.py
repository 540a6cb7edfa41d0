"""What a model should know of a file before it writes code for it, in few words. Pure.

Names and contents come from anywhere: what could pass for something else (line ends, control
characters) is escaped, and everything is cut. Where files are, this file does not know.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 65_536
"""Bytes of a file's beginning that are looked at."""

BOOK_BYTES: Final = 1 << 20
"""Bytes that a workbook may have to be looked into."""

MOST_A_FILE: Final = 600
MOST_IN_ALL: Final = 2_000
"""Characters that are said of a file, and of all."""

MOST_LISTED: Final = 20
"""Files that are named at all."""

_MOST_COLUMNS: Final = 30
_ROWS: Final = 3
_TEXTS: Final = frozenset({"txt", "md", "log"})
_KINDS: Final = {
    "csv": "CSV",
    "tsv": "TSV",
    "json": "JSON",
    "jsonl": "JSON lines",
    "xlsx": "Excel",
    "pdf": "PDF",
    "txt": "text",
    "md": "text",
    "log": "text",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a file.

    Args:
        words: in a line or some, without its name.
        columns: of a table.
    """

    words: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A file in the folder in which the code runs; `size` in bytes."""

    name: str
    size: int
    seen: Seen = Seen()


def note(files: Sequence[Listed], hidden: int = 0) -> str:
    """All files in a list, with what was seen of them as long as there is room; empty for none.

    Args:
        hidden: how many more there are.
    """
    if not files:
        return ""
    lines = ["Files in the current folder:"]
    room = MOST_IN_ALL
    for file in files[:MOST_LISTED]:
        line = f"- {plain(file.name, 120)} ({_kind(file.name)}{size(file.size)})"
        words = file.seen.words[:MOST_A_FILE]
        if words and len(line) + len(words) < room:
            line += f": {words}"
        room -= len(line)
        lines.append(line)
    if hidden := hidden + max(0, len(files) - MOST_LISTED):
        lines.append(f"- and {hidden} more")
    return "\n".join(lines)


def _kind(name: str) -> str:
    kind = _KINDS.get(ending(name), "")
    return f"{kind}, " if kind else ""


def ending(name: str) -> str:
    """What a name ends with, in small letters: `csv`."""
    return name.rpartition(".")[2].lower()


def size(count: int) -> str:
    """A number of bytes for people."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count} bytes"


def plain(text: str, most: int) -> str:
    """Text on one line: nothing in it that is not printed, and not more than that."""
    shown = "".join(char if char.isprintable() else " " for char in text[: most + 1])
    return shown if len(text) <= most else shown[: most - 3] + "..."


def bytes_wanted(name: str, length: int) -> int:
    """How many bytes from a file's beginning `look` can use."""
    kind = ending(name)
    if kind in {"csv", "tsv", "json", "jsonl", *_TEXTS}:
        return min(length, HEAD_BYTES)
    return length if kind == "xlsx" and length <= BOOK_BYTES else 0


def look(name: str, length: int, head: bytes) -> Seen:
    """What can be seen of a file.

    Args:
        length: bytes that it has.
        head: as many of them as `bytes_wanted` says.
    """
    kind = ending(name)
    if kind == "xlsx":
        return Seen(_sheets(head)) if head else Seen()
    text = head.decode("utf-8-sig", errors="replace")
    if not text.strip() or "\0" in text:
        return Seen()
    if kind in ("csv", "tsv"):
        return _table(text, kind, length, whole=len(head) >= length)
    if kind == "json":
        return Seen("begins with " + plain(re.sub(r"\s+", " ", text[:2_000]), 300))
    if kind == "jsonl":
        return Seen("first line: " + plain(text.lstrip().split("\n", 1)[0], 400))
    lines = [plain(line.strip(), 120) for line in text.split("\n")[:20] if line.strip()]
    return Seen("begins with " + " / ".join(lines[:_ROWS]))


def _table(text: str, kind: str, length: int, whole: bool) -> Seen:
    lines = text.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines = lines[:-1]  # it may be half a line
    comma = "\t" if kind == "tsv" else max(",;\t|", key=lines[0].count)
    try:
        rows = [row for row in csv.reader(io.StringIO("".join(lines[:60])), delimiter=comma) if row]
    except csv.Error:
        return Seen()
    if not rows:
        return Seen()
    columns, sample = rows[0], rows[1:]
    typed = [
        f"{plain(name, 40)} ({_type([row[at] for row in sample if at < len(row)])})"
        for at, name in enumerate(columns[:_MOST_COLUMNS])
    ]
    if len(columns) > _MOST_COLUMNS:
        typed.append(f"and {len(columns) - _MOST_COLUMNS} more")
    count = len(lines) - 1
    if not whole:
        count = round(length / max(1, len("".join(lines).encode())) * len(lines))
    words = f"{'' if whole else 'about '}{count} rows; columns: {', '.join(typed)}"
    if comma not in ",\t":
        words += f"; separated by '{comma}'"
    first = [plain(comma.join(row), 120) for row in sample[:_ROWS]]
    if first and len(words) < MOST_A_FILE - 60:
        words += "; first rows: " + " / ".join(first)
    return Seen(words, tuple(plain(name, 60) for name in columns[:_MOST_COLUMNS]))


_TYPES: Final = (
    ("int", re.compile(r"[+-]?\d{1,18}")),
    ("float", re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")),
    ("date", re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.{0,20})?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}")),
    ("bool", re.compile(r"true|false|yes|no", re.IGNORECASE)),
)


def _type(values: Sequence[str]) -> str:
    """The narrowest type that all values have; those that are missing have any."""
    there = [value.strip() for value in values]
    there = [value for value in there if value.lower() not in ("", "na", "nan", "null", "none")]
    if there:
        for name, pattern in _TYPES:
            if all(pattern.fullmatch(value) for value in there):
                return name
    return "text"


def _sheets(book: bytes) -> str:
    """The names of a workbook's sheets; empty if it is none, or too large a one."""
    try:
        with zipfile.ZipFile(io.BytesIO(book)) as parts, parts.open("xl/workbook.xml") as part:
            xml = part.read(HEAD_BYTES).decode(errors="replace")
    except Exception:  # a hostile archive may raise nearly anything: zlib's and lzma's errors too
        return ""
    found = re.findall(r"<sheet\b[^>]{0,500}?\bname=\"([^\"]{1,200})\"", xml)[:10]
    return "sheets: " + ", ".join(plain(name, 60) for name in found) if found else ""
