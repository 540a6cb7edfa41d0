"""Names of files: what is refused, what is made usable, what first bytes say."""

from __future__ import annotations

import pytest

from ouzel.sandbox.container_names import (
    HEAD_BYTES,
    checked_name,
    file_id,
    is_container_id,
    is_shown,
    media_type,
    tamed_name,
)

BAD = ["", ".", "..", "a/b", "../a", "/etc/passwd", "a\\b", "a\0b", "a\nb", "x" * 256, "é" * 128]
BAD += [".bashrc", "\ud800", "a\u202eb", "\x7f", "__pycache__", "n" * 4096]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_and_tamed(name: str) -> None:
    with pytest.raises(ValueError, match="it "):
        checked_name(name)
    tamed = tamed_name(name)
    assert checked_name(tamed) == tamed
    assert is_shown(tamed)


@pytest.mark.parametrize("name", ["data.csv", "a b.txt", "Größe.xlsx", "n" * 255, "👩‍💻.py"])
def test_good_names_stay(name: str) -> None:
    assert checked_name(name) == name
    assert tamed_name(name) == name


def test_names_are_composed_and_made_different() -> None:
    assert checked_name("Gro\u0308ße.csv") == "Größe.csv"
    assert tamed_name("data.csv", {"data.csv"}) == "data-2.csv"
    assert tamed_name("data.csv", {"data.csv", "data-2.csv"}) == "data-3.csv"
    assert tamed_name("n" * 300, {"n" * 255}) == "n" * 253 + "-2"
    assert tamed_name("../../etc/passwd") == "_.._.._etc_passwd"


@pytest.mark.parametrize(
    "text", ["", "cntr_", "cntr_" + "0" * 47, "cntr_" + "0" * 49, "cntr_" + "g" * 48, "../etc"]
)
def test_only_ids_of_ours_become_paths(text: str) -> None:
    assert not is_container_id(text)
    assert not is_container_id("cntr_" + "0" * 48 + "\n")
    assert is_container_id("cntr_" + "0a" * 24)


def test_a_files_id_follows_from_container_and_path() -> None:
    assert file_id("cntr_a", "x.csv") == file_id("cntr_a", "x.csv")
    assert len({file_id("cntr_a", "x"), file_id("cntr_b", "x"), file_id("cntr_a", "y")}) == 3
    assert len(file_id("cntr_a", "x")) == len("cfile_") + 48


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.bin", b"\x89PNG\r\n\x1a\n...", "image/png"),
        ("a.png", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a", b"GIF89a", "image/gif"),
        ("a", b"RIFF\0\0\0\0WEBPVP8", "image/webp"),
        ("a.txt", b"%PDF-1.7", "application/pdf"),
        ("a.zip", b"PK\x03\x04", "application/zip"),
        (
            "a.xlsx",
            b"PK\x03\x04",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ),
        ("a.json", b'{"a": 1}', "application/json"),
        ("a.csv", b"a,b\n1,2\n", "text/csv"),
        ("a.txt", b"<!DOCTYPE html><p>", "text/html"),
        ("a", b'<?xml version="1.0"?><svg ', "image/svg+xml"),
        ("a.svg", b"<svg>", "image/svg+xml"),
        ("a.png", b"no picture", "text/plain"),
        ("a.csv", b"\0\1\2", "application/octet-stream"),
        ("a.csv", b"\xff\xfe", "application/octet-stream"),
        ("a.txt", b"", "text/plain"),
        ("a.txt", b"x" * (HEAD_BYTES - 1) + "é".encode()[:1], "text/plain"),
    ],
)
def test_content_says_what_a_file_is(name: str, head: bytes, expected: str) -> None:
    assert media_type(name, head) == expected
