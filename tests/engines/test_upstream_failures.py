"""Error bodies of every dialect, as our errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    OuzelError,
    RequestError,
    TooLarge,
)
from ouzel.engines.upstream_failures import SHOWN, Overflow, read_error

LLAMA = {
    "error": {
        "code": 400,
        "message": "request (5031 tokens) exceeds the available context size (2048 tokens), try "
        "increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5031,
        "n_ctx": 2048,
    }
}


def said(message: str, **more: object) -> dict[str, object]:
    return {"error": {"message": message, "type": "BadRequestError", "code": 400} | more}


OVERFLOWS = {
    "llama-server": (LLAMA, 5031, 2048, True),
    "older llama-server": (
        said(
            "the request exceeds the available context size. try increasing the context size or "
            "enable context shift",
            type="exceed_context_size_error",
            n_prompt_tokens=1407,
            n_ctx=256,
        ),
        1407,
        256,
        True,
    ),
    "oldest llama-server": (
        said("the request exceeds the available context size. try increasing it"),
        None,
        None,
        False,
    ),
    "Ollama": ({"error": json.dumps(LLAMA)}, 5031, 2048, True),
    "Ollama, OpenAI route": (
        {"error": {"message": json.dumps(LLAMA), "type": "invalid_request_error"}},
        5031,
        2048,
        True,
    ),
    "vLLM 0.9": (
        {
            "object": "error",
            "message": "This model's maximum context length is 16384 tokens. However, you "
            "requested 122946 tokens (112946 in the messages, 10000 in the completion). Please "
            "reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "code": 400,
        },
        112946,
        16384,
        True,
    ),
    "vLLM 0.16": (
        said(
            "You passed 1015 input tokens and requested 10 output tokens. However, the model's "
            "context length is only 1024 tokens, resulting in a maximum input length of 1014 "
            "tokens. Please reduce the length of the input prompt. (parameter=input_tokens)",
            param="input_tokens",
        ),
        1015,
        1024,
        True,
    ),
    "vLLM, counting no further": (
        said(
            "This model's maximum context length is 131072 tokens. However, you requested 1024 "
            "output tokens and your prompt contains at least 130049 input tokens, for a total of "
            "at least 131073 tokens."
        ),
        130049,
        131072,
        False,
    ),
    "vLLM, by characters": (
        said(
            "This model's maximum context length is 4096 tokens. However, you requested 4096 "
            "output tokens and your prompt contains 581 characters (more than 0 characters, which "
            "is the upper bound for 0 input tokens)."
        ),
        None,
        4096,
        False,
    ),
    "vLLM engine": (
        said(
            "The decoder prompt (length 8357) is longer than the maximum model length of 8192. "
            "Make sure that `max_model_len` is no smaller than the number of text tokens."
        ),
        8357,
        8192,
        True,
    ),
    "SGLang": (
        {
            "object": "error",
            "message": "The input (61709 tokens) is longer than the model's context length "
            "(40960 tokens).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        61709,
        40960,
        True,
    ),
    "SGLang, with the answer": (
        said(
            "Requested token count exceeds the model's maximum context length of 64000 tokens. "
            "You requested a total of 71897 tokens: 7897 tokens from the input messages and 64000 "
            "tokens for the completion."
        ),
        7897,
        64000,
        True,
    ),
    "LM Studio": (
        said(
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length."
        ),
        None,
        None,
        False,
    ),
    "by code only": (said("Too much.", code="context_length_exceeded"), None, None, False),
}


@pytest.mark.parametrize(("body", "prompt", "window", "exact"), OVERFLOWS.values(), ids=OVERFLOWS)
@pytest.mark.parametrize("status", [400, 500])
def test_a_prompt_that_does_not_fit(
    body: object, prompt: int | None, window: int | None, exact: bool, status: int
) -> None:
    error = read_error(status, json.dumps(body).encode())
    assert isinstance(error, Overflow)
    assert (error.prompt_tokens, error.context_window, error.exact) == (prompt, window, exact)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError),
        (422, RequestError),
        (413, TooLarge),
        (429, EngineUnavailable),
        (502, EngineUnavailable),
        (503, EngineUnavailable),
        (504, EngineUnavailable),
        (401, EngineError),
        (403, EngineError),
        (404, EngineError),
        (302, EngineError),
        (500, EngineDied),
        (418, EngineDied),
    ],
)
def test_statuses(status: int, kind: type[OuzelError]) -> None:
    assert type(read_error(status, b'{"error": {"message": "why"}}')) is kind


def test_a_refused_parameter_is_named() -> None:
    error = read_error(400, json.dumps(said("bad bias.", param="logit_bias")).encode())
    assert isinstance(error, RequestError)
    assert error.param == "logit_bias"
    assert error.message == "The engine refused the request: bad bias."


def test_retry_after_is_passed_on() -> None:
    error = read_error(503, b"", retry_after=30.0)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after == 30.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503])
def test_the_key_is_in_no_message(status: int) -> None:
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-12345."}}).encode()
    assert "sk-12345" not in read_error(status, body, secret="sk-12345").message


def test_a_wrong_key_names_the_setting() -> None:
    assert "engine_key" in read_error(401, b"").message


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"type": "missing", "loc": ["body", "x"], "input": {"messages": "PROMPT"}}]},
        said("1 validation error for Request: [type=int_parsing, input_value='PROMPT']"),
        said("[{'type': 'missing', 'loc': ('body',), 'input': {'content': 'PROMPT'}}]"),
    ],
)
def test_a_validator_that_repeats_the_prompt_is_cut(body: object) -> None:
    assert "PROMPT" not in read_error(422, json.dumps(body).encode()).message


def test_a_web_page_is_not_a_message() -> None:
    assert read_error(502, b"<html><body>nginx</body></html>").message.endswith("(HTTP 502).")


def test_a_long_message_is_cut() -> None:
    assert len(read_error(400, b"x" * 10_000).message) < SHOWN + 100


@given(st.integers(300, 599), st.binary(max_size=200), st.floats(0, 100) | st.none())
def test_any_body_is_one_of_our_errors(status: int, body: bytes, after: float | None) -> None:
    error = read_error(status, body, retry_after=after, secret="s")
    assert isinstance(error, OuzelError)
    assert error.message


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "detail", "type", "param", "n_ctx"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.integers(300, 599), _json)
def test_any_json_is_one_of_our_errors(status: int, body: object) -> None:
    assert isinstance(read_error(status, json.dumps(body).encode()), OuzelError)
