"""Bodies that no well-meaning client sends, each with the one answer that it deserves.

Each row is a request as bytes, and status, `param` and `code` of the answer. All go to one
server, one after the other, so what one of them breaks the next would notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_kit import Background, Bad, background, exchange, refuse, request

from doubles import scripted
from wire import checks

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "o4-mini", "input": "hi"}
TELL: dict[str, Any] = {"model": "o4-mini", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with background(scripted(window=2000), tmp_path_factory.mktemp("home")) as running:
        yield running


def body(name: str, raw: bytes, code: str = "invalid_json", path: str = RESPONSES) -> Bad:
    return Bad(f"{path}: {name}", request(path, raw), code)


def nested(levels: int) -> bytes:
    return b'{"model": "o4-mini", "input": ' + b"[" * levels + b"]" * levels + b"}"


def number(field: str, digits: bytes, code: str, param: str | None = None) -> Bad:
    raw = b'{"model": "o4-mini", "input": "hi", "%b": %b}' % (field.encode(), digits)
    return Bad(f"{field} {digits[:12].decode()}", request(RESPONSES, raw), code, param)


BODIES = [
    bad
    for path in (RESPONSES, CHAT, "/v1/responses/input_tokens")
    for bad in (
        body("nothing", b"", path=path),
        body("white space", b" \n\t", path=path),
        body("words", b"hello", path=path),
        body("a form", b"model=o4-mini&input=hi", path=path),
        body("cut off", b'{"model": "o4-mini", "in', path=path),
        body("two of them", b"{} {}", path=path),
        body("an array", b"[]", "invalid_type", path),
        body("null", b"null", "invalid_type", path),
        body("a string", b'"{}"', "invalid_type", path),
        body("a byte order mark", b"\xef\xbb\xbf{}", path=path),
        body("UTF-16", '{"model": "o4-mini"}'.encode("utf-16"), path=path),
        body("broken UTF-8", b'{"model": "o4-mini", "input": "\xff\xfe"}', path=path),
        body("overlong UTF-8", b'{"model": "o4-mini", "input": "\xc0\xaf"}', path=path),
        body("half a character, escaped", b'{"model": "\\ud83d"}', path=path),
        body("half a character, raw", b'{"model": "\xed\xa0\xbd"}', path=path),
        body("half a character as a key", b'{"\\udead": 1}', path=path),
        body("a raw line feed in a string", b'{"model": "o4\nmini"}', path=path),
        body("200 levels", nested(200), path=path),
        body("a million levels", nested(1_000_000), path=path),
        body("open brackets only", b"[" * 200_000, path=path),
        body("not a number", b'{"model": NaN}', path=path),
        body("infinity", b'{"model": -Infinity}', path=path),
        body("1e400", b'{"model": 1e400}', path=path),
        body("5,000 digits", b'{"model": ' + b"7" * 5000 + b"}", path=path),
    )
]

NUMBERS = [
    number("max_output_tokens", b"0", "integer_below_min_value", "max_output_tokens"),
    number("max_output_tokens", b"15", "integer_below_min_value", "max_output_tokens"),
    number("max_output_tokens", b"-1", "integer_below_min_value", "max_output_tokens"),
    number("max_output_tokens", b"64.0", "invalid_type", "max_output_tokens"),
    number("max_output_tokens", b"true", "invalid_type", "max_output_tokens"),
    number("max_output_tokens", b"2147483648", "integer_above_max_value", "max_output_tokens"),
    number("max_output_tokens", b"%d" % 2**64, "integer_above_max_value", "max_output_tokens"),
    number("max_output_tokens", b"-%d" % 2**70, "integer_below_min_value", "max_output_tokens"),
    number("max_output_tokens", b"1e3", "invalid_type", "max_output_tokens"),
    number("temperature", b"2.0000001", "decimal_above_max_value", "temperature"),
    number("temperature", b"-1e-300", "decimal_below_min_value", "temperature"),
    number("temperature", b"1e308", "decimal_above_max_value", "temperature"),
    number("temperature", b"1" * 300, "decimal_above_max_value", "temperature"),
    number("temperature", b'"1"', "invalid_type", "temperature"),
    number("temperature", b"-1e400", "invalid_json"),
    number("top_p", b"1.5", "decimal_above_max_value", "top_p"),
    number("top_logprobs", b"21", "integer_above_max_value", "top_logprobs"),
    number("top_logprobs", b"-1", "integer_below_min_value", "top_logprobs"),
    number("presence_penalty", b"-2.5", "decimal_below_min_value", "presence_penalty"),
    number("frequency_penalty", b"[1]", "invalid_type", "frequency_penalty"),
]


def ask(code: str, param: str | None, status: int = 400, **fields: Any) -> Bad:
    name = json.dumps(fields)[:40]
    return Bad(f"responses {name}", request(RESPONSES, ASK | fields), code, param, status)


def without(path: str, whole: dict[str, Any], field: str) -> Bad:
    rest = {name: value for name, value in whole.items() if name != field}
    return Bad(f"{path}: no {field}", request(path, rest), "missing_required_parameter", field)


def items(code: str, param: str, *given: Any) -> Bad:
    return ask(code, param, input=list(given))


MESSAGE = {"role": "user", "content": "hi"}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
ASKED = [
    without(RESPONSES, ASK, "model"),
    without(RESPONSES, ASK, "input"),
    ask("model_not_found", "model", 404, model="gpt-9"),
    ask("model_not_found", "model", 404, model="../../etc/passwd"),
    ask("model_not_found", "model", 404, model="O4-MINI"),
    ask("invalid_type", "model", model=None),
    ask("invalid_type", "model", model=["o4-mini"]),
    ask("empty_string", "model", model=""),
    ask("string_above_max_length", "model", model="m" * 513),
    ask("invalid_value", "model", model="o4-mini\0"),
    ask("empty_string", "input", input=""),
    ask("empty_array", "input", input=[]),
    ask("invalid_type", "input", input=7),
    ask("invalid_type", "input", input={"role": "user"}),
    ask("string_above_max_length", "input", input="x" * 10_485_761),
    ask("context_length_exceeded", "input", input="word " * 2001),
    ask("context_length_exceeded", "input", input="hi", instructions="word " * 2001),
    ask("array_above_max_length", "input", input=[MESSAGE] * 8193),
    items("invalid_type", "input[0]", "hi"),
    items("invalid_type", "input[1]", MESSAGE, []),
    items("missing_required_parameter", "input[0].role", {"content": "hi"}),
    items("missing_required_parameter", "input[0].content", {"role": "user"}),
    items("invalid_value", "input[0].role", {"role": "root", "content": "hi"}),
    items("invalid_type", "input[0].role", {"role": 1, "content": "hi"}),
    items("invalid_type", "input[0].content", {"role": "user", "content": 1}),
    items(
        "unsupported_parameter",
        "input[0].content[0].type",
        {"role": "system", "content": [PICTURE]},
    ),
    items(
        "invalid_parameter_combination",
        "input[0].content[0].image_url",
        MESSAGE | {"content": [PICTURE | {"file_id": "file_1"}]},
    ),
    items("invalid_value", "input[0].content[0].type", MESSAGE | {"content": [{"type": "x"}]}),
    items("unknown_parameter", "input[0].colour", MESSAGE | {"colour": "red"}),
    items("missing_required_parameter", "input[0].call_id", {"type": "function_call"}),
    items("unsupported_parameter", "input[0].type", {"type": "web_search_call"}),
    items("unsupported_parameter", "input[0].type", {"id": "msg_1"}),
    items("invalid_value", "input[0].type", {"type": "teleport"}),
    items("invalid_value", "input[1].id", MESSAGE | {"id": "a"}, MESSAGE | {"id": "a"}),
    ask("unknown_parameter", "colour", colour=None),
    ask("unknown_parameter", "n", n=1),
    ask("unknown_parameter", "k" * 64 + "…", **{"k" * 5000: 1}),
    ask("unknown_parameter", "text.colour", text={"colour": 1}),
    ask("invalid_type", "stream", stream="yes"),
    ask("invalid_type", "store", store=1),
    ask("invalid_type", "instructions", instructions=["be kind"]),
    ask("invalid_value", "service_tier", service_tier="gold"),
    ask("invalid_type", "metadata", metadata=[]),
    ask("invalid_type", "metadata.a", metadata={"a": 1}),
    ask("object_above_max_properties", "metadata", metadata={str(n): "" for n in range(17)}),
    ask("string_above_max_length", "metadata", metadata={"k" * 65: ""}),
    ask("string_above_max_length", "metadata.a", metadata={"a": "v" * 513}),
    ask("unsupported_parameter", "tools[0].type", tools=[{"type": "web_search"}]),
    ask("invalid_value", "tools[0].name", tools=[{"type": "function", "name": "f g"}]),
    ask("invalid_parameter_combination", "background", background=True, store=False),
    ask("unsupported_value", "reasoning.effort", reasoning={"effort": "max"}),
    ask("invalid_value", "input", text={"format": {"type": "json_object"}}),
    ask("empty_string", "conversation", conversation=""),
    ask("invalid_value", "truncation", truncation="middle"),
    ask("unsupported_parameter", "include[0]", include=["file_search_call.results"]),
    ask("invalid_value", "include[0]", include=["everything"]),
    ask("empty_string", "previous_response_id", previous_response_id=""),
    ask("invalid_type", "previous_response_id", previous_response_id=5),
    ask("invalid_value", "previous_response_id", previous_response_id="resp_\0"),
    ask("string_above_max_length", "previous_response_id", previous_response_id="r" * 257),
    *(
        ask("previous_response_not_found", "previous_response_id", previous_response_id=odd)
        for odd in ("resp_0000", "../resp", "%00", "' OR 1=1 --", "resp_\r\nx: y", "é" * 80)
    ),
]


def tell(code: str, param: str | None, **fields: Any) -> Bad:
    return Bad(f"chat {json.dumps(fields)[:40]}", request(CHAT, TELL | fields), code, param)


def said(code: str, param: str, **message: Any) -> Bad:
    return tell(code, param, messages=[message])


TOLD = [
    without(CHAT, TELL, "model"),
    without(CHAT, TELL, "messages"),
    tell("empty_array", "messages", messages=[]),
    tell("invalid_type", "messages", messages="hi"),
    tell("invalid_type", "messages[0]", messages=["hi"]),
    tell("array_above_max_length", "messages", messages=[MESSAGE] * 8193),
    tell("context_length_exceeded", "messages", messages=[MESSAGE | {"content": "word " * 2001}]),
    said("missing_required_parameter", "messages[0].role", content="hi"),
    said("invalid_value", "messages[0].role", role="root", content="hi"),
    said("unsupported_parameter", "messages[0].role", role="function", content="hi"),
    said("invalid_value", "messages[0].tool_call_id", role="tool", content="hi", tool_call_id="c"),
    said("invalid_type", "messages[0].content", role="user", content=None),
    said("empty_array", "messages[0].content", role="user", content=[]),
    said("invalid_value", "messages[0].name", role="user", content="hi", name="a b"),
    said(
        "unsupported_parameter",
        "messages[0].content[0].type",
        role="user",
        content=[{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}],
    ),
    tell("integer_below_min_value", "n", n=0),
    tell("integer_above_max_value", "n", n=9),
    tell("integer_above_max_value", "n", n=2**63),
    tell("invalid_type", "n", n=True),
    tell("array_above_max_length", "stop", stop=["a", "b", "c", "d", "e"]),
    tell("empty_array", "stop", stop=[]),
    tell("empty_string", "stop[0]", stop=[""]),
    tell("invalid_type", "stop[1]", stop=["a", None]),
    tell("string_above_max_length", "stop", stop="s" * 1025),
    tell("integer_above_max_value", "seed", seed=2**63),
    tell("invalid_type", "seed", seed=1.5),
    tell("invalid_value", "logit_bias", logit_bias={"x": 1}),
    tell("decimal_above_max_value", "logit_bias.1", logit_bias={"1": 101}),
    tell("unsupported_parameter", "logit_bias", logit_bias={"1": 5}),
    tell("invalid_parameter_combination", "top_logprobs", top_logprobs=3),
    tell("invalid_parameter_combination", "stream_options", stream_options={"include_usage": True}),
    tell("invalid_parameter_combination", "max_tokens", max_tokens=9, max_completion_tokens=9),
    tell("integer_below_min_value", "max_tokens", max_tokens=0),
    tell("invalid_value", "messages", response_format={"type": "json_object"}),
    tell("invalid_type", "response_format", response_format="json"),
    tell("invalid_type", "store", store=1),
    tell("unsupported_parameter", "functions", functions=[{"name": "f"}]),
    tell("unknown_parameter", "input", input="hi"),
]


ALL = [*BODIES, *NUMBERS, *ASKED, *TOLD]


@pytest.mark.parametrize("bad", ALL, ids=[bad.name for bad in ALL])
def test_each_is_refused_in_its_own_way(server: Background, bad: Bad) -> None:
    refuse(server, bad)


def test_the_server_is_none_the_worse(server: Background) -> None:
    reply = exchange(server.port, request(RESPONSES, ASK))
    assert checks.check_response(reply.body)["status"] == "completed"
    server.at_rest()
