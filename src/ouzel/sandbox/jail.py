"""The way into the sandbox: finds how code can be kept in on this machine, and starts it there.

`find_jail` tries for real and answers with a `Jail`; `start` runs a program in one. There are two
modes: bubblewrap (namespaces) and Landlock (none needed). Where neither holds there is no jail, and
nothing is ever run without one. What runs inside, and for how long, others decide.

`docs/sandbox.md` says what each mode stops, and what it does not.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ouzel.sandbox import jail_bwrap, jail_landlock, seccomp
from ouzel.sandbox.jail_cgroup import Groups, find_groups
from ouzel.sandbox.jail_limits import JailFailed, Limits, Mode, SandboxUnavailable, Wanted
from ouzel.sandbox.jail_probe import probe
from ouzel.sandbox.jail_process import Jailed
from ouzel.sandbox.jail_start import sweep_tmp, under_bubblewrap, under_landlock
from ouzel.sandbox.jail_uids import NoUsers, Uids, find_range

__all__ = ["Jail", "JailFailed", "Jailed", "Limits", "Mode", "SandboxUnavailable"]
__all__ += ["find_jail", "give", "start"]

MODES: Final[tuple[Mode, ...]] = ("bubblewrap", "landlock")
"""The stronger first."""


@dataclass(frozen=True, slots=True)
class Jail:
    """How code is kept in on this machine.

    Args:
        mode: see `docs/sandbox.md`.
        scratch: folder for what a sandbox needs beside its work folder.
        binary, version: of bubblewrap, in its mode.
        abi: version of Landlock, in its mode.
        uids: users for sandboxes, if this server is root.
        groups: where control groups are made, if the operator named a place.
    """

    mode: Mode
    scratch: Path
    binary: Path = Path()
    version: tuple[int, ...] = ()
    abi: int = 0
    uids: Uids | None = field(default=None, compare=False)
    groups: Groups | None = None

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Facts for a report to people: name and value."""
        version = ".".join(map(str, self.version))
        how = f"{version} ({self.binary})" if self.mode == "bubblewrap" else f"ABI {self.abi}"
        if self.uids is not None:
            user = "one of its own for each sandbox"
        else:
            user = "the server's" + (", in a user namespace" if self.mode == "bubblewrap" else "")
        bound = str(self.groups.parent) if self.groups is not None else "none; memory is watched"
        return (("mode", self.mode), ("version", how), ("user", user), ("control group", bound))


def find_jail(scratch: Path, *, prefer: Mode | None = None, group: Path | None = None) -> Jail:
    """How code is kept in here, tried for real. Takes 0.2 s; call it off the event loop.

    Args:
        scratch: a folder of ours for short-lived things; as root under Landlock, one that other
            users can come through to.
        prefer: this mode or none.
        group: a control group (version 2) below which each sandbox gets one of its own.

    Raises:
        SandboxUnavailable: with a reason for each mode that was tried.
    """
    try:
        # Others may come through it, and not list it: a jail's user has to.
        scratch.mkdir(0o711, parents=True, exist_ok=True)
        sweep_tmp(scratch)
    except OSError as error:
        raise SandboxUnavailable(
            f"Code cannot be kept in: {scratch} cannot be used: {error.strerror}."
        ) from error
    reasons = []
    for mode in (prefer,) if prefer else MODES:
        try:
            jail = _candidate(mode, scratch, group)
        except (LookupError, NoUsers, OSError) as error:
            reasons.append(f"{mode}: {error.args[0] if type(error) is LookupError else error}")
            continue
        # An event loop of its own: this thread may have one that runs.
        with ThreadPoolExecutor(1) as thread:
            trouble = thread.submit(asyncio.run, _try(jail)).result()
        if trouble is None:
            return jail
        reasons.append(f"{mode}: {trouble}")
    raise SandboxUnavailable("Code cannot be kept in on this machine. " + ". ".join(reasons))


