"""The header that sets a deadline, and tools that the server does not have, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from doubles import scripted
from wire import checks

RESPONSES = ("responses", {"model": "o4-mini", "input": "hello"})
CHAT = ("chat/completions", {"model": "o4-mini", "messages": [{"role": "user", "content": "a"}]})


@pytest.mark.parametrize(("path", "body"), [RESPONSES, CHAT])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_deadline_is_refused(
    serve: Any, http: Any, path: str, body: dict[str, Any], stream: bool
) -> None:
    server = await serve(scripted())
    for headers in (
        {"x-answer-within": "soon"},
        {"X-Answer-Within": "3601"},
        [("x-answer-within", "5"), ("x-answer-within", "5")],
    ):
        url = f"{server.base_url}/{path}"
        async with http.post(url, json={**body, "stream": stream}, headers=headers) as reply:
            assert reply.status == 400
            error = checks.check_error(await reply.read())["error"]
            assert (error["param"], error["code"]) == ("x-answer-within", "invalid_header")


@pytest.mark.parametrize(("path", "body"), [RESPONSES, CHAT])
async def test_a_good_deadline_is_taken(
    serve: Any, http: Any, path: str, body: dict[str, Any]
) -> None:
    server = await serve(scripted())
    for seconds in ("0", "30", "3600"):
        url, headers = f"{server.base_url}/{path}", {"x-answer-within": seconds}
        async with http.post(url, json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()


@pytest.mark.parametrize(
    ("path", "body"), [RESPONSES, CHAT, ("responses/input_tokens", RESPONSES[1])]
)
async def test_a_hosted_tool_that_is_not_here_is_refused(
    serve: Any, http: Any, path: str, body: dict[str, Any]
) -> None:
    server = await serve(scripted())
    assert server.answers.hosted == frozenset()
    sent = {**body, "tools": [{"type": "web_search"}]}
    async with http.post(f"{server.base_url}/{path}", json=sent) as reply:
        assert reply.status == 400
        error = checks.check_error(await reply.read())["error"]
        assert (error["param"], error["code"]) == ("tools[0].type", "unsupported_parameter")


async def test_what_was_asked_is_kept_and_given_back(serve: Any, http: Any) -> None:
    server = await serve(scripted())
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    sent = {
        "input": [
            {"role": "user", "content": "Write JSON."},
            {"type": "function_call", "call_id": "c", "name": "act", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
            {"role": "user", "content": "hello"},
        ],
        "tools": [
            {"type": "function", "name": "act", "parameters": schema, "strict": False},
            {"type": "custom", "name": "write"},
        ],
        "tool_choice": "none",
        "parallel_tool_calls": False,
        "max_tool_calls": 2,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low"},
    }
    url = f"{server.base_url}/responses"
    async with http.post(url, json={**RESPONSES[1], **sent}) as reply:
        made = checks.check_response(await reply.read())
    assert [tool["name"] for tool in made["tools"]] == ["act", "write"]
    assert made["tools"][0]["parameters"] == schema
    for name in ("tool_choice", "parallel_tool_calls", "max_tool_calls", "reasoning"):
        assert made[name] == sent[name]
    async with http.get(f"{url}/{made['id']}") as reply:
        assert checks.check_response(await reply.read()) == made
    async with http.get(f"{url}/{made['id']}/input_items?order=asc") as reply:
        page = checks.check_input_items(await reply.read())
    assert [item["type"] for item in page["data"]] == [
        *("message", "function_call", "function_call_output", "message")
    ]
    stream = {**RESPONSES[1], **sent, "stream": True}
    async with http.post(url, json=stream) as reply:
        seen = checks.check_response_stream(await reply.read())
    assert seen.response["tools"] == made["tools"]


async def test_calls_and_outputs_that_do_not_match_are_refused(serve: Any, http: Any) -> None:
    server = await serve(scripted())
    orphan = {"type": "function_call_output", "call_id": "c", "output": "x"}
    async with http.post(
        f"{server.base_url}/responses", json={"model": "o4-mini", "input": [orphan]}
    ) as reply:
        assert reply.status == 400
        assert checks.check_error(await reply.read())["error"]["param"] == "input"


@pytest.mark.parametrize(
    ("tool", "where", "where_in_chat"),
    [
        (
            {
                "type": "function",
                "name": "f",
                "parameters": {"type": "object", "properties": {"a": {"pattern": "("}}},
            },
            "parameters",
            "function.parameters",
        ),
        (
            {
                "type": "custom",
                "name": "c",
                "format": {"type": "grammar", "syntax": "regex", "definition": "("},
            },
            "format.definition",
            "custom.format.grammar.definition",
        ),
    ],
)
async def test_what_only_the_loop_can_tell_is_named_in_each_protocol(
    serve: Any, http: Any, tool: dict[str, Any], where: str, where_in_chat: str
) -> None:
    server = await serve(scripted())
    inner = {key: value for key, value in tool.items() if key != "type"}
    if tool["type"] == "custom":
        inner["format"] = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "("}}
    in_chat = {"type": tool["type"], tool["type"]: inner}
    for (path, body), sent, place in ((RESPONSES, tool, where), (CHAT, in_chat, where_in_chat)):
        url = f"{server.base_url}/{path}"
        async with http.post(url, json={**body, "tools": [sent]}) as reply:
            assert reply.status == 400, await reply.text()
            error = checks.check_error(await reply.read())["error"]
        assert error["param"] == f"tools[0].{place}"
