"""What code in a sandbox may use up, looked at several times a second: memory, disk, files, time.

Nothing here stops anything: `watch` returns when a limit is broken and says which. The work folder
belongs to hostile code that runs meanwhile: it is walked from open folders, no link is followed,
and no walk goes further than the limits do.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ouzel.sandbox.container_disk import remove_all

MIB: Final = 2**20

TICK: Final = 0.1
"""Seconds between two looks while a cell runs."""
IDLE_TICK: Final = 1.0
"""The same between cells, where threads of earlier ones may go on."""
FOLDER_SHARE: Final = 0.1
"""Of the time, how much walking the folder may take: a large one is walked less often."""
DEPTH: Final = 32
"""How deep folders may nest: a walk holds a descriptor for each."""

OWN_BYTES: Final = 4 * MIB
OWN_FILES: Final = 200
"""What a kernel may keep for itself, such as its sockets and lists of fonts, besides what the
limits leave to its code: a work folder that is just full must not cost the next cell its kernel."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A file's time comes from a clock that the kernel moves on at its ticks, at most 10 ms apart.
_CLOCK_NS = 20_000_000
_ENDLESS = 1 << 62
_LISTED = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLimits:
    """How much one cell may use. Its time is given with the cell itself.

    Args:
        memory: bytes that all processes of the sandbox may hold together.
        work_bytes: bytes that all files of the work folder may have together.
        work_files: files and folders in it.
        disk_floor: bytes that must stay free on the disk of the work folder.
        output_bytes: bytes of text that are taken; the rest is left out.
        pictures: how many pictures are taken.
        picture_bytes: bytes of all pictures that are taken.
        messages: messages that a kernel may send for one cell before it is interrupted.
    """

    memory: int
    work_bytes: int
    work_files: int = 10_000
    disk_floor: int = 512 * MIB
    output_bytes: int = 256 * 2**10
    pictures: int = 16
    picture_bytes: int = 16 * MIB
    messages: int = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """A limit is broken.

    Args:
        reason: which, as a clause about the code, without a full stop.
        kill: it must end at once; otherwise it may be interrupted first.
    """

    reason: str
    kill: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What a folder has in it; where a limit is broken the walk ended there, and it has more."""

    size: int
    files: int
    trouble: str = ""


async def watch(
    usage: Callable[[], tuple[int, int]],
    folders: Sequence[Path],
    limits: CellLimits,
    *,
    tick: float = TICK,
    until: float | None = None,
    alarm: asyncio.Event | None = None,
) -> Verdict | None:
    """Look until a limit is broken, and say which.

    Args:
        usage: bytes of memory and number of processes, as `Jailed.usage` tells them.
        folders: the work folder, then those that the kernel needs; their sizes count together, but
            for what a kernel keeps for itself.
        tick: seconds between two looks.
        until: time of `time.monotonic` at which the cell's time is up; None for never.
        alarm: somebody else wants the cell to end; then the answer is None.
    """
    began, next_walk = time.monotonic(), 0.0
    alarm = alarm or asyncio.Event()
    while True:
        # First of all a rest: most cells are over before anything needs looking at.
        left = tick if until is None else max(0.0, min(tick, until - time.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await alarm.wait()
        if alarm.is_set():
            return None
        now = time.monotonic()
        if until is not None and now >= until:
            return Verdict(f"it ran longer than {_seconds(until - began)}", kill=False)
        memory, _ = await asyncio.to_thread(usage)
        if memory > limits.memory:
            return Verdict(f"it used more than {_size(limits.memory)} of memory", kill=True)
        if now >= next_walk:
            begun = time.monotonic()
            trouble = await asyncio.to_thread(over, folders, limits)
            if trouble:
                return Verdict(trouble, kill=True)
            next_walk = now + max(2 * tick, (time.monotonic() - begun) / FOLDER_SHARE)


def over(folders: Sequence[Path], limits: CellLimits) -> str:
    """Which limit of the disk is broken; empty for none. Blocks."""
    size = files = 0
    for folder in folders:
        found = measure(folder, limits)
        if found.trouble:
            return found.trouble
        own = (0, 0) if folder is folders[0] else (OWN_BYTES, OWN_FILES)
        size, files = size + max(0, found.size - own[0]), files + max(0, found.files - own[1])
    if size > limits.work_bytes:
        return _too_large(limits)
    if files > limits.work_files:
        return _too_many(limits)
    if not has_spare(folders[0], limits):
        return "it left too little free space on the disk"
    return ""


def measure(folder: Path, limits: CellLimits) -> Measured:
    """Sizes and number of all that is in a folder. Blocks; ends early where a limit is broken."""
    size = files = 0
    try:
        for entry, _, depth in _walk(folder):
            files += 1
            with suppress(OSError):
                size += _room_of(entry.stat(follow_symlinks=False))
            if size > limits.work_bytes:
                return Measured(size, files, _too_large(limits))
            if files > limits.work_files:
                return Measured(size, files, _too_many(limits))
            if depth > DEPTH:
                return Measured(size, files, f"its folders nest more than {DEPTH} deep")
    except PermissionError:
        return Measured(size, files, "it made a folder that cannot be looked into")
    return Measured(size, files)


def trim(folder: Path, limits: CellLimits, since_ns: int) -> tuple[str, ...]:
    """Where a limit of the disk is broken, remove what was written since then, newest first, until
    it is kept again. Only where no code runs any more. Blocks.

    What code has moved or renamed counts as written. The time is the kernel's own, which code
    cannot set.

    Args:
        since_ns: nanoseconds since the epoch.

    Returns:
        Paths below the folder, of files, and of folders that went with all that was in them.
    """
    if not over([folder], limits):
        return ()
    removed = []
    since_ns -= _CLOCK_NS
    has = measure(folder, replace(limits, work_bytes=_ENDLESS, work_files=_ENDLESS))
    size, files = has.size, has.files
    for _, path, room in _written_since(folder, since_ns):
        if size <= limits.work_bytes and files <= limits.work_files and has_spare(folder, limits):
            break
        with suppress(OSError):
            (folder / path).unlink()
            removed.append(path)
            size, files = size - room, files - 1
    # Folders remain: nested too deep, locked, or very many of them.
    for name in _changed_folders(folder, since_ns) if over([folder], limits) else ():
        with suppress(OSError):
            remove_all(folder / name)
            removed.append(name)
        if not over([folder], limits):
            break
    return tuple(removed)


def _written_since(folder: Path, since_ns: int) -> list[tuple[int, str, int]]:
    """Time, path and size of files, newest first."""
    found = []
    with suppress(PermissionError):
        for seen, (entry, below, _) in enumerate(_walk(folder)):
            if seen >= _LISTED:
                break
            with suppress(OSError):
                about = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(about.st_mode) and about.st_ctime_ns >= since_ns:
                    found.append((about.st_ctime_ns, f"{below}{entry.name}", _room_of(about)))
    return sorted(found, reverse=True)


def _changed_folders(folder: Path, since_ns: int) -> list[str]:
    """Names of folders at the top, newest first."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            about = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode) and about.st_ctime_ns >= since_ns:
                found.append((about.st_ctime_ns, entry.name))
    return [name for _, name in sorted(found, reverse=True)]


