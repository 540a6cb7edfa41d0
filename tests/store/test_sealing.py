"""Sealed text: what comes back, what does not, and where the keys are."""

from __future__ import annotations

import base64
import os
import stat
import string
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ouzel.core.contracts_state import Sealer
from ouzel.core.errors import RequestError, StoreError
from ouzel.store.sealing import DAY, KeySealer, key_id
from ouzel.store.sealing_keys import (
    KEYS_FILE,
    add_key,
    key_text,
    load_keys,
    new_key,
    parse_keys,
)

KEY = bytes(range(32))
SEALER: Sealer = KeySealer([KEY])
ALPHABET = string.ascii_letters + string.digits + "-_"
ANYTHING = st.text(st.characters(), max_size=200)  # halves of surrogate pairs included


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now


def refused(sealer: Sealer, sealed: str, *, kind="reasoning", owner="ann", model="m") -> str:
    with pytest.raises(RequestError) as caught:
        sealer.open(kind, owner, model, sealed)
    assert (caught.value.status, caught.value.code) == (400, "invalid_encrypted_content")
    return caught.value.message


# --- text -------------------------------------------------------------------------------------


@given(ANYTHING, ANYTHING, ANYTHING, st.sampled_from(["reasoning", "compaction"]))
@example("", "", "", "reasoning")
@example("\ud83d", "a\0b", "\udc00", "compaction")
def test_what_was_sealed_opens_again(text, owner, model, kind):
    sealed = SEALER.seal(kind, owner, model, text)
    assert set(sealed) <= set(ALPHABET)
    assert SEALER.open(kind, owner, model, sealed) == text


def test_the_text_cannot_be_read_and_no_two_tokens_are_alike():
    text = "The secret is 42. " * 20
    one, two = (SEALER.seal("reasoning", "ann", "m", text) for _ in range(2))
    assert one != two
    raw = base64.urlsafe_b64decode(one + "==")
    assert b"secret" not in raw
    # Nothing of it repeats, though the text does.
    assert len({raw[at : at + 8] for at in range(0, len(raw) - 8, 8)}) == len(
        range(0, len(raw) - 8, 8)
    )


@pytest.mark.parametrize("other", [{"owner": "bob"}, {"model": "n"}, {"kind": "compaction"}])
def test_it_is_bound_to_kind_owner_and_model(other):
    assert refused(SEALER, SEALER.seal("reasoning", "ann", "m", "thinking"), **other)


def test_owner_and_model_cannot_be_cut_elsewhere():
    assert refused(SEALER, SEALER.seal("reasoning", "ann", "m", "x"), owner="an", model="nm")


@given(st.data())
def test_no_altered_token_opens(data):
    text = data.draw(st.text(max_size=40))
    sealed = SEALER.seal("reasoning", "ann", "m", text)
    at = data.draw(st.integers(0, len(sealed) - 1))
    how = data.draw(st.sampled_from(["replace", "remove", "insert", "cut", "swap"]))
    other = data.draw(st.one_of(st.sampled_from(ALPHABET + "+/= \n"), st.characters()))
    altered = {
        "replace": sealed[:at] + other + sealed[at + 1 :],
        "remove": sealed[:at] + sealed[at + 1 :],
        "insert": sealed[:at] + other + sealed[at:],
        "cut": sealed[:at],
        "swap": sealed[at:] + sealed[:at],
    }[how]
    if altered != sealed:
        refused(SEALER, altered)


@pytest.mark.parametrize("length", range(4))
def test_the_bits_that_decoding_passes_over_count_too(length):
    sealed = SEALER.seal("reasoning", "ann", "m", "x" * length)
    same = [
        sealed[:-1] + last
        for last in ALPHABET
        if base64.urlsafe_b64decode(sealed[:-1] + last + "==")
        == base64.urlsafe_b64decode(sealed + "==")
    ]
    for altered in set(same) - {sealed}:
        refused(SEALER, altered)
    for padded in (sealed + "=", sealed + "==", sealed + "\n"):
        refused(SEALER, padded)


@given(ANYTHING)
@example("A" * 24)
@example(SEALER.seal("reasoning", "ann", "m", "")[:24])
@example(SEALER.seal("reasoning", "ann", "m", "")[:30])
def test_no_foreign_text_opens(text):
    refused(SEALER, text)


def test_altered_foreign_and_another_owners_are_told_alike():
    sealed = SEALER.seal("reasoning", "ann", "m", "x")
    messages = {
        refused(SEALER, sealed[:-2] + "AA"),
        refused(SEALER, "hello"),
        refused(SEALER, sealed, owner="bob"),
        refused(KeySealer([new_key()]), sealed),
    }
    assert len(messages) == 1


# --- time -------------------------------------------------------------------------------------


def test_sealed_thinking_expires_and_says_so():
    clock = Clock()
    sealer = KeySealer([KEY], 30, clock)
    sealed = sealer.seal("reasoning", "ann", "m", "x")
    clock.now += 30 * DAY - 1
    assert sealer.open("reasoning", "ann", "m", sealed) == "x"
    clock.now += 3
    message = refused(sealer, sealed)
    assert "expired" in message
    assert "30 days" in message
    # Nobody else learns of it.
    assert "expired" not in refused(sealer, sealed, owner="bob")
    assert "expired" not in refused(sealer, sealed[:-2] + "AA")


def test_the_time_of_issue_cannot_be_altered():
    clock = Clock()
    sealer = KeySealer([KEY], 1, clock)
    raw = bytearray(base64.urlsafe_b64decode(sealer.seal("reasoning", "a", "m", "x") + "=="))
    clock.now += 2 * DAY
    raw[9:17] = int(clock.now).to_bytes(8, "big")
    altered = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    assert "verified" in refused(sealer, altered, owner="a")


