"""Who has the home: one server, or one command that must be alone in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import filelock

from ouzel.core.errors import OuzelError

DATABASE: Final = "ouzel.db"
FILES: Final = "files"


class HomeError(OuzelError):
    """The home cannot be used."""


class HomeTaken(HomeError):
    """Another process has the home for itself."""


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Has the home while inside, making it where it is missing.

    Two servers on one store would each take the other's running responses for interrupted ones.
    The lock belongs to the open file, so it goes when the process goes, however that ends.

    Raises:
        HomeTaken: another process has it.
        HomeError: it cannot be used.
    """
    lock = filelock.FileLock(home / "serving.lock", timeout=0, mode=0o600)
    try:
        # What root's sandboxes run as has to come through it, and can list nothing.
        home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise HomeTaken(
            f"Another Ouzel is serving from {home}. Stop it first, or give this one a home of "
            "its own with --home or OUZEL_HOME."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise HomeError(f"Cannot use {home} as home: {error}.") from error
    try:
        yield
    finally:
        lock.release()
