"""Bodies that are no JSON object, and the readers that the protocol tables are made of."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from ouzel.api import reading
from ouzel.api.read_errors import show
from ouzel.core.errors import RequestError


def test_a_plain_body_is_decoded() -> None:
    raw = '{"model": "m", "n": 1, "t": 0.5, "on": true, "none": null, "ö": ["\\ud83e\\udd86"]}'
    assert reading.decode_body(raw.encode()) == {
        "model": "m",
        "n": 1,
        "t": 0.5,
        "on": True,
        "none": None,
        "ö": ["🦆"],
    }


def test_the_last_of_two_equal_keys_counts() -> None:
    assert reading.decode_body(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "truncated"),
        (b"   \n", "truncated"),
        (b"{", "truncated"),
        (b'{"a": 1', "truncated"),
        (b"{'a': 1}", "malformed"),
        (b'{"a": 1,}', "trailing comma"),
        (b'{"a": 1} x', "trailing characters"),
        (b'{"a": 01}', "malformed"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": Infinity}', "malformed"),
        (b'{"a": -Infinity}', "malformed"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": -1e999}', "out of range"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "out of range"),
        (b'{"a": "\n"}', "malformed"),
        (b'{"a": "\x00"}', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        ('{"a": 1}'.encode("utf-16"), "malformed"),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b'{"\xff": 1}', "not valid UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"a": "\xc0\x80"}', "not valid UTF-8"),
        (b'{"a": "\\ud83e"}', "half of a surrogate pair"),
        (b'{"a": "\\udd86!"}', "half of a surrogate pair"),
        (b'{"a": "\\ud83e\\u0041"}', "half of a surrogate pair"),
        (b'{"\\ud83e": 1}', "half of a surrogate pair"),
    ],
)
def test_what_is_no_json_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        reading.decode_body(raw)
    assert words in caught.value.message
    assert (caught.value.status, caught.value.param, caught.value.code) == (
        400,
        None,
        "invalid_json",
    )


def test_whole_pairs_are_not_blamed_for_another_mistake() -> None:
    with pytest.raises(RequestError) as caught:
        reading.decode_body(b'{"a": "\\ud83e\\udd86",}')
    assert "surrogate" not in caught.value.message


@pytest.mark.parametrize(
    ("raw", "got"),
    [
        (b"[]", "an array"),
        (b'"x"', "a string"),
        (b"1", "an integer"),
        (b"1.5", "a decimal number"),
        (b"true", "a boolean"),
        (b"null", "null"),
    ],
)
def test_json_that_is_no_object_is_refused(raw: bytes, got: str) -> None:
    with pytest.raises(RequestError, match=f"expected an object, but got {got}") as caught:
        reading.decode_body(raw)
    assert caught.value.code == "invalid_type"


def nested(levels: int, opening: str, closing: str) -> bytes:
    """An object with something inside, `levels` deep in all."""
    inner = opening * (levels - 1) + "1" + closing * (levels - 1)
    return ('{"a":' + inner + "}").encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ("[1,", "]")])
def test_depth_is_bounded_exactly(opening: str, closing: str) -> None:
    reading.decode_body(nested(reading.MAX_DEPTH, opening, closing))
    for levels in (reading.MAX_DEPTH + 1, 900, 1_100, 5_000, 200_000):
        with pytest.raises(RequestError, match="deeper than 128 levels") as caught:
            reading.decode_body(nested(levels, opening, closing))
        assert caught.value.code == "invalid_json"


def test_depth_is_not_width() -> None:
    body = {"a": [[] for _ in range(1_000)], "b": [{"c": {}}] * 1_000}
    assert reading.decode_body(json.dumps(body).encode()) == body


def test_brackets_that_are_never_closed() -> None:
    with pytest.raises(RequestError):
        reading.decode_body(b'{"a":' + b"[" * 1_000_000)


def test_a_nearly_full_stack_is_no_other_error() -> None:
    """Python 3.11 counts the parser's levels and its own frames together; later ones do not."""

    def down(levels: int) -> str:
        if levels:
            return down(levels - 1)
        try:
            reading.decode_body(nested(reading.MAX_DEPTH, "[", "]"))
        except RequestError as error:
            return error.message
        return "read"

    end = down(sys.getrecursionlimit() - len(_frames()) - 60)
    assert end == "read" or "deeper than 128 levels" in end


def _frames() -> list[Any]:
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def test_paths_are_shown_as_clients_know_them() -> None:
    assert show(("model",)) == "model"
    assert show(("messages", 0, "content", 12, "type")) == "messages[0].content[12].type"


