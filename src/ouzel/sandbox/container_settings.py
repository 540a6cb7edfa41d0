"""How many containers, how large, how long: the numbers of the containers' room."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from ouzel.sandbox.watch import CellLimits

GIGABYTE: Final = 2**30
MEGABYTE: Final = 2**20
MOST_BY_DEFAULT: Final = 16


def most_live_here() -> int:
    """Interpreters that this machine can keep."""
    return most_live_in(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def most_live_in(memory: int) -> int:
    """Interpreters that so many bytes of memory can hold: their usual limits fill 3/4 of them."""
    return max(1, min(MOST_BY_DEFAULT, memory * 3 // 4 // GIGABYTE))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSettings:
    """Bounds for containers.

    Args:
        most_live: interpreters that live at once, the warm ones included.
        most_of_owner: containers of one owner that have not expired.
        warm: interpreters that are started ahead.
        memory_mb: most memory that one container may ask for, in MiB; at least 1024, which is what
            those get that do not ask.
        disk_mb: what all files of one container may have together, in MiB.
        processes: processes and threads of one container.
        tmp_mb: what may lie in a container's /tmp, in MiB.
        cpu_seconds: processor time of one process in a container, for its whole life.
        start_seconds: how long an interpreter may take to come up.
        cell_seconds: most time for one cell, whatever the caller gives.
        idle_grace: seconds without a cell after which an interpreter gives way to one who waits;
            its container keeps its files. Less than a call waits (24 seconds, usually): otherwise
            who comes when all are taken fails, however many of them are idle.
        keep_expired_days: how long an expired container is still reported as such.
        tick: seconds between two looks at what has expired or grown too large.
        disk_floor_mb: what must stay free on the disk, in MiB.
    """

    most_live: int = field(default_factory=most_live_here)
    most_of_owner: int = 200
    warm: int = 1
    memory_mb: int = 1024
    disk_mb: int = 512
    processes: int = 64
    tmp_mb: int = 128
    cpu_seconds: int = 3600
    start_seconds: float = 30.0
    cell_seconds: float = 600.0
    idle_grace: float = 10.0
    keep_expired_days: float = 30.0
    tick: float = 5.0
    disk_floor_mb: int = 512

    def __post_init__(self) -> None:
        if self.memory_mb < 1024 or self.most_live < 1 or self.disk_mb < 1:
            raise ValueError("containers need 1024 MiB of memory, a place, and room on the disk")

    def cell_limits(self, memory: int) -> CellLimits:
        """What a cell may use in a container with so many bytes of memory."""
        return CellLimits(
            memory=memory, work_bytes=self.disk, disk_floor=self.disk_floor_mb * MEGABYTE
        )

    @property
    def disk(self) -> int:
        """Bytes that all files of one container may have together."""
        return self.disk_mb * MEGABYTE
