"""Does it find out what is in a file? Ten questions over a table of ten thousand rows."""

from __future__ import annotations

import asyncio
import re
import struct
import time
import zlib
from dataclasses import dataclass
from typing import Any

from openai import APIError, AsyncOpenAI

from bench.arithmetic import Aim, Row, median
from bench.asking import Asking, asking, chosen, each, serving, told
from bench.orders import NAME, Question, as_csv, orders, questions
from bench.suite import Bench

AIM = 8
"""Questions of ten that should be answered rightly."""

AT_ONCE = 1
CLOSE = 0.005
"""How far a number may be off, of itself: answers are rounded."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Answered:
    """What became of one question."""

    question: str
    wanted: str
    right: bool
    programs: int
    tokens: int
    seconds: float
    text: str
    trouble: str = ""

    @property
    def line(self) -> str:
        """For the log."""
        verdict = "right" if self.right else "wrong"
        said = self.trouble or " ".join(self.text.split())[:160]
        return (
            f"{verdict}: {self.question} Wanted {self.wanted}; {self.programs} programs, "
            f"{self.tokens} tokens, {self.seconds:.1f} s: {said}"
        )


def measure(bench: Bench) -> list[Row]:
    """How many are right, and how long they take. Raises ServerFailed."""
    with serving(bench, "--code-interpreter", "on") as served:
        answered = asyncio.run(_all(bench, f"{served.url}/v1"))
    right = sum(each.right for each in answered)
    seconds = [each.seconds for each in answered]
    tokens = sum(each.tokens for each in answered) / len(answered)
    return [
        Row(
            "questions over 10,000 rows: right",
            right,
            "",
            Aim(">=", AIM),
            note=f"of {len(answered)}",
        ),
        Row(
            "questions over 10,000 rows: seconds each, median",
            median(seconds),
            "s",
            note=f"slowest {max(seconds):.1f}; {tokens:.0f} tokens each",
            samples=tuple(seconds),
        ),
    ]


async def _all(bench: Bench, url: str) -> list[Answered]:
    rows = orders()
    async with asking(url) as who:
        file = await who.client.files.create(file=(NAME, as_csv(rows)), purpose="user_data")

        async def work(question: Question) -> Answered:
            return await _ask(who, file.id, question)

        return await each(bench, chosen(bench, questions(rows)), work, AT_ONCE)


async def _ask(who: Asking, file_id: str, question: Question) -> Answered:
    began, text, tokens, programs, trouble, right = time.perf_counter(), "", 0, 0, "", False
    try:
        made = await who.client.responses.create(
            model=who.model,
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_file", "file_id": file_id},
                        {"type": "input_text", "text": question.text},
                    ],
                }
            ],
            tools=[{"type": "code_interpreter", "container": {"type": "auto"}}],
            temperature=0,
            extra_headers={"x-answer-within": "0"},
        )
        text, tokens = made.output_text, made.usage.output_tokens if made.usage else 0
        programs = sum(item.type == "code_interpreter_call" for item in made.output)
        right = holds(text, question) and (
            not question.picture or await _has_picture(who.client, made)
        )
    except APIError as error:
        trouble = told(error)
    seconds = time.perf_counter() - began
    wanted = "a picture" if question.picture else str(question.wanted)
    return Answered(question.text, wanted, right, programs, tokens, seconds, text, trouble)


def holds(text: str, question: Question) -> bool:
    """Whether an answer holds what is wanted."""
    if isinstance(question.wanted, tuple):
        return all(word.lower() in text.lower() for word in question.wanted)
    numbers = [float(found.replace(",", "")) for found in _NUMBER.findall(text)]
    return any(abs(number - question.wanted) <= CLOSE * abs(question.wanted) for number in numbers)


async def _has_picture(client: AsyncOpenAI, made: Any) -> bool:
    """Whether a PNG that opens is cited in the answer and can be fetched."""
    for item in made.output:
        for part in item.content if item.type == "message" else ():
            for note in part.annotations or ():
                if note.type == "container_file_citation" and note.filename.endswith(".png"):
                    content = await client.containers.files.content.retrieve(
                        note.file_id, container_id=note.container_id
                    )
                    return opens(content.content)
    return False


def opens(data: bytes) -> bool:
    """Whether these are the bytes of a whole PNG with something in it."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return False
    at, pixels, size = 8, b"", (0, 0)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            pixels += body
        elif kind == b"IEND":
            try:
                return min(size) > 50 and len(set(zlib.decompress(pixels))) > 2
            except zlib.error:
                return False
        at += 12 + length
    return False
