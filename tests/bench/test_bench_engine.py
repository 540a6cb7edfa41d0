"""The engine that the bench asks directly is the one behind the server that it asks."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
from bench.processes import ServerFailed, ouzel
from bench.streamed import Caller, StreamBroken

SAID = [{"role": "user", "content": "Count from one to ten."}]


@pytest.mark.tiny
def test_both_ways_lead_to_one_engine(tiny_weights: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    flags = ("--model", str(tiny_weights), "--threads", "1", "--context", "1024")
    with ouzel(home, *flags, module="bench.engine_host") as served:
        told = home / "asked.json"
        assert stat.S_IMODE(told.stat().st_mode) == 0o600
        engine = json.loads(told.read_text())

        async def ask() -> None:
            through, direct = Caller(f"{served.url}/v1"), Caller(engine["url"], engine["key"])
            model = (await through.get("/models"))["data"][0]["id"]
            body = {"model": model, "input": SAID, "temperature": 0, "max_output_tokens": 16}
            mine = await through.stream("/responses", body)
            theirs = await direct.stream(
                "/chat/completions",
                {
                    "messages": SAID,
                    "temperature": 0,
                    "max_tokens": 16,
                    "stream_options": {"include_usage": True},
                },
            )
            assert (mine.text, mine.input_tokens) == (theirs.text, theirs.input_tokens)
            assert mine.output_tokens == theirs.output_tokens == 16
            # What the one way put into the cache, the other way finds there.
            assert theirs.cached_tokens > 0
            with pytest.raises(StreamBroken, match="401"):
                await Caller(engine["url"], "another key").get("/slots")

        asyncio.run(ask())


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerFailed, match="nothing-here"),
        ouzel(tmp_path / "home", "--model", str(tmp_path / "nothing-here.gguf")),
    ):
        raise AssertionError("it came up")
