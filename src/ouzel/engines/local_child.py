"""One life of the embedded engine's process: born, spoken to, ended, and its death explained.

A `Child` is a process and the pipe to it. It knows how to start `worker`, what that says, and how
to read its log for a reason. It does not know HTTP, and never starts another: `local` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, Final

from ouzel.core.errors import EngineError

_log = logging.getLogger(__name__)

LAST_WAIT: Final = 10.0
"""Seconds in which the kernel removes a process that was killed; only a broken disk takes more."""

LOG_KEPT: Final = 2**20
"""Bytes of an old log above which a new one is begun."""

LOG_READ: Final = 64 * 2**10
"""Bytes at the log's end in which a reason is looked for."""

_PRIVATE = re.compile(r"^OUZEL_|KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Variables that the engine has no use for."""

_REASONS: Final[tuple[tuple[str, str], ...]] = (
    (
        r"not within the file bounds|corrupted or incomplete|failed to read|unexpectedly reached",
        "the file is cut short or damaged; download it again",
    ),
    (r"invalid magic", "it is not a GGUF file"),
    (
        r"unknown model architecture: '([^']{1,40})'",
        "this llama.cpp does not know its architecture, '{}'; a newer xllamacpp may",
    ),
    (
        r"failed to allocate|unable to allocate|out of memory|bad_alloc|alloc\w* .{0,40}failed",
        "there is not enough memory; set a smaller context or fewer slots, or serve smaller "
        "weights",
    ),
    (r"failed to open .*\((.{1,80})\)", "the file cannot be opened ({})"),
    (
        r"libgomp\.so",
        "the library libgomp is missing; install it (Debian and Ubuntu: libgomp1)",
    ),
    (r"(?:missing|wrong number of|wrong shape|duplicated) .*tensor|tensor '.*' not found",
     "its tensors are not those that its architecture needs"),
    (r"GGML_ASSERT\((.{1,120})\) failed", "llama.cpp gave up: {}"),
)  # fmt: skip
"""What a line of the log means, and how it is said; the most telling ones first."""


class ChildError(Exception):
    """Why a worker is of no use, as the second half of a sentence."""


class Child:
    """A worker process. Made by `spawn`; `end` it, always."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        assert process.stdin is not None  # noqa: S101  # both were asked for
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._log_path = log
        self._log_start = log_start
        self._ended_by_us = False

    @classmethod
    async def spawn(cls, log: Path) -> Child:
        """Start a worker that logs to `log`.

        Call it in a thread that lives as long as the worker shall: see `worker`.

        Raises:
            EngineError: the process or its log could not be made.
        """
        try:
            descriptor, start = _open_log(log)
        except OSError as error:
            raise EngineError(f"{log} cannot be written: {error.strerror or error}.") from error
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # or a json.py in the current folder would be imported
                "-m",
                "ouzel.engines.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C in the terminal is for the server only
                env={
                    name: value for name, value in os.environ.items() if not _PRIVATE.search(name)
                },
            )
        except OSError as error:
            raise EngineError(f"The engine's process cannot be started: {error}.") from error
        finally:
            os.close(descriptor)
        return cls(process, log, start)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """It has not been seen to end."""
        return self._process.returncode is None

    async def tell(self, settings: dict[str, Any]) -> None:
        """Send the settings. A worker that is gone is noticed by `hear`."""
        self._stdin.write(json.dumps(settings).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._stdin.drain()

    async def hear(self, state: str, within: float) -> dict[str, Any]:
        """Wait for the worker to say that it has come to this state.

        Args:
            within: seconds.

        Raises:
            ChildError: it failed, ended, said something else, or said nothing in time.
        """
        try:
            async with asyncio.timeout(within):
                line = await self._stdout.readline()
        except TimeoutError:
            raise ChildError(f"it did not get as far as '{state}' within {within:g} s") from None
        except ValueError:
            line = b"?"
        if not line:
            await self._settle()
            raise ChildError(self.obituary())
        try:
            said = json.loads(line)
            found = said["state"]
        except (ValueError, TypeError, KeyError):
            raise ChildError("what it reported is not understood") from None
        if found == "failed":
            raise ChildError(self._reason() or meaning(said["reason"]) or said["reason"])
        if found != state:
            raise ChildError(f"it reported '{found}' where '{state}' was due")
        return dict(said)

    async def gone(self) -> None:
        """Wait until the process has ended, however long it lives."""
        await self._process.wait()

    async def end(self, grace: float) -> None:
        """Ask it to end by closing stdin, wait `grace` seconds, then kill it. Never raises.

        Safe to call more than once, and when it has ended already. When this is cancelled, the
        process is killed all the same.
        """
        self._ended_by_us = True
        self._stdin.close()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        await self._settle()

    def kill(self) -> None:
        """End it at once; `gone` tells when it is."""
        if self.alive:
            # Not `self._process.kill()`: it looks first whether the process has ended, and where
            # it just has, takes its status away from asyncio.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def obituary(self) -> str:
        """Why it ended, as the second half of a sentence: `it was killed by SIGKILL (…)`."""
        code = self._process.returncode
        if code is None:
            return "it closed its output and went on"
        reason = self._reason()
        if code >= 0:
            return f"it ended with status {code}" + (f": {reason}" if reason else "")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if -code == signal.SIGKILL and not self._ended_by_us:
            reason = "by the kernel if memory ran out, or by hand"
        return f"it was ended by {name}" + (f" ({reason})" if reason else "")

    async def _settle(self) -> None:
        """Wait for a process that is certain to end."""
        try:
            async with asyncio.timeout(LAST_WAIT):
                await self._process.wait()
        except TimeoutError:
            _log.error("The engine's process %d does not end although it was killed.", self.pid)

    def _reason(self) -> str | None:
        """The cause of a failure, as far as this life's part of the log tells it."""
        try:
            with self._log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = self._log_start if self._log_start <= size else 0  # begun anew since
                file.seek(max(start, size - LOG_READ))
                text = file.read(LOG_READ).decode("utf-8", "replace")
        except OSError:
            return None
        return meaning(text)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not _PRIVATE.search(name)}


def meaning(text: str) -> str | None:
    """What a part of the log, or a message, says about a failure; None if nothing is known."""
    for pattern, meaning in _REASONS:
        if found := re.search(pattern, text, re.IGNORECASE):
            return meaning.format(*found.groups())
    errors = re.findall(r"^[\d.]+ E (.+)$", text, re.MULTILINE)
    return " ".join(errors[-1].split())[:200] if errors else None


def _open_log(log: Path) -> tuple[int, int]:
    """A descriptor at the log's end, and where that is. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_KEPT:
            log.replace(log.with_name(log.name + ".1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return descriptor, os.fstat(descriptor).st_size
