"""Where the keys come from, and how a new one gets there."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ouzel.build.sealing import open_sealer, rotate
from ouzel.config import Settings, SettingsError
from ouzel.core.errors import RequestError, StoreError
from ouzel.store.sealing_keys import KEYS_FILE

KEY = base64.b64encode(bytes(range(32))).decode()


def settings(home: Path, **more) -> Settings:
    return Settings(home=home, cache=home, **more)


def test_the_homes_key_is_found_again(tmp_path: Path) -> None:
    sealed = open_sealer(settings(tmp_path)).seal("reasoning", "ann", "m", "x")
    assert open_sealer(settings(tmp_path)).open("reasoning", "ann", "m", sealed) == "x"


def test_keys_of_the_settings_leave_the_home_alone(tmp_path: Path) -> None:
    sealer = open_sealer(settings(tmp_path, sealing_keys=KEY))
    assert not list(tmp_path.iterdir())
    sealed = sealer.seal("reasoning", "ann", "m", "x")
    other = open_sealer(settings(tmp_path / "elsewhere", sealing_keys=f"{'A' * 43},{KEY}"))
    assert other.open("reasoning", "ann", "m", sealed) == "x"


def test_wrong_keys_name_their_source_and_stay_secret(tmp_path: Path) -> None:
    given = settings(tmp_path, sealing_keys="secret-words", sources={"sealing_keys": "OUZEL_X"})
    with pytest.raises(SettingsError) as caught:
        open_sealer(given)
    assert "OUZEL_X" in caught.value.message
    assert "secret-words" not in caught.value.message
    assert "secret-words" not in repr(given) + repr(given.masked())


def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / KEYS_FILE).write_text("half a ke")
    (tmp_path / KEYS_FILE).chmod(0o600)
    with pytest.raises(StoreError, match=KEYS_FILE):
        open_sealer(settings(tmp_path))


def test_a_rotation_keeps_what_was_sealed_until_its_key_is_dropped(tmp_path: Path) -> None:
    home = settings(tmp_path)
    before = open_sealer(home)
    sealed = before.seal("compaction", "ann", "m", "x")
    done = rotate(home, None)
    assert (done.path, done.keys, done.dropped) == (tmp_path / KEYS_FILE, 2, 0)
    after = open_sealer(home)
    assert after.open("compaction", "ann", "m", sealed) == "x"
    with pytest.raises(RequestError):  # a server that runs has its keys from its start
        before.open("compaction", "ann", "m", after.seal("compaction", "ann", "m", "y"))
    assert rotate(home, 1).dropped == 2
    with pytest.raises(RequestError):
        open_sealer(home).open("compaction", "ann", "m", sealed)


def test_keys_of_the_settings_are_not_rotated_here(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="openssl rand -base64 32"):
        rotate(settings(tmp_path, sealing_keys=KEY), None)
    with pytest.raises(SettingsError, match="not there"):
        rotate(settings(tmp_path / "nowhere"), None)
    assert not list(tmp_path.iterdir())
