"""The deadline, from the header or the server's setting to the end of the answer, over HTTP."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from loop_kit import guided_script
from openai import AsyncOpenAI

from harness import serving
from ouzel.core.turns import Pace
from ouzel.engines.scripted import Reply, Say, Script, ScriptedEngine, Think

NOTES = "no more time to think"
ENDLESS = Say("One is done. " * 1000, delay=0.01)
STYLES = {
    "native": Script(
        (Reply((ENDLESS,), last=NOTES), Reply((Think("hm " * 5000, delay=0.01),))),
        context_window=50_000,
        pace=Pace(1e5, 100),
    ),
    "guided": guided_script(
        Reply((Say("hm " * 5000, delay=0.01),), opening="^<think>"),
        Reply((ENDLESS,)),
        pace=Pace(1e5, 100),
    ),
}


@pytest.mark.parametrize(
    ("style", "how", "effort"),
    [
        ("native", "header", "none"),
        ("native", "header", "high"),
        ("guided", "header", "none"),
        ("guided", "setting", "high"),
    ],
)
async def test_an_answer_is_whole_in_its_time(style, how, effort, tmp_path: Path):
    seconds = 1.5
    headers = {"x-answer-within": str(seconds)} if how == "header" else {}
    within = 600.0 if how == "header" else seconds
    async with (
        serving(ScriptedEngine(STYLES[style]), tmp_path, answer_within=within) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        began = time.monotonic()
        response = await client.responses.create(
            model="o4-mini",
            input="What is 12 times 34 times 56?",
            reasoning={"effort": effort},
            extra_headers=headers,
        )
        took = time.monotonic() - began
    assert took < seconds + 5  # the machine may be busy; without a deadline it takes half a minute
    assert response.status == "completed"
    assert response.output_text.rstrip().endswith("One is done.")
    kinds = [item.type for item in response.output]
    assert kinds == (["message"] if effort == "none" and style == "guided" else kinds)
    assert kinds[-1] == "message"


async def test_no_limit_is_none(tmp_path: Path):
    script = Script((Reply((Say("One is done. " * 100, delay=0.005),)),))
    async with (
        serving(ScriptedEngine(script), tmp_path, answer_within=0.2) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        whole = await client.responses.create(
            model="o4-mini", input="hello", extra_headers={"x-answer-within": "0"}
        )
        cut = await client.responses.create(model="o4-mini", input="hello")
    assert whole.output_text == "One is done. " * 100
    assert len(cut.output_text) < len(whole.output_text)


async def test_chat_completions_have_a_deadline_too(tmp_path: Path):
    async with (
        serving(ScriptedEngine(STYLES["native"]), tmp_path) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="o4-mini",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            extra_headers={"x-answer-within": "1"},
        )
        began = time.monotonic()
        chunks = [chunk async for chunk in stream]
        assert time.monotonic() - began < 6
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.rstrip().endswith("One is done.")
    assert chunks[-1].choices[0].finish_reason == "stop"
