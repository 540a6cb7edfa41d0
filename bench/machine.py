"""What the bench ran on: hardware, versions, the commit, and how busy others kept it.

A number without this says little. Nothing in here is measured; nothing names a person or a host.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from bench.load import ROOT

_PACKAGES = ("ouzel", "starlette", "uvicorn", "uvloop", "httptools", "msgspec", "xllamacpp")


def describe(scratch: Path) -> dict[str, str]:
    """Facts about machine, software and commit, for people.

    Args:
        scratch: the folder that the measured servers keep their state in.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "commit": commit(),
        "processor": _processor(),
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "scratch": _file_system(scratch),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


class Neighbours:
    """Cores that processes other than ours kept busy while something was measured."""

    cores = 0.0


@contextmanager
def watching(*ours: psutil.Process) -> Iterator[Neighbours]:
    """Tell, when the block has ended, how busy others were.

    Children of this process that ended within the block count as ours.
    """
    found = Neighbours()
    busy, own, began = _busy(), _own(ours), _now()
    yield found
    elapsed = max(_now() - began, 1e-9)
    found.cores = max(0.0, (_busy() - busy) - (_own(ours) - own)) / elapsed


def _busy() -> float:
    times = psutil.cpu_times()
    # Guest time is part of user time; steal is somebody else's by definition.
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def _own(ours: tuple[psutil.Process, ...]) -> float:
    mine = os.times()
    total = mine.user + mine.system + mine.children_user + mine.children_system
    for process in ours:
        times = process.cpu_times()
        total += times.user + times.system
    return float(total)


def _now() -> float:
    return os.times().elapsed


def commit() -> str:
    """What is measured: the commit, and whether the working tree differs from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        # Only what is measured: other people's untracked notes do not make a number unclear.
        changed = _git("status", "--porcelain", "--", "src", "bench")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    place = folder.resolve()
    mounts = [
        part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)
    ]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
