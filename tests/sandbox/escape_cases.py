"""What a server does in the escape tests: starts sandboxes with attackers in them, and looks after.

Run by `jail_kit.py` as `python -m escape_cases CASE MODE FOLDER MARKER`, by root or by a plain
user. Needs our sources and the standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import pwd
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import escape_bombs

from ouzel.sandbox import inner, jail_landlock, seccomp
from ouzel.sandbox.jail import (
    Jail,
    Jailed,
    JailFailed,
    Limits,
    SandboxUnavailable,
    find_jail,
    start,
)
from ouzel.sandbox.jail_process import descendants
from ouzel.sandbox.seccomp_numbers import NUMBERS

MIB = 2**20
LIMITS = Limits(memory=256 * MIB, processes=40, file_size=16 * MIB, tmp=16 * MIB, cpu_seconds=60)
PYTHON = sys.executable
WITHIN = 40.0


class Place:
    """A folder, a jail, and the sandboxes that were started in it."""

    def __init__(self, mode: str, folder: Path, marker: str) -> None:
        self.folder = folder
        self.marker = marker
        (folder / "scratch").mkdir()
        self.jail: Jail = find_jail(folder / "scratch", prefer=mode)
        self.mode = mode
        self._count = 0

    async def start(
        self, code: str, *arguments: str, limits: Limits = LIMITS, said: Any = None, **changes: Any
    ) -> tuple[Jailed, Path]:
        """Run code in a sandbox of its own; the sandbox, and its work folder."""
        self._count += 1
        base = self.folder / f"box{self._count}"
        work, sockets = base / "work", base / "sockets"
        for each in (work, sockets):
            each.mkdir(parents=True)
        if said is not None:
            (work / "told.json").write_text(json.dumps(said | {"sockets": str(sockets)}))
        jailed = await start(
            self.jail,
            [PYTHON, "-I", "-S", "-c", code, *arguments, self.marker],
            env={"TMPDIR": "/tmp", "HOME": "/mnt/data"},
            work=work,
            sockets=sockets,
            readable=[],
            limits=replace(limits, **changes),
        )
        return jailed, work

    async def still_works(self) -> bool:
        """Whether another sandbox runs as it should, beside whatever is going on."""
        jailed, work = await self.start("open('sum', 'w').write(str(20 + 22))")
        await finish(jailed)
        return (work / "sum").read_text() == "42"


async def finish(jailed: Jailed, within: float = WITHIN) -> int:
    """Wait for its end by itself; kill it if it does not come."""
    try:
        async with asyncio.timeout(within):
            return await jailed.wait()
    finally:
        jailed.kill()
        async with asyncio.timeout(WITHIN):
            await jailed.gone()


def doors(stack: ExitStack, folder: Path, marker: str) -> dict[str, Any]:
    """Everything that must not be reached, opened or planted on the server's side."""
    home = folder / "home"
    home.mkdir()
    secret = home / "secret"
    secret.write_text("not to be seen")
    secret.chmod(0o644)
    held = stack.enter_context(secret.open("rb"))
    os.set_inheritable(held.fileno(), True)
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    bound = {"abstract": "\0" + marker, "named": str(home / "socket")}
    listening = {"tcp": tcp, "udp": udp}
    for name, address in bound.items():
        listening[name] = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening[name].bind(address)
        listening[name].listen()
    addresses = {"datagrams": str(home / "datagrams"), "others": f"\0{marker}-datagrams"}
    for name, address in addresses.items():
        listening[name] = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        listening[name].bind(address)
    for each in listening.values():
        each.setblocking(False)
    for path in (home / "socket", home / "datagrams"):
        path.chmod(0o777)
    home.chmod(0o777)
    victim = subprocess.Popen(["sleep", "120"], start_new_session=True)
    stack.callback(victim.wait)
    stack.callback(victim.kill)
    return {
        "listening": listening,
        "victim": victim,
        "told": {
            "numbers": NUMBERS[platform.machine()],
            "secret": str(secret),
            "home": str(home),
            "a_user": next(each.pw_name for each in pwd.getpwall() if each.pw_uid == 1),
            "server": os.getpid(),
            "victim": victim.pid,
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": marker,
            "named": str(home / "socket"),
            "datagrams": str(home / "datagrams"),
        },
    }


def reached(listening: dict[str, socket.socket]) -> list[str]:
    """Names of the sockets that somebody spoke to."""
    found = []
    for name, each in listening.items():
        try:
            if each.type == socket.SOCK_DGRAM:
                each.recv(10)
            else:
                each.accept()[0].close()
        except BlockingIOError:
            continue
        found.append(name)
    return found


SCRIPT = (Path(__file__).parent / "escape_script.py").read_text()