def _room_of(about: os.stat_result) -> int:
    # Blocks may be more than the size (small files) or fewer (holes, which may yet be filled).
    return max(about.st_size, about.st_blocks * 512)


def has_spare(folder: Path, limits: CellLimits) -> bool:
    """Whether enough of the folder's disk is free, whoever has filled it. Blocks."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return True
    return disk.f_bavail * disk.f_frsize >= limits.disk_floor


def _walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], str, int]]:
    """Every entry, where it lies (`a/b/`, empty at the top) and how deep. What goes away meanwhile
    is passed over, and nothing below `DEPTH` is entered. Raises PermissionError at a locked folder.
    """
    try:
        top = os.open(folder, _FOLDER)
    except OSError:
        return
    # Descriptors of open folders, their iterators, and where they lie.
    open_now = [(top, os.scandir(top), "")]
    try:
        while open_now:
            here, entries, below = open_now[-1]
            try:
                entry = next(entries)
            except (StopIteration, OSError):
                entries.close()
                os.close(here)
                open_now.pop()
                continue
            yield entry, below, len(open_now)
            try:
                if len(open_now) <= DEPTH and entry.is_dir(follow_symlinks=False):
                    inner = os.open(entry.name, _FOLDER, dir_fd=here)
                    open_now.append((inner, os.scandir(inner), f"{below}{entry.name}/"))
            except PermissionError:
                raise
            except OSError:
                continue
    finally:
        for here, entries, _ in open_now:
            entries.close()
            os.close(here)


def _too_large(limits: CellLimits) -> str:
    return f"it filled the work folder with more than {_size(limits.work_bytes)}"


def _too_many(limits: CellLimits) -> str:
    return f"it made more than {limits.work_files:,} files"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / MIB:.0f} MB"


def _seconds(count: float) -> str:
    return f"{count:.0f} seconds" if count >= 1.5 else f"{count:.1f} seconds"
