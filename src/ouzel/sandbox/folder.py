"""Looking into a folder that hostile code writes in, maybe at this moment.

Code in a container may put anything there: links to /etc/passwd, pipes that never answer, ten
thousand files, a folder that turns into a link between two looks. So every step is taken from the
descriptor of the folder before it and never follows a link, and what is opened is looked at again
through its own descriptor. Only plain files with a single name are files to us.

What a container is, this file does not know. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ouzel.sandbox.container_names import HEAD_BYTES, is_shown, media_type

MOST_DEPTH: Final = 16
"""Folders within folders that are looked into."""

MOST_FILES: Final = 10_000
"""Files that a listing holds at most."""

MOST_ENTRIES: Final = 50_000
"""Names that are looked at for one listing."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """A plain file.

    Args:
        path: below the folder, `/` between folders.
        size: bytes.
        changed_at: seconds since the epoch, as the file system has it.
        mark: differs after every change of the file, also of one that hides its time.
    """

    path: str
    size: int
    changed_at: float
    mark: tuple[int, int, int, int]


class Folder:
    """One folder in which code in a jail writes.

    Args:
        work: where it is.
    """

    def __init__(self, work: Path) -> None:
        self.work = work

    def files(self) -> list[Found]:
        """All plain files that are shown, by path. What vanishes meanwhile is left out.

        Raises OSError if the folder itself cannot be read.
        """
        found: list[Found] = []
        with _opened(self.work) as root:
            _walk(root, "", os.fstat(root).st_dev, _Budget(MOST_ENTRIES), found)
        return sorted(found, key=lambda each: each.path)

    def open(self, path: str) -> tuple[int, Found]:
        """A descriptor for reading, which the caller closes, and what it is.

        Raises:
            FileNotFoundError: there is no such plain file, or a link is on the way.
        """
        with self._parent(path) as (folder, name):
            descriptor = _open_plain(folder, name)
            return descriptor, _found(path, os.fstat(descriptor))

    def media_type(self, path: str) -> str:
        """What a file is, by its first bytes. Raises FileNotFoundError."""
        descriptor, _ = self.open(path)
        try:
            return media_type(path, os.pread(descriptor, HEAD_BYTES, 0))
        except OSError as error:
            raise FileNotFoundError(path) from error
        finally:
            os.close(descriptor)

    def has(self, name: str) -> bool:
        """Whether there is anything of this name at the top. Raises OSError."""
        with _opened(self.work) as work:
            try:
                os.stat(name, dir_fd=work, follow_symlinks=False)
            except FileNotFoundError:
                return False
            return True

    def remove(self, path: str) -> None:
        """Remove a plain file. Raises FileNotFoundError."""
        with self._parent(path) as (folder, name):
            os.close(_open_plain(folder, name))
            # Were it something else by now, then that name, within the same folder, is gone.
            try:
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                raise FileNotFoundError(path) from error

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder in which `path` ends, and its last part. Raises FileNotFoundError."""
        parts = path.split("/")
        if len(parts) > MOST_DEPTH or not all(is_shown(part) and part for part in parts):
            raise FileNotFoundError(path)
        try:
            current = os.open(self.work, _FOLDER)
        except OSError as error:
            raise FileNotFoundError(path) from error
        try:
            for part in parts[:-1]:
                try:
                    below = os.open(part, _FOLDER, dir_fd=current)
                except (OSError, ValueError) as error:
                    raise FileNotFoundError(path) from error
                os.close(current)
                current = below
            yield current, parts[-1]
        finally:
            os.close(current)


class Draft:
    """A file that is being written where code cannot reach it.

    Args:
        incoming: folder for such files; on the same file system as the work folders.

    Raises OSError.
    """

    def __init__(self, incoming: Path) -> None:
        self._temporary = incoming / secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self.size += len(data)

    def keep(self, folder: Folder, name: str) -> Found:
        """Let it show in a work folder, in the place of a file that has its name already.

        Raises OSError: IsADirectoryError if a folder has that name.
        """
        with _opened(folder.work) as work:
            owner, mine = os.fstat(work), os.fstat(self._descriptor)
            if (owner.st_uid, owner.st_gid) != (mine.st_uid, mine.st_gid):
                os.fchown(self._descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(self._descriptor, 0o644)
            # By descriptor of the folder; a link of that name is replaced, not followed.
            os.rename(self._temporary, name, dst_dir_fd=work)
            found = _found(name, os.fstat(self._descriptor))
        self._close()
        return found

    def drop(self) -> None:
        """Give it up; after `keep` there is nothing left to do. May be called twice."""
        if self._descriptor >= 0:
            with suppress(OSError):
                self._temporary.unlink()
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


@dataclass(slots=True)
class _Budget:
    left: int


def _walk(folder: int, prefix: str, device: int, budget: _Budget, found: list[Found]) -> None:
    """Add the plain files below an open folder; depth is bounded, so is the recursion."""
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            budget.left -= 1
            if budget.left < 0 or len(found) >= MOST_FILES:
                return
            if not is_shown(entry.name):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    seen = entry.stat(follow_symlinks=False)
                    if _is_plain(seen) and seen.st_dev == device:
                        found.append(_found(prefix + entry.name, seen))
            except OSError:
                continue
    if prefix.count("/") + 1 >= MOST_DEPTH:
        return
    for name in folders:
        try:
            below = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:
            continue
        try:
            _walk(below, f"{prefix}{name}/", device, budget, found)
        except OSError:
            continue
        finally:
            os.close(below)


def _is_plain(seen: os.stat_result) -> bool:
    return stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1


def _found(path: str, seen: os.stat_result) -> Found:
    mark = (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return Found(path, seen.st_size, seen.st_mtime, mark)


def _open_plain(folder: int, name: str) -> int:
    """A plain file's descriptor. Raises FileNotFoundError for everything else."""
    try:
        # Looked at first, so that not even a pipe is opened by mistake ...
        if not _is_plain(os.stat(name, dir_fd=folder, follow_symlinks=False)):
            raise FileNotFoundError(name)
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(name) from error
    seen = os.fstat(descriptor)
    # ... and once more, for it may have become something else in between.
    if not _is_plain(seen) or seen.st_dev != os.fstat(folder).st_dev:
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