@pytest.mark.parametrize(("days", "kind"), [(0, "reasoning"), (30, "compaction")])
def test_what_does_not_expire(days, kind):
    clock = Clock()
    sealer = KeySealer([KEY], days, clock)
    sealed = sealer.seal(kind, "ann", "m", "x")
    clock.now += 10_000 * DAY
    assert sealer.open(kind, "ann", "m", sealed) == "x"


def test_a_clock_that_goes_back_closes_nothing():
    clock = Clock()
    sealer = KeySealer([KEY], 1, clock)
    sealed = sealer.seal("reasoning", "ann", "m", "x")
    clock.now = -5.0
    assert sealer.open("reasoning", "ann", "m", sealed) == "x"
    assert sealer.open("reasoning", "ann", "m", sealer.seal("reasoning", "ann", "m", "y")) == "y"


# --- rotation ---------------------------------------------------------------------------------


def test_the_first_key_seals_and_all_open():
    old, new = new_key(), new_key()
    before = KeySealer([old]).seal("reasoning", "ann", "m", "before")
    both = KeySealer([new, old])
    after = both.seal("reasoning", "ann", "m", "after")
    assert both.open("reasoning", "ann", "m", before) == "before"
    assert KeySealer([new]).open("reasoning", "ann", "m", after) == "after"
    refused(KeySealer([old]), after)
    refused(KeySealer([new]), before)


def test_a_key_with_another_ones_id_opens_nothing(monkeypatch):
    sealed = SEALER.seal("reasoning", "ann", "m", "x")
    monkeypatch.setattr("ouzel.store.sealing.key_id", lambda key: key_id(KEY))
    refused(KeySealer([new_key()]), sealed)


# --- the file ---------------------------------------------------------------------------------


def test_a_first_key_is_made_once_for_the_owner_alone(tmp_path: Path):
    keys = load_keys(tmp_path)
    assert [len(key) for key in keys] == [32]
    assert load_keys(tmp_path) == keys
    assert stat.S_IMODE((tmp_path / KEYS_FILE).stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} <= {KEYS_FILE, f"{KEYS_FILE}.lock"}


def test_two_that_start_at_once_agree_on_the_key(tmp_path: Path):
    found: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(load_keys(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({key for keys in found for key in keys}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int):
    load_keys(tmp_path)
    path = tmp_path / KEYS_FILE
    path.chmod(mode)
    for use in (load_keys, add_key):
        with pytest.raises(StoreError, match=f"chmod 600 {path}"):
            use(tmp_path)
    path.chmod(0o600)
    load_keys(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no key"),
        (b"# a note\n\n", "holds no key"),
        (b"# a note\nnot base64!\n", "Line 2"),
        (key_text(KEY).encode() + b"\n" + key_text(KEY)[:-4].encode(), "Line 2"),
        (b"\xff\xfe\0\0", "Line 1"),
        (base64.b64encode(b"x" * 31), "Line 1"),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / KEYS_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    for use in (load_keys, add_key):
        with pytest.raises(StoreError, match=says) as caught:
            use(tmp_path)
        assert key_text(KEY)[:8] not in caught.value.message
    assert path.read_bytes() == content


def test_a_folder_in_its_place_and_a_home_that_is_none_are_refused(tmp_path: Path):
    (tmp_path / KEYS_FILE).mkdir(mode=0o700)
    with pytest.raises(StoreError, match=KEYS_FILE):
        load_keys(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        load_keys(tmp_path / "file")


def test_a_new_key_comes_first_and_the_old_ones_stay(tmp_path: Path):
    first = load_keys(tmp_path)
    second = add_key(tmp_path)
    assert second[1:] == first
    third = add_key(tmp_path)
    assert third[1:] == second
    assert load_keys(tmp_path) == third
    assert stat.S_IMODE((tmp_path / KEYS_FILE).stat().st_mode) == 0o600
    assert add_key(tmp_path, 2)[1:] == third[:1]
    assert len(load_keys(tmp_path)) == 2


def test_a_rotation_without_a_file_makes_one(tmp_path: Path):
    keys = add_key(tmp_path)
    assert len(keys) == 1
    assert load_keys(tmp_path) == keys


def test_rotations_at_once_lose_no_key(tmp_path: Path):
    threads = [threading.Thread(target=add_key, args=(tmp_path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(load_keys(tmp_path))) == 8


def test_a_rotation_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch):
    keys = load_keys(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            add_key(tmp_path)
    assert load_keys(tmp_path) == keys
    assert not list(tmp_path.glob("*.part"))


# --- the environment --------------------------------------------------------------------------


def test_keys_of_the_environment_are_read_in_any_base64():
    keys = [bytes([251, 239, 190] * 10 + [255, 255]), KEY]
    usual = ",".join(base64.b64encode(key).decode() for key in keys)
    url_safe = " , ".join(base64.urlsafe_b64encode(key).decode().rstrip("=") for key in keys) + ","
    assert "/" in usual
    assert parse_keys(usual) == parse_keys(url_safe) == keys


@pytest.mark.parametrize("wrong", ["", " , ", "secret", f"{key_text(KEY)},{'A' * 42}", "ä" * 44])
def test_wrong_keys_are_told_without_being_repeated(wrong: str):
    with pytest.raises(StoreError) as caught:
        parse_keys(wrong)
    assert "sealing_keys" in caught.value.message
    assert not any(
        part.strip() and part.strip() in caught.value.message for part in wrong.split(",")
    )
