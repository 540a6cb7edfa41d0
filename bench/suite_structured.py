"""Are structured answers valid, whatever the schema says? Fifty schemas, both APIs."""

from __future__ import annotations

import asyncio
import json
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import APIError

from bench.arithmetic import Aim, Row, median, quantile
from bench.asking import Asking, asking, chosen, each, serving, tallies, told
from bench.checked import json_fault
from bench.load import ROOT
from bench.suite import Bench

DATA = ROOT / "bench" / "data" / "structured.toml"
MOST_TOKENS = 400
"""Tokens that an answer may have; all of the wanted ones are far shorter."""

_CUT = ("incomplete", "length")
"""How the APIs call an answer that ran out of tokens."""


@dataclass(frozen=True)
class Case:
    """One answer that is wanted.

    Args:
        through: `responses` or `chat`.
        type: `json_schema` or `json_object`.
        schema: what is valid.
    """

    name: str
    through: str
    type: str
    prompt: str
    schema: dict[str, Any]
    strict: bool = False
    stream: bool = False

    @property
    def named(self) -> dict[str, Any]:
        """The schema as requests carry it, with what describes it."""
        return {"name": self.name, "schema": self.schema, "strict": self.strict}


@dataclass
class Outcome:
    """What became of one case; `cut` if it ran out of tokens."""

    name: str
    through: str
    text: str = ""
    cut: bool = False
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """The answer is valid JSON for its schema."""
        return not self.faults

    @property
    def line(self) -> str:
        """For the log."""
        verdict = "ok   " if self.valid else "CUT  " if self.cut else "WRONG"
        why = f": {'; '.join(self.faults)}" if self.faults else ""
        said = self.text if self.faults else self.text[:120]
        return f"{verdict} {self.through} {self.name} {self.seconds:.1f} s{why} -- {said!r}"


def load(path: Path) -> list[Case]:
    """All cases of a file. Raises OSError, tomllib.TOMLDecodeError, KeyError, TypeError."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Case(**{**case, "schema": json.loads(case.get("schema", '{"type": "object"}'))})
        for case in data["case"]
    ]


def measure(bench: Bench) -> list[Row]:
    """Rows for how many answers were valid, and how long they took.

    Raises:
        OSError: there is no such file of cases.
        ServerFailed: the server did not come up.
    """
    cases = chosen(bench, load(bench.data or DATA))
    with serving(bench) as served:
        bench.tell(f"{len(cases)} structured answers")
        outcomes = asyncio.run(_all(bench, f"{served.url}/v1", cases))
        retried = tallies(served).get("retried_formats", 0)
    cut = [outcome.name for outcome in outcomes if outcome.cut]
    wrong = [outcome.name for outcome in outcomes if not outcome.valid and not outcome.cut]
    seconds = [outcome.seconds for outcome in outcomes]
    return [
        Row(
            "structured answers, valid for the full schema",
            sum(outcome.valid for outcome in outcomes),
            "",
            Aim(">=", len(cases)),
            note=f"of {len(cases)}; asked for again {retried}{_names('; invalid', wrong)}",
        ),
        Row("of them cut off by max_output_tokens", len(cut), "", note=", ".join(cut)),
        Row(
            "seconds for an answer, median",
            median(seconds),
            "s",
            note=f"90 % within {quantile(seconds, 0.9):.1f} s, all within {max(seconds):.1f}",
            samples=tuple(seconds),
        ),
    ]


def _names(head: str, names: Sequence[str]) -> str:
    return f"{head}: {', '.join(names)}" if names else ""


async def _all(bench: Bench, url: str, cases: Sequence[Case]) -> list[Outcome]:
    async with asking(url) as who:
        return await each(bench, cases, lambda case: attempt(who, case))


async def attempt(who: Asking, case: Case) -> Outcome:
    """Ask for one answer and check it."""
    outcome = Outcome(case.name, case.through)
    ask = _through_responses if case.through == "responses" else _through_chat
    began = time.perf_counter()
    try:
        outcome.text, ended = await ask(who, case)
    except APIError as error:
        outcome.faults.append(told(error))
        return outcome
    finally:
        outcome.seconds = time.perf_counter() - began
    outcome.cut = ended in _CUT
    if ended not in ("completed", "stop"):
        outcome.faults.append(f"it ended with {ended}")
    fault = json_fault(outcome.text, case.schema)
    if fault is not None:
        outcome.faults.append(fault)
    return outcome


async def _through_responses(who: Asking, case: Case) -> tuple[str, str]:
    """The text, and how it ended."""
    wanted: dict[str, Any] = {"type": case.type}
    if case.type == "json_schema":
        wanted |= case.named
    asked: Any = {
        "model": who.model,
        "input": case.prompt,
        "text": {"format": wanted},
        "max_output_tokens": MOST_TOKENS,
        "temperature": 0,
        "store": False,
    }
    if not case.stream:
        made = await who.client.responses.create(**asked)
        return made.output_text, made.status or ""
    said: list[str] = []
    ended = "no terminal event"
    async for event in await who.client.responses.create(**asked, stream=True):
        if event.type == "response.output_text.delta":
            said.append(event.delta)
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            ended = event.response.status or ""
    return "".join(said), ended


async def _through_chat(who: Asking, case: Case) -> tuple[str, str]:
    wanted: dict[str, Any] = {"type": case.type}
    if case.type == "json_schema":
        wanted["json_schema"] = case.named
    asked: Any = {
        "model": who.model,
        "messages": [{"role": "user", "content": case.prompt}],
        "response_format": wanted,
        "max_completion_tokens": MOST_TOKENS,
        "temperature": 0,
    }
    if not case.stream:
        made = await who.client.chat.completions.create(**asked)
        return made.choices[0].message.content or "", made.choices[0].finish_reason
    said: list[str] = []
    ended = "no finish_reason"
    async for chunk in await who.client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            said.append(choice.delta.content or "")
            ended = choice.finish_reason or ended
    return "".join(said), ended
