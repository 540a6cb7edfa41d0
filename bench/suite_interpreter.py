"""How fast cells run in the sandbox, and what sixteen kernels hold in memory.

Beside each number stands the same without a sandbox, measured in turn with it: `ipykernel` as it
comes, run by nobody but us, for times; a plain Python with the same imports for memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import psutil

from bench.arithmetic import Aim, Row, median, quantile, ratios
from bench.suite import Bench, Broken
from ouzel.sandbox import kernel_messages as messages
from ouzel.sandbox.environment import Interpreter, ensure_interpreter
from ouzel.sandbox.jail import Jail, Limits, find_jail
from ouzel.sandbox.kernel import PRELOAD, Kernel
from ouzel.sandbox.kernel_wire import TooLong, Wire
from ouzel.sandbox.outputs import KernelEnd
from ouzel.sandbox.watch import CellLimits

MB = 1e6
GIB = 2**30
KERNELS = 16
SHORT = "1+1"
FIRST = "import pandas as pd\nprint(pd.DataFrame({'a': [1, 2, 3], 'b': [4, 5, 6]}).describe())"
"""What a first cell is like: it wants a package, makes a table and prints it."""

LIMITS = Limits(memory=GIB, file_size=GIB, tmp=64 * 2**20, cpu_seconds=3600)
ALLOW = CellLimits(memory=GIB, work_bytes=GIB)
WITHIN = 60.0


class Plain:
    """ipykernel as it comes, without a sandbox."""

    def __init__(self, iopub: Wire, shell: Wire) -> None:
        self._iopub = iopub
        self._shell = shell

    async def run(self, code: str) -> None:
        """Run a cell to its end. Raises Broken if it did not go well."""
        identity, frames = messages.execute_request(code, b"key")
        async with asyncio.timeout(WITHIN):
            await self._shell.send(frames)
            reply = await self._next(self._shell, "execute_reply", identity)
            while messages.read_state(await self._next(self._iopub, "status", identity)) != "idle":
                pass
        if not messages.read_reply(reply).ok:
            raise Broken(f"a plain kernel failed in {code!r}")

    @staticmethod
    async def _next(wire: Wire, kind: str, identity: str) -> messages.Message:
        while True:
            frames = await wire.receive()
            if isinstance(frames, TooLong):
                raise Broken("a plain kernel said too much")
            message = messages.parse(frames, b"key")
            if message.kind == kind and message.parent == identity:
                return message


@asynccontextmanager
async def plain(made: Interpreter) -> AsyncIterator[Plain]:
    """A plain kernel that takes cells."""
    with tempfile.TemporaryDirectory(prefix="ouzel-bench-") as folder:
        ports = {"shell_port": 1, "control_port": 2, "iopub_port": 3, "stdin_port": 4, "hb_port": 5}
        said = {"transport": "ipc", "ip": f"{folder}/k", "key": "key", **ports}
        connection = Path(folder) / "connection.json"
        connection.write_text(json.dumps({**said, "signature_scheme": "hmac-sha256"}))
        command = [made.python, "-I", "-m", "ipykernel_launcher", "-f", connection]
        home = {"HOME": folder, "PATH": os.environ["PATH"], "IPYTHONDIR": folder}
        process = subprocess.Popen(
            command, env=home, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(WITHIN):
                iopub, shell = await _connect(folder, 3, "SUB"), await _connect(folder, 1, "DEALER")
                while True:
                    frames = await iopub.receive()
                    if not isinstance(frames, TooLong) and b"iopub_welcome" in b"".join(frames):
                        break
            yield Plain(iopub, shell)
            iopub.close()
            shell.close()
        finally:
            process.kill()
            process.wait()


async def _connect(folder: str, number: int, kind: str) -> Wire:
    while True:
        try:
            return await Wire.connect(Path(f"{folder}/k-{number}"), kind)  # type: ignore[arg-type]
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.005)


async def run(kernel: Kernel, code: str) -> None:
    """Run a cell to its end. Raises Broken if it did not go well."""
    async with aclosing(kernel.execute(code, within=WITHIN, allow=ALLOW)) as events:
        async for event in events:
            if isinstance(event, KernelEnd) and event.status != "ok":
                raise Broken(f"{code!r} ended with {event.status}: {event.error}")


class _Sandboxed:
    """Starts kernels in the jail, each in a folder of its own."""

    def __init__(self, jail: Jail, made: Interpreter, scratch: Path) -> None:
        self._jail, self._made, self._scratch = jail, made, scratch
        self._count = 0

    @asynccontextmanager
    async def start(self, *, warm: bool) -> AsyncIterator[Kernel]:
        """A kernel; `warm`: with its imports done."""
        self._count += 1
        work = self._scratch / f"work{self._count}"
        work.mkdir()
        kernel = await Kernel.start(self._jail, self._made, work, LIMITS, preload=warm)
        try:
            async with asyncio.timeout(WITHIN):
                while warm and not kernel.preloaded:
                    await asyncio.sleep(0.01)
            yield kernel
        finally:
            await kernel.close()


def measure(bench: Bench) -> list[Row]:
    """Rows for times and memory.

    Raises:
        Broken: a cell did not end well.
        OuzelError: the interpreter or the sandbox cannot be had.
    """
    bench.tell("interpreter: its environment")
    made = ensure_interpreter(Path.home() / ".cache" / "ouzel")
    return asyncio.run(
        _measure(bench, _Sandboxed(find_jail(bench.scratch), made, bench.scratch), made)
    )


async def _measure(bench: Bench, ours: _Sandboxed, made: Interpreter) -> list[Row]:
    starts, cells = (3, 30) if bench.quick else (10, 200)
    cold, cold_plain, first, short, short_plain = [], [], [], [], []
    for number in range(starts):
        bench.tell(f"interpreter: cold start {number + 1} of {starts}")
        began = time.perf_counter()
        async with ours.start(warm=False) as kernel:
            await run(kernel, SHORT)
            cold.append(time.perf_counter() - began)
        began = time.perf_counter()
        async with plain(made) as other:
            await other.run(SHORT)
            cold_plain.append(time.perf_counter() - began)
    for number in range(starts):
        bench.tell(f"interpreter: first cell {number + 1} of {starts}")
        async with ours.start(warm=True) as kernel:
            first.append(await _timed(run(kernel, FIRST)))
    bench.tell("interpreter: short cells")
    async with ours.start(warm=False) as kernel, plain(made) as other:
        for _ in range(cells):
            short.append(await _timed(run(kernel, SHORT)))
            short_plain.append(await _timed(other.run(SHORT)))
    return [
        _time("Warm kernel to the end of its first cell", first, Aim("<=", 60)),
        _time("Cold start to the end of a first cell", cold, Aim("<=", 1200), cold_plain),
        _time("1+1", short, Aim("<=", 12), short_plain),
        *await _memory(bench, ours, made),
    ]


async def _timed(doing: object) -> float:
    began = time.perf_counter()
    await doing  # type: ignore[misc]
    return time.perf_counter() - began


def _time(
    name: str, seconds: Sequence[float], aim: Aim, theirs: Sequence[float] | None = None
) -> Row:
    times = [each * 1000 for each in seconds]
    note = f"median of {len(times)}; 90 % within {quantile(times, 0.9):.1f}"
    if theirs is None:
        return Row(name, median(times), "ms", aim, note=note, samples=tuple(times))
    return Row(
        name,
        median(times),
        "ms",
        aim,
        baseline=median(theirs) * 1000,
        ratio=median(ratios(seconds, theirs)),
        note=f"{note}; baseline: ipykernel without a sandbox",
        samples=tuple(times),
    )


async def _memory(bench: Bench, ours: _Sandboxed, made: Interpreter) -> list[Row]:
    """What kernels that have imported what most cells want hold together."""
    count = 4 if bench.quick else KERNELS
    async with AsyncExitStack() as stack:
        for number in range(count):
            bench.tell(f"interpreter: kernel {number + 1} of {count}")
            await run(await stack.enter_async_context(ours.start(warm=True)), SHORT)
        mine = psutil.Process().children(recursive=True)
        held = sum(_share(process.pid) for process in mine)
    code = f"import {', '.join(PRELOAD)}, sys; print(flush=True); sys.stdin.read()"
    command = [made.python, "-I", "-c", code]
    pipe = subprocess.PIPE
    others = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(count)]
    try:
        for other in others:
            await asyncio.to_thread(other.stdout.readline)  # type: ignore[union-attr]
        bare = sum(_share(other.pid) for other in others)
    finally:
        for other in others:
            other.communicate(timeout=WITHIN)
    names = ", ".join(PRELOAD)
    note = f"PSS of all processes, {names} imported; baseline: plain Pythons with the same imports"
    name = f"{count} kernels together"
    ratio = held / bare
    return [Row(name, held / MB, "MB", Aim("<", 2500), baseline=bare / MB, ratio=ratio, note=note)]


def _share(pid: int) -> int:
    """Bytes of a process, what it shares divided by those who share it (smaps_rollup, proc(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
