"""Files of weights on disk: where they lie, whether they are whole, whether there is room.

    <cache>/weights/<file>.gguf            the weights
    <cache>/weights/<file>.gguf.verified   what was hashed, and the size and time it had then
    <cache>/weights/.partial/<entry>/      what a pull has fetched so far

A gigabyte takes a second to hash, so it is hashed once: the note beside it says what was found,
and holds for as long as the file's size and modification time stay as they were. Nothing here
knows where files come from.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ouzel.core.errors import WeightsError

BLOCK = 4 * 2**20
"""Bytes read or written at once."""
SPARE = 64 * 2**20
"""Bytes that a pull leaves free."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def weights_folder(cache: Path) -> Path:
    """Where all weights lie."""
    return cache / "weights"


def partial_folder(cache: Path, entry: str) -> Path:
    """Where a pull of this entry keeps what it has so far."""
    return weights_folder(cache) / ".partial" / entry


def hash_stream(
    stream: BinaryIO, digests: tuple[hashlib._Hash, ...], on_bytes: Callable[[int], None]
) -> int:
    """Feed a stream to digests in blocks.

    Args:
        on_bytes: told after each block how many bytes were read so far.

    Returns:
        How many bytes there were.
    """
    count = 0
    while block := stream.read(BLOCK):
        for digest in digests:
            digest.update(block)
        count += len(block)
        on_bytes(count)
    return count


def hash_file(path: Path, on_bytes: Callable[[int], None]) -> str:
    """The file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        hash_stream(file, (digest,), on_bytes)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Note:
    """What was found when a file was hashed.

    Args:
        size: bytes.
        mtime_ns: modification time, nanoseconds since the epoch.
        sha256: in hexadecimal.
    """

    size: int
    mtime_ns: int
    sha256: str


def note_path(path: Path) -> Path:
    """Where the note about a file lies."""
    return path.with_name(path.name + ".verified")


def write_note(path: Path, sha256: str) -> None:
    """Note that the file, as it is now, has this hash."""
    found = path.stat()
    text = json.dumps({"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256})
    beside = note_path(path).with_name(f".{path.name}.{os.getpid()}.verified")
    beside.write_text(text, encoding="utf-8")
    beside.replace(note_path(path))


def read_note(path: Path) -> Note | None:
    """The note about a file; None if there is none that can be read."""
    try:
        table = json.loads(note_path(path).read_text(encoding="utf-8"))
        return Note(int(table["size"]), int(table["mtime_ns"]), str(table["sha256"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # the same as never hashed: the file is hashed again


def known_hash(path: Path) -> str | None:
    """The file's hash as far as it is known without reading it; None if it must be read."""
    note = read_note(path)
    if note is None or not path.exists():
        return None
    found = path.stat()
    unchanged = (found.st_size, found.st_mtime_ns) == (note.size, note.mtime_ns)
    return note.sha256 if unchanged else None


def check_hash(path: Path, expected: str | None, on_bytes: Callable[[int], None]) -> str:
    """Make sure that a file has the hash it should have, reading it only if need be.

    Args:
        expected: None where no hash was ever published; then the file must be as it was when it
            was first hashed.
        on_bytes: told how many bytes were read so far, if any have to be.

    Returns:
        The file's hash.

    Raises:
        WeightsError: the hash is another one; both are in the message.
    """
    found = known_hash(path)
    if found is None:
        note = read_note(path)
        expected = expected or (note.sha256 if note else None)
        found = hash_file(path, on_bytes)
        if expected is None or found == expected:
            write_note(path, found)
    if expected is not None and found != expected:
        raise wrong_hash(str(path), expected, found)
    return found


def wrong_hash(what: str, expected: str, found: str) -> WeightsError:
    """The error for bytes that are not those that were asked for."""
    return WeightsError(
        f"{what} is not what it should be: its SHA-256 is {found}, expected was {expected}."
    )


def remove(path: Path) -> None:
    """Remove a file and the note about it."""
    path.unlink(missing_ok=True)
    note_path(path).unlink(missing_ok=True)


def ensure_room(folder: Path, needed: int) -> int:
    """Make sure that `needed` bytes, and a little more, are free where the folder lies.

    Returns:
        The free bytes.

    Raises:
        WeightsError: there are not; both numbers are in the message.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise WeightsError(
            f"There is not enough room in {folder}: {needed + SPARE:,} bytes "
            f"({readable(needed + SPARE)}) are needed, {free:,} ({readable(free)}) are free."
        )
    return free


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the system's errors from writing into ones that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(folder) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO):
            raise WeightsError(f"{folder} cannot be written: {error}.") from error
        raise


def disk_full(folder: Path) -> WeightsError:
    """The error for a disk that fills up in the middle; what was fetched is kept."""
    free = shutil.disk_usage(folder).free
    return WeightsError(
        f"The disk of {folder} is full, or its quota is used up ({readable(free)} free). What was "
        f"fetched so far is kept: make room and pull again."
    )


def readable(count: int) -> str:
    """A number of bytes for people, in decimal units: `1.12 GB`."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