async def attempts(place: Place) -> dict[str, Any]:
    """All that an attacker tries but the bombs, and what is different afterwards."""
    with ExitStack() as stack:
        set_up = doors(stack, place.folder, place.marker)
        neighbour, _ = await place.start("import time; time.sleep(100)")
        inside = own_pid_of(neighbour)
        told = set_up["told"] | {"neighbour": inside, "own_pids": place.mode == "bubblewrap"}
        limits_before = Path("/proc/self/limits").read_text()
        home = place.folder / "home"
        before = sorted(os.listdir(home)), (home / "secret").stat()  # noqa: PTH208
        jailed, work = await place.start(SCRIPT.replace("sys.argv[1:]", "[]"), said=told)
        status = await finish(jailed)
        report = work / "said.json"
        assert report.exists(), f"{status}: {jailed.stderr_tail}"
        after = sorted(os.listdir(home)), (home / "secret").stat()  # noqa: PTH208
        found = {
            "said": json.loads(report.read_text()),
            "reached": reached(set_up["listening"]),
            "victim": set_up["victim"].poll() is None,
            "neighbour": neighbour.alive() and Path(f"/proc/{inside}").exists(),
            "limits": Path("/proc/self/limits").read_text() == limits_before,
            "home": before == after,
            "uid": (work / "copy.txt").stat().st_uid if (work / "copy.txt").exists() else None,
            "own_uid": os.getuid(),
            "works": await place.still_works(),
        }
        await finish_at_once(neighbour)
    return found


def own_pid_of(jailed: Jailed) -> int:
    """A process of the code in it, by its number outside."""
    return descendants(jailed.pid)[-1]


async def finish_at_once(jailed: Jailed) -> None:
    jailed.kill()
    async with asyncio.timeout(WITHIN):
        await jailed.gone()


async def control(place: Place) -> dict[str, Any]:
    """The same attempts without a sandbox: they succeed, or the tests would show nothing."""
    names = ["read_secret", "list_home", "server_environ", "tcp_to_server", "udp_to_server"]
    names += ["abstract_socket", "named_socket", "datagram_to_named_socket", "write_outside"]
    names += ["symlink_out", "dots_out", "times_of_secret", "asked_victim", "niced_victim"]
    names += ["memfd_create", "inherited_descriptor", "shmget", "remove_secret"]
    with ExitStack() as stack:
        set_up = doors(stack, place.folder, place.marker)
        folder = place.folder / "open"
        folder.mkdir()
        told = set_up["told"] | {"neighbour": 1, "own_pids": False, "sockets": str(folder)}
        (folder / "told.json").write_text(json.dumps(told))
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-I", "-S", "-c", SCRIPT, *names), cwd=folder, close_fds=False
        )
        assert await process.wait() == 0
        return {
            "said": json.loads((folder / "said.json").read_text()),
            "reached": reached(set_up["listening"]),
        }


def forbid(*rules: tuple[int, int]) -> None:
    """From here on this server, too, is refused calls, as it is in many containers.

    Args:
        rules: number of a call, and bits of its first argument that are refused; 0 for all of it.
    """
    steps = [(seccomp.LOAD, 0, 0, 0)]
    for number, bits in rules:
        refuse = [(seccomp.ANSWER, 0, 0, seccomp.REFUSE | 1)]
        if bits:
            look = [(seccomp.LOAD, 0, 0, 16), (seccomp.IF_BITS, 0, 1, bits)]
            refuse = [*look, *refuse, (seccomp.LOAD, 0, 0, 0)]
        steps += [(seccomp.IF_EQUAL, 0, len(refuse), number), *refuse]
    steps.append((seccomp.ANSWER, 0, 0, seccomp.ALLOW))
    inner.check(inner.prctl(inner.NO_NEW_PRIVS, 1), "no_new_privs")
    inner.filter_calls(b"".join(struct.pack("<HBBI", *step) for step in steps), [])


async def without_namespaces(place: Place) -> dict[str, Any]:
    """Where nobody may make namespaces, Landlock is found; where that is not, nothing is."""
    numbers = NUMBERS[platform.machine()]
    scratch = place.folder / "scratch"
    namespaces = seccomp.NEW_NAMESPACES
    forbid((numbers["clone"], namespaces), (numbers["unshare"], namespaces))
    place.jail = find_jail(scratch)
    found = {"mode": place.jail.mode, "works": await place.still_works()}
    forbid((jail_landlock.CREATE_RULESET, 0))
    try:
        find_jail(scratch)
    except SandboxUnavailable as error:
        found["neither"] = error.message
    try:
        await place.start("open('ran', 'w')")
    except JailFailed as error:
        found["start"] = error.message
    found["ran"] = [str(path) for path in place.folder.rglob("ran")]
    found["uids"] = place.jail.uids is not None
    return found


CASES = {
    "without_namespaces": without_namespaces,
    "attempts": attempts,
    "control": control,
} | escape_bombs.CASES


def main(arguments: Sequence[str]) -> None:
    """Run the case and write down what it returned."""
    case, mode, folder, marker = arguments
    place = Place(mode, Path(folder), marker)
    result = asyncio.run(CASES[case](place))
    Path(folder, "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    # The cases in the other file use this module by its name.
    sys.modules["escape_cases"] = sys.modules["__main__"]
    main(sys.argv[1:])