def test_an_error_repeats_only_a_little_of_what_was_sent() -> None:
    read = reading.record({"kind": reading.choice("a", "b")})
    long = "x" * 1_000_000
    for body in ({long: 1}, {"kind": long}):
        with pytest.raises(RequestError) as caught:
            read(body, ())
        assert len(caught.value.message) < 200
        assert len(caught.value.param or "") < 100


PATH = ("a", 1)


@pytest.mark.parametrize(
    ("reader", "good", "bad"),
    [
        (reading.boolean, [(True, True), (False, False)], [0, 1, "true", None, 1.0]),
        (
            reading.integer(0, 20),
            [(0, 0), (20, 20)],
            [-1, 21, 1.0, True, "1", None, [], 10**300],
        ),
        (
            reading.number(-2, 2),
            [(0, 0.0), (2, 2.0), (-1.5, -1.5)],
            [2.0001, -3, True, "1", None, 10**300, -(10**300)],
        ),
        (reading.text, [("", ""), ("a\0b", "a\0b")], [1, None, ["a"], "x" * 10_485_761]),
        (reading.string(3, shortest=1), [("a", "a"), ("äöü", "äöü")], ["", "abcd", "\0", 1, None]),
        (reading.choice("a", "b"), [("a", "a")], ["c", "", 1, None, ["a"], {}]),
        (
            reading.array(reading.boolean, longest=2, shortest=1),
            [([True], (True,)), ([True, False], (True, False))],
            [[], [True] * 3, [1], "ab", {}, None],
        ),
        (
            reading.mapping(reading.boolean, most=1, name=reading.choice("a", "b")),
            [({}, {}), ({"a": True}, {"a": True})],
            [{"a": 1}, {"a": True, "b": True}, {"c": True}, [], "a", None],
        ),
        (
            reading.record({"a": reading.boolean, "b": reading.text}, required=("a",)),
            [({"a": True}, {"a": True}), ({"a": True, "b": None}, {"a": True})],
            [{}, {"a": None}, {"b": "x"}, {"a": True, "c": None}, {"a": 1}, [], None],
        ),
        (
            reading.tagged("type", {"x": lambda value, _: value["v"]}, later=("y",)),
            [({"type": "x", "v": 1}, 1)],
            [{}, {"type": "y"}, {"type": "z"}, {"type": None}, {"type": []}, {"type": 1}, [], "x"],
        ),
        (
            reading.not_yet(True, "auto", [], {"type": "text"}),
            [(True, True), ("auto", "auto"), ([], []), ({"type": "text"}, {"type": "text"})],
            [1, False, "none", [1], {}, {"type": "json"}, None, 1.0],
        ),
        (
            reading.not_yet(False, of=reading.boolean),
            [(False, False)],
            [True, 0, "no", None],
        ),
    ],
)
def test_readers(reader: reading.Reader, good: list[tuple[Any, Any]], bad: list[Any]) -> None:
    for value, expected in good:
        got = reader(value, PATH)
        assert got == expected
        assert type(got) is type(expected)
    for value in bad:
        with pytest.raises(RequestError) as caught:
            reader(value, PATH)
        assert caught.value.status == 400
        assert caught.value.code
        assert (caught.value.param or "").startswith("a[1]")
        assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        (
            reading.integer(1, 8),
            9,
            "Invalid 'a[1]': integer above maximum value. "
            "Expected a value <= 8, but got 9 instead.",
        ),
        (
            reading.number(0, 2),
            -0.5,
            "Invalid 'a[1]': decimal below minimum value. "
            "Expected a value >= 0, but got -0.5 instead.",
        ),
        (
            reading.integer(1, 8),
            2.5,
            "Invalid type for 'a[1]': expected an integer, but got a decimal number instead.",
        ),
        (
            reading.choice("a", "b", "c"),
            "d",
            "Invalid value: 'd'. Supported values are: 'a', 'b' and 'c'.",
        ),
        (
            reading.not_yet("auto", True),
            "x",
            "Unsupported parameter: 'a[1]' is not supported by this server yet. "
            "Leave it out or send 'auto' or true.",
        ),
        (
            reading.string(2),
            "abc",
            "Invalid 'a[1]': string too long. Expected a string with maximum length 2, "
            "but got a string with length 3 instead.",
        ),
    ],
)
def test_errors_say_what_would_be_right(reader: reading.Reader, value: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        reader(value, PATH)
    assert caught.value.message == message
