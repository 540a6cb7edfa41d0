"""Starts real `ouzel serve` processes for tests, and looks at what they leave behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

READY_WITHIN = 120.0


@dataclass
class Served:
    """A server process under test.

    Attributes:
        url: base URL, `/v1` included.
        log: where its output goes.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def children(self) -> list[psutil.Process]:
        """The processes that it started and that still run."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, sign: signal.Signals = signal.SIGTERM, within: float = 20.0) -> int:
        """Signal it and wait; the exit code."""
        self.process.send_signal(sign)
        return self.process.wait(within)


@contextmanager
def served(home: Path, *flags: str, module: str = "ouzel.cli", **env: str) -> Iterator[Served]:
    """`ouzel serve` with these flags on a free port, its state under `home`; killed at the end.

    Args:
        module: what is run; it takes the same command line.
        env: variables, beside those of this process that are no settings.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve.log"
    command = [sys.executable, "-m", module, "serve", "--port", "0", *flags]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OUZEL_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean | {"OUZEL_HOME": str(home), "OUZEL_CODE_INTERPRETER": "off"} | env,
        )
    try:
        yield Served(process, _wait_for_address(process, log), log)
    finally:
        process.kill()
        process.wait()


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        found = re.search(r"http://127\.0\.0\.1:\d+/v1", text)
        if found:
            return found.group()
        assert process.poll() is None, f"it ended with {process.returncode}:\n{text}"
        time.sleep(0.05)
    raise AssertionError(f"it was not ready in {READY_WITHIN} s:\n{log.read_text()}")
