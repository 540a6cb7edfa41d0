"""Tasks with tools, as `bench/data/tools_*.toml` holds them, and what counts as right.

The head of those files says what their keys mean. Pure: nobody is asked anything here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.checked import json_fault

Kind = Literal["single", "none", "two_step"]
KINDS: tuple[Kind, ...] = ("single", "none", "two_step")

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(\D|$))")


@dataclass(frozen=True)
class Tool:
    """A function that a task offers.

    Args:
        parameters: JSON Schema of its arguments.
    """

    name: str
    description: str
    parameters: dict[str, Any]

    def fault(self, arguments: str) -> str | None:
        """What is wrong with arguments as JSON text, or None."""
        return json_fault(arguments, self.parameters)


@dataclass(frozen=True)
class Step:
    """A call that is wanted, and what it gives back."""

    call: str
    arguments: Mapping[str, Any]
    result: str = ""

    def matches(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this is that call."""
        return name == self.call and all(
            key in arguments and _holds(arguments[key], wanted)
            for key, wanted in self.arguments.items()
        )


@dataclass(frozen=True)
class Task:
    """One case.

    Args:
        steps: the calls that are wanted, in order; none for a message that needs none.
        answer: what the final answer must hold.
    """

    kind: Kind
    prompt: str
    tools: tuple[Tool, ...]
    steps: tuple[Step, ...] = ()
    answer: tuple[str | list[str], ...] = ()

    def tool(self, name: str) -> Tool | None:
        """The offered tool of this name."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def answered(self, text: str) -> bool:
        """Whether the answer holds all that it must."""
        said = _plain(text)
        alternatives = ([part] if isinstance(part, str) else part for part in self.answer)
        return all(any(_plain(part) in said for part in parts) for parts in alternatives)


def load(path: Path) -> dict[Kind, list[Task]]:
    """All tasks of a file by kind, in their order.

    Raises:
        OSError, tomllib.TOMLDecodeError, KeyError: the file is not there, or not such a file.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    tools = {
        name: Tool(name, about["description"], json.loads(about["parameters"]))
        for name, about in data["tools"].items()
    }
    return {kind: [_task(kind, case, tools) for case in data.get(kind, ())] for kind in KINDS}


def _task(kind: Kind, case: Mapping[str, Any], tools: Mapping[str, Tool]) -> Task:
    wanted: Sequence[Mapping[str, Any]] = ()
    if kind == "single":
        wanted = [case]
    elif kind == "two_step":
        wanted = case["steps"]
    return Task(
        kind,
        case["prompt"],
        tuple(tools[name] for name in case["tools"]),
        tuple(Step(step["call"], step["arguments"], step.get("result", "")) for step in wanted),
        tuple(case.get("answer", ())),
    )


def _holds(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_holds(got, each) for each in wanted)
    if isinstance(wanted, str):
        said = got if isinstance(got, str) else json.dumps(got, ensure_ascii=False)
        return wanted.lower() in said.lower()
    if isinstance(wanted, bool) or isinstance(got, bool):
        return got is wanted
    return isinstance(got, int | float) and got == wanted


def _plain(text: str) -> str:
    return _THOUSANDS.sub("", text).lower()
