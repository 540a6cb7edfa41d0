"""What the catalogue looks like on this machine: on disk or not, fitting or not.

Reads no weights and hashes nothing, so that a list is there at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from ouzel.engines.weights import disk
from ouzel.engines.weights.catalogue import Catalogue, Entry, Modality

Fit = Literal["fits", "tight", "no"]
OnDisk = Literal["yes", "unverified", "partial", "no"]

COMFORTABLE = 0.8
"""Share of the memory that weights may take and leave room for everything else."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `ouzel models`.

    Args:
        on_disk: `yes` (verified), `unverified` (there, but it will be hashed before it is used),
            `partial` (a pull can go on), `no`.
        size_bytes: all files together; rounded unless `size_exact`.
        fit: whether the machine's memory is enough.
        aliases: names that mean this entry, those of the default among them.
        retired: retired by today.
        confirmed: whether its file name is known to be right.
    """

    name: str
    title: str
    on_disk: OnDisk
    size_bytes: int
    size_exact: bool
    memory_bytes: int
    fit: Fit
    context_window: int
    modalities: tuple[Modality, ...]
    aliases: tuple[str, ...]
    licence: str
    retired: bool
    successor: str | None
    default: bool
    confirmed: bool


def fits(wanted: Entry | int, memory: int) -> Fit:
    """Whether weights can be served with so much memory.

    Args:
        wanted: an entry, or the size of a weights file in bytes (to which a fifth and half a
            gigabyte are added, for cache and buffers).
        memory: bytes that the machine has (of the accelerator, where one is used).

    Returns:
        `fits`, `tight` (it will run, with little room for anything beside it), or `no`.
    """
    needed = wanted.memory_bytes if isinstance(wanted, Entry) else wanted * 6 // 5 + 500_000_000
    if needed <= memory * COMFORTABLE:
        return "fits"
    return "tight" if needed <= memory else "no"


def rows(catalogue: Catalogue, cache: Path, memory: int) -> list[Row]:
    """All entries, the default first, then by the memory they need; retired ones last.

    Args:
        cache: the folder for downloads.
        memory: bytes, as for `fits`.
    """
    lines = [_row(entry, catalogue, cache, memory) for entry in catalogue]
    return sorted(lines, key=lambda row: (row.retired, not row.default, row.memory_bytes))


def on_disk(entry: Entry, cache: Path) -> OnDisk:
    """How much of an entry is on disk, as far as that can be told without reading it."""
    folder = disk.weights_folder(cache)
    paths = [folder / file.name for file in entry.all_files]
    if all(path.is_file() for path in paths):
        hashes = [disk.known_hash(path) for path in paths]
        right = [
            known is not None and file.sha256 in (None, known)
            for known, file in zip(hashes, entry.all_files, strict=True)
        ]
        return "yes" if all(right) else "unverified"
    begun = disk.partial_folder(cache, entry.name).exists() or any(path.exists() for path in paths)
    return "partial" if begun else "no"


def _row(entry: Entry, catalogue: Catalogue, cache: Path, memory: int) -> Row:
    shared = catalogue.default_aliases if entry.default else ()
    return Row(
        name=entry.name,
        title=entry.title,
        on_disk=on_disk(entry, cache),
        size_bytes=entry.size_bytes,
        size_exact=entry.size_exact,
        memory_bytes=entry.memory_bytes,
        fit=fits(entry, memory),
        context_window=entry.context_window,
        modalities=entry.modalities,
        aliases=(*entry.aliases, *(alias for alias in shared if alias not in entry.aliases)),
        licence=entry.licence,
        retired=entry.retired is not None and entry.retired <= date.today(),
        successor=entry.successor,
        default=entry.default,
        confirmed=entry.verified,
    )
