"""The envelope of an archive: a plain tar of named members, streamed, with a checksum at its end.

Written are ordinary tar headers, so that any tar lists and unpacks it. Read is only what is written
here: plain files with short plain names, one after the other. Links, folders, devices, sparse files
and long names are refused, nothing is ever taken by its name as a path, and the memory that reading
takes does not depend on what a header says.

The last member holds how many there are and a SHA-256 over name, length and SHA-256 of each, in
order: what is cut off, changed, left out, doubled or moved is found.

This file does not know what members hold.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import msgspec

from ouzel.core.errors import StoreError

END: Final = "end.json"
PIECE: Final = 2**20
"""Bytes that are read and written together."""

_BLOCK: Final = tarfile.BLOCKSIZE
_NAME: Final = re.compile(
    r"[a-z]{1,16}(/[A-Za-z0-9][A-Za-z0-9_-]{0,79})?\.(json|jsonl|bin)", re.ASCII
)
_END_BYTES: Final = 4096


class BadArchive(StoreError):
    """It is no archive of ours, or is damaged; nothing was taken from it."""


class End(msgspec.Struct, forbid_unknown_fields=True):
    """What the last member says of the others."""

    members: int
    sha256: str


class _Sum:
    """Counts members, and sums them up."""

    def __init__(self) -> None:
        self._members = 0
        self._sum = hashlib.sha256()

    def add(self, name: str, size: int, digest: bytes) -> None:
        self._members += 1
        self._sum.update(f"{name}\n{size}\n{digest.hex()}\n".encode())

    def end(self) -> End:
        return End(self._members, self._sum.hexdigest())


class TarWriter:
    """Writes members.

    Args:
        stream: takes the bytes.
        now: the members' time of change.
    """

    def __init__(self, stream: BinaryIO, now: float) -> None:
        self._stream = stream
        self._now = now
        self._sum = _Sum()

    def add(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """One member. Raises BadArchive if the pieces are not `size` bytes together."""
        digest, written = hashlib.sha256(), 0
        self._stream.write(self._header(name, size))
        for piece in pieces:
            written += len(piece)
            digest.update(piece)
            self._stream.write(piece)
        if written != size:
            raise BadArchive(f"{name} changed while it was written: {written} of {size} bytes.")
        self._stream.write(bytes(-size % _BLOCK))
        self._sum.add(name, size, digest.digest())

    def finish(self) -> None:
        """The last member, and the end of the tar."""
        body = msgspec.json.encode(self._sum.end())
        self.add(END, len(body), (body,))
        self._stream.write(bytes(2 * _BLOCK))

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, int(self._now), 0o600
        return info.tobuf(tarfile.GNU_FORMAT)


@dataclass(frozen=True, slots=True)
class Member:
    """One member that is read just now; the next one cannot be had before all of it is.

    Args:
        pieces: its bytes, each time at most PIECE of them.
    """

    name: str
    size: int
    pieces: Iterator[bytes]


class TarReader:
    """Reads members.

    Args:
        stream: gives the bytes.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sum = _Sum()

    def members(self) -> Iterator[Member]:
        """All but the last, which is checked. Raises BadArchive for what is not as written."""
        while True:
            name, size = self._header()
            if name == END:
                self._check_end(size)
                return
            pieces = self._pieces(name, size)
            yield Member(name, size, pieces)
            for _ in pieces:
                pass  # what nobody asked for counts all the same

    def _header(self) -> tuple[str, int]:
        block = self._exactly(_BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise BadArchive(
                "This is not an archive that `ouzel export` wrote, or it is damaged."
            ) from error
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise BadArchive("The archive holds something that is not a plain file.")
        if not _NAME.fullmatch(info.name) or info.size < 0:
            raise BadArchive("The archive holds a file with a name that no export writes.")
        return info.name, info.size

    def _pieces(self, name: str, size: int) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), size
        while left:
            piece = self._exactly(min(left, PIECE))
            left -= len(piece)
            digest.update(piece)
            yield piece
        self._exactly(-size % _BLOCK)
        self._sum.add(name, size, digest.digest())

    def _check_end(self, size: int) -> None:
        if size > _END_BYTES:
            raise BadArchive("The archive's last entry is damaged.")
        try:
            told = msgspec.json.decode(self._exactly(size), type=End)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadArchive("The archive's last entry is damaged.") from error
        if told != self._sum.end():
            raise BadArchive("The archive is damaged: its checksum is not that of its content.")

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise BadArchive("The archive is cut off: its end is missing.")
        return data
