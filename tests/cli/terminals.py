"""Runs `ouzel`: in this process, on pipes, or on a terminal; with nobody's settings but ours."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from ouzel.cli.app import app

PATIENCE = 60.0
"""Seconds until a test gives up waiting; far beyond what anything here takes."""
OUZEL = [sys.executable, "-m", "ouzel.cli"]
# Opening a terminal gives a new session its controlling terminal, and so Ctrl-C its meaning.
_TAKE_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


_NO_CODE = {"OUZEL_CODE_INTERPRETER": "off"}
"""Interpreters are tested elsewhere; here they would only make every server start later."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """The process's environment without settings, with a user's home of its own."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("OUZEL_")}
    kept.pop("NO_COLOR", None)
    return {
        **kept,
        "HOME": str(home),
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        **_NO_CODE,
        **more,
    }


def run(*arguments: str, home: Path, stdin: bytes = b"", **more: str) -> Done:
    """Run in this process, with streams that are no terminal: quick, and nearly the real thing."""
    wanted = environment(home, **more)
    hidden = {name: None for name in os.environ if name not in wanted}
    result = CliRunner().invoke(app, list(arguments), input=stdin, env={**wanted, **hidden})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def run_process(*arguments: str, home: Path, stdin: bytes = b"", **more: str) -> Done:
    """Run to the end on pipes, as a process of its own."""
    done = subprocess.run(
        [*OUZEL, *arguments],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        env=environment(home, **more),
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, *arguments: str, home: Path, **more: str) -> None:
        self._mine, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *OUZEL, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=environment(home, **more),
        )
        os.close(theirs)
        self.seen = ""
        self._from = 0

    def type(self, text: str) -> None:
        """Press keys; `\\x03` is Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._mine, text.encode())

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C until the pattern shows up.

        Once may be too few: Python's readline notices a signal only while it waits for a key, not
        while it still draws the last one. Whoever types sees that and presses again.
        """
        for _ in range(20):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                self.expect(pattern, within=2.0)
                return
        raise AssertionError(f"Ctrl-C did not bring {pattern!r}; seen: {self.seen[-2000:]!r}")

    def expect(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """Wait until the pattern shows up after what was expected before."""
        deadline = time.monotonic() + within
        while True:
            found = re.compile(pattern).search(self.seen, self._from)
            if found:
                self._from = found.end()
                return found
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} did not come; seen: {self.seen[-2000:]!r}")

    def end(self) -> int:
        """Read to the end; the exit code, negative for a signal."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._mine], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._mine, 65_536)
        except OSError as error:
            if error.errno == errno.EIO:  # how Linux says that nobody holds the other side
                return False
            raise
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._mine)


@contextlib.contextmanager
def terminal(*arguments: str, home: Path, **more: str) -> Iterator[Terminal]:
    """A process on a terminal that is gone when the block ends."""
    opened = Terminal(*arguments, home=home, **more)
    try:
        yield opened
    finally:
        opened.close()
