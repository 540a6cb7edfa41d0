"""A sandbox that runs: its processes counted, its chatter kept short, its end made sure of.

One process of ours is its outermost one (bubblewrap, or the guard of the Landlock mode). How it is
walled in was decided before. Everything here happens on the event loop that started it, driven by
descriptors that become readable; there are no tasks that somebody would have to look after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

TAIL: Final = 2048
"""Bytes of what a sandbox writes to its standard outputs that are kept, for error messages."""

SIP: Final = 65536
REST: Final = 0.05
"""At most this many bytes are read of it, then nothing for so many seconds: who writes without end
waits for us, not the other way round."""

PATIENCE: Final = 2.0
"""Seconds in which an outermost process has to notice that nothing is left inside."""

INODE: Final = 1024
"""Bytes of the kernel's memory that an empty file on a tmpfs takes, about."""

CLOSER_LOOK: Final = 256 * 2**20
"""Bytes from which on it is worth 1 ms for each GiB to know what forked processes share."""

CHILD: Final = re.compile(rb'"child-pid": (\d+)\D')
"""How bubblewrap names its child; it says more before and after."""


class Group(Protocol):
    """A control group that the sandbox is in; see `jail_cgroup.py`."""

    def kill(self) -> None: ...
    def remove(self) -> bool: ...


class Jailed:
    """A running sandbox. Made by `jail.start` only.

    `uid` is the sandbox's own user, if it has one; `tmp` its folder for short-lived files, where
    that is an ordinary folder. Both are set by the one who starts it.

    Args:
        process: the outermost process.
        output: read end of what it and everything in it writes to standard output and error.
        lifeline: descriptor whose closing ends the sandbox (Landlock), or None.
        info: descriptor from which bubblewrap's words about its child can be read, or None; it is
            the sandbox's from now on.
        on_end: called once, when nothing is left.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        output: int,
        *,
        lifeline: int | None,
        on_end: Callable[[], None],
        info: int | None = None,
    ) -> None:
        self.pid = process.pid
        self.uid: int | None = None
        self.tmp: Path | None = None
        self._process = process
        self._output = output
        self._lifeline = lifeline
        self._info = info
        self._told = b""
        self._met = False
        self._doomed = False
        self._guarded = lifeline is not None
        self._on_end = on_end
        self._group: Group | None = None
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self._outer = os.pidfd_open(process.pid)
        self._init: int | None = None
        self._init_pid: int | None = None
        self._outer_over = asyncio.Event()
        self._all_over = asyncio.Event()
        self._sip: asyncio.TimerHandle | None = None
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._hear)
        self._loop.add_reader(self._outer, self._outer_ended)
        if info is not None:
            os.set_blocking(info, False)
            self._loop.add_reader(info, self.meet)

    def meet(self) -> None:
        """Learn which process everything else in there depends on, if bubblewrap has said so: the
        kernel ends all with it."""
        if self._info is None:
            return
        try:
            said = os.read(self._info, 4096)
        except BlockingIOError:
            return
        if not said:  # until then it is read: bubblewrap must not find nobody listening
            self._forget_info()
        self._told += said
        named = CHILD.search(self._told)
        if named is None or self._met:
            return
        self._met = True
        with contextlib.suppress(ProcessLookupError):
            self._init = os.pidfd_open(int(named[1]))
            self._init_pid = int(named[1])
            self._loop.add_reader(self._init, self._init_ended)
        if self._doomed:
            self.kill()

    def _forget_info(self) -> None:
        if self._info is not None:
            self._loop.remove_reader(self._info)
            os.close(self._info)
            self._info = None

    def join(self, group: Group) -> None:
        """The control group that the processes are in, ours to remove."""
        self._group = group

    @property
    def stderr_tail(self) -> str:
        """The last of what it wrote to its standard outputs. The code decides what is in it."""
        return self._tail.decode(errors="replace")

    def alive(self) -> bool:
        """Whether the outermost process is there, which is so as long as the code runs."""
        return self._process.poll() is None

    async def wait(self) -> int:
        """Until the outermost process ends; its exit status, negative for a signal."""
        await self._outer_over.wait()
        status = self._process.poll()
        assert status is not None  # noqa: S101 -- its descriptor said so
        return status

    def kill(self) -> None:
        """End everything in it, at once. May be called at any time, and again."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        elif self._init is not None:
            # Its end is the end of its process namespace; bubblewrap then follows by itself.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        elif self._info is not None:
            # Bubblewrap may have a child by now that waits for a word from it. Without it, it
            # would wait forever; it is named in some milliseconds.
            if not self._doomed:
                self._doomed = True
                self._loop.call_later(PATIENCE, self._insist)
        elif self._process.poll() is None:
            self._process.kill()
        if self._group is not None:
            self._group.kill()

    async def gone(self) -> None:
        """Until nothing is left of it. Bounded only once it was killed."""
        await self._all_over.wait()
        if self.tmp is not None:
            await asyncio.to_thread(remove, self.tmp)

    def usage(self) -> tuple[int, int]:
        """Bytes of memory that its processes have together, and how many processes there are.

        Pages that forked processes share count in parts where the sum would be a lot. Files in the
        memory-backed folders have a limit of their own and count with their names only.
        """
        top = self.pid if self._init_pid is None else self._init_pid
        inside = descendants(top)
        memory = sum(map(resident, inside))
        if memory > CLOSER_LOOK and len(inside) > 1:
            memory = sum(map(proportional, inside))
        return memory + self._names(), len(inside)

    def _names(self) -> int:
        if self._init_pid is None:
            return 0
        total = 0
        for folder in ("tmp", "dev/shm"):
            with contextlib.suppress(OSError):
                about = os.statvfs(f"/proc/{self._init_pid}/root/{folder}")
                total += (about.f_files - about.f_ffree) * INODE
        return total

    def _hear(self) -> None:
        """Read a little, keep the end of it, and look away for a moment."""
        try:
            said = os.read(self._output, SIP)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._loop.remove_reader(self._output)
        if not said:
            os.close(self._output)
            self._output = -1
            return
        self._tail = (self._tail + said)[-TAIL:]
        self._sip = self._loop.call_later(REST, self._hear_again)

    def _hear_again(self) -> None:
        self._sip = None
        if self._output != -1:
            self._loop.add_reader(self._output, self._hear)

    def _outer_ended(self) -> None:
        self._loop.remove_reader(self._outer)
        status = self._process.wait()
        if self._guarded and self.uid is not None and status < 0:
            # Somebody killed the guard, which would have ended the rest.
            end_user(self.uid)
        os.close(self._outer)
        self.meet()
        self._forget_info()
        self._outer_over.set()
        if self._init is None:
            self._end()
        else:
            # It should be gone as well; where it is not, it outlived bubblewrap by accident.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)

    def _init_ended(self) -> None:
        if self._init is None:
            return
        self._loop.remove_reader(self._init)
        os.close(self._init)
        self._init = None
        self._init_pid = None
        if self._outer_over.is_set():
            self._end()
        else:
            self._loop.call_later(PATIENCE, self._insist)

    def _insist(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def _end(self) -> None:
        """Give everything back. Called once: the outermost process and the innermost are over."""
        if self._sip is not None:
            self._sip.cancel()
        if self._output != -1:
            self._loop.remove_reader(self._output)
            with contextlib.suppress(OSError):
                self._tail = (self._tail + os.read(self._output, SIP))[-TAIL:]
            os.close(self._output)
            self._output = -1
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        self._leave_group()
        self._on_end()
        self._all_over.set()

    def _leave_group(self, attempts: int = 50) -> None:
        """The kernel lets go of a group some moments after the last process in it."""
        if self._group is None or self._group.remove():
            self._group = None
        elif attempts:
            self._loop.call_later(0.02, self._leave_group, attempts - 1)


def remove(folder: Path) -> None:
    """Remove a folder that code wrote to: it may be nested deeper than Python can follow."""
    subprocess.run(  # noqa: S603
        ["rm", "-rf", "--", str(folder)],  # noqa: S607
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )


def end_user(uid: int) -> None:
    """Kill all processes of a sandbox's own user. Only as root; blocks for some 20 ms."""
    code = (
        "import os, sys; u = int(sys.argv[1]); os.setgroups([]); os.setresgid(u, u, u); "
        "os.setresuid(u, u, u); os.kill(-1, 9)"
    )
    subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", code, str(uid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=10,
        cwd="/",
    )


