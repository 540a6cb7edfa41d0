"""What one sandbox may take, and the plan that the launcher inside it carries out.

The nouns that every other file of the jail shares. Which mode there is, this file does not know;
it hands the launcher (`inner.py`) what to give up and what to become, as one line of JSON.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ouzel.core.errors import OuzelError
from ouzel.sandbox.seccomp import Strictness, assemble

MIB: Final = 2**20

Mode = Literal["bubblewrap", "landlock"]

NICENESS: Final = 5
"""Foreign code gives way to the server, which has to answer others meanwhile."""

OOM_SCORE: Final = 700
"""Out of 1000: when the machine runs out of memory, the kernel takes a sandbox first."""

ADDRESS_ROOM: Final = 4096 * MIB
"""Address space beyond the memory limit. Libraries reserve gigabytes that they never touch."""

SHARED_MEMORY: Final = 64 * MIB
"""Size of /dev/shm, for the locks and buffers of `multiprocessing`."""


class SandboxUnavailable(OuzelError):
    """Code cannot be kept in on this machine, so it is not run. The message has the reasons."""


class JailFailed(OuzelError):
    """A sandbox did not come up, or went away as it did. Nothing of the code has run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sandbox may take.

    Args:
        memory: bytes, all of its processes together. One process alone is refused more (it sees a
            MemoryError); what they have together is bounded by a control group where this server
            may make one, and by whoever watches `Jailed.usage` everywhere.
        processes: processes and threads. Without namespaces and without root, the kernel counts
            what else the server's user runs; then this comes on top of what runs at the start.
        open_files: descriptors of one process.
        file_size: bytes of one file.
        tmp: bytes of /tmp: the size of its file system under bubblewrap; without namespaces, a
            folder that is looked at several times a second, and the sandbox ends if it is over.
        cpu_seconds: processor time of one process, over the sandbox's whole life.
    """

    memory: int
    processes: int = 64
    open_files: int = 256
    file_size: int
    tmp: int
    cpu_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be run.

    Args:
        argv: the program, by its absolute path, and its arguments.
        env: the whole environment.
        work: the folder that is the code's.
        sockets: a folder for sockets, read-write at its own path.
        readable: folders and files, read-only at their own paths.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    work: Path
    sockets: Path
    readable: tuple[Path, ...]
    limits: Limits


def rlimits(limits: Limits, *, running: int = 0) -> dict[str, tuple[int, int]]:
    """Names of `resource` limits, soft and hard.

    Args:
        running: processes of the same user that count as well.
    """
    address = limits.memory + ADDRESS_ROOM
    numbers = {
        # What is written to counts here; what is only reserved counts for the address space.
        "RLIMIT_DATA": limits.memory,
        "RLIMIT_AS": address,
        "RLIMIT_NPROC": running + limits.processes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_size,
        "RLIMIT_CPU": limits.cpu_seconds,
        # 0 would still start a program that the host has for crashes; 1 is the kernel's "never".
        "RLIMIT_CORE": 1,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_NICE": 0,
        "RLIMIT_SIGPENDING": 1024,
    }
    return {name: (number, number) for name, number in numbers.items()}


def plan(
    wanted: Wanted,
    *,
    folder: str,
    uid: int | None,
    strictness: Strictness,
    running: int = 0,
    more: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """What the launcher has to do, in one line.

    Args:
        folder: where the code starts.
        uid: who it becomes; None if it stays who it is.
        running: see `rlimits`.
        more: what only this mode's launcher knows.
        env: instead of the wanted one.
    """
    program = assemble(strictness)
    said = {
        "argv": list(wanted.argv),
        "env": dict(wanted.env if env is None else env),
        "folder": folder,
        "uid": uid,
        "limits": rlimits(wanted.limits, running=running),
        "niceness": NICENESS,
        "oom": OOM_SCORE,
        "filter": b64encode(program.code).decode(),
        "own_pid_at": list(program.own_pid_at),
        **(more or {}),
    }
    return json.dumps(said).encode() + b"\n"


def outermost(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The paths, without those that lie inside another one."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)
