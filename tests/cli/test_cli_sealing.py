"""`ouzel rotate-sealing-key`: what it does, and what it says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminals import run

COMMAND = "rotate-sealing-key"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's home."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def test_it_adds_a_key_and_says_when_it_counts(home: Path, state: Path) -> None:
    for keys in (2, 3):
        done = run(COMMAND, "--home", str(state), home=home)
        assert done.code == 0
        assert str(state / "sealing.keys") in done.out
        assert f"holds {keys} now" in done.out
        assert "starts" in done.err
        assert "dropped" not in done.out
    done = run(COMMAND, "--keep", "2", "--home", str(state), home=home)
    assert "2 dropped" in done.out
    keys = (state / "sealing.keys").read_text()
    assert not any(line in done.out + done.err for line in keys.splitlines()[2:])


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        (["--keep", "0"], {}, "--keep"),
        ([], {"OUZEL_SEALING_KEYS": "A" * 43}, "OUZEL_SEALING_KEYS"),
        (["--home", "/nowhere/at/all"], {}, "/nowhere/at/all"),
    ],
)
def test_what_it_cannot_do_is_exit_2(home: Path, arguments, more, says: str) -> None:
    done = run(COMMAND, *arguments, home=home, **more)
    assert done.code == 2
    assert says in done.err


def test_keys_that_others_can_read_are_left_alone(home: Path, state: Path) -> None:
    run(COMMAND, "--home", str(state), home=home)
    keys = state / "sealing.keys"
    before = keys.read_bytes()
    keys.chmod(0o644)
    done = run(COMMAND, "--home", str(state), home=home)
    assert done.code == 1
    assert "chmod 600" in done.err
    assert keys.read_bytes() == before
