"""What the tests of batches share: input files, an engine that can be held, looks at results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import openai
from openai.types import Batch
from pydantic import TypeAdapter

from ouzel.core.turns import EngineDelta, Halt, Turn
from ouzel.engines.script import Reply, Say, Script, Step, last_user_text
from ouzel.engines.scripted import ScriptedEngine

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ENDED = ("completed", "failed", "expired", "cancelled")
PATIENCE = 30.0


class Held(ScriptedEngine):
    """Answers as it was told, once it is let.

    Args:
        slots: how many turns it takes at once; others wait for one to end.
        holding: turns whose user said this wait for `let`.

    Attributes:
        began: what users of the turns said, in order.
        open: the same of the turns that have not ended.
    """

    def __init__(self, *steps: Step, slots: int = 4, holding: str | None = None) -> None:
        replies = (Reply(steps or (Say("You said: {input}"),)),)
        super().__init__(Script(replies, slots=slots))
        self.holding = holding
        self.began: list[str] = []
        self.open: list[str] = []
        self._slots = asyncio.Semaphore(slots)
        self._let = asyncio.Event()
        self._changed = asyncio.Event()

    def let(self) -> None:
        """Hold nothing any more."""
        self.holding = None
        self._let.set()

    async def until(self, began: int) -> None:
        """Wait until so many turns have begun."""
        async with asyncio.timeout(PATIENCE):
            while len(self.began) < began:
                self._changed.clear()
                await self._changed.wait()

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        async with self._slots, aclosing(self._turn(turn, halt)) as deltas:
            async for delta in deltas:
                yield delta

    async def _turn(self, turn: Turn, halt: Halt | None) -> AsyncGenerator[EngineDelta, None]:
        said = last_user_text(turn)
        self.began.append(said)
        self.open.append(said)
        self._changed.set()
        try:
            if self.holding is not None and self.holding in said:
                await self._let.wait()
            async with aclosing(super().stream(turn, halt)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.open.remove(said)


def chat(custom_id: str, text: str, **more: Any) -> dict[str, Any]:
    body = {"model": "scripted", "messages": [{"role": "user", "content": text}]} | more
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def response(custom_id: str, text: str, **more: Any) -> dict[str, Any]:
    body = {"model": "scripted", "input": text} | more
    return {"custom_id": custom_id, "method": "POST", "url": RESPONSES, "body": body}


def jsonl(lines: Sequence[dict[str, Any] | bytes]) -> bytes:
    """Lines of an input file; bytes stay as they are."""
    return b"\n".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
    )


async def submit(
    client: openai.AsyncOpenAI,
    lines: Sequence[dict[str, Any] | bytes] | bytes,
    endpoint: Any = RESPONSES,
    **more: Any,
) -> Batch:
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    file = await client.files.create(file=("in.jsonl", data), purpose="batch")
    return checked(
        await client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
        )
    )


async def reach(client: openai.AsyncOpenAI, batch: Batch, *statuses: str) -> Batch:
    """The batch once it has one of these statuses."""
    async with asyncio.timeout(PATIENCE):
        while batch.status not in statuses:
            assert batch.status not in ENDED, batch
            await asyncio.sleep(0.01)
            batch = checked(await client.batches.retrieve(batch.id))
    return batch


async def end(client: openai.AsyncOpenAI, batch: Batch) -> Batch:
    return await reach(client, batch, *ENDED)


def checked(batch: Batch) -> Batch:
    """Held strictly against the SDK's type, and against what a batch may say of itself."""
    TypeAdapter(Batch).validate_json(batch.to_json(exclude_unset=True), strict=True)
    assert batch.model_extra == {}
    assert batch.object == "batch"
    assert batch.expires_at == batch.created_at + 24 * 3600
    counts = batch.request_counts
    assert counts is not None
    assert 0 <= counts.completed + counts.failed <= counts.total
    for status in ENDED:
        assert (getattr(batch, f"{status}_at") is not None) == (batch.status == status)
    if batch.status not in ENDED:
        assert batch.output_file_id is None or batch.status in ("finalizing", "cancelling")
    if batch.status == "completed":
        assert counts.completed + counts.failed == counts.total
        assert (batch.output_file_id is not None) == (counts.completed > 0)
        assert (batch.error_file_id is not None) == (counts.failed > 0)
    return batch


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a file, if there is one."""
    if file_id is None:
        return []
    text = (await client.files.content(file_id)).text
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def said(line: dict[str, Any]) -> str:
    """The text that an answered line holds."""
    assert set(line) == {"id", "custom_id", "response", "error"}
    assert line["id"].startswith("batch_req_")
    reply = line["response"]
    assert (line["error"], reply["status_code"]) == (None, 200)
    assert reply["request_id"].startswith("req_")
    body = reply["body"]
    if body["object"] == "response":
        return str(body["output"][-1]["content"][0]["text"])
    assert body["object"] == "chat.completion"
    return str(body["choices"][0]["message"]["content"])
