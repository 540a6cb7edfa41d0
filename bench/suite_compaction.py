"""What does the model still know of the first turns of a long conversation that was compacted?

Sixty messages of one person in a window far too small for them, every answer and every compaction
made by the served weights. Then questions about facts from the first fifteen messages, each asked
on its own after the whole conversation; an answer is right if the exact fact is in it. Nothing was
tuned on the conversation that is asked by default; `--data` takes the other one.
"""

from __future__ import annotations

import asyncio
import re
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openai import APIError
from openai.types.responses import Response

from bench.arithmetic import Aim, Row, median
from bench.asking import Asking, asking, serving, share, tallies, told
from bench.load import ROOT
from bench.suite import Bench, Broken

DATA = ROOT / "bench" / "data" / "compaction_test.toml"
WINDOW = 2048
"""Tokens of the server's window."""

RIGHT = 0.8
"""Of the questions, how many should be answered."""

MOST_TOKENS = 300
"""Tokens of one answer, which is short in most cases, and of the notes with it."""

QUICK_TURNS, QUICK_QUESTIONS = 20, 3
MANAGED = [{"type": "compaction"}]


@dataclass(frozen=True)
class Told:
    """One message of the person's.

    Args:
        gave: what a tool of the client's gave before the answer: name, arguments and output.
    """

    says: str
    gave: dict[str, str] | None = None


@dataclass(frozen=True)
class Question:
    """A question; one of `has` has to be in the answer."""

    asks: str
    has: Sequence[str]

    def right(self, answer: str) -> bool:
        """Whether one of the facts is there as a word, or words, of its own."""
        return any(
            re.search(rf"(?<!\w){re.escape(fact)}(?!\d)", answer, re.IGNORECASE)
            for fact in self.has
        )


@dataclass
class Held:
    """What became of the conversation.

    Args:
        last: id of the last response.
        words: of all messages, answers and results.
        longest: tokens of the longest prompt of a turn without a compaction.
        plain, compacted: seconds of turns without and with a compaction.
    """

    last: str | None = None
    words: int = 0
    longest: int = 0
    plain: list[float] = field(default_factory=list)
    compacted: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """What became of one question."""

    asks: str
    answer: str
    right: bool


def measure(bench: Bench) -> list[Row]:
    """Rows for the questions and for the compactions. Raises ServerFailed, Broken."""
    turns, questions = read(bench.data or DATA)
    if bench.quick:
        turns, questions = turns[:QUICK_TURNS], questions[:QUICK_QUESTIONS]
    with serving(bench, "--context", str(WINDOW), "--slots", "1") as served:
        held, asked = asyncio.run(_hold(bench, f"{served.url}/v1", turns, questions))
        counted = tallies(served)
    right = sum(each.right for each in asked)
    compactions = counted.get("compactions", 0)
    bare = counted.get("compacted_without_notes", 0)
    return [
        Row(
            "questions about the first turns: right",
            right,
            "",
            aim=Aim(">=", share(RIGHT, len(asked))),
            note=f"of {len(asked)}, after {len(turns)} turns in a window of {WINDOW} tokens",
        ),
        Row(
            "compactions",
            compactions,
            "",
            aim=Aim(">=", 0 if bench.quick else 2),
            note=f"{bare} of them without notes; {held.words} words were said in all, and no "
            f"prompt without one was longer than {held.longest} tokens",
        ),
        Row("a turn, median", median(held.plain), "s", samples=tuple(held.plain)),
        *_slow(held),
    ]


def _slow(held: Held) -> list[Row]:
    if not held.compacted:
        return []
    taken = held.compacted
    return [Row("a turn with a compaction, median", median(taken), "s", samples=tuple(taken))]


def read(path: Path) -> tuple[list[Told], list[Question]]:
    """A conversation and the questions about it."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    turns = [Told(each["says"], each.get("gave")) for each in data["turn"]]
    return turns, [Question(each["asks"], each["has"]) for each in data["question"]]


async def _hold(
    bench: Bench, url: str, turns: Sequence[Told], questions: Sequence[Question]
) -> tuple[Held, list[Asked]]:
    held = Held()
    async with asking(url) as who:
        for number, turn in enumerate(turns):
            bench.step(number, len(turns))
            await _take(bench, who, held, turn, number)
        asked = []
        for question in questions:
            response, _ = await _say(who, held.last, [_user(question.asks)])
            each = Asked(question.asks, response.output_text, question.right(response.output_text))
            bench.log(f"{'right' if each.right else 'WRONG'} {each.asks} -> {each.answer!r}")
            bench.keep(asdict(each))
            asked.append(each)
    return held, asked


async def _take(bench: Bench, who: Asking, held: Held, turn: Told, number: int) -> None:
    """The next turn of the conversation."""
    items = [_user(turn.says)]
    if turn.gave is not None:
        call_id = f"call_{number}"
        call = {"name": turn.gave["name"], "arguments": turn.gave["arguments"]}
        items.append({"type": "function_call", "call_id": call_id, **call})
        gave = {"call_id": call_id, "output": turn.gave["output"]}
        items.append({"type": "function_call_output", **gave})
    response, seconds = await _say(who, held.last, items)
    compacted = any(item.type == "compaction" for item in response.output)
    (held.compacted if compacted else held.plain).append(seconds)
    if response.usage is not None and not compacted:
        held.longest = max(held.longest, response.usage.input_tokens)
    said = response.output_text
    held.words += len(f"{turn.says} {(turn.gave or {}).get('output', '')} {said}".split())
    held.last = response.id
    mark = ", compacted" if compacted else ""
    bench.log(f"[{number + 1}] {seconds:.1f} s{mark}: {' '.join(said.split())[:80]}")


async def _say(
    who: Asking, previous: str | None, items: list[dict[str, Any]]
) -> tuple[Response, float]:
    body: dict[str, Any] = {
        "input": items,
        "previous_response_id": previous,
        "max_output_tokens": MOST_TOKENS,
        "temperature": 0,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "none"},
        "context_management": MANAGED,
    }
    began = time.perf_counter()
    try:
        response: Response = await who.client.responses.create(model=who.model, **body)
    except APIError as error:
        raise Broken(told(error)) from error
    return response, time.perf_counter() - began


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}
