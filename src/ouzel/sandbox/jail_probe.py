"""Starts something harmless in a jail and looks whether the walls stand.

A jail that was not tried is none: a kernel may accept a wall and not build it. The program in
`ATTEMPTS` does what must not work, and a few things that must; it leaves a verdict in its folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from ouzel.sandbox.jail_limits import MIB, JailFailed, Limits, Wanted
from ouzel.sandbox.jail_process import Jailed

WITHIN: Final = 20.0
"""Seconds that it may take; usual is 0.1."""

LIMITS: Final = Limits(memory=256 * MIB, file_size=8 * MIB, tmp=8 * MIB, cpu_seconds=10)

ATTEMPTS: Final = """
import ctypes, json, os, socket, sys
secret, outside, server, port = sys.argv[1:]
trouble = []

def refused(what, attempt):
    try:
        attempt()
    except OSError:
        return
    trouble.append(what)

def call(number, *arguments):
    if ctypes.CDLL(None, use_errno=True).syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")

refused("a file of the host can be read", lambda: open(secret).read())
refused("a folder of the host can be listed", lambda: os.listdir(os.path.dirname(secret)))
refused("something outside can be written", lambda: open(outside, "w").write("x"))
refused("the server can be signalled", lambda: os.kill(int(server), 0))
refused("the network can be reached",
        lambda: socket.create_connection(("127.0.0.1", int(port)), 1))
refused("a user namespace can be made", lambda: call({"x86_64": 272}.get(os.uname().machine, 97),
                                                     0x10000000))
about = dict(line.split(":", 1) for line in open("/proc/self/status"))
if int(about["Seccomp"]) != 2:
    trouble.append("system calls are not filtered")
if int(about["NoNewPrivs"]) != 1:
    trouble.append("programs may give rights")
if int(about["CapEff"], 16) or int(about["CapPrm"], 16):
    trouble.append("it has capabilities")
if 0 in os.getresuid() and int(about["CapBnd"], 16):
    trouble.append("it is root")
with open("verdict", "w") as file:
    json.dump(trouble, file)
"""

Begin = Callable[[Wanted], Awaitable[Jailed]]


async def probe(begin: Begin, python: str, scratch: Path) -> str | None:
    """What is wrong with a jail, in half a sentence; None if it holds.

    Args:
        begin: starts something in it.
        python: an interpreter that the jail makes readable by itself.
        scratch: a folder of ours.
    """
    with (
        tempfile.TemporaryDirectory(prefix="probe-", dir=scratch) as name,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        port = str(listening.getsockname()[1])
        return await _verdict(begin, _attempts(Path(name), python, port))


def _attempts(folder: Path, python: str, port: str) -> Wanted:
    # The sandbox's user has to come through, where there are no mounts.
    folder.chmod(0o711)
    work, sockets, closed = folder / "work", folder / "sockets", folder / "closed"
    for each in (work, sockets, closed):
        each.mkdir()
    secret = closed / "secret"
    secret.write_text("not to be seen")
    # Nothing but the jail keeps it from being read.
    for each in (closed, secret):
        each.chmod(0o755)
    told = [str(secret), str(closed / "written"), str(os.getpid()), port]
    return Wanted(
        argv=(python, "-I", "-S", "-c", ATTEMPTS, *told),
        env={},
        work=work,
        sockets=sockets,
        readable=(),
        limits=LIMITS,
    )


async def _verdict(begin: Begin, wanted: Wanted) -> str | None:
    try:
        jailed = await begin(wanted)
    except JailFailed as failed:
        return failed.message
    try:
        async with asyncio.timeout(WITHIN):
            await jailed.wait()
    except TimeoutError:
        return f"a trial did not end within {WITHIN:.0f} seconds"
    finally:
        jailed.kill()
        await jailed.gone()
    try:
        trouble = json.loads((wanted.work / "verdict").read_text())
    except (OSError, ValueError):
        said = jailed.stderr_tail.strip().splitlines()
        return f"a trial ended without a verdict ({said[-1] if said else 'and without a word'})"
    return "; ".join(trouble) if trouble else None
