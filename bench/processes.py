"""Starts the servers that are measured, asks what they use, and stops them.

Each runs in a process of its own, from a clean environment and an empty home, so that nobody's
settings or stored responses change a number.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.load import ROOT

STOP_WITHIN = 20.0
"""Seconds that a server gets to stop on its own."""


class ServerFailed(RuntimeError):
    """A server did not come up; the message holds the end of its log."""


class Served:
    """A server process.

    Attributes:
        port: on loopback.
    """

    def __init__(self, process: psutil.Popen, port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def url(self) -> str:
        """Without `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def rss(self) -> int:
        """Bytes of memory that this process alone holds in RAM, its children not counted."""
        return int(self._process.memory_info().rss)

    @property
    def cpu(self) -> float:
        """Processor seconds that it has used so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def wait_ready(self, within: float) -> None:
        """Return when it takes requests. Raises ServerFailed."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailed(f"It ended with {self._process.returncode}:\n{self._tail()}")
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise ServerFailed(f"It was not ready within {within:.0f} s:\n{self._tail()}")

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        try:
            self._process.terminate()
            self._process.wait(STOP_WITHIN)
        except psutil.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        except psutil.NoSuchProcess:
            return  # it has ended already, and whoever waited for it has said why

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


@contextmanager
def ouzel(
    home: Path,
    *flags: str,
    module: str = "ouzel.cli",
    environment: Mapping[str, str] = {},
    ready_within: float = 60.0,
) -> Iterator[Served]:
    """`ouzel serve` with these flags, on a free port, until the block ends.

    Args:
        home: empty folder for its state.
        flags: of `ouzel serve`, without `--port` and `--home`.
        module: what is run; it must take the same flags.
        environment: variables that it gets besides those that have nothing to do with Ouzel.
        ready_within: seconds in which it must take requests.

    Raises:
        ServerFailed: it did not come up.
    """
    port = free_port()
    command = [sys.executable, "-m", module, "serve", "--port", str(port), "--home", str(home)]
    command += ["--log-level", "warning", *flags]
    # Unless a flag says otherwise, no interpreters are kept warm beside what is measured.
    without_code = {"OUZEL_CODE_INTERPRETER": "off", **environment}
    with _running(command, port, home, environment=without_code) as served:
        served.wait_ready(ready_within)
        yield served


@contextmanager
def baseline(home: Path, replies: bytes) -> Iterator[Served]:
    """The bare server with these canned replies (JSON), until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "bench.baseline", str(port)]
    with _running(command, port, home, given=replies) as served:
        served.wait_ready(60.0)
        yield served


@contextmanager
def _running(
    command: Sequence[str],
    port: int,
    home: Path,
    *,
    given: bytes = b"",
    environment: Mapping[str, str] = {},
) -> Iterator[Served]:
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"log-{port}.txt"
    # Where weights lie changes no number, and fetching them again would take an hour.
    clean = {
        name: value
        for name, value in os.environ.items()
        if "OUZEL" not in name or name == "OUZEL_CACHE"
    }
    with log.open("wb") as written:
        process = psutil.Popen(
            command,
            cwd=ROOT,
            env={**clean, **environment},
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            process.stdin.write(given)
            process.stdin.close()
            yield Served(process, port, log)
        finally:
            Served(process, port, log).stop()


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile, on so many cores.

    Does nothing where the system cannot (macOS) or has no more than that.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
