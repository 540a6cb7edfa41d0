"""The Landlock mode: what code may open where there are no namespaces, and how its guard is told.

Landlock confines a process to the files that rules name. It knows nothing of chmod, of stat or of
connecting to a socket that has a name; the filter (`seccomp.py`) is stricter here for that reason.
There is nothing that ends with a namespace, so a guard stays outside: the launcher, which starts
the code as a child, inherits what the code leaves behind, and ends all of it. This file plans; it
applies nothing.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ouzel.core.files import WORK
from ouzel.sandbox.jail_bwrap import SETTINGS, SYSTEM, python_home
from ouzel.sandbox.jail_limits import Wanted, outermost

LEAST_ABI: Final = 4
"""Linux 6.7. Before 3 truncating a file was not covered, before 4 nothing of the network."""

SIGNALS_ABI: Final = 6
"""Linux 6.12: signals stay inside, and so do abstract sockets."""

CREATE_RULESET: Final = 444
ASK_VERSION: Final = 1

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
MAKE_CHAR: Final = 1 << 6
MAKE_BLOCK: Final = 1 << 11
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

ALL: Final = {4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Rights over files that an ABI knows; none has come since the fifth."""

TCP: Final = 0b11
SCOPES: Final = 0b11

READ: Final = EXECUTE | READ_FILE | READ_DIR
OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE

DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

ABOUT_THE_MACHINE: Final = (
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
"""What numeric libraries look at to choose their code and their threads."""


def abi() -> int:
    """The version of Landlock that the kernel has; 0 without it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)))


def folders(wanted: Wanted) -> tuple[Path, ...]:
    """Everything that the code reads or executes, by its real path."""
    system = [Path("/usr"), *(Path("/") / name for name in SYSTEM)]
    asked = [*system, *wanted.readable, python_home()]
    return outermost([path.resolve() for path in asked if path.exists()])


def rules(wanted: Wanted, tmp: Path, known: int) -> list[tuple[str, int]]:
    """Paths that exist and the rights below them; nothing else can be opened.

    Args:
        tmp: the sandbox's own folder for short-lived files.
        known: the ABI.
    """
    everything = ALL[min(known, max(ALL))]
    own = everything & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
    found = [(path, READ) for path in folders(wanted)]
    found += [(Path(name), READ) for name in (*SETTINGS, *ABOUT_THE_MACHINE)]
    found += [(Path(name), READ_FILE | WRITE_FILE | TRUNCATE) for name in DEVICES]
    found += [(path.resolve(), own) for path in (wanted.work, wanted.sockets, tmp)]
    said = []
    for path, rights in found:
        if path.is_dir():
            said.append((str(path), rights))
        elif path.exists():
            said.append((str(path), rights & OF_FILES))
    return said


def landlock(wanted: Wanted, tmp: Path, known: int, lifeline: int) -> dict[str, Any]:
    """What the launcher needs for its two domains and for its watch, as part of the plan."""
    return {
        "guard": {
            "lifeline": lifeline,
            "server": os.getpid(),
            "scope": SCOPES if known >= SIGNALS_ABI else 0,
            "tmp": str(tmp),
            "tmp_limit": wanted.limits.tmp,
        },
        "landlock": {
            "files": ALL[min(known, max(ALL))],
            "network": TCP,
            "scopes": SCOPES if known >= SIGNALS_ABI else 0,
            "rules": rules(wanted, tmp, known),
            "self": READ_FILE | READ_DIR,
        },
    }


def translated(text: str, work: Path, tmp: Path) -> str:
    """A path of the sandbox as it is here, where nothing is mounted: /mnt/data and /tmp."""
    for inside, outside in ((WORK, work), ("/tmp", tmp)):  # noqa: S108
        if text == inside or text.startswith(inside + "/"):
            return str(outside) + text[len(inside) :]
    return text


def unreachable(paths: Sequence[Path], uid: int) -> Path | None:
    """The first folder on the way to one of these that a user without rights cannot pass.

    Args:
        uid: somebody who is in no group and owns at most the paths themselves.
    """
    for path in paths:
        for folder in reversed([path, *path.parents]):
            about = folder.stat()
            if about.st_uid != uid and not about.st_mode & stat.S_IXOTH and folder.is_dir():
                return folder
    return None


def own_processes() -> int:
    """Threads that this process's user has now; the kernel counts them into the limit."""
    total = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.getuid():  # noqa: PTH116
                    total += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
            except OSError:
                continue
    return total
