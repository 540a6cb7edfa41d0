"""The last step before foreign code runs: gives up this process's powers, then becomes the code.

A program of its own, started with `python -I -S` in the sandbox (bubblewrap) or in what becomes
one (Landlock); nothing of ours and only the standard library is imported. Its argument is the
number of a descriptor, a socket to the server. The launcher says that it is there, gets its plan
as one line of JSON, does what the plan says and executes the code. The socket then closes by
itself, which is how the server knows that it worked; if it did not, one line says what failed.

Under Landlock it also is the guard: it stays outside, and ends whatever the code left running.

It does not decide anything: what to limit and how strictly is in the plan (`jail_limits.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from base64 import b64decode
from typing import Any, NoReturn

READY = b"ready\n"
PARENT_DEATH_SIGNAL = 1
DUMPABLE = 4
CHILD_SUBREAPER = 36
NO_NEW_PRIVS = 38
SET_SECCOMP = 22
SECCOMP_FILTER = 2
DROP_BOUNDING = 24
LAST_CAPABILITY = 63
"""The kernel knows 41 for now and says EINVAL to the first that it does not know."""

CREATE_RULESET = 444
ADD_RULE = 445
RESTRICT_SELF = 446
PATH_BENEATH = 1
REFER = 1 << 13

WATCH_EVERY = 0.25
"""Seconds between looks at the folder for short-lived files."""

NAME_COST = 1024
"""Bytes that a file counts for at least, even if it is empty."""

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """`result`, unless it is -1.

    Raises:
        OSError: with the reason that the kernel gave.
    """
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, argument: int, more: int = 0) -> int:
    """prctl(2) with whole words, as the kernel reads them."""
    words = (ctypes.c_ulong(each) for each in (argument, more, 0, 0))
    return int(libc.prctl(option, *words))


def receive(server: socket.socket) -> dict[str, Any]:
    """The plan.

    Raises:
        ConnectionError: the server went away before it sent all of it.
    """
    text = b""
    while not text.endswith(b"\n"):
        more = server.recv(65536)
        if not more:
            raise ConnectionError("the server went away")
        text += more
    plan: dict[str, Any] = json.loads(text)
    return plan


def limit(limits: dict[str, list[int]]) -> None:
    """Set each limit, hard and soft; what is already lower stays."""
    for name, (soft, hard) in limits.items():
        kind = getattr(resource, name)
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def yield_to_others(niceness: int, oom: int) -> None:
    """Take less of the processor than the server, and be the first to go when memory runs out."""
    os.nice(niceness)
    # A /proc that may not be written to is no reason to refuse; memory is limited by other means.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(str(oom))


def become(uid: int) -> None:
    """Give up root for good: user, groups, capabilities and the way back to them."""
    for capability in range(LAST_CAPABILITY + 1):
        if prctl(DROP_BOUNDING, capability) == -1:
            break
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid):
        raise PermissionError("the user did not change")


def filter_calls(program: bytes, own_pid_at: list[int]) -> None:
    """From here on the kernel refuses the system calls that the program refuses.

    Args:
        program: classic BPF instructions, 8 bytes each.
        own_pid_at: instructions whose constant is to be this process's own number.
    """
    raw = bytearray(program)
    for index in own_pid_at:
        struct.pack_into("<I", raw, index * 8 + 4, os.getpid())
    buffer = ctypes.create_string_buffer(bytes(raw), len(raw))
    header = struct.pack("HxxxxxxP", len(raw) // 8, ctypes.addressof(buffer))
    held = ctypes.create_string_buffer(header, len(header))
    check(prctl(SET_SECCOMP, SECCOMP_FILTER, ctypes.addressof(held)), "seccomp")


def landlock(files: int, network: int, scopes: int, rules: list[list[Any]]) -> None:
    """From here on, only what the rules name can be opened; and no_new_privs has to be set.

    Args:
        files, network, scopes: bits of the rights that are taken away; 0 leaves a kind alone.
        rules: paths, and the bits that are given back below them.
    """
    words = struct.pack("QQQ", files, network, scopes)
    # An older kernel refuses a structure that is longer than it knows, unless the rest is zero.
    known = words if scopes else words[:16]
    ruleset = check(libc.syscall(CREATE_RULESET, known, _size(len(known)), 0), "Landlock")
    for path, rights in rules:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, place)
        check(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0), f"a rule for {path}")
        os.close(place)
    check(libc.syscall(RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(ruleset)


def _size(number: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(number)


def guard(plan: dict[str, Any], server: socket.socket) -> NoReturn:
    """Start the code as a child and stay, outside of its walls, until nothing is left of it.

    Whatever the code starts and leaves becomes a child of this process. It ends all of it when the
    code ends, when its folder for short-lived files is over its size, and when the server closes
    the lifeline or dies.
    """
    said = plan["guard"]
    lifeline = int(said["lifeline"])
    os.setsid()
    check(prctl(CHILD_SUBREAPER, 1), "subreaper")
    check(prctl(NO_NEW_PRIVS, 1), "no_new_privs")
    if os.getppid() != said["server"] or (plan["uid"] is None and os.geteuid() == 0):
        raise PermissionError("the guard was not started as it has to be")
    parent = os.pidfd_open(said["server"])
    if said["scope"]:
        # Moving files between folders is refused by every domain that does not speak of it.
        landlock(REFER, 0, said["scope"], [["/", REFER]])
    scoped = bool(said["scope"]) and confined()
    child = os.fork()
    if child == 0:
        run(plan, server)
    server.close()
    # Its memory and its /proc are nobody's business; the child becomes readable as it executes.
    prctl(DUMPABLE, 0)
    os.nice(plan["niceness"])
    code = os.pidfd_open(child)
    events = select.poll()
    events.register(lifeline, select.POLLIN | select.POLLHUP)
    events.register(parent, select.POLLIN)
    events.register(code, select.POLLIN)
    pause = WATCH_EVERY
    status = None
    while not (ready := events.poll(pause * 1000)):
        status = reap(child) if status is None else status
        began = time.monotonic()
        if used(said["tmp"], said["tmp_limit"]) > said["tmp_limit"]:
            os.write(2, b"\nsandbox: over the limit of its folder for temporary files\n")
            break
        pause = max(WATCH_EVERY, 4 * (time.monotonic() - began))
    if any(each == code for each, _ in ready) and status is None:
        status = reap(child)
    end_all(plan["uid"], scoped=scoped)
    os._exit(status if status is not None else 137)


def reap(child: int) -> int | None:
    """Take note of processes that ended; the exit status of the child if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else 128 - code
    return found


