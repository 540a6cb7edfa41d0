"""Names from anywhere: made harmless, never refused without need, never part of a path."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from files_samples import OWNER, body_of, chunks, on_disk, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ouzel.core.errors import RequestError
from ouzel.store.files_names import NAME_BYTES, clean_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "a.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a b.txt", "a b.txt"),
        ("/a/b\\c", "c"),
        ("a\0b.txt", "a_b.txt"),
        ("a\r\nSet-Cookie: b", "a__Set-Cookie: b"),
        ("exe.\u202efdp", "exe._fdp"),
        ("\ud800.txt", "_.txt"),
        ("  padded.txt ", "padded.txt"),
        ("Grüße 🐦.txt", "Grüße 🐦.txt"),
        (".hidden", ".hidden"),
        ("...", "..."),
        ("x" * 300 + ".csv", "x" * 251 + ".csv"),
        ("é" * 200 + ".csv", "é" * 125 + ".csv"),
        ("x" * 300, "x" * 255),
        ("." + "x" * 300, "." + "x" * 254),
        ("a." + "x" * 300, "a." + "x" * 253),
    ],
)
def test_a_name_is_made_harmless(name: str, expected: str) -> None:
    assert clean_name(name, "file") == expected


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "a/", "\\", "   ", "/ . "])
def test_a_name_of_which_nothing_is_left_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        clean_name(name, "filename")
    assert (caught.value.param, caught.value.code) == ("filename", "invalid_value")


ANY = st.text(st.characters(exclude_categories=()), max_size=400)
HOSTILE = st.one_of(
    ANY,
    st.lists(
        st.sampled_from(["..", "/", "\\", "\0", ".", "\n", "~", "%2e%2e%2f", "é" * 90, "con", " "]),
        max_size=9,
    ).map("".join),
)


@settings(max_examples=1000, deadline=None)
@given(HOSTILE)
def test_what_is_left_of_any_name_can_be_a_name(name: str) -> None:
    try:
        cleaned = clean_name(name, "file")
    except RequestError:
        return
    assert 1 <= len(cleaned.encode()) <= NAME_BYTES
    assert cleaned not in {".", ".."}
    assert not set(cleaned) & set("/\\")
    assert not {unicodedata.category(each) for each in cleaned} & {"Cc", "Cs", "Zl", "Zp"}
    assert cleaned == cleaned.strip()
    assert clean_name(cleaned, "file") == cleaned


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(HOSTILE, min_size=1, max_size=5))
async def test_no_name_decides_where_bytes_lie(tmp_path: Path, names: list[str]) -> None:
    async with opened(tmp_path) as (files, _):
        before = {each for each in tmp_path.rglob("*") if "kept" not in each.parts}
        for name in names:
            try:
                file = await files.create(OWNER, name, "user_data", chunks(b"x"))
            except RequestError:
                continue
            assert await files.load(file.id, OWNER) == file
            assert file.id in on_disk(tmp_path)
            assert await body_of(files, file) == b"x"
            await files.delete(file.id, OWNER)
        assert {each for each in tmp_path.rglob("*") if "kept" not in each.parts} == before
        assert not any(each.startswith("file-") for each in on_disk(tmp_path))
