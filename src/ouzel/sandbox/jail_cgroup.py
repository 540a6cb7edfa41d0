"""Control groups: the kernel's own bound on the memory and the processes of a whole sandbox.

Used only below a group that the operator names, since groups belong to whoever manages the machine
(systemd, a container runtime) and making some of our own accord would be in the way. Version 2 of
the interface. Without a group, sandboxes are bounded by their watcher instead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ouzel.sandbox.jail_limits import MIB, SHARED_MEMORY, Limits

SLACK: Final = 64 * MIB
"""For what the kernel itself keeps for a sandbox: page tables, sockets, names."""

EXTRA_PROCESSES: Final = 8
"""Our own in there: bubblewrap twice, or the guard and what ends the rest."""

_number = itertools.count()


@dataclass(frozen=True, slots=True)
class Groups:
    """Where groups are made.

    Args:
        parent: a group without processes whose children have the controllers `memory` and `pids`.
    """

    parent: Path

    def make(self, limits: Limits) -> Group:
        """A new group with these bounds, empty.

        Raises:
            OSError: the kernel does not let us.
        """
        group = Group(self.parent / f"ouzel-{os.getpid()}-{next(_number)}")
        group.folder.mkdir()
        try:
            # Short-lived files are memory, too.
            most = limits.memory + limits.tmp + SHARED_MEMORY + SLACK
            _set(group.folder / "memory.max", most)
            _set(group.folder / "pids.max", limits.processes + EXTRA_PROCESSES)
            swap = group.folder / "memory.swap.max"
            if swap.exists():  # not where the kernel does not count swap
                _set(swap, 0)
        except OSError:
            group.remove()
            raise
        return group


def _set(setting: Path, number: int) -> None:
    # Such a file exists or the controller is not there; it must not be made.
    with setting.open("r+") as file:
        file.write(str(number))


@dataclass(frozen=True, slots=True)
class Group:
    """One sandbox's group. Keeps `jail_process.Group`."""

    folder: Path

    def add(self, pids: Sequence[int]) -> None:
        """Move processes in; what they start will be in it from the start.

        Raises:
            OSError: the kernel does not let us.
        """
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                _set(self.folder / "cgroup.procs", pid)

    def kill(self) -> None:
        """End all processes in it at once, where the kernel can (Linux 5.14)."""
        with contextlib.suppress(OSError):
            _set(self.folder / "cgroup.kill", 1)

    def remove(self) -> bool:
        """Whether it is gone; while a process is in it, the kernel keeps it."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return not self.folder.exists()


def find_groups(parent: Path) -> Groups:
    """Groups below the one that the operator named, tried for real.

    Raises:
        OSError: none can be made there.
    """
    groups = Groups(parent)
    # The bounds do not matter: nobody is in it.
    groups.make(Limits(memory=64 * MIB, file_size=MIB, tmp=MIB, cpu_seconds=1)).remove()
    return groups
