"""Code that was run, citations and files, as clients send them back or along."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.api import read_chat, read_query, read_responses, write_items
from ouzel.api.read_items import read_input
from ouzel.core.errors import RequestError
from ouzel.core.items import CodeCall, File, FileCitation, Logs, Message, Picture, Text

SHORT = st.text(max_size=20)
CALLS = st.builds(
    CodeCall,
    st.just("ci_1"),
    st.just("cntr_1"),
    SHORT,
    st.lists(st.builds(Logs, SHORT) | st.builds(Picture, SHORT), max_size=4).map(tuple),
    status=st.sampled_from(["in_progress", "interpreting", "completed", "incomplete", "failed"]),
)


@given(CALLS)
def test_code_that_was_run_reads_back_as_it_was(call: CodeCall) -> None:
    written = write_items.item(call, (write_items.OUTPUTS,))
    (read,) = read_input([written], ("input",))
    ended = call.status not in ("in_progress", "interpreting")
    outputs = call.outputs if ended else ()
    said = "\n".join(each.text for each in outputs if isinstance(each, Logs))
    assert read == CodeCall("ci_1", "cntr_1", call.code, outputs, said, call.status)
    (bare,) = read_input([write_items.item(call)], ("input",))
    assert (bare.outputs, bare.result) == ((), "")


def test_citations_read_back_and_others_are_left_out() -> None:
    cited = FileCitation("cntr_1", "cfile_1", "a.csv", 4, 9)
    message = Message("msg_1", "assistant", (Text("See a.csv", annotations=(cited,)),))
    written = write_items.item(message)
    assert read_input([written], ("input",)) == (message,)
    link = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    written["content"][0]["annotations"].append(link)
    assert read_input([written], ("input",)) == (message,)


def user(**part: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_file", **part}]}]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ({"file_id": "file-1"}, File("file-1")),
        ({"file_id": "file-1", "filename": "a.csv"}, File("file-1", "a.csv")),
        ({"filename": "a", "file_data": "YQ=="}, File(name="a", data="YQ==")),
        (
            {"filename": "a", "file_data": "data:text/csv;charset=utf-8;base64,YQ=="},
            File(name="a", data="YQ=="),
        ),
        ({"file_id": "file-1", "file_data": None, "detail": "auto"}, File("file-1")),
    ],
)
def test_files_are_read(part: dict[str, Any], wanted: File) -> None:
    (message,) = read_input(user(**part), ("input",))
    assert message.parts == (wanted,)
    inner = {name: value for name, value in part.items() if name != "detail"}
    content = [{"type": "file", "file": inner}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert read_chat.read(body).request.input[0].parts == (wanted,)


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({}, "file_id"),
        ({"file_data": "YQ=="}, "filename"),
        ({"filename": "a", "file_data": "Y Q=="}, "file_data"),
        ({"filename": "a", "file_data": "YQ="}, "file_data"),
        ({"filename": "a", "file_data": "data:text/plain,a"}, "file_data"),
        ({"filename": "a", "file_data": "YQ==", "file_id": "file-1"}, "file_data"),
        ({"filename": "../a", "file_data": "YQ=="}, "filename"),
        ({"filename": "..", "file_data": "YQ=="}, "filename"),
        ({"filename": "a\\b", "file_data": "YQ=="}, "filename"),
        ({"filename": "a\nb", "file_data": "YQ=="}, "filename"),
        ({"file_url": "https://a"}, "file_url"),
    ],
)
def test_files_that_cannot_be_taken_are_named(part: dict[str, Any], place: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_input(user(**part), ("input",))
    assert caught.value.param == f"input[0].content[0].{place}"


def test_include_is_kept_and_unknown_names_are_refused() -> None:
    asked = read_responses.read({"model": "m", "input": "a", "include": [write_items.OUTPUTS]})
    assert asked.request.include == {write_items.OUTPUTS}
    pairs = [("include[]", write_items.OUTPUTS)]
    assert read_query.read_retrieve(pairs).include == read_query.read_page(pairs).include
    for name in ("web_search_call.results", "nothing"):
        with pytest.raises(RequestError):
            read_query.read_retrieve([("include[]", name)])


def test_the_place_of_a_file_in_chat_is_found_among_messages() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "reasoning_content": "b", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    asked = read_chat.read({"model": "m", "messages": messages})
    assert len(asked.request.input) == 4
    assert asked.place("input[3].content[1].file_id") == "messages[2].content[1].file.file_id"
    assert asked.place("input[1].content[1].file_id") == "messages"
    assert asked.place("tools[0].container") == "tools[0].container"
    assert asked.place(None) is None
