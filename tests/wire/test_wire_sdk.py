"""The official SDK reads our bytes as it reads OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from ouzel.api import failures, write_responses
from ouzel.api.writing import encode
from ouzel.core.errors import ContextLengthExceeded, EngineUnavailable, TooManyRequests
from wire.wire_runs import responses_run, run_events, said
from wire.wire_scenarios import GOLDEN


def _client(data: bytes, kind: str, status: int = 200, **headers: str) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, headers={"content-type": kind, **headers}, content=data)

    return openai.OpenAI(
        api_key="none",
        base_url="http://127.0.0.1/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    path = GOLDEN / request.param
    kind = "text/event-stream" if path.suffix == ".sse" else "application/json"
    with _client(path.read_bytes(), kind) as made:
        yield made


_ASKED = {"model": "o4-mini", "messages": [{"role": "user", "content": "Say hello."}]}
_HELLO = "Hello, wörld \u2028🌍"


@pytest.mark.parametrize("client", ["responses-text.json"], indirect=True)
def test_a_plain_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="o4-mini", input="Say hello.")
    assert response.output_text == _HELLO
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 16


@pytest.mark.parametrize(
    "client",
    ["responses-text.sse", "responses-thinking.sse", "responses-queued.sse"],
    indirect=True,
)
def test_the_sdks_own_accumulator_follows_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="o4-mini", input="Say hello.") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == _HELLO
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


@pytest.mark.parametrize(
    ("client", "kind", "status"),
    [
        ("responses-failed.sse", "response.failed", "failed"),
        ("responses-incomplete.sse", "response.incomplete", "incomplete"),
        ("responses-cancelled.sse", "response.incomplete", "cancelled"),
    ],
    indirect=["client"],
)
def test_every_other_end_reaches_the_client(client: openai.OpenAI, kind: str, status: str) -> None:
    with client.responses.stream(model="o4-mini", input="Say hello.") as stream:
        last = list(stream)[-1]
    assert last.type == kind
    assert last.response.status == status
    assert last.response.output[0].status == "incomplete"


@pytest.mark.parametrize("client", ["responses-input-items.json"], indirect=True)
def test_input_items(client: openai.OpenAI) -> None:
    page = client.responses.input_items.list("resp_0")
    assert [item.type for item in page.data] == [
        *["message"] * 4,
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "mcp_call",
        "code_interpreter_call",
        "message",
    ]
    file = page.data[1].content[1]
    assert (file.type, file.file_id, file.filename) == ("input_file", "file-1", "data.csv")


@pytest.mark.parametrize("client", ["responses-code-outputs.sse"], indirect=True)
def test_the_sdks_own_accumulator_follows_code(client: openai.OpenAI) -> None:
    with client.responses.stream(model="o4-mini", input="Say hello.") as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    code = [kind for kind in kinds if "code_interpreter" in kind]
    stem = "response.code_interpreter_call"
    assert code == [
        f"{stem}.in_progress",
        *[f"{stem}_code.delta"] * 2,
        f"{stem}_code.done",
        f"{stem}.interpreting",
        f"{stem}.completed",
        f"{stem}.in_progress",
        f"{stem}_code.delta",
        f"{stem}_code.done",
        f"{stem}.interpreting",
    ]
    ran, failed, message = response.output
    assert (ran.code, ran.outputs[0].logs, failed.status) == ("print(1+1)", "2\n", "failed")
    (first, _) = message.content[1].annotations
    assert message.content[1].text[first.start_index : first.end_index] == first.filename


@pytest.mark.parametrize("client", ["chat-code.sse"], indirect=True)
def test_the_sdks_own_accumulator_joins_what_is_ours_in_chat(client: openai.OpenAI) -> None:
    state = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(stream=True, **_ASKED):
        state.handle_chunk(chunk)
    message = state.get_final_completion().choices[0].message
    assert message.content == "Done.See a.csv."
    assert [call["id"] for call in message.hosted_tool_calls] == ["ci_0", "ci_1"]
    assert [file["filename"] for file in message.container_files] == ["a.csv", "b.png"]


@pytest.mark.parametrize("client", ["chat-thinking.json"], indirect=True)
def test_a_plain_completion(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(**_ASKED).choices[0].message
    assert message.content == _HELLO
    assert getattr(message, "reasoning_content", None) == "Greet back."


@pytest.mark.parametrize("client", ["chat-usage.sse"], indirect=True)
def test_the_sdks_own_accumulator_follows_chunks(client: openai.OpenAI) -> None:
    state = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(stream=True, **_ASKED):
        state.handle_chunk(chunk)
    completion = state.get_final_completion()
    assert completion.choices[0].message.content == _HELLO
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 20


@pytest.mark.parametrize("client", ["responses-calls.sse"], indirect=True)
def test_the_sdks_own_accumulator_follows_calls(client: openai.OpenAI) -> None:
    with client.responses.stream(model="o4-mini", input="Say hello.") as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.delta") == 4
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(call.call_id, call.arguments) for call in calls] == [
        ("call_1", '{"city":"Oslo"}'),
        ("call_2", '{"city":"Bergen"}'),
    ]
    thought = response.output[0]
    assert thought.type == "reasoning"
    assert thought.summary[0].text == "Greeting."


@pytest.mark.parametrize(
    ("client", "kinds"),
    [
        ("responses-custom-call.sse", ["message", "custom_tool_call"]),
        ("responses-hosted-calls.sse", ["mcp_call", "mcp_call", "message"]),
    ],
    indirect=["client"],
)
def test_the_sdks_own_accumulator_follows_every_kind(
    client: openai.OpenAI, kinds: list[str]
) -> None:
    with client.responses.stream(model="o4-mini", input="Say hello.") as stream:
        list(stream)
        response = stream.get_final_response()
    assert [item.type for item in response.output] == kinds
    for item in response.output:
        if item.type == "custom_tool_call":
            assert (item.name, item.input) == ("sums", "1+1")
        if item.type == "mcp_call" and item.status == "failed":
            assert item.error is not None
            assert item.error.type == "mcp_tool_execution_error"


@pytest.mark.parametrize("client", ["chat-calls.sse"], indirect=True)
def test_the_sdks_chat_helper_follows_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**_ASKED) as stream:
        kinds = [event.type for event in stream]
        choice = stream.get_final_completion().choices[0]
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    calls = [call for call in choice.message.tool_calls if call.type == "function"]
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_1", "weather", '{"city":"Oslo"}'),
        ("call_2", "weather", '{"city":"Bergen"}'),
    ]


@pytest.mark.parametrize("client", ["chat-custom-call.sse"], indirect=True)
def test_custom_calls_reach_readers_of_chunks(client: openai.OpenAI) -> None:
    """The SDK's chunks have no type for them, and its accumulator keeps what it does not know."""
    pieces = []
    for chunk in client.chat.completions.create(stream=True, **_ASKED):
        for call in chunk.choices[0].delta.tool_calls or ():
            pieces.append(call.model_dump(exclude_unset=True)["custom"])
    assert pieces == [{"name": "sums", "input": ""}, {"input": "1+"}, {"input": "1"}]


