"""Made-up requests against one running server: never a 500, always an answer that is right.

Hypothesis makes arbitrary JSON, valid requests, and valid requests with something changed in
them, as values and as bytes. Whatever the server says of them is checked as strictly as any other
answer. What is tried does not change from run to run.
"""

from __future__ import annotations

import copy
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_kit import Background, background, connect, exchange, read_reply, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ouzel.engines.scripted import Reply, Say, Script, ScriptedEngine, Stop, Think
from wire import checks

RESPONSES, CHAT, COUNT = "/v1/responses", "/v1/chat/completions", "/v1/responses/input_tokens"


def fuzzed(examples: int) -> settings:
    """So many examples, the same ones each time, however slow the machine is."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    replies = (
        Reply((Think("hm, well"), Say("yes {input}")), match="think"),
        Reply((Say("cut of"), Stop("length")), match="stop"),
        Reply((Say("You said: {input}"),)),
    )
    engine = ScriptedEngine(Script(replies, context_window=500))
    with background(engine, tmp_path_factory.mktemp("home")) as running:
        yield running
        running.at_rest()


class Client:
    """One connection for as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = connect(port)

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        data = request(path, body or b"", method=method)
        try:
            self._socket.sendall(data)
            reply = read_reply(self._socket, method)
        except (http.client.BadStatusLine, ConnectionError):
            # It was idle for so long that the server closed it.
            self.close()
            self._socket = connect(self._port)
            self._socket.sendall(data)
            reply = read_reply(self._socket, method)
        assert reply.headers["x-request-id"]
        return reply.status, reply.headers["content-type"], reply.body

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def client(server: Background) -> Iterator[Client]:
    made = Client(server.port)
    yield made
    made.close()


def judge(path: str, answer: tuple[int, str, bytes]) -> int:
    """Check an answer, whatever it is; its status."""
    status, kind, body = answer
    if status != 200:
        assert 400 <= status < 500, (status, body)
        checks.check_error(body)
    elif path == COUNT:
        checks.check_body("input_tokens", body)
    elif kind.startswith("text/event-stream"):
        check = checks.check_response_stream if path == RESPONSES else checks.check_chat_stream
        check(body)
    else:
        check = checks.check_response if path == RESPONSES else checks.check_chat
        check(body)
    return status


def post(client: Client, path: str, body: Any) -> int:
    return judge(path, client.send("POST", path, json.dumps(body).encode("utf-8", "replace")))


# What is sent.

