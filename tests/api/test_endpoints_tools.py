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
