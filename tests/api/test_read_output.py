"""Formats, efforts, summaries and verbosity, and the header that sets a deadline."""

from __future__ import annotations

from typing import Any

import pytest

from ouzel.api import read_chat, read_headers, read_responses
from ouzel.core.errors import RequestError
from ouzel.core.request import Format

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
TEXT = '{"type":"object","properties":{},"additionalProperties":false}'


def chat(said: str = "Write JSON.", **more: Any) -> Any:
    messages = [{"role": "user", "content": said}]
    return read_chat.read({"model": "m", "messages": messages, **more}).request


def responses(said: str = "Write JSON.", **more: Any) -> Any:
    return read_responses.read({"model": "m", "input": said, **more}).request


def refused(read: Any, *args: Any, **more: Any) -> tuple[str | None, str | None]:
    with pytest.raises(RequestError) as caught:
        read(*args, **more)
    return caught.value.param, caught.value.code


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"type": "text"}, Format()),
        ({"type": "json_object"}, Format("json_object")),
        (
            {"type": "json_schema", "name": "n", "schema": SCHEMA},
            Format("json_schema", "n", None, TEXT),
        ),
        (
            {
                "type": "json_schema",
                "name": "n",
                "description": "d",
                "schema": SCHEMA,
                "strict": True,
            },
            Format("json_schema", "n", "d", TEXT, strict=True),
        ),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "array"}, "strict": False},
            Format("json_schema", "n", None, '{"type":"array"}', strict=False),
        ),
    ],
)
def test_formats_are_read_alike(sent: dict[str, Any], read: Format) -> None:
    assert responses(text={"format": sent}).format == read
    if sent["type"] == "json_schema":
        inner = {key: value for key, value in sent.items() if key != "type"}
        sent = {"type": "json_schema", "json_schema": inner}
    assert chat(response_format=sent).format == read


def test_what_is_wrong_with_a_format_is_named() -> None:
    missing, schema = "missing_required_parameter", "invalid_json_schema"
    bad: list[tuple[dict[str, Any], str, str]] = [
        ({"name": "n"}, ".schema", missing),
        ({"schema": SCHEMA}, ".name", missing),
        ({"name": "a b", "schema": SCHEMA}, ".name", "invalid_value"),
        ({"name": "n", "schema": []}, ".schema", "invalid_type"),
        ({"name": "n", "schema": {"type": "object"}, "strict": True}, ".schema", schema),
        ({"name": "n", "schema": {"type": "thing"}}, ".schema", schema),
        ({"name": "n", "schema": SCHEMA, "strict": 1}, ".strict", "invalid_type"),
        ({"name": "n", "schema": SCHEMA, "x": 1}, ".x", "unknown_parameter"),
    ]
    for sent, where, code in bad:
        whole = {"type": "json_schema", **sent}
        assert refused(responses, text={"format": whole}) == (f"text.format{where}", code)
        if where == ".schema" and code == missing:
            continue  # Chat Completions do without
        asked = {"type": "json_schema", "json_schema": sent}
        param = f"response_format.json_schema{where}"
        assert refused(chat, response_format=asked) == (param, code)
    nothing = {"type": "json_schema", "json_schema": {"name": "n"}}
    assert chat(response_format=nothing).format == Format("json_schema", "n")


def test_json_must_have_been_asked_for() -> None:
    asked = {"type": "json_object"}
    assert refused(chat, "Hello", response_format=asked) == ("messages", "invalid_value")
    assert refused(responses, "Hello", text={"format": asked}) == ("input", "invalid_value")
    assert responses("Hello", instructions="Use JsOn.", text={"format": asked}).format.type
    # What an earlier response was told is not known to a reader.
    assert responses("Hello", previous_response_id="resp_1", text={"format": asked}).previous_id


def test_efforts_are_read() -> None:
    for effort in ("none", "minimal", "low", "medium", "high"):
        assert chat(reasoning_effort=effort).effort == effort
        assert responses(reasoning={"effort": effort}).effort == effort
    for effort in ("xhigh", "max"):
        unsupported = "unsupported_value"
        assert refused(chat, reasoning_effort=effort) == ("reasoning_effort", unsupported)
        asked = {"effort": effort}
        assert refused(responses, reasoning=asked) == ("reasoning.effort", unsupported)
    assert refused(responses, reasoning={"effort": "huge"})[1] == "invalid_value"
    assert (chat().effort, responses(reasoning={"effort": None}).effort) == (None, None)
    with pytest.raises(RequestError) as caught:
        chat(reasoning_effort="max")
    assert caught.value.message == (
        "Unsupported value: 'reasoning_effort' does not support 'max' with this server. Supported "
        "values are: 'none', 'minimal', 'low', 'medium' and 'high'."
    )


def test_summaries_are_read_by_both_names() -> None:
    for summary in ("auto", "concise", "detailed"):
        assert responses(reasoning={"summary": summary}).summary == summary
        assert responses(reasoning={"generate_summary": summary}).summary == summary
        both = {"summary": summary, "generate_summary": summary}
        assert responses(reasoning=both).summary == summary
    at_odds = {"summary": "auto", "generate_summary": "concise"}
    param = "reasoning.generate_summary"
    assert refused(responses, reasoning=at_odds) == (param, "invalid_parameter_combination")
    assert refused(responses, reasoning={"summary": "long"})[1] == "invalid_value"
    assert refused(responses, reasoning={"depth": 1})[1] == "unknown_parameter"
    assert refused(responses, reasoning={"context": "all_turns"})[1] == "unsupported_parameter"
    assert responses(reasoning={"context": "auto", "mode": "standard"}).summary is None


def test_verbosity_is_read() -> None:
    for verbosity in ("low", "medium", "high"):
        assert chat(verbosity=verbosity).verbosity == verbosity
        assert responses(text={"verbosity": verbosity}).verbosity == verbosity
    assert (chat().verbosity, responses().verbosity) == ("medium", "medium")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("15", 15.0), (" 2.5 ", 2.5), ("3600", 3600.0), ("0.000001", 0.000001)],
)
def test_the_deadline_is_read(text: str, seconds: float) -> None:
    assert read_headers.answer_within([text]) == seconds
    body = {"model": "m", "input": "a"}
    assert read_responses.read(body, answer_within=seconds).request.answer_within == seconds


@pytest.mark.parametrize(
    "values",
    [[""], ["-1"], ["3600.1"], ["1e3"], ["nan"], ["inf"], ["1,5"], ["٣"], ["a" * 9999], ["5", "5"]],
)
def test_a_bad_deadline_is_named(values: list[str]) -> None:
    param, code = refused(read_headers.answer_within, values)
    assert (param, code) == ("x-answer-within", "invalid_header")
    assert read_headers.answer_within([]) is None
