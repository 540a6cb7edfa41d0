"""The steps of setting the interpreter up that other programs do: pip, compileall, a try-out.

Each is a child process in a group of its own, ended with the set-up. Which packages there are, and
what makes an environment whole, this file does not know.
"""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

Tell = Callable[[str, int, int], None]

SILENCE: Final = 900.0
"""Seconds without a word from a step, far beyond pip's own time-outs and retries, until it is
ended."""
TICK: Final = 0.25
"""Seconds between two looks at whether to stop, and at how far the installing is."""

_NAME = re.compile(r"^([A-Za-z0-9][\w.-]*)==[^;\\]*(?:;([^\\]*))?", re.MULTILINE)
_ELSEWHERE = re.compile(r"== '(?:darwin|win32|pypy|emscripten)'")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_FULL = ("No space left", "[Errno 28]", "[Errno 122]", "[Errno 27]")
_UNREACHED = ("Failed to establish", "NameResolution", "ProxyError", "SSLError", "versions: none")
# These of the user's pip settings would put packages elsewhere, or forbid what is done here.
_NOT_OURS = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_USER", "PIP_REPORT")


class StepFailed(Exception):
    """A step could not be done; its text follows "was not set up: "."""


@contextmanager
def held(lock: Path, tell: Tell, stop: threading.Event | None) -> Iterator[int]:
    """Hold a lock file; yields its descriptor. It is held until the last process with it ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell("Waiting for another set-up of the code interpreter", 0, 0)
                _check(stop)
                time.sleep(TICK)
        yield descriptor
    finally:
        os.close(descriptor)


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise StepFailed("it was stopped before it was done.")


class Steps:
    """Runs the steps in one environment's folder.

    Args:
        folder: of the environment; temporary files lie in `tmp` below it, so that they are on the
            disk that was checked and are found after a kill.
        lock: descriptor of the held lock file. Children inherit it: where this process is killed,
            nobody else begins before they have ended, too.
        tell: told how far each step is.
        stop: ends the step that runs once it is set.
    """

    def __init__(
        self, folder: Path, lock: int, tell: Tell, stop: threading.Event | None = None
    ) -> None:
        self.tell = tell
        self._folder = folder
        self._lock = lock
        self._stop = stop

    def install(self, python: Path, pins: Path) -> None:
        """Have this Python's pip put the pinned packages into `python`'s environment."""
        total = sum(
            not _ELSEWHERE.search(mark or "") for _, mark in _NAME.findall(pins.read_text())
        )
        seen, installing = 0, 0

        def heard(line: str) -> None:
            nonlocal seen, installing
            if line.startswith(("Collecting ", "Processing ")):
                seen += 1
                self.tell("Fetching packages", min(seen, total), total)
            elif line.startswith("Installing collected packages:"):
                installing = line.count(",") + 1

        def tick() -> None:
            if installing:
                there = sum(1 for _ in self._folder.glob("lib/*/site-packages/*.dist-info/RECORD"))
                self.tell("Installing packages", min(there, installing), installing)

        command = [sys.executable, "-P", "-m", "pip", "--python", str(python), "install"]
        command += ["--no-input", "--disable-pip-version-check", "--no-user", "--no-compile"]
        command += ["--require-hashes", "--only-binary", ":all:", "--progress-bar", "off"]
        self._run([*command, "--requirement", str(pins)], "pip", heard, tick=tick)

    def compile(self, python: Path, packages: Path, leave_out: str) -> None:
        """Write byte code beside the packages' sources: a jail cannot, and would do it each time.

        Args:
            leave_out: regular expression for paths of sources that are rarely imported.
        """
        total = sum(1 for _ in packages.rglob("*.py"))
        done = 0

        def heard(line: str) -> None:
            nonlocal done
            if line.startswith("Compiling "):
                done += 1
                if done % 100 == 0:
                    self.tell("Compiling packages", min(done, total), total)

        command = [str(python), "-I", "-m", "compileall", "-j", "0", "-x", leave_out]
        # Without a look at the source's time: nobody writes to it, and copies change the time.
        command += ["--invalidation-mode", "unchecked-hash", str(packages)]
        # A package may ship files for other Pythons that this one cannot compile; that is no harm.
        self._run(command, "compileall", heard, allowed=(0, 1))

    def python(self, python: Path, code: str, extra: Mapping[str, str]) -> None:
        """Run a line of code in the environment."""
        self._run([str(python), "-I", "-c", code], "the new Python", extra=extra)

    def _run(
        self,
        command: Sequence[str],
        name: str,
        heard: Callable[[str], None] | None = None,
        *,
        tick: Callable[[], None] | None = None,
        extra: Mapping[str, str] | None = None,
        allowed: Sequence[int] = (0,),
    ) -> None:
        lines: deque[str] = deque(maxlen=200)
        child = subprocess.Popen(  # noqa: S603  # no shell, and nothing in it is a client's
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(extra or {}),
            cwd=self._folder,
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        try:
            for line in self._lines(child, name, tick):
                lines.append(line)
                if heard is not None:
                    heard(line)
            code = child.wait(SILENCE)
        finally:
            # The whole group: pip runs another pip, compileall several of itself.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if code not in allowed:
            raise StepFailed(_why(name, code, lines))

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Ours without what would change another Python, with a temporary folder of its own."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PYTHON") and name not in _NOT_OURS and name != "VIRTUAL_ENV"
        }
        mine = {"TMPDIR": str(self._folder / "tmp"), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
        return {**kept, **mine, **extra}

    def _lines(
        self, child: subprocess.Popen[bytes], name: str, tick: Callable[[], None] | None
    ) -> Iterator[str]:
        """What it says, line by line, with `tick` in between, until it closes its output."""
        assert child.stdout is not None  # noqa: S101  # it is a pipe
        rest, spoke = b"", time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                _check(self._stop)
                if selector.select(TICK):
                    block = os.read(child.stdout.fileno(), 65536)
                    if not block:
                        return
                    spoke = time.monotonic()
                    *lines, rest = (rest + block).split(b"\n")
                    yield from (line.decode("utf-8", "replace").strip() for line in lines)
                if tick is not None:
                    tick()
                if time.monotonic() - spoke > SILENCE:
                    raise StepFailed(f"{name} said nothing for {SILENCE:.0f} seconds; try again.")


def _why(name: str, code: int, lines: Sequence[str]) -> str:
    said = "\n".join(lines)
    if any(sign in said for sign in _FULL):
        return "the disk is full. Free some space and try again."
    if "No module named pip" in said:
        return (
            f"pip is missing in the Python that runs this ({sys.executable}). "
            f"`{sys.executable} -m ensurepip` brings it back."
        )
    errors = [line for line in lines if line.startswith("ERROR:")][:2]
    if not errors or errors == ["ERROR: Exception:"]:
        errors = [line for line in lines if line][-1:] or ["no message"]
    why = _CREDENTIALS.sub("***@", " ".join(errors))
    hint = ""
    if any(sign in said for sign in _UNREACHED):
        hint = (
            " Either the package index could not be reached, or it does not have this: see "
            "`pip config list`."
        )
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return f"{name} {ended}: {why}.{hint}"
