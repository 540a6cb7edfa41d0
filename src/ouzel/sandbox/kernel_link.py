"""The connection to one kernel: brings it up in its jail, hears it, notices its end.

What it sends while a cell runs goes to that cell, the rest is counted and dropped. Anything that is
no message of a kernel is the end of it. Limits and how cells are stopped this file does not know.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from ouzel.core.errors import ToolError
from ouzel.sandbox import kernel_messages as messages
from ouzel.sandbox.container_disk import remove_all
from ouzel.sandbox.environment import Interpreter
from ouzel.sandbox.jail import Jail, Jailed, JailFailed, Limits, start
from ouzel.sandbox.kernel_cell import Cell
from ouzel.sandbox.kernel_messages import BadMessage
from ouzel.sandbox.kernel_wire import TooLong, Wire, WireBroken
from ouzel.sandbox.watch import CellLimits

BOOT: Final = Path(__file__).with_name("kernel_boot.py")

PATH_BYTES: Final = 107
"""Most bytes of a Unix socket's path (unix(7)), less the zero at its end."""
POLL: Final = 0.005
"""Seconds between two attempts to connect to a kernel that is coming up."""
IDLE_MESSAGES: Final = 20_000
"""Messages between two cells, where threads may go on writing, until the kernel is killed."""
LAST_WORDS: Final = 1.0
"""Seconds to read what a process that has ended had sent."""

_SIGNALS: Final = {
    4: "it crashed (illegal instruction)",
    6: "it crashed (aborted)",
    7: "it crashed (bus error)",
    8: "it crashed (arithmetic)",
    9: "it was killed (signal 9), as happens where memory runs out",
    11: "it crashed (segmentation fault)",
    15: "it was ended by a signal",
    24: "it used up its processor time",
    25: "it made a file that is too large",
    31: "it made a system call that is not allowed",
}
"""By the number of the signal (signal(7), x86 and ARM)."""


class KernelFailed(ToolError):
    """A kernel did not come up; the message says why."""


class Link:
    """A kernel that is up. Made by `open_link`.

    Attributes:
        cell: the running one.
        folder: where its sockets were; its code can write there.
        preloaded: its background import is over.
        over: set when it has ended.
        why: what it died of, as a clause; empty while it lives.
    """

    def __init__(self, jailed: Jailed, folder: Path, wires: Sequence[Wire], key: bytes) -> None:
        self.cell: Cell | None = None
        self.folder = folder
        self.preloaded = False
        self.over = asyncio.Event()
        self.why = ""
        self._jailed = jailed
        self._iopub, self._shell, self._control = wires
        self._key = key
        self._idle_heard = 0
        self._life = asyncio.create_task(self._live())

    @property
    def alive(self) -> bool:
        """Whether it can be spoken to."""
        return not self.over.is_set() and not self.why and self._jailed.alive()

    def usage(self) -> tuple[int, int]:
        """Bytes of memory and number of processes."""
        return self._jailed.usage()

    async def run(self, code: str, limits: CellLimits) -> Cell:
        """Begin a cell. If that cannot be sent, the cell ends with the kernel."""
        identity, frames = messages.execute_request(code, self._key)
        self.cell = cell = Cell(identity, limits)
        self._idle_heard = 0
        try:
            await self._shell.send(frames)
        except WireBroken as broken:
            self.kill(str(broken))
        if self.over.is_set():
            cell.end()
        return cell

    async def interrupt(self) -> None:
        """Ask it to interrupt what it runs. If that cannot be sent, it is killed."""
        _, frames = messages.request("interrupt_request", {}, self._key)
        try:
            await self._control.send(frames)
        except WireBroken as broken:
            self.kill(str(broken))

    def kill(self, why: str) -> None:
        """End all processes at once; the first reason stands."""
        self.why = self.why or why
        self._jailed.kill()

    async def gone(self, within: float) -> None:
        """Until nothing is left of it. Raises TimeoutError, which no sandbox should come to."""
        async with asyncio.timeout(within):
            await asyncio.shield(self._life)
            await self._jailed.gone()

    async def close(self, within: float) -> None:
        """Kill it, wait until nothing is left, and remove its folder; may be called again.

        Raises:
            TimeoutError: something is left.
        """
        self.kill("it was closed")
        await self.gone(within)
        with suppress(OSError):
            await asyncio.to_thread(remove_all, self.folder)

    async def _live(self) -> None:
        """Hear it until it ends, however it does."""
        pumps = [
            asyncio.create_task(self._pump(self._iopub, "iopub")),
            asyncio.create_task(self._pump(self._shell, "shell")),
        ]
        process = asyncio.create_task(self._jailed.wait())
        try:
            done, _ = await asyncio.wait((process, *pumps), return_when=asyncio.FIRST_COMPLETED)
            if process not in done:
                # Its connections close as it ends; it gets a moment to do that by itself.
                await asyncio.wait((process,), timeout=LAST_WORDS)
                trouble = next(pump.result() for pump in pumps if pump in done)
                if not process.done():
                    self.kill(trouble)
            status = await process
            await asyncio.wait(pumps, timeout=LAST_WORDS)
            self.why = self.why or _why(status)
        finally:
            self._jailed.kill()
            for task in (process, *pumps):
                task.cancel()
            await asyncio.gather(process, *pumps, return_exceptions=True)
            for wire in (self._iopub, self._shell, self._control):
                wire.close()
            self.over.set()
            if self.cell is not None:
                self.cell.end()

    async def _pump(self, wire: Wire, channel: Literal["iopub", "shell"]) -> str:
        """Take what comes until no more can; why not."""
        try:
            while True:
                frames = await wire.receive()
                if isinstance(frames, TooLong):
                    self._hear_too_long(frames.size)
                else:
                    self._hear(messages.parse(frames, self._key), channel)
        except WireBroken as broken:
            return f"it broke the connection to its kernel: {broken}"
        except BadMessage as bad:
            trouble = f"it broke the connection to its kernel: {bad}"
            self.kill(trouble)
            return trouble

    def _hear(self, message: messages.Message, channel: str) -> None:
        if message.kind == "ouzel_preloaded":
            self.preloaded = True
        elif self.cell is None:
            self._idle_heard += 1
            if self._idle_heard > IDLE_MESSAGES:
                raise BadMessage("it wrote without end after its cell had ended")
        elif channel == "iopub":
            self.cell.hear(message)
        else:
            self.cell.hear_reply(message)

    def _hear_too_long(self, size: int) -> None:
        if self.cell is None:
            raise BadMessage("it wrote without end after its cell had ended")
        self.cell.miss(size)


