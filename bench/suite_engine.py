"""What Ouzel adds to real weights: the same engine process, through Ouzel and asked directly.

Both ways lead to one engine process, so nothing but Ouzel differs. They are asked in pairs with
the same prompt, in random order, since other work on the machine comes and goes. Before a pair is
timed the prompt is in the engine's cache for both; where the cache itself is measured, every
conversation begins with a number that no other has. Texts of a pair are compared but need not be
the same: llama.cpp computes a prompt in pieces that depend on what is cached, which rounds
differently, and a close call between two tokens may then fall the other way.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.arithmetic import Aim, Row, decode_rate, differences, median, quantile, ratios
from bench.processes import Served, ouzel
from bench.streamed import Caller, Reading
from bench.suite import Bench, Broken

PROMPT = (
    "Write a long story about a small grey bird that dives into cold mountain rivers. "
    "Do not stop before you have written at least a thousand words."
)
QUESTION = "Answer with one word: which planet do we live on?"
CONVERSATION = 1000
"""Tokens of the first turn's prompt, at least."""

LEAST = 16
"""Fewest tokens that the Responses API lets a client ask for."""

_SEED = 20240917
_WORDS = ("river", "stone", "water", "bird", "moss", "winter", "light", "bridge", "song", "ice")


@dataclass(frozen=True)
class _Sides:
    """Both ways to one engine."""

    through: Caller
    direct: Caller
    model: str
    engine_model: str
    order: random.Random

    async def pair(self, prompt: str, tokens: int) -> tuple[Reading, Reading]:
        """The prompt once through Ouzel and once directly, in random order."""
        if self.order.random() < 0.5:
            mine = await self._through(prompt, tokens)
            theirs = await self.ask_direct([("user", prompt)], tokens)
        else:
            theirs = await self.ask_direct([("user", prompt)], tokens)
            mine = await self._through(prompt, tokens)
        return mine, theirs

    async def _through(self, prompt: str, tokens: int) -> Reading:
        return await self.ask_through({"input": prompt}, tokens)

    async def ask_through(self, body: dict[str, Any], tokens: int) -> Reading:
        """A stored Responses request to Ouzel."""
        asked = {"model": self.model, "temperature": 0, "max_output_tokens": tokens, **body}
        return await self.through.stream("/responses", asked)

    async def ask_direct(self, said: Sequence[tuple[str, str]], tokens: int) -> Reading:
        """The same to the engine itself, which speaks Chat Completions."""
        return await self.direct.stream(
            "/chat/completions",
            {
                "model": self.engine_model,
                "messages": [{"role": role, "content": text} for role, text in said],
                "temperature": 0,
                "max_tokens": tokens,
                "stream_options": {"include_usage": True},
            },
        )


def measure(bench: Bench) -> list[Row]:
    """Rows for decode rate, added time to first token, prompt cache and memory.

    Raises:
        Broken: an answer ended before it was long enough to measure.
        StreamBroken: a stream did not end as it should.
        ServerFailed: the server did not come up.
    """
    home = bench.scratch / "home"
    if bench.engine_url is not None:
        bench.tell(f"starting Ouzel before {bench.engine_url}")
        flags = ["--engine-url", bench.engine_url]
        # In the environment, since other users see a command's flags.
        key = {"OUZEL_ENGINE_KEY": bench.engine_key} if bench.engine_key else {}
        with ouzel(home, *flags, environment=key) as served:
            return _rows(bench, served, bench.engine_url, bench.engine_key)
    bench.tell("starting the engine; the first time it fetches the weights")
    flags = ["--model", bench.model] if bench.model else []
    with ouzel(home, *flags, module="bench.engine_host", ready_within=3600) as served:
        engine = json.loads((home / "asked.json").read_text())
        return _rows(bench, served, engine["url"], engine["key"])


def _rows(bench: Bench, served: Served, url: str, key: str | None) -> list[Row]:
    rows = asyncio.run(_measure(bench, served, url, key))
    memory = served.rss / 1e6
    return [*rows, Row("API process beside the engine", memory, "MB", Aim("<", 150))]


async def _measure(bench: Bench, served: Served, url: str, key: str | None) -> list[Row]:
    through, direct = Caller(f"{served.url}/v1"), Caller(url, key)
    model = (await through.get("/models"))["data"][0]["id"]
    engine_model = (await direct.get("/models"))["data"][0]["id"]
    sides = _Sides(through, direct, model, engine_model, random.Random(_SEED))
    await sides.pair(PROMPT, LEAST)  # now it is in the cache
    return [
        await _decode(bench, sides),
        await _first_token(bench, sides),
        *await _second_turn(bench, sides),
    ]