def children(pid: int) -> list[int]:
    """Processes that it started, or that were left to it."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                found += [int(each) for each in file.read().split()]
        except FileNotFoundError:
            return _children_by_parent(pid) if os.path.exists(f"/proc/{pid}") else []  # noqa: PTH110
        except OSError:
            continue
    return found


def _children_by_parent(pid: int) -> list[int]:
    """The same where the kernel keeps no list: everybody says who the parent is."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # The name in brackets may hold anything, also brackets.
                if int(file.read().rpartition(b")")[2].split()[1]) == pid:
                    found.append(int(name))
    return found


def descendants(pid: int) -> list[int]:
    """All processes below this one. Those that come and go meanwhile may be missed."""
    found: dict[int, None] = {}
    left = [pid]
    while left:
        fresh = [each for each in children(left.pop()) if each not in found]
        found.update(dict.fromkeys(fresh))
        left += fresh
    return list(found)


def resident(pid: int) -> int:
    """Bytes of memory of a process that are not a file's: its own, and what it shares."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return 0
    total = 0
    for line in text.splitlines():
        if line.startswith((b"RssAnon:", b"RssShmem:")):
            total += int(line.split()[1]) * 1024
    return total


def proportional(pid: int) -> int:
    """The same with what is shared divided by those who share it; 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        # It may not be looked into: all of it counts, then.
        return resident(pid)
    total = 0
    for line in text.splitlines():
        if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
            total += int(line.split()[1]) * 1024
    return total