async def open_link(
    jail: Jail,
    interpreter: Interpreter,
    work: Path,
    limits: Limits,
    preload: Sequence[str],
    *,
    within: float,
) -> Link:
    """Start a kernel and connect to it; it hears when this returns.

    Args:
        preload: modules that it imports in the background.
        within: seconds.

    Raises:
        KernelFailed: nothing of it is left.
    """
    key = secrets.token_hex(16)
    jailed: Jailed | None = None
    wires: list[Wire] = []
    folder = await asyncio.to_thread(_make_folder)
    try:
        async with asyncio.timeout(within):
            jailed = await start(
                jail,
                _command(interpreter, folder, preload),
                env=_environment(interpreter, folder, key),
                work=work,
                sockets=folder,
                readable=interpreter.readable,
                limits=limits,
            )
            await _connect(jailed, folder, wires)
            # Nobody connects a second time, and nothing that code puts there is connected to.
            for number in (1, 2, 3):
                (folder / f"k-{number}").unlink()
            await _welcome(wires[0], key.encode())
            return Link(jailed, folder, wires, key.encode())
    except (JailFailed, OSError, WireBroken, BadMessage) as error:
        await _clear(jailed, folder, wires)
        why = f"it was not up within {within:.0f} seconds"
        why = why if isinstance(error, TimeoutError) else str(error)
        raise KernelFailed(f"The Python interpreter could not be started: {why}.") from error
    except BaseException:
        await _clear(jailed, folder, wires)
        raise


def sweep_folders() -> None:
    """Remove what servers that are no longer there left: code may have filled it. Blocks."""
    for path in _short_folder().glob("ouzel-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):  # another user's
                remove_all(path)


def _make_folder() -> Path:
    """A folder that is named for this process; its path leaves room for the sockets' names."""
    return Path(tempfile.mkdtemp(prefix=f"ouzel-{os.getpid()}-", dir=_short_folder()))


def _short_folder() -> Path:
    usual = tempfile.gettempdir()
    short = len(usual) + len("/ouzel-4194304-12345678/k-1") <= PATH_BYTES
    return Path(usual if short else "/tmp")  # noqa: S108


def _command(interpreter: Interpreter, folder: Path, preload: Sequence[str]) -> list[str]:
    """Nothing of the user's settings, nothing written beside sources, UTF-8, no warnings."""
    flags = ["-I", "-B", "-X", "utf8", "-W", "ignore"]
    return [str(interpreter.python), *flags, "-c", BOOT.read_text(), str(folder), *preload]


def _environment(interpreter: Interpreter, folder: Path, key: str) -> dict[str, str]:
    threads = ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "BLIS")
    return {
        "PATH": f"{interpreter.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": "/tmp",  # noqa: S108  # of the sandbox
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # Each arena is memory that one thread's garbage keeps from the others.
        "MALLOC_ARENA_MAX": "2",
        **{f"{name}_NUM_THREADS": "2" for name in threads},
        "OUZEL_FONTS": str(interpreter.fonts),
        "OUZEL_KERNEL_KEY": key,
    }


async def _connect(jailed: Jailed, folder: Path, wires: list[Wire]) -> None:
    """Connect to iopub, shell and control, in this order."""
    sockets: Sequence[tuple[str, Literal["DEALER", "SUB"]]]
    sockets = (("k-3", "SUB"), ("k-1", "DEALER"), ("k-2", "DEALER"))
    for name, kind in sockets:
        while True:
            try:
                wires.append(await Wire.connect(folder / name, kind))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if not jailed.alive():
                    said = jailed.stderr_tail.strip().splitlines() or ["it said nothing"]
                    raise WireBroken(f"it ended at once: {said[-1]}") from None
                await asyncio.sleep(POLL)


async def _welcome(iopub: Wire, key: bytes) -> None:
    """Until the subscription holds: what is published before is lost."""
    while True:
        frames = await iopub.receive()
        if not isinstance(frames, TooLong) and messages.parse(frames, key).kind == "iopub_welcome":
            return


async def _clear(jailed: Jailed | None, folder: Path, wires: Sequence[Wire]) -> None:
    for wire in wires:
        wire.close()
    try:
        if jailed is not None:
            jailed.kill()
            await jailed.gone()
    finally:
        with suppress(OSError):
            await asyncio.to_thread(remove_all, folder)


def _why(status: int) -> str:
    """What an exit status says: a signal's number comes negative, or with 128."""
    signal = -status if status < 0 else status - 128
    if signal > 0:
        return _SIGNALS.get(signal, f"it was ended by signal {signal}")
    return f"it ended its own process (exit code {status})"
