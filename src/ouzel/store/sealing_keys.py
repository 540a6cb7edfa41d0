"""The keys that texts are sealed with: a file that only its owner can read, or the environment.

The file holds a key a line, as base64, the newest first; lines that begin with `#` are notes. It is
made at the first start, and written whole and put in its place in one stroke ever after, so a
crash leaves the old one or the new one. What keys are used for, `sealing` knows.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import filelock

from ouzel.core.errors import StoreError
from ouzel.store.sealing import KEY_BYTES

KEYS_FILE: Final = "sealing.keys"

_LOCK_SECONDS: Final = 10.0
_MOST_BYTES: Final = 1 << 20
_HEAD: Final = (
    "# The keys of Ouzel's encrypted content, the newest first: it seals, all of them open.\n"
    "# Who has this file can read that content. `ouzel rotate-sealing-key` adds a key.\n"
)


def parse_keys(text: str) -> list[bytes]:
    """The keys in a list that is separated by commas, as the environment has them.

    Raises:
        StoreError: there is none, or one is not right; the message holds no key.
    """
    given = [part.strip() for part in text.split(",") if part.strip()]
    keys = [_key(part, f"Key {number} of sealing_keys") for number, part in enumerate(given, 1)]
    if not keys:
        raise StoreError("sealing_keys holds no key.")
    return keys


def load_keys(home: Path) -> list[bytes]:
    """The keys of this home, the newest first; a first one is made where there is no file.

    Raises:
        StoreError: the file can be read by others, is damaged, or cannot be read or made.
    """
    with _alone(home):
        keys = _read(home / KEYS_FILE)
        if keys is None:
            keys = [new_key()]
            _write(home / KEYS_FILE, keys)
        return keys


def add_key(home: Path, keep: int | None = None) -> list[bytes]:
    """Put a new key before the others; all keys as they then are.

    Args:
        keep: how many to keep at most, the new one included; what others have sealed can never
            be opened again. None keeps all.

    Raises:
        StoreError: as `load_keys`; the file is then as it was.
    """
    with _alone(home):
        keys = [new_key(), *(_read(home / KEYS_FILE) or ())][:keep]
        _write(home / KEYS_FILE, keys)
        return keys


def new_key() -> bytes:
    """A fresh key."""
    return secrets.token_bytes(KEY_BYTES)


def key_text(key: bytes) -> str:
    """A key as it is written down."""
    return base64.b64encode(key).decode("ascii")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Nobody else reads or writes the keys while inside: neither a server nor a rotation."""
    lock = filelock.FileLock(home / f"{KEYS_FILE}.lock", timeout=_LOCK_SECONDS, mode=0o600)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"The keys in {home} are being changed by another Ouzel.") from None
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"The keys in {home} cannot be used: {error}.") from None
    try:
        yield
    finally:
        lock.release()


def _read(path: Path) -> list[bytes] | None:
    """The keys in the file, None if there is no file."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"The keys cannot be read: {path} is not a file.")
            if os.name == "posix" and found.st_mode & 0o077:
                raise StoreError(
                    f"The keys in {path} can be read or changed by other users (mode "
                    f"{stat.S_IMODE(found.st_mode):04o}). If nobody has seen them: "
                    f"chmod 600 {path}. Otherwise move the file away, and new keys are made."
                )
            raw = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"The keys cannot be read: {path}: {error.strerror}.") from None
    return _parse(raw, path)


def _parse(raw: bytes, path: Path) -> list[bytes]:
    keys = []
    for number, line in enumerate(raw.decode("ascii", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            keys.append(_key(line.strip(), f"Line {number} of {path}"))
    if not keys:
        raise StoreError(
            f"{path} holds no key: it is damaged. Restore it from a backup, or move it away: new "
            "keys are made then, and what the old ones have sealed stays closed."
        )
    return keys


def _key(text: str, where: str) -> bytes:
    """A key from base64 of either alphabet, padded or not."""
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"{where} is not a key: {KEY_BYTES} random bytes in base64 are, as "
            f"`openssl rand -base64 {KEY_BYTES}` makes them."
        )
    return key


def _write(path: Path, keys: list[bytes]) -> None:
    """Put a file with these keys in the place of what is there, or leave that as it is."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    text = _HEAD + "".join(f"{key_text(key)}\n" for key in keys)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"The keys cannot be written: {path}: {error.strerror}.") from None


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a loss of power, where the system can do that for folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
