"""Makes what seals, from the keys that the settings name, and adds keys to those of the home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ouzel.config import Settings, SettingsError
from ouzel.core.errors import StoreError
from ouzel.store.sealing import KeySealer
from ouzel.store.sealing_keys import KEYS_FILE, add_key, load_keys, parse_keys


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation has done.

    Args:
        path: the file with the keys.
        keys: how many it holds now.
        dropped: how many it holds no longer.
    """

    path: Path
    keys: int
    dropped: int


def open_sealer(settings: Settings) -> KeySealer:
    """What seals for clients; makes the first key of a home.

    Raises:
        SettingsError: the keys of the settings are not right.
        StoreError: the home's keys are not, or cannot be made.
    """
    if settings.sealing_keys is None:
        keys = load_keys(settings.home)
    else:
        try:
            keys = parse_keys(settings.sealing_keys)
        except StoreError as error:
            raise SettingsError(
                f"{error.message} (It is from {settings.source('sealing_keys')}.)"
            ) from None
    return KeySealer(keys, settings.encrypted_reasoning_days)


def rotate(settings: Settings, keep: int | None) -> Rotated:
    """Add a new first key to those of the home, which has to be there.

    Args:
        keep: how many keys to keep at most, the new one included; None keeps all.

    Raises:
        SettingsError: the keys are not the home's to change.
        StoreError: the file is not right, or cannot be written.
    """
    if settings.sealing_keys is not None:
        raise SettingsError(
            f"The keys come from {settings.source('sealing_keys')}, not from the home: put a new "
            "one before the others there, as `openssl rand -base64 32` makes it."
        )
    if not settings.home.is_dir():
        raise SettingsError(
            f"{settings.home} is not there (home from {settings.source('home')}): a server makes "
            "its first key by itself."
        )
    before = len(load_keys(settings.home))
    after = len(add_key(settings.home, keep))
    return Rotated(settings.home / KEYS_FILE, after, before + 1 - after)
