"""Is an answer whole in time? Varied questions at effort high, by the wall clock of the client."""

from __future__ import annotations

import asyncio
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openai import APIError

from bench.arithmetic import Aim, Row, median
from bench.asking import Asking, asking, chosen, each, serving, tallies, told
from bench.checked import cut_off
from bench.load import ROOT
from bench.suite import Bench

DATA = ROOT / "bench" / "data" / "deadline.toml"
WITHIN = (60, 15)
"""Seconds that answers get, one after the other."""

HEADER = "x-answer-within"


@dataclass(frozen=True)
class Question:
    """One question; `within` is the seconds that its answer gets."""

    kind: str
    prompt: str
    within: int


@dataclass
class Outcome:
    """What became of one question.

    Args:
        seconds: from sending to the last byte.
        tokens, thought: that were generated in all, and of them for thinking.
        whole: it was completed and its text looks whole.
    """

    kind: str
    prompt: str
    within: int
    seconds: float = 0.0
    tokens: int = 0
    thought: int = 0
    whole: bool = False
    text: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def in_time(self) -> bool:
        """There was an answer before its time was up."""
        return bool(self.text) and self.seconds <= self.within

    @property
    def line(self) -> str:
        """For the log."""
        verdict = "ok  " if self.whole else "CUT "
        verdict += "" if self.in_time else "LATE"
        why = f": {'; '.join(self.faults)}" if self.faults else ""
        counts = f"{self.tokens} tokens, {self.thought} of them thinking"
        end = f"-- ... {self.text[-60:]!r}"
        head = f"{verdict} {self.seconds:.1f} of {self.within} s, {counts}"
        return f"{head}: {self.kind}: {self.prompt[:50]!r}{why} {end}"


def load(path: Path, within: int) -> list[Question]:
    """All questions of a file. Raises OSError, tomllib.TOMLDecodeError, KeyError."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Question(each["kind"], each["prompt"], within) for each in data["question"]]


def measure(bench: Bench) -> list[Row]:
    """Rows for answers in time and whole answers, for each deadline.

    Raises:
        OSError: there is no such file of questions.
        ServerFailed: the server did not come up.
    """
    rows: list[Row] = []
    with serving(bench) as served:
        for within in WITHIN:
            questions = chosen(bench, load(bench.data or DATA, within))
            bench.tell(f"{len(questions)} questions within {within} s")
            before = tallies(served)
            outcomes = asyncio.run(_all(bench, f"{served.url}/v1", questions))
            after = tallies(served)
            counted = [
                f"{name} {after.get(name, 0) - before.get(name, 0)}"
                for name in ("wound_up", "hurried")
            ]
            rows += _rows(within, outcomes, ", ".join(counted))
    return rows


def _rows(within: int, outcomes: Sequence[Outcome], counted: str) -> list[Row]:
    of = len(outcomes)
    seconds = [outcome.seconds for outcome in outcomes]
    late = [outcome.prompt[:30] for outcome in outcomes if not outcome.in_time]
    cut = [outcome.prompt[:30] for outcome in outcomes if not outcome.whole]
    tokens = median([outcome.tokens for outcome in outcomes])
    thought = median([outcome.thought for outcome in outcomes])
    label = f"within {within} s, effort high"
    return [
        Row(f"{label}: in time", of - len(late), "", Aim(">=", of), note=_of(of, late)),
        Row(f"{label}: whole", of - len(cut), "", Aim(">=", of), note=_of(of, cut)),
        Row(
            f"{label}: slowest",
            max(seconds),
            "s",
            Aim("<=", within),
            note=f"median {median(seconds):.1f} s; {tokens:.0f} tokens, {thought:.0f} of them "
            f"thinking; {counted}",
            samples=tuple(seconds),
        ),
    ]


def _of(count: int, but: Sequence[str]) -> str:
    return f"of {count}" + (f"; not: {'; '.join(but)}" if but else "")


async def _all(bench: Bench, url: str, questions: Sequence[Question]) -> list[Outcome]:
    async with asking(url) as who:
        return await each(bench, questions, lambda question: attempt(who, question))


async def attempt(who: Asking, question: Question) -> Outcome:
    """Ask one question and take the time until the stream is over."""
    outcome = Outcome(question.kind, question.prompt, question.within)
    said: list[str] = []
    ended = "no terminal event"
    began = time.perf_counter()
    try:
        stream = await who.client.responses.create(
            model=who.model,
            input=question.prompt,
            reasoning={"effort": "high"},
            store=False,
            stream=True,
            extra_headers={HEADER: str(question.within)},
        )
        async for event in stream:
            if event.type == "response.output_text.delta":
                said.append(event.delta)
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                ended = event.response.status or ""
                if event.response.usage is not None:
                    usage = event.response.usage
                    outcome.tokens = usage.output_tokens
                    outcome.thought = usage.output_tokens_details.reasoning_tokens
    except APIError as error:
        ended = told(error)
    outcome.seconds = time.perf_counter() - began
    outcome.text = "".join(said)
    if ended != "completed":
        outcome.faults.append(f"it ended with {ended}")
    fault = cut_off(outcome.text)
    if fault is not None:
        outcome.faults.append(fault)
    outcome.whole = not outcome.faults
    return outcome