async def _decode(bench: Bench, sides: _Sides) -> Row:
    pairs, tokens = (3, 48) if bench.quick else (24, 64)
    same = 0
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(pairs):
        bench.tell(f"decode rate: pair {number + 1} of {pairs}")
        readings = await sides.pair(PROMPT, tokens)
        same += readings[0].text == readings[1].text
        for reading, rates in zip(readings, (mine, theirs), strict=True):
            if reading.output_tokens != tokens:
                raise Broken(f"{reading.output_tokens} tokens instead of {tokens}")
            rates.append(decode_rate(tokens, reading.first, reading.last))
    found = ratios(mine, theirs)
    return Row(
        "Decode rate through Ouzel, share of direct",
        median(found),
        "",
        Aim(">=", 0.97),
        note=f"{pairs} pairs of {tokens} tokens: {median(mine):.1f} and {median(theirs):.1f} "
        f"tokens/s; quartiles {quantile(found, 0.25):.3f} to {quantile(found, 0.75):.3f}; "
        f"same text in {same}",
        samples=tuple(found),
    )


async def _first_token(bench: Bench, sides: _Sides) -> Row:
    pairs = 10 if bench.quick else 80
    mine: list[float] = []
    theirs: list[float] = []
    await sides.pair(QUESTION, LEAST)  # now it is in the cache
    for number in range(pairs):
        bench.tell(f"time to first token: pair {number + 1} of {pairs}")
        through, direct = await sides.pair(QUESTION, LEAST)
        mine.append(through.first * 1000)
        theirs.append(direct.first * 1000)
    added = differences(mine, theirs)
    return Row(
        "Time to first token, added by Ouzel, median",
        median(added),
        "ms",
        Aim("<=", 15),
        median(theirs),
        median(mine) / median(theirs),
        f"{pairs} pairs, stored Responses, prompt cached; quartiles {quantile(added, 0.25):.1f} "
        f"to {quantile(added, 0.75):.1f} ms",
        tuple(added),
    )


async def _second_turn(bench: Bench, sides: _Sides) -> list[Row]:
    """A conversation of two turns: how much of the first one's work the second one saves."""
    rounds = 1 if bench.quick else 3
    text = await _text(sides)
    mine: list[float] = []
    theirs: list[float] = []
    cached: list[float] = []
    waits: list[tuple[float, float]] = []
    for number in range(rounds):
        bench.tell(f"second turn of a conversation: round {number + 1} of {rounds}")
        first, second = await _conversation(sides, text)
        mine.append(second.first / first.first)
        cached.append(second.cached_tokens)
        waits.append((first.first, second.first))
        theirs.append(await _direct_conversation(sides, text))
    shown = ", ".join(f"{one:.1f} s then {two:.2f} s" for one, two in waits)
    return [
        Row(
            "Second turn's time to first token, share of the first's",
            median(mine),
            "",
            Aim("<=", 0.35),
            median(theirs),
            median(mine) / median(theirs),
            f"first turn {first.input_tokens} tokens, {first.cached_tokens} cached; {shown}",
            tuple(mine),
        ),
        Row(
            "Second turn's cached tokens, lowest",
            min(cached),
            "",
            Aim(">", 700),
            note=f"of {second.input_tokens}",
            samples=tuple(cached),
        ),
    ]


_FOLLOW_UP = "Now say it in five words."


async def _conversation(sides: _Sides, text: str) -> tuple[Reading, Reading]:
    first = await sides.ask_through({"input": _fresh(sides, text)}, 32)
    second = await sides.ask_through({"input": _FOLLOW_UP, "previous_response_id": first.id}, LEAST)
    return first, second


async def _direct_conversation(sides: _Sides, text: str) -> float:
    asked = _fresh(sides, text)
    first = await sides.ask_direct([("user", asked)], 32)
    said = [("user", asked), ("assistant", first.text), ("user", _FOLLOW_UP)]
    second = await sides.ask_direct(said, LEAST)
    return second.first / first.first


def _fresh(sides: _Sides, text: str) -> str:
    """The text behind a number that no prompt in the cache begins with."""
    return f"{sides.order.randrange(10**8, 10**9)} is the number of this note. {text}"


async def _text(sides: _Sides) -> str:
    """Words that make a prompt of CONVERSATION tokens or a few more, as Ouzel counts them."""
    words = random.Random(_SEED)
    text = "Say in one sentence what this note is about:"
    while True:
        body = {"model": sides.model, "input": _fresh(sides, text)}
        counted = await sides.through.whole("/responses/input_tokens", body)
        missing = CONVERSATION - int(counted["input_tokens"])
        if missing <= 0:
            return text
        text = " ".join([text, *words.choices(_WORDS, k=max(5, missing * 2 // 3))])