@pytest.mark.parametrize("client", ["chat-custom-call.json"], indirect=True)
def test_a_plain_completion_with_a_custom_call(client: openai.OpenAI) -> None:
    (call,) = client.chat.completions.create(**_ASKED).choices[0].message.tool_calls or ()
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input) == ("sums", "1+1")


@pytest.mark.parametrize("client", ["chat-failed.sse", "chat-two-one-failed.sse"], indirect=True)
def test_a_failure_in_mid_stream_raises(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(stream=True, **_ASKED)
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError, match="The engine died") as caught:
        chunks.extend(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("Hello")
    assert (caught.value.code, caught.value.type) == ("server_error", "server_error")


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        (ContextLengthExceeded(9, 8), openai.BadRequestError, "context_length_exceeded"),
        (TooManyRequests("Full."), openai.RateLimitError, "rate_limit_exceeded"),
        (EngineUnavailable("Restarting."), openai.InternalServerError, "engine_unavailable"),
        (ValueError("hidden"), openai.InternalServerError, "server_error"),
    ],
)  # fmt: skip
def test_errors_raise_what_they_should(
    error: Exception, raised: type[openai.APIStatusError], code: str
) -> None:
    status, body, headers = failures.error_body(error, "req_1")
    with (
        _client(encode(body), "application/json", status, **headers) as client,
        pytest.raises(raised) as caught,
    ):
        client.responses.create(model="o4-mini", input="Say hello.")
    assert caught.value.code == code
    assert "hidden" not in str(caught.value)


def test_text_that_breaks_lines_elsewhere_arrives_whole() -> None:
    text = "a\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00b"
    data = write_responses.ResponseStream(responses_run()).write(run_events([said("text", text)]))
    # Some readers split the decoded stream as Python splits strings.
    lines = [line for line in data.decode().splitlines() if line.startswith("data: ")]
    assert len(lines) == data.count(b"data: ")
    with _client(data, "text/event-stream") as client:
        stream = client.responses.create(model="o4-mini", input="Say hello.", stream=True)
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == text
