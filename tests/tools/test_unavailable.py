"""A tool that cannot be run here is refused with the reason, on both APIs."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from harness import serving
from ouzel.engines.scripted import Reply, Say, Script, ScriptedEngine
from ouzel.tools.unavailable import Unavailable

WHY = "Running code is switched off on this server (setting code_interpreter)."
TOOL = {"type": "code_interpreter", "container": {"type": "auto"}}


async def test_the_reason_is_told(tmp_path: Path) -> None:
    engine = ScriptedEngine(Script((Reply((Say("Hello."),)),)))
    tools = [Unavailable("code_interpreter", WHY)]
    async with (
        serving(engine, tmp_path, tools=tools) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as met:
            await client.responses.create(model="o4-mini", input="Hi", tools=[TOOL])
        assert met.value.body == {
            "message": WHY,
            "type": "invalid_request_error",
            "param": "tools[0].type",
            "code": "unsupported_value",
        }
        with pytest.raises(openai.BadRequestError, match="switched off"):
            await client.chat.completions.create(
                model="o4-mini", messages=[{"role": "user", "content": "Hi"}], tools=[TOOL]
            )
