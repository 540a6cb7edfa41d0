"""The interpreter's own environment: a Python with the packages that model-written code may use.

It is made once for each set of pins and each Python, apart from the server's own environment, by
this Python's `venv` and the user's own pip settings. It is built where it stays, under a lock, and
its stamp is written last: what has no stamp was interrupted, and is made again. Jails and kernels
this file does not know.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ouzel.core.errors import OuzelError
from ouzel.sandbox.environment_steps import StepFailed, Steps, held

PINS: Final = Path(__file__).with_name("packages.txt")

ROOM: Final = 1400 * 10**6
"""Bytes that must be free to begin with: what it has in the end (0.65 GB), and as much again for
the wheels that lie beside it meanwhile."""

FONTS: Final = "matplotlib"
"""Folder below the environment that holds matplotlib's list of fonts."""

_RECIPE: Final = 1
"""Raised when this file makes something else out of the same pins."""
_STAMP: Final = "ouzel-interpreter"

# Their tests are a quarter of what the packages take, and nobody runs them here.
_LEFT_OUT: Final = "tests"
# Imported by kernels only when somebody debugs or completes code.
_UNCOMPILED: Final = r"/(debugpy|jedi|testing|sphinxext)/"

_TRY_OUT: Final = (
    "import ipykernel.ipkernel, numpy, pandas, pyarrow, scipy.stats, sklearn.linear_model, sympy, "
    "seaborn, PIL.Image, openpyxl, pypdf, tabulate, matplotlib.font_manager, matplotlib.pyplot"
)
"""Each package runs on this processor; and matplotlib has made its list of fonts."""

OnStep = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much; 0 of 0 where nothing is counted."""


class EnvironmentFailed(OuzelError):
    """The interpreter's environment could not be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python with its packages, ready to run in a jail.

    Args:
        python: the executable; started with `-I` it sees its own packages and nobody else's.
        folder: the environment. Nothing in it has to be written to.
        readable: folders that a jail must let it read, besides those of the system.
    """

    python: Path
    folder: Path
    readable: tuple[Path, ...]

    @property
    def fonts(self) -> Path:
        """Folder with matplotlib's list of fonts, to be copied to where MPLCONFIGDIR shows."""
        return self.folder / FONTS


def find_interpreter(cache: Path) -> Interpreter | None:
    """The environment, if it is there and whole; takes under a millisecond."""
    folder = _folder(cache)
    try:
        whole = (folder / _STAMP).read_text() == _stamp()
    except OSError:
        return None
    python = folder / "bin" / "python"
    if not whole or not python.exists():
        return None
    return Interpreter(python, folder, (folder, *_base_folders()))


def ensure_interpreter(
    cache: Path, report: OnStep | None = None, *, stop: threading.Event | None = None
) -> Interpreter:
    """The environment, made now if it is not there: 0.65 GB, half a minute and the download.

    Blocks. Several processes may ask at once; one makes it and the others wait for it.

    Args:
        cache: folder for what can be fetched again, as weights.
        report: told each step, in the thread that called; what it raises ends the set-up.
        stop: once set, the set-up ends within a second, with EnvironmentFailed.

    Raises:
        EnvironmentFailed: nothing half-made is left then.
    """
    tell = report or _ignore
    if (found := find_interpreter(cache)) is not None:
        return found
    folder = _folder(cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(folder.with_name(f"{folder.name}.lock"), tell, stop) as lock:
            # Somebody else may have made it while this one waited.
            if find_interpreter(cache) is None:
                _make(folder, Steps(folder, lock, tell, stop))
    except StepFailed as error:
        raise EnvironmentFailed(f"The code interpreter was not set up: {error}") from error
    except OSError as error:
        raise EnvironmentFailed(
            f"The code interpreter was not set up: {error.filename or folder}: {error.strerror}."
        ) from error
    found = find_interpreter(cache)
    if found is None:
        raise EnvironmentFailed(f"The code interpreter in {folder} was removed while it was made.")
    return found


def _ignore(text: str, done: int, total: int) -> None:
    """For those who want no report."""


def _make(folder: Path, steps: Steps) -> None:
    """Build it in its place, and leave nothing if that fails."""
    try:
        _remove(folder)
        free = shutil.disk_usage(folder.parent).free
        if free < ROOM:
            raise StepFailed(
                f"it needs {ROOM / 1e9:.1f} GB of free space in {folder.parent}, and there is "
                f"{free / 1e9:.1f} GB. Free some, or choose another folder for the cache."
            )
        steps.tell("Making a Python environment", 0, 0)
        _make_venv(folder)
        python = folder / "bin" / "python"
        steps.install(python, PINS)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        for tests in [path for path in packages.rglob(_LEFT_OUT) if path.is_dir()]:
            shutil.rmtree(tests, ignore_errors=True)
        steps.compile(python, packages, _UNCOMPILED)
        steps.tell("Trying the packages", 0, 0)
        steps.python(python, _TRY_OUT, {"MPLCONFIGDIR": str(folder / FONTS), "MPLBACKEND": "agg"})
        _remove(folder / "tmp")
        # What the stamp vouches for must not be lost with the machine's power when it is not.
        os.sync()
        (folder / _STAMP).write_text(_stamp())
    except BaseException:
        _remove(folder)
        raise


def _make_venv(folder: Path) -> None:
    """An empty one, without pip: ours installs into it, so it works without ensurepip, too."""
    try:
        venv.EnvBuilder(symlinks=True).create(folder)
    except (OSError, ValueError) as error:
        raise StepFailed(f"Python's venv module could not make {folder}: {error}.") from error
    (folder / "tmp").mkdir()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _folder(cache: Path) -> Path:
    """Its place: one for each set of pins, Python, and recipe."""
    parts = (PINS.read_text(), sys.base_prefix, platform.machine(), str(_RECIPE))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return cache.absolute() / "interpreter" / f"{key}-{version}"


def _stamp() -> str:
    """What it was made with: another patch release of the base Python makes it anew."""
    return f"{sys.version}\n{sys.base_prefix}\n"


def _base_folders() -> tuple[Path, ...]:
    """Where the base Python has its executable, its library, and its shared object if any.

    Not its whole prefix: that may be somebody's home. Folders below /usr every jail has.
    """
    executable = Path(getattr(sys, "_base_executable", sys.executable))
    base = {"installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    found = [executable.parent, executable.resolve().parent]
    found += [Path(sysconfig.get_path(name, vars=base)) for name in ("stdlib", "platstdlib")]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        found.append(Path(sysconfig.get_config_var("LIBDIR")))
    folders = dict.fromkeys(path for each in found for path in (each, each.resolve()))
    return tuple(path for path in folders if path.is_dir() and not path.is_relative_to("/usr"))
