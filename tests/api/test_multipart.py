from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from itertools import pairwise

import pytest
from files_kit import BOUNDARY, FORM, Field, form
from hypothesis import given, settings
from hypothesis import strategies as st

from ouzel.api.read_multipart import Form, WrongContentType, is_form
from ouzel.core.errors import RequestError, TooLarge

FIELDS = ("purpose", "note")


async def _pieces(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


async def _read(
    pieces: Iterable[bytes], most: int, content_type: str, named: bool
) -> tuple[str | None, bytes | None, dict[str, str]]:
    made = Form(
        content_type,
        _pieces(pieces),
        file="file",
        fields=FIELDS,
        most=most,
        filename_needed=named,
    )
    async with made as reading:
        if not await reading.begin():
            return None, None, reading.values
        data = b"".join([piece async for piece in reading.content()])
        return reading.filename, data, reading.values


def read(
    *pieces: bytes,
    most: int = 10_000,
    content_type: str = FORM["content-type"],
    named: bool = True,
) -> tuple[str | None, bytes | None, dict[str, str]]:
    return asyncio.run(_read(pieces, most, content_type, named))


def refused(body: bytes, **more: object) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(body, **more)  # type: ignore[arg-type]
    assert caught.value.status in (400, 413, 415)
    return caught.value


def read_or_refused(*pieces: bytes, **more: str) -> None:
    """Nothing but a RequestError may come out."""
    with suppress(RequestError):
        read(*pieces, **more)


def test_a_file_and_the_fields_before_and_after_it() -> None:
    body = form(
        Field("purpose", "vision"), Field("file", b"\0\r\n--", "a b.png"), Field("note", "ü")
    )
    assert read(body) == ("a b.png", b"\0\r\n--", {"purpose": "vision", "note": "ü"})


def test_a_form_without_a_file_is_read_to_its_end() -> None:
    assert read(form(Field("note", "x"))) == (None, None, {"note": "x"})
    assert read(form()) == (None, None, {})


def test_what_comes_around_the_form_is_left_out() -> None:
    body = form(Field("file", b"data", "f"))
    assert read(b"\r\n" + body + b"that is all\r\n--limit\r\nno more") == ("f", b"data", {})


contents = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", BOUNDARY.encode(), b"\0", b"ab", b" "])
    | st.binary(max_size=6),
    max_size=12,
).map(b"".join)


def _holds_no_boundary(data: bytes) -> bool:
    return f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + data + b"\r\n--"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(contents.filter(_holds_no_boundary), st.text("abc ", max_size=5), st.data())
def test_bytes_come_through_however_they_are_cut(
    data: bytes, note: str, cut: st.DataObject
) -> None:
    body = form(Field("purpose", note), Field("file", data, "f.bin"), Field("note", note))
    places = sorted(cut.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    ends = [0, *places, len(body)]
    pieces = [body[a:b] for a, b in pairwise(ends)]
    assert read(*pieces) == ("f.bin", data, {"purpose": note, "note": note})


@settings(max_examples=300, deadline=None, derandomize=True)
@given(contents, st.integers(0, 400), st.data())
def test_a_form_that_breaks_off_is_refused(data: bytes, at: int, cut: st.DataObject) -> None:
    body = form(Field("purpose", "x"), Field("file", data, "f.bin"))
    short = body[: min(at, len(body) - len("\r\n") - 1)]
    refused(short)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.data())
def test_any_bytes_are_read_or_refused(given_data: st.DataObject) -> None:
    body = bytearray(form(Field("purpose", "x"), Field("file", b"some data\r\n", "f.bin")))
    for _ in range(given_data.draw(st.integers(0, 5))):
        at = given_data.draw(st.integers(0, len(body)))
        gone = given_data.draw(st.integers(0, 4))
        body[at : at + gone] = given_data.draw(
            st.binary(max_size=4) | st.sampled_from([b"\r\n", b"--", b"\r\n--" + BOUNDARY.encode()])
        )
    size = given_data.draw(st.integers(1, 30))
    pieces = [bytes(body[at : at + size]) for at in range(0, len(body), size)]
    read_or_refused(*pieces)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.text(max_size=40))
