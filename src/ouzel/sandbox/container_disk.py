"""Moving and removing what hostile code has left: folders nested a thousand deep, locked, or odd.

Only for folders in which no code runs any more. Like `folder.py`, every step is taken from an open
folder and follows no link. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

GIVEN_DEPTH: Final = 40
"""Folders within folders that are given to another user; code may not nest them as deep."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_all(folder: Path) -> None:
    """Remove a folder and everything in it; one that is not there is fine.

    However deep it nests, two folders are open at a time: inner ones are first moved to the top.

    Raises OSError.
    """
    try:
        top = _enter(folder)
    except FileNotFoundError:
        return
    try:
        while folders := _clear(top):
            for name in folders:
                inner = _enter(name, top)
                try:
                    for deeper in _clear(inner):
                        _move(deeper, inner, top, secrets.token_hex(16))
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def move_all(source: Path, target: Path) -> None:
    """Move everything in one folder into another on the same file system.

    What has the same name there is replaced; all of it becomes the target's owner's, where this
    process may do that. May be repeated after it was cut short.

    Raises OSError.
    """
    if os.geteuid() == 0:
        owner = target.stat(follow_symlinks=False)
        give_all(source, owner.st_uid, owner.st_gid)
    old = _enter(source)
    try:
        new = _enter(target)
        try:
            for name in os.listdir(old):  # noqa: PTH208
                try:
                    os.unlink(name, dir_fd=new)
                except FileNotFoundError:
                    pass
                except (IsADirectoryError, PermissionError):
                    remove_all(target / name)
                _move(name, old, new, name)
        finally:
            os.close(new)
    finally:
        os.close(old)


def give_all(folder: Path, uid: int, gid: int) -> None:
    """Make everything in a folder this user's, down to `GIVEN_DEPTH`.

    A file with a second name is left as it is: that name might lie elsewhere. Raises OSError.
    """
    top = _enter(folder)
    try:
        _give(top, uid, gid, GIVEN_DEPTH)
    finally:
        os.close(top)


def _give(folder: int, uid: int, gid: int, depth: int) -> None:
    for name in os.listdir(folder):  # a descriptor, not a path
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
        inner = stat.S_ISDIR(seen.st_mode)
        if (inner or seen.st_nlink == 1) and (seen.st_uid, seen.st_gid) != (uid, gid):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        if inner and depth > 1:
            below = _enter(name, folder)
            try:
                _give(below, uid, gid, depth - 1)
            finally:
                os.close(below)


def _enter(path: Path | str, folder: int | None = None) -> int:
    """A folder's descriptor; code may have taken all rights to it from itself, and so from us."""
    _unlock(path, folder)
    return os.open(path, _FOLDER, dir_fd=folder)


def _unlock(path: Path | str, folder: int | None) -> None:
    handle = os.open(path, _HANDLE, dir_fd=folder)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101  # a descriptor, not a path
    finally:
        os.close(handle)


def _clear(folder: int) -> list[str]:
    """Remove all but folders; the names of these."""
    folders = []
    for name in os.listdir(folder):  # a descriptor, not a path
        try:
            os.unlink(name, dir_fd=folder)
        except (IsADirectoryError, PermissionError):  # Linux and POSIX differ in what they say
            folders.append(name)
    return folders


def _move(name: str, source: int, target: int, to: str) -> None:
    # A folder that its owner may not write to cannot be moved: its `..` would change.
    with suppress(NotADirectoryError, FileNotFoundError):
        _unlock(name, source)
    os.rename(name, to, src_dir_fd=source, dst_dir_fd=target)