words = st.text(max_size=20) | st.sampled_from(
    ["o4-mini", "user", "assistant", "message", "input_text", "auto", "think", "stop", "\0", "💩"]
)
names = words | st.sampled_from(
    ["model", "input", "messages", "role", "content", "type", "text", "id", "n", "stop", "include"]
)
numbers = (
    st.integers(-(2**80), 2**80)
    | st.integers(-2, 130)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, or none."""
    return st.fixed_dictionaries({}, optional=fields)


def joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda given: {k: v for each in given for k, v in each.items()})


said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(
    ["think", "stop", "one two three"]
)
fractions = st.floats(0, 1)
common = some(
    temperature=st.floats(0, 2) | st.none(),
    top_p=fractions | st.just(1),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.integers(-2, 2),
    metadata=st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80),
        max_size=4,
    ),
    user=st.just("someone"),
    stream=st.booleans(),
    parallel_tool_calls=st.booleans(),
)
efforts = st.sampled_from(["none", "minimal", "low", "medium", "high"])
verbosities = st.sampled_from(["low", "medium", "high"])
schemas = st.sampled_from(
    [
        None,
        {},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {
            "type": "object",
            "properties": {"a": {"type": ["integer", "null"]}, "b": {"$ref": "#"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    ]
)
functions = st.builds(
    lambda schema: {"name": "act", "description": "Does it.", "parameters": schema}, schemas
)
customs = st.just({"name": "write", "description": "Takes text."})
modes = st.sampled_from(["none", "auto"])

responses_item = st.one_of(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "system", "developer", "assistant"]),
        said,
    ),
    st.builds(
        lambda text: {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}] * 2,
        },
        said,
    ),
    st.builds(
        lambda text: {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        },
        said,
    ),
    st.builds(
        lambda text: {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]},
        said,
    ),
    st.builds(
        lambda text: {
            "type": "mcp_call",
            "server_label": "notes",
            "name": "find",
            "arguments": "{}",
            "output": text,
        },
        said,
    ),
)
valid_responses = joined(
    st.just({"model": "o4-mini"}),
    st.fixed_dictionaries({"input": said | st.lists(responses_item, min_size=1, max_size=4)}),
    common,
    some(
        store=st.booleans(),
        instructions=said | st.none(),
        max_output_tokens=st.integers(16, 2**31 - 1),
        top_logprobs=st.integers(0, 20),
        include=st.lists(st.just("message.output_text.logprobs"), max_size=2),
        truncation=st.just("disabled"),
        prompt_cache_key=st.just("k"),
        service_tier=st.sampled_from(["auto", "default"]),
        reasoning=some(effort=efforts, summary=st.sampled_from(["auto", "concise", "detailed"])),
        text=some(verbosity=verbosities, format=st.just({"type": "text"})),
        max_tool_calls=st.integers(1, 9),
        tool_choice=modes,
        tools=st.tuples(
            functions.map(lambda tool: {"type": "function", **tool}),
            customs.map(lambda tool: {"type": "custom", **tool}),
        ).map(list),
    ),
)

chat_message = st.one_of(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "system", "developer", "assistant"]),
        said,
    ),
    st.builds(
        lambda text: {"role": "user", "content": [{"type": "text", "text": text}], "name": "ann"},
        said,
    ),
    st.builds(lambda text: {"role": "assistant", "refusal": text, "content": None}, said),
)
valid_chat = joined(
    st.just({"model": "scripted"}),
    st.fixed_dictionaries({"messages": st.lists(chat_message, min_size=1, max_size=4)}),
    common,
    some(
        n=st.integers(1, 8),
        stop=st.lists(st.text("abct ", min_size=1, max_size=3), min_size=1, max_size=4)
        | st.just("t"),
        seed=st.integers(-(2**63), 2**63 - 1),
        max_completion_tokens=st.integers(1, 2**31 - 1),
        stream_options=st.just({}),
        reasoning_effort=efforts,
        verbosity=verbosities,
        tool_choice=modes,
        tools=st.tuples(
            functions.map(lambda tool: {"type": "function", "function": tool}),
            customs.map(lambda tool: {"type": "custom", "custom": tool}),
        ).map(list),
    ),
    st.just({})
    | st.fixed_dictionaries({"logprobs": st.just(True), "top_logprobs": st.integers(0, 20)}),
)
valid = st.tuples(st.just(RESPONSES), valid_responses) | st.tuples(st.just(CHAT), valid_chat)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in inner:
        found.append((value, key))
        if isinstance(child, dict | list):
            found += places(child)
    return found


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A valid request in which one to three things are no longer what they were."""
    path, body = draw(valid)
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        where = places(body)
        if not where:
            break
        container, key = draw(st.sampled_from(where))
        change = draw(st.sampled_from(["replace", "remove", "wrap", "add", "repeat"]))
        if change == "replace":
            container[key] = draw(values)
        elif change == "remove":
            del container[key]
        elif change == "wrap":
            container[key] = draw(st.sampled_from([[container[key]], {"text": container[key]}]))
        elif change == "add" and isinstance(container, dict):
            container[draw(names)] = draw(values)
        elif change == "repeat" and isinstance(container, list):
            container.extend(copy.deepcopy(container))
    return path, body


@fuzzed(150)
@given(case=valid)
def test_whatever_is_right_is_answered(client: Client, case: tuple[str, dict[str, Any]]) -> None:
    assert post(client, *case) == 200


@fuzzed(400)
@given(case=mutated())
def test_whatever_is_nearly_right_is_answered_or_refused(
    client: Client, case: tuple[str, dict[str, Any]]
) -> None:
    path, body = case
    post(client, path, body)
    if path == RESPONSES:
        post(client, COUNT, body)


@fuzzed(200)
@given(body=values, path=st.sampled_from([RESPONSES, CHAT, COUNT]))
def test_any_json_is_refused_in_words(client: Client, body: Any, path: str) -> None:
    assert post(client, path, body) in (400, 404)


@fuzzed(200)
@given(case=valid, data=st.data())
def test_any_byte_may_be_wrong(
    client: Client, case: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    path, body = case
    raw = bytearray(json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    judge(path, client.send("POST", path, bytes(raw)))


id_bytes = st.text(st.characters(max_codepoint=0x2FF), max_size=12).map(
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()) or "x"
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["limit", "order", "after", "include", "include[]", "stream"]) | id_bytes,
        st.sampled_from(["1", "asc", "true", "message.output_text.logprobs", ""]) | id_bytes,
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


@fuzzed(200)
@given(
    method=st.sampled_from(["GET", "DELETE", "POST", "PUT"]),
    root=st.sampled_from(["/v1/responses/", "/v1/models/", "/v1/"]),
    name=id_bytes | st.just("o4-mini"),
    leaf=st.sampled_from(["", "/input_items", "/cancel", "/%2e%2e/"]),
    query=queries,
)
def test_any_url_is_answered(
    client: Client, method: str, root: str, name: str, leaf: str, query: str
) -> None:
    status, _, body = client.send(method, f"{root}{name}{leaf}?{query}")
    assert status < 500, body
    if status != 200:
        checks.check_error(body)


@fuzzed(200)
@given(lines=st.lists(st.binary(max_size=30), max_size=6), body=st.binary(max_size=40))
def test_any_bytes_are_refused_or_the_connection_is_closed(
    server: Background, lines: list[bytes], body: bytes
) -> None:
    head = b"\r\n".join([b"POST /v1/responses HTTP/1.1", b"host: localhost", *lines])
    # The second request is what a server would wait for that takes the first for unfinished.
    data = head + b"\r\n\r\n" + body + b"\r\n\r\nGET /health HTTP/1.1\r\n\r\n"
    reply = exchange(server.port, data)
    assert reply.status < 500
    if reply.status != 200:
        checks.check_error(reply.body)
