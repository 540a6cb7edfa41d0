"""Query strings: what is read from good ones, and where bad ones are wrong."""

from __future__ import annotations

import pytest

from ouzel.api import read_query
from ouzel.api.read_query import ChatPage, Page, Retrieve
from ouzel.core.errors import RequestError

SEALED = "reasoning.encrypted_content"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ([], Retrieve()),
        ([("stream", "false")], Retrieve()),
        ([("stream", "true")], Retrieve(stream=True)),
        ([("stream", "1"), ("starting_after", "0")], Retrieve(stream=True, starting_after=0)),
        (
            [("stream", "True"), ("starting_after", "9999999999")],
            Retrieve(stream=True, starting_after=9_999_999_999),
        ),
        ([("include", SEALED)], Retrieve(frozenset({SEALED}))),
        ([("include_obfuscation", "false")], Retrieve()),
    ],
)
def test_how_a_response_is_wanted(query: list[tuple[str, str]], wanted: Retrieve) -> None:
    assert read_query.read_retrieve(query) == wanted


def test_an_event_number_without_a_stream_is_refused() -> None:
    for query in ([("starting_after", "3")], [("stream", "false"), ("starting_after", "3")]):
        with pytest.raises(RequestError) as caught:
            read_query.read_retrieve(query)
        assert caught.value.param == "starting_after"
        assert caught.value.code == "invalid_parameter_combination"


@pytest.mark.parametrize("number", ["", "-1", "1.0", "+1", "٣", "1" * 11, "1e3", "0x1", " 1"])
def test_an_event_number_is_a_number(number: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_query.read_retrieve([("stream", "true"), ("starting_after", number)])
    assert (caught.value.param, caught.value.code) == ("starting_after", "invalid_value")


def test_pages_begin_where_each_list_usually_does() -> None:
    assert read_query.read_page([]) == Page(None, 20, "desc")
    assert read_query.read_messages_page([]) == Page(None, 20, "asc")
    assert read_query.read_chat_page([]) == ChatPage(Page(None, 20, "asc"))
    asked = [("after", "x"), ("limit", "3"), ("order", "desc")]
    assert read_query.read_messages_page(asked) == Page("x", 3, "desc")
    with_more = [*asked, ("include[]", SEALED)]
    assert read_query.read_page(with_more) == Page("x", 3, "desc", frozenset({SEALED}))


def test_completions_are_wanted_by_model_and_metadata() -> None:
    query = [("metadata[a]", "1"), ("model", "m"), ("metadata[b[c]]", "é"), ("metadata[]", "")]
    asked = read_query.read_chat_page(query)
    assert (asked.model, asked.metadata) == ("m", {"a": "1", "b[c]": "é", "": ""})


def test_what_is_to_be_shown_may_be_all_that_is_said() -> None:
    assert read_query.read_included([("include", SEALED)]) == frozenset({SEALED})
    with pytest.raises(RequestError) as caught:
        read_query.read_included([("limit", "1")])
    assert (caught.value.param, caught.value.code) == ("limit", "unknown_parameter")