def test_any_header_of_a_part_and_any_content_type(header: bytes, content_type: str) -> None:
    body = b"--limit\r\ncontent-disposition: " + header + b"\r\n\r\nx\r\n--limit--\r\n"
    for kind in (FORM["content-type"], content_type, f"multipart/form-data; {content_type}"):
        read_or_refused(body, content_type=kind)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("plain.txt", "plain.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\files\\\\a.csv", "a.csv"),
        ("Zeichnung ü 💩.png", "Zeichnung ü 💩.png"),
        ("a%22b.txt", 'a"b.txt'),
        ('a\\"b.txt', 'a"b.txt'),
        ("50%25.txt", "50%25.txt"),
        ("a;b=c.txt", "a;b=c.txt"),
    ],
)
def test_names_come_through_without_their_folders(given_name: str, name: str) -> None:
    assert read(form(Field("file", b"", given_name)))[0] == name


def test_a_file_that_needs_no_name_may_have_none() -> None:
    assert read(form(Field("file", b"x")), named=False) == ("", b"x", {})
    assert read(form(Field("file", b"x", "")), named=False) == ("", b"x", {})


@pytest.mark.parametrize("given_name", [None, "", ".", "..", "folder/", "\udcff", "a\0b"])
def test_a_file_that_needs_a_name_is_refused_without_one(given_name: str | None) -> None:
    refused(form(Field("file", b"x", given_name)))


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([Field("file", b"", "f"), Field("file", b"", "g")], "file", "invalid_value"),
        ([Field("note", "a"), Field("note", "b")], "note", "invalid_value"),
        ([Field("file", b"", "f"), Field("other", "b")], "other", "unknown_parameter"),
        ([Field("other", "b")], "other", "unknown_parameter"),
        ([Field("", "b")], "", "unknown_parameter"),
        ([Field("note", b"\xff")], "note", "invalid_value"),
        ([Field("note", "a\0")], "note", "invalid_value"),
        ([Field("note", "a" * 5000)], "note", "invalid_value"),
        ([Field("file", b"", "f")] * 20, None, "invalid_form"),
        ([Field("note", "a", headers=("x: y",) * 20)], None, "invalid_form"),
        ([Field("note", "a", headers=("x: " + "y" * 5000,))], None, "invalid_form"),
        ([Field("note", "a", headers=("content-disposition: form-data; name=b",))], None, None),
        ([Field("note", "YQ==", headers=("content-transfer-encoding: base64",))], None, None),
        ([Field("note", "a", headers=("no colon",))], None, "invalid_form"),
    ],
)
def test_what_is_wrong_is_named(fields: list[Field], param: str | None, code: str | None) -> None:
    error = refused(form(*fields))
    assert (error.param, error.code) == (param, code or "invalid_form")


def test_too_many_parts_are_refused_before_they_are_read() -> None:
    body = b"".join(form(Field("note", ""), end=False) for _ in range(1000))
    error = refused(b"--limit\r\nContent-Disposition: form-data; name=purpose\r\n\r\n\r\n" + body)
    assert error.code in ("invalid_form", "invalid_value")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=x",
        "text/plain; a=multipart/form-data",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=ü",
        "multipart/form-data; boundary=\u20ac",
        'multipart/form-data; boundary="a\r\nb"',
        "multipart/form-data; border=x",
    ],
)
def test_what_is_no_form_is_refused(content_type: str) -> None:
    error = refused(form(), content_type=content_type)
    assert error.param == "content-type"
    assert isinstance(error, WrongContentType) is not is_form(content_type)


def test_a_boundary_may_be_quoted_and_the_type_in_capitals() -> None:
    body = form(Field("note", "x"), boundary="a b")
    kind = 'Multipart/Form-Data; charset=utf-8; boundary="a b"'
    assert read(body, content_type=kind)[2] == {"note": "x"}


def test_a_file_over_the_limit_is_refused_while_it_comes() -> None:
    taken = 0

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        yield form(Field("file", b"", "f"), end=False).removesuffix(b"\r\n")
        while True:
            taken += 1000
            yield b"x" * 1000

    async def run() -> None:
        made = Form(FORM["content-type"], pieces(), file="file", most=10_000)
        async with made as reading:
            assert await reading.begin()
            async for _ in reading.content():
                pass

    with pytest.raises(TooLarge) as caught:
        asyncio.run(run())
    assert (caught.value.param, caught.value.code) == ("file", "file_too_large")
    assert taken < 12_000


def test_a_file_of_exactly_the_limit_is_taken() -> None:
    assert read(form(Field("file", b"x" * 100, "f")), most=100)[1] == b"x" * 100
    assert refused(form(Field("file", b"x" * 101, "f")), most=100).status == 413
