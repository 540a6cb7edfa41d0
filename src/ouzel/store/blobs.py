"""Bytes on disk: one plain file for each id, in two folders that tell how sure we are of it.

    drafts/<id>             being written, or about to go: whether it counts, its row says
    kept/<ab>/<cd>/<id>     whole, and its row is there

Bytes are whole and synced before their row is written, and move to `kept` after it; before a row
is deleted they move back to `drafts`. So a process may die at any moment: what it leaves in
`drafts` is kept if it has a row and removed if not, and nothing else has to be looked at. As no
step of this ever walks through `kept`, a database that was moved away costs no bytes. (`kept()`
does, for whoever asks for it by hand.)

Ids are ours and random; what clients call their files is never part of a path. Everything here
blocks and is meant for a thread.

This file does not know rows, owners, limits or event loops.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ouzel.core.errors import StoreError
from ouzel.store.sniff import HEAD_BYTES

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def explain(error: OSError, doing: str) -> StoreError:
    """What went wrong on disk, in words; `doing` stands after "The store could not"."""
    if error.errno in _FULL:
        reason = "the disk is full; free some space and try again"
    else:
        reason = error.strerror or type(error).__name__
    failure = StoreError(f"The store could not {doing}: {reason}.")
    failure.__cause__ = error
    return failure


class Draft:
    """Bytes that are being written. Not for two threads at once.

    Args:
        path: where they are written; nothing may be there yet.
        place: where they will stay.
        reserve: bytes of the disk that stay free.

    Attributes:
        size: bytes so far.
        head: the first HEAD_BYTES of them.

    Every method raises OSError.
    """

    def __init__(self, path: Path, place: Path, reserve: int) -> None:
        self.size = 0
        self.head = b""
        self._path = path
        self._place = place
        self._reserve = reserve
        self._descriptor = -1

    def begin(self) -> None:
        """Make the file, and the folder where it will stay: the move there, after its row is
        written, must not fail for want of space."""
        _make_parents(self._place)
        self._descriptor = os.open(self._path, _MAKE, 0o600)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append the chunks; the disk counts as full where only the reserve is left."""
        disk = os.fstatvfs(self._descriptor)
        if disk.f_bavail * disk.f_frsize < self._reserve + sum(map(len, chunks)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for chunk in chunks:
            if len(self.head) < HEAD_BYTES:
                self.head += chunk[: HEAD_BYTES - len(self.head)]
            rest = memoryview(chunk)
            while rest:
                done = os.write(self._descriptor, rest)
                self.size += done
                rest = rest[done:]

    def finish(self) -> None:
        """All of it is on disk when this returns; nothing more can be written."""
        os.fsync(self._descriptor)
        self._close()
        _sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Remove it, in whatever state it is."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Blobs:
    """The folder with the bytes of all files and parts.

    Args:
        folder: made with mode 0700 where it is missing, its files have 0600.
        reserve: bytes of the disk that are left to others: with none, the database could not even
            write that a file was deleted.

    Raises StoreError if it cannot be used.
    """

    def __init__(self, folder: Path, reserve: int) -> None:
        self._reserve = reserve
        self._drafts = folder / "drafts"
        self._kept = folder / "kept"
        try:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in (folder, self._drafts, self._kept):
                each.mkdir(mode=0o700, exist_ok=True)
                if each.stat().st_uid == os.geteuid():
                    each.chmod(0o700)
        except OSError as error:
            raise explain(error, f"use {folder}") from error

    def draft(self, blob_id: str) -> Draft:
        """A draft that has not begun."""
        return Draft(self._drafts / blob_id, self._place(blob_id), self._reserve)

    def keep(self, blob_ids: Iterable[str]) -> None:
        """Move drafts to where they stay; those that are there already stay. Raises OSError."""
        for blob_id in blob_ids:
            place = self._place(blob_id)
            _make_parents(place)
            _move(self._drafts / blob_id, place)

    def doubt(self, blob_ids: Iterable[str]) -> None:
        """Move back what may be deleted; what is not there is passed over. Raises OSError."""
        for blob_id in blob_ids:
            _move(self._place(blob_id), self._drafts / blob_id)

    def drop(self, blob_ids: Iterable[str]) -> None:
        """Remove bytes for good; who has them open can read on. Raises OSError."""
        for blob_id in blob_ids:
            draft = self._drafts / blob_id
            # Another who deletes the same may be moving it to and fro.
            for place in (draft, self._place(blob_id), draft):
                place.unlink(missing_ok=True)

    def drafts(self) -> list[str]:
        """Ids of all drafts; what is no plain file is not ours. Raises OSError."""
        with os.scandir(self._drafts) as found:
            return [each.name for each in found if each.is_file(follow_symlinks=False)]

    def kept(self) -> Iterator[tuple[str, int]]:
        """Id and bytes of all that is where it stays. Takes a while; raises OSError."""
        for folder in sorted(self._kept.glob("??/??")):
            with os.scandir(folder) as found:
                for each in found:
                    ours = each.is_file(follow_symlinks=False)
                    if ours and self._place(each.name).parent == folder:
                        yield each.name, each.stat(follow_symlinks=False).st_size

    def open(self, blob_id: str) -> tuple[int, int]:
        """A descriptor for reading, and the size in bytes. Raises OSError."""
        # It may be on its way between the two while we look.
        for place in (self._place(blob_id), self._drafts / blob_id):
            try:
                return _opened(place)
            except FileNotFoundError:
                continue
        return _opened(self._place(blob_id))

    def _place(self, blob_id: str) -> Path:
        return self._kept / blob_id[-4:-2] / blob_id[-2:] / blob_id


def _make_parents(place: Path) -> None:
    """Make both folders above; one call for both would leave the upper one open to others."""
    for folder in (place.parent.parent, place.parent):
        folder.mkdir(mode=0o700, exist_ok=True)


def _opened(path: Path) -> tuple[int, int]:
    descriptor = os.open(path, _READ)
    return descriptor, os.fstat(descriptor).st_size


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except FileNotFoundError:
        if source.exists():
            raise  # it is the target's folder that is missing


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder as lasting as the bytes behind it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
