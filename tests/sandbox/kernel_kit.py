"""Real kernels in a real jail, for tests: started, asked, and closed again."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ouzel.sandbox.environment import Interpreter, ensure_interpreter
from ouzel.sandbox.jail import Jail, Limits, Mode, find_jail
from ouzel.sandbox.kernel import Kernel
from ouzel.sandbox.outputs import KernelEnd, KernelPicture, KernelText
from ouzel.sandbox.watch import CellLimits

MB = 2**20
LIMITS = Limits(memory=1024 * MB, file_size=256 * MB, tmp=64 * MB, cpu_seconds=600)
ALLOW = CellLimits(memory=1024 * MB, work_bytes=100 * MB, disk_floor=64 * MB)


@functools.cache
def interpreter() -> Interpreter:
    """The interpreter's environment, made if it is not there."""
    return ensure_interpreter(Path.home() / ".cache" / "ouzel")


@functools.cache
def jail(prefer: Mode | None = None) -> Jail:
    """What keeps code in on this machine, or this mode of it. Raises SandboxUnavailable."""
    return find_jail(Path(_scratch().name), prefer=prefer)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    scratch = tempfile.TemporaryDirectory(prefix="ouzel-test-", ignore_cleanup_errors=True)
    # Without namespaces, other users have to get through.
    Path(scratch.name).chmod(0o711)
    return scratch


@dataclass
class Ran:
    """What became of a cell."""

    out: str = ""
    err: str = ""
    result: str = ""
    pictures: list[bytes] = field(default_factory=list)
    ends: list[KernelEnd] = field(default_factory=list)

    @property
    def end(self) -> KernelEnd:
        """Its end; there is exactly one."""
        (end,) = self.ends
        return end

    @property
    def status(self) -> str:
        return self.end.status


async def run(kernel: Kernel, code: str, within: float = 30, allow: CellLimits = ALLOW) -> Ran:
    """Run a cell to its end; nothing comes after it."""
    ran = Ran()
    async with aclosing(kernel.execute(code, within=within, allow=allow)) as events:
        async for event in events:
            assert not ran.ends
            if isinstance(event, KernelText):
                name = {"stdout": "out", "stderr": "err", "result": "result"}[event.stream]
                setattr(ran, name, getattr(ran, name) + event.text)
            elif isinstance(event, KernelPicture):
                ran.pictures.append(event.data)
            else:
                ran.ends.append(event)
    return ran


@asynccontextmanager
async def started(
    tmp_path: Path, *, preload: bool = False, limits: Limits = LIMITS, mode: Mode | None = None
) -> AsyncIterator[Kernel]:
    """A kernel whose work folder is `tmp_path / "work"`; nothing of it is left afterwards."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    kernel = await Kernel.start(jail(mode), interpreter(), work, limits, preload=preload)
    folder = kernel._link.folder
    try:
        yield kernel
    finally:
        await kernel.close()
        await kernel.close()
    assert not kernel.alive
    assert not folder.exists()
    assert kernel._link.usage()[1] == 0
