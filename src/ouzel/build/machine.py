"""What this machine has: cores, memory and instructions, as far as this process may use them.

What an engine may take is `engines.machine`'s to say; this is what people are told. A container's
limit counts where it is smaller than the machine. Nothing here knows weights.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from ouzel.engines.machine import survey

_CGROUP_MEMORY = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says how much a container may have: cgroup version 2, then 1."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is.

    Args:
        system: its name for people.
        cores: physical ones that this process may run on.
        memory: bytes in all.
        available: bytes that could be had now without swapping.
        avx2: whether the processor has AVX2; None where that cannot be told, or on another
            architecture than x86-64, where the question has no meaning.
    """

    system: str
    cores: int
    memory: int
    available: int
    avx2: bool | None


def look(cgroup_files: tuple[Path, ...] = _CGROUP_MEMORY) -> Machine:
    """Find out what this machine has.

    Args:
        cgroup_files: where a limit on memory may be written.
    """
    allowed = survey()
    limit = min([psutil.virtual_memory().total, *_limits(cgroup_files)])
    return Machine(
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cores=allowed.cores,
        memory=limit,
        available=min(allowed.memory, limit),
        avx2=_avx2(),
    )


def free_for(folder: Path) -> int:
    """Bytes free where a folder lies, or will lie once it is made."""
    return shutil.disk_usage(nearest_existing(folder)).free


def nearest_existing(path: Path) -> Path:
    """The path itself if it exists, else the nearest folder above that does."""
    return next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))


def _limits(files: tuple[Path, ...]) -> list[int]:
    """Limits that are written somewhere; `max` and a missing file say that there is none."""
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isascii() and text.isdigit()]


def _avx2() -> bool | None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return None
    flags = [line for line in info.read_text().splitlines() if line.startswith("flags")]
    return all("avx2" in line.split() for line in flags) if flags else None
