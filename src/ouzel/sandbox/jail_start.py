"""Brings a sandbox up: starts the outermost process, talks to the launcher in it, sends the plan.

One way for each mode; both end with a program that runs, or with JailFailed and nothing left. Which
mode is used and what is run in it, this file is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ouzel.core.files import WORK
from ouzel.sandbox import jail_bwrap, jail_landlock
from ouzel.sandbox.inner import READY
from ouzel.sandbox.jail_cgroup import Groups
from ouzel.sandbox.jail_limits import JailFailed, Wanted, plan
from ouzel.sandbox.jail_process import Jailed, descendants, remove
from ouzel.sandbox.seccomp import Strictness

UP_WITHIN: Final = 20.0
"""Seconds until the code runs, or it is an error. Usual are 0.05; a machine may be very busy."""

TMP_PREFIX: Final = "tmp-of-"
"""Folders for short-lived files are named for the process that made them."""


def _preset(content: bytes) -> int:
    """A descriptor that gives this when read. Short: it has to fit into a pipe."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return read


async def under_bubblewrap(
    binary: Path,
    wanted: Wanted,
    uid: int | None,
    groups: Groups | None,
    on_end: Callable[[], None],
) -> Jailed:
    """Start in namespaces.

    Args:
        uid: the sandbox's own user, who has the folders already; None without root.
        on_end: called when nothing is left, or nothing was started.

    Raises:
        JailFailed: it did not come up.
    """
    line = plan(wanted, folder=WORK, uid=uid, strictness=Strictness())
    with contextlib.ExitStack() as held:
        ours, theirs = socket.socketpair()
        held.callback(ours.close)
        passwd, group = map(_preset, jail_bwrap.account(uid))
        info, told = os.pipe()
        given = [passwd, group, told]
        with contextlib.ExitStack() as passed:
            passed.callback(theirs.close)
            for each in given:
                passed.callback(os.close, each)
            command = jail_bwrap.arguments(
                binary, wanted, uid=uid, info=told, passwd=passwd, group=group,
                talk=theirs.fileno(),
            )  # fmt: skip
            try:
                jailed = _spawn(command, [*given, theirs.fileno()], None, on_end, info)
            except BaseException:
                os.close(info)
                raise
        jailed.uid = uid
        await _bring_up(jailed, ours, line, wanted, groups)
    return jailed


async def under_landlock(
    abi: int,
    wanted: Wanted,
    uid: int | None,
    groups: Groups | None,
    scratch: Path,
    on_end: Callable[[], None],
) -> Jailed:
    """Start without namespaces, below a guard. Arguments as above.

    Args:
        abi: version of Landlock.
        scratch: where the folder for short-lived files is made.

    Raises:
        JailFailed: it did not come up, or its user could not reach what it has to.
    """
    tmp = Path(tempfile.mkdtemp(prefix=f"{TMP_PREFIX}{os.getpid()}-", dir=scratch))
    try:
        if uid is not None:
            os.chown(tmp, uid, uid)
            _check_reachable(wanted, tmp, uid)
        return await _below_guard(abi, wanted, uid, groups, tmp, on_end)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def _check_reachable(wanted: Wanted, tmp: Path, uid: int) -> None:
    needed = [*wanted.readable, wanted.work, wanted.sockets, tmp, Path(wanted.argv[0])]
    closed = jail_landlock.unreachable([path.resolve() for path in needed], uid)
    if closed is not None:
        raise JailFailed(
            f"without namespaces, the sandbox's own user has to reach its files, and {closed} is "
            "closed to other users: keep Ouzel's folders and its Python elsewhere, or open it (o+x)"
        )


async def _below_guard(
    abi: int,
    wanted: Wanted,
    uid: int | None,
    groups: Groups | None,
    tmp: Path,
    on_end: Callable[[], None],
) -> Jailed:
    env = {
        name: jail_landlock.translated(value, wanted.work, tmp)
        for name, value in {"TMPDIR": str(tmp), **wanted.env}.items()
    }
    strictness = Strictness(
        shared_names=True,
        shared_user=uid is None,
        shared_signals=uid is None and abi < jail_landlock.SIGNALS_ABI,
    )
    with contextlib.ExitStack() as held:
        ours, theirs = socket.socketpair()
        held.callback(ours.close)
        ending, lifeline = os.pipe()
        line = plan(
            wanted,
            folder=str(wanted.work.resolve()),
            uid=uid,
            strictness=strictness,
            running=0 if uid is not None else jail_landlock.own_processes(),
            more=jail_landlock.landlock(wanted, tmp, abi, ending),
            env=env,
        )
        command = [jail_bwrap.launcher_python(), "-I", "-S", "-B", str(jail_bwrap.LAUNCHER)]
        try:
            command.append(str(theirs.fileno()))
            jailed = _spawn(command, [theirs.fileno(), ending], lifeline, on_end)
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            theirs.close()
            os.close(ending)
        jailed.uid = uid
        jailed.tmp = tmp
        await _bring_up(jailed, ours, line, wanted, groups)
    return jailed


def _spawn(
    command: Sequence[str],
    given: Sequence[int],
    lifeline: int | None,
    on_end: Callable[[], None],
    info: int | None = None,
) -> Jailed:
    output, written = os.pipe()
    try:
        # From here on the thread matters: bubblewrap's end is tied to it by the kernel.
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            pass_fds=given,
            env={},
            cwd="/",
        )
    except OSError as error:
        os.close(output)
        raise JailFailed(f"{command[0]}: {error.strerror}") from error
    finally:
        os.close(written)
    return Jailed(process, output, lifeline=lifeline, on_end=on_end, info=info)


async def _bring_up(
    jailed: Jailed,
    ours: socket.socket,
    line: bytes,
    wanted: Wanted,
    groups: Groups | None,
) -> None:
    """Everything that is said between here and the launcher."""
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    try:
        async with asyncio.timeout(UP_WITHIN):
            if await loop.sock_recv(ours, len(READY)) != READY:
                await _failed(jailed, "")
            jailed.meet()
            if groups is not None:
                group = groups.make(wanted.limits)
                jailed.join(group)
                group.add([jailed.pid, *descendants(jailed.pid)])
            await loop.sock_sendall(ours, line)
            # The socket closes as the program is executed; words are bad news.
            trouble = await loop.sock_recv(ours, 1024)
            if trouble or not jailed.alive():
                await _failed(jailed, trouble.decode(errors="replace"))
    except TimeoutError:
        jailed.kill()
        raise JailFailed(f"the sandbox was not up within {UP_WITHIN:.0f} seconds") from None
    except OSError as error:
        jailed.kill()
        raise JailFailed(f"the sandbox did not come up: {error}") from error
    except BaseException:
        jailed.kill()
        raise


async def _failed(jailed: Jailed, said: str) -> None:
    jailed.kill()
    await jailed.gone()
    reason = said or jailed.stderr_tail.strip() or "it ended without a word"
    raise JailFailed(f"the sandbox did not come up: {reason}")


def sweep_tmp(scratch: Path) -> None:
    """Remove what servers that are no longer there left in the folder."""
    for path in scratch.glob(f"{TMP_PREFIX}*"):
        pid = path.name.removeprefix(TMP_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            remove(path)