def used(folder: str, enough: int) -> int:
    """Bytes that a folder takes on the disk, no further than `enough`; its names count, too.

    A tree that is too deep to be walked was made to hide something and counts as too much.
    """
    total = 0
    left = [folder]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    about = entry.stat(follow_symlinks=False)
                    total += about.st_blocks * 512 + NAME_COST
                    if total > enough:
                        return total
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return enough + 1
    return total


def end_all(uid: int | None, *, scoped: bool) -> None:
    """Until no process is left below this one.

    The kernel signals "everybody" in one sweep that no fork escapes. Everybody is bounded by the
    user that belongs to the sandbox, or by the Landlock domain. Where there is neither, the
    processes are counted up and killed until there are none.
    """
    while True:
        if uid is None and not scoped:
            for pid in below(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        else:
            sweep(uid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def confined() -> bool:
    """Whether the domain holds: the parent is of the same user, and still cannot be signalled."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def sweep(uid: int | None) -> None:
    """Kill all that may be killed: by the sandbox's user, or within the domain."""
    if uid is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)
        return
    killer = os.fork()
    if killer == 0:
        try:
            become(uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(killer, 0)


def below(pid: int) -> list[int]:
    """All descendants, as far as they hold still."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(b")")[2].split()[1])
                parents.setdefault(parent, []).append(int(name))
    found: list[int] = []
    left = [pid]
    while left:
        fresh = parents.get(left.pop(), [])
        found += fresh
        left += fresh
    return found


def main() -> NoReturn:
    """Does it all; does not come back."""
    server = socket.socket(fileno=int(sys.argv[1]))
    server.set_inheritable(False)
    try:
        server.sendall(READY)
        plan = receive(server)
        if plan.get("guard"):
            guard(plan, server)
        run(plan, server)
    except BaseException as error:  # whatever it is, the code has not run and shall not
        with contextlib.suppress(OSError):
            server.sendall(f"{type(error).__name__}: {error}"[:1000].encode())
        os._exit(70)


def run(plan: dict[str, Any], server: socket.socket) -> NoReturn:
    """Take everything away, then execute."""
    yield_to_others(plan["niceness"], plan["oom"])
    limit(plan["limits"])
    check(prctl(NO_NEW_PRIVS, 1), "no_new_privs")
    os.umask(0o077)
    walls = plan.get("landlock")
    if walls:
        # Of all of /proc, the code sees its own part.
        walls["rules"].append([f"/proc/{os.getpid()}", walls["self"]])
        # As long as this is root: rules may be about folders that the user cannot come to.
        landlock(walls["files"], walls["network"], walls["scopes"], walls["rules"])
    if plan["uid"] is not None:
        become(plan["uid"])
    os.chdir(plan["folder"])
    if walls:
        # If the guard is killed by the administrator, at least the first process goes with it.
        check(prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL), "parent's death")
    # The socket closes on execution; what else was open closes now.
    kept = server.detach()
    os.closerange(3, kept)
    os.closerange(kept + 1, 65536)
    filter_calls(b64decode(plan["filter"]), plan["own_pid_at"])
    try:
        os.execve(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606
    except OSError as error:
        os.write(kept, f"{plan['argv'][0]}: {error}"[:1000].encode())
        os._exit(70)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
