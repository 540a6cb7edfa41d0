"""The interpreter's environment: what is in it, how it is made, and what interrupts leave."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
from kernel_kit import interpreter

from ouzel.sandbox import environment
from ouzel.sandbox.environment import EnvironmentFailed, ensure_interpreter, find_interpreter

# One small package, pinned as in the real file; it is what the real one pins, too.
SMALL = "tabulate"
MAKE = """
import sys
from pathlib import Path
from ouzel.sandbox import environment
environment.PINS, environment._TRY_OUT = Path(sys.argv[2]), "import tabulate"
print(environment.ensure_interpreter(Path(sys.argv[1]), print).python, flush=True)
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which a small environment is made."""
    real = environment.PINS.read_text()
    pins = tmp_path / "pins.txt"
    pins.write_text(re.findall(rf"^{SMALL}==(?:.*\\\n)+.*\n", real, re.MULTILINE)[0])
    monkeypatch.setattr(environment, "PINS", pins)
    monkeypatch.setattr(environment, "_TRY_OUT", f"import {SMALL}")
    return tmp_path / "cache"


def test_the_real_one_has_what_it_says_and_nothing_of_ours(tmp_path: Path) -> None:
    made = interpreter()
    assert find_interpreter(Path.home() / ".cache" / "ouzel") == made
    assert ensure_interpreter(Path.home() / ".cache" / "ouzel") == made
    assert list(made.fonts.glob("fontlist-*.json"))
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')")
    code = (
        "import numpy, pandas, scipy, sympy, sklearn, PIL, openpyxl, pypdf, pyarrow, tabulate, sys;"
        "print(pandas.__cached__); print(sys.prefix); print('ouzel' in sys.modules)"
    )
    said = subprocess.run(
        [made.python, "-I", "-c", code],
        env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    cached, prefix, ours = said.stdout.split()
    assert Path(cached).is_file()
    assert (Path(prefix), ours) == (made.folder, "False")
    assert all(path.is_dir() and not Path.home().is_relative_to(path) for path in made.readable)


def test_every_pin_has_a_hash_and_names_no_registry() -> None:
    pins = environment.PINS.read_text()
    assert "://" not in pins
    for line in re.findall(r"^[a-z].*\n.*", pins, re.MULTILINE):
        assert "==" in line.splitlines()[0]
        assert "--hash=sha256:" in line


def test_it_is_made_once_and_tells_its_steps(small: Path) -> None:
    assert find_interpreter(small) is None
    steps: list[tuple[str, int, int]] = []
    made = ensure_interpreter(small, lambda *step: steps.append(step))
    assert ("Fetching packages", 1, 1) in steps
    assert ensure_interpreter(small) == made == find_interpreter(small)
    # One that was made with another Python is made again.
    (made.folder / "ouzel-interpreter").write_text("another")
    assert find_interpreter(small) is None
    assert ensure_interpreter(small) == made


def test_what_fails_is_told_and_leaves_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = environment.PINS
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
        with pytest.raises(EnvironmentFailed, match=r"needs 1\.4 GB of free space"):
            ensure_interpreter(small)
    pins.write_text(re.sub("sha256:.", "sha256:0", pins.read_text()).replace("0", "1"))
    with pytest.raises(EnvironmentFailed, match="pip ended with 1: ERROR"):
        ensure_interpreter(small)
    with pytest.raises(EnvironmentFailed, match="was stopped"):
        ensure_interpreter(small, stop=_set())
    with pytest.raises(KeyboardInterrupt):
        ensure_interpreter(small, _interrupt)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EnvironmentFailed, match="file"):
        ensure_interpreter(file / "below")
    assert [path.suffix for path in (small / "interpreter").iterdir() if path.is_dir()] == []


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _interrupt(text: str, done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_a_killed_set_up_is_done_again(small: Path) -> None:
    command = [sys.executable, "-c", MAKE, str(small), str(environment.PINS)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert "Making" in first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert find_interpreter(small) is None
    # Two at once: one makes it, the other waits, and both have it.
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].splitlines() for process in both]
    found = find_interpreter(small)
    assert found is not None
    assert [lines[-1] for lines in said] == [str(found.python)] * 2


def test_waiting_for_another_can_be_stopped(small: Path) -> None:
    ensure_interpreter(small)
    (folder,) = (path for path in (small / "interpreter").iterdir() if path.is_dir())
    lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR)
    (folder / "ouzel-interpreter").unlink()
    fcntl.flock(lock, fcntl.LOCK_EX)
    stop = threading.Event()
    steps: list[str] = []

    def report(text: str, done: int, total: int) -> None:
        steps.append(text)
        stop.set()

    began = time.monotonic()
    with pytest.raises(EnvironmentFailed, match="was stopped"):
        ensure_interpreter(small, report, stop=stop)
    os.close(lock)
    assert steps[0].startswith("Waiting for another")
    assert time.monotonic() - began < 60
