from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.api.ranges import Span, Unsatisfiable, has_already, read_range, still_holds


@pytest.mark.parametrize(
    ("header", "start", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=3-5", 3, 3),
        ("bytes=9-", 9, 1),
        ("bytes=0-", 0, 10),
        ("bytes=5-99", 5, 5),
        ("bytes=-1", 9, 1),
        ("bytes=-10", 0, 10),
        ("bytes=-99", 0, 10),
        ("BYTES = 2 - 4 ", 2, 3),
        ("bytes=000000000000000000000000001-2", 1, 2),
        ("bytes=0-" + "9" * 5000, 0, 10),
        ("bytes=-" + "9" * 5000, 0, 10),
    ],
)
def test_one_range_is_cut_to_the_file(header: str, start: int, length: int) -> None:
    assert read_range(header, 10) == Span(start, length)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-3",
        "bytes=1-2,4-5",
        "bytes=0-0,",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=1.5-3",
        "bytes=\u0661-\u0662",
        "lines=1-2",
        "0-5",
    ],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert read_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        ("bytes=" + "9" * 5000 + "-", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=-5", 0),
    ],
)
def test_a_range_beyond_the_end_cannot_be_had(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        read_range(header, size)


@given(st.text("bytes=-,0123456789 ", max_size=30), st.integers(0, 50))
def test_any_header_gives_bytes_that_are_there(header: str, size: int) -> None:
    try:
        span = read_range("bytes=" + header, size)
    except Unsatisfiable:
        return
    if span is not None:
        data = bytes(range(size))
        assert 0 <= span.start < size
        assert len(data[span.start : span.start + span.length]) == span.length >= 1
        assert span.told(size) == f"bytes {span.start}-{span.start + span.length - 1}/{size}"


@given(st.text(max_size=40))
def test_any_other_header_is_answered(header: str) -> None:
    assert read_range(header, 10) is None or header.strip().lower().startswith("bytes")
    has_already(header, '"abc"')
    still_holds(header, '"abc"')


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, False),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"abcd"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_a_client_that_has_it_says_so(header: str | None, told: bool) -> None:
    assert has_already(header, '"abc"') is told


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        (None, True),
        ('"abc"', True),
        ('W/"abc"', False),
        ('"other"', False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False),
    ],
)
def test_a_range_holds_for_the_same_bytes_only(header: str | None, holds: bool) -> None:
    assert still_holds(header, '"abc"') is holds