def _candidate(mode: Mode, scratch: Path, group: Path | None) -> Jail:
    """A jail as it would be. Raises LookupError, NoUsers or OSError with the reason against it."""
    if platform.system() != "Linux" or not seccomp.knows(platform.machine()):
        raise LookupError(f"there is no filter for {platform.system()} on {platform.machine()}")
    try:
        uids = Uids(*find_range()) if os.geteuid() == 0 else None
    except NoUsers:
        # Root of a container that has one user only: a user namespace does for it, too.
        if mode == "landlock":
            raise
        uids = None
    groups = find_groups(group) if group is not None else None
    if mode == "bubblewrap":
        binary, version = jail_bwrap.find_binary()
        return Jail(mode, scratch, binary=binary, version=version, uids=uids, groups=groups)
    abi = jail_landlock.abi()
    if abi < jail_landlock.LEAST_ABI:
        raise LookupError(
            f"the kernel has Landlock ABI {abi}; {jail_landlock.LEAST_ABI} is needed (Linux 6.7, "
            "with landlock among its security modules)"
        )
    return Jail(mode, scratch, abi=abi, uids=uids, groups=groups)


async def _try(jail: Jail) -> str | None:
    async def begin(wanted: Wanted) -> Jailed:
        return await _start(jail, wanted)

    return await probe(begin, jail_bwrap.launcher_python(), jail.scratch)


async def start(
    jail: Jail,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    work: Path,
    sockets: Path,
    readable: Sequence[Path],
    limits: Limits,
) -> Jailed:
    """Run a program in a sandbox of its own.

    Call it on an event loop whose thread lives as long as the server: the kernel ends the sandbox
    with that thread. Whoever has a `Jailed` calls `kill` and awaits `gone` in the end.

    Args:
        argv: the program by its absolute path, and its arguments.
        env: the whole environment; values that are paths below /mnt/data and /tmp mean the folders
            that the code has under these names, also where nothing is mounted.
        work: the code's folder: at /mnt/data under bubblewrap, at its own path under Landlock, and
            the current folder in both. As root, all in it is given to the sandbox's user.
        sockets: a folder, read-write at its own path, given in the same way.
        readable: read-only at their own paths.

    Raises:
        JailFailed: it did not come up.
    """
    wanted = Wanted(
        argv=tuple(argv),
        env=env,
        work=work,
        sockets=sockets,
        readable=tuple(readable),
        limits=limits,
    )
    return await _start(jail, wanted)


async def _start(jail: Jail, wanted: Wanted) -> Jailed:
    uids = jail.uids
    try:
        uid = uids.take() if uids is not None else None
    except NoUsers as none:
        raise JailFailed(str(none)) from none
    jailed: Jailed | None = None

    def on_end() -> None:
        if uids is not None and uid is not None:
            uids.give_back(uid)

    try:
        if uid is not None:
            await asyncio.to_thread(give, wanted.work, uid)
            await asyncio.to_thread(give, wanted.sockets, uid)
        if jail.mode == "bubblewrap":
            jailed = await under_bubblewrap(jail.binary, wanted, uid, jail.groups, on_end)
        else:
            jailed = await under_landlock(jail.abi, wanted, uid, jail.groups, jail.scratch, on_end)
    except OSError as error:
        raise JailFailed(
            f"the sandbox's folders could not be prepared: {error.strerror}"
        ) from error
    finally:
        if jailed is None:
            on_end()
    return jailed


def give(folder: Path, uid: int) -> None:
    """Make a folder and all in it a user's. Links are given, never followed.

    Nobody may change the tree meanwhile.

    Raises:
        OSError: it is not there, not ours to give, or nested deeper than a path is long.
    """
    left = [str(folder)]
    while left:
        here = os.open(left[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(here, uid, uid)
            above = left.pop()
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(f"{above}/{entry.name}")
                    elif entry.stat(follow_symlinks=False).st_uid != uid:
                        os.chown(entry.name, uid, uid, dir_fd=here, follow_symlinks=False)
        finally:
            os.close(here)
