"""What a scripted engine plays: replies, their steps, and how they are read from a file.

It knows TOML and the nouns of a script; who plays it is `scripted`.

A script in a file:

    model = "scripted"
    context_window = 4096
    capabilities = ["stop", "seed"]   # left out: CAPABILITIES
    thinks = "channel"                # or no, tags, open: what the engine says of itself
    tool_style = "native"             # or guided
    slots = 4                         # requests that it says it computes at once
    pace = { prefill = 50, decode = 20 }   # tokens a second; or "measured"; left out: very fast

    [[reply]]
    match = "weather"        # regular expressions; what is left out fits everything
    opening = "^```python"   # in what the assistant's message begins with already
    last = "sunny"           # in the last message, whoever says it
    before = "17"            # in the assistant's last message
    constrained = true       # whether the turn has a grammar or a schema
    tools = true             # whether the turn offers tools
    times = 1                # how often this reply is given; then it is passed over
    steps = [
      { think = "They ask about the weather." },
      { pause = 0.2 },
      { say = "You said: {input}", delay = 0.01 },
    ]

    [[reply]]
    steps = [{ say = "word ", repeat = 50 }, { die = "killed" }]

`match` looks at the last user message. In texts `{input}` stands for that message and `{last}`
for the last one of all, such as a tool's result.

Steps: `say`/`think` (with `repeat` and `delay` in seconds between tokens), `call` (with
`arguments`, a JSON string), `pause` (seconds), `error` (a message; with `status` 400, 500 or
503), `die` (a message), `stop` (`stop`, `length`, `filter`: ends the turn). Thinking is passed over
in a turn that was opened with its end, `</think>`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from ouzel.core.contracts import Capability, Thinks, ToolStyle
from ouzel.core.turns import Pace, Turn

CAPABILITIES: Final[frozenset[Capability]] = frozenset(
    {
        "logprobs",
        "seed",
        "stop",
        "penalties",
        "grammar",
        "llguidance",
        "json_schema",
        "opening",
        "tools",
    }
)
"""What a script can unless it says otherwise. Under a grammar or a schema it plays on as it is
written: that its output fits is the script's matter, and may be what a test wants to break."""

FAST: Final = Pace(prefill=100_000.0, decode=10_000.0)
"""The pace that is told unless the script says otherwise."""


class ScriptError(ValueError):
    """A script cannot be read; the message says which reply and step, and why."""


@dataclass(frozen=True, slots=True)
class Say:
    """Text for the answer; `{input}` stands for the last user message, `{last}` for the last."""

    text: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Think:
    """Text for the thinking channel."""

    text: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call with these JSON arguments, whether the turn offers such a tool or not."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """An error that the engine reports: 400 the request's, 500 its own, 503 not available."""

    message: str
    status: int = 500


@dataclass(frozen=True, slots=True)
class Die:
    """The engine goes away in mid-stream."""

    message: str = "the scripted engine died"


@dataclass(frozen=True, slots=True)
class Stop:
    """The turn ends here for this reason."""

    reason: Literal["stop", "length", "filter"] = "stop"


Step = Say | Think | Call | Pause | Fail | Die | Stop


@dataclass(frozen=True, slots=True)
class Reply:
    """What is played for a turn that fits; what is left open fits every turn.

    Args:
        match: a regular expression, found in the last user message.
        opening: one that is found in what the assistant's message begins with already.
        last: one that is found in the last message, whoever says it.
        before: one that is found in the assistant's last message.
        constrained: the turn has a grammar or a schema, or has neither.
        tools: the turn offers tools, or offers none.
        times: how often it is given by one engine; None always.
    """

    steps: tuple[Step, ...]
    match: str = ""
    opening: str = ""
    last: str = ""
    before: str = ""
    constrained: bool | None = None
    tools: bool | None = None
    times: int | None = None

    def fits(self, turn: Turn) -> bool:
        """Whether it may be played for this turn; `times` is not looked at."""
        return (
            self.constrained in (None, turn.grammar is not None or turn.schema is not None)
            and self.tools in (None, bool(turn.tools))
            and re.search(self.opening, turn.opening) is not None
            and re.search(self.match, last_user_text(turn)) is not None
            and re.search(self.last, last_text(turn)) is not None
            and re.search(self.before, _said_before(turn)) is not None
        )


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script: what the engine claims to be, and what it replies.

    Args:
        pace: how fast it says that it is; None has it measured.
        slots: how many requests it says that it computes at once; it takes any number.
    """

    replies: tuple[Reply, ...] = (Reply((Say("You said: {input}"),)),)
    model: str = "scripted"
    context_window: int = 8192
    capabilities: frozenset[Capability] = CAPABILITIES
    thinks: Thinks = "channel"
    tool_style: ToolStyle = "native"
    pace: Pace | None = FAST
    slots: int = 4


def last_user_text(turn: Turn) -> str:
    """What the user said last, also where results of tools came after it."""
    return next((m.text for m in reversed(turn.messages) if m.role == "user"), "")


def _said_before(turn: Turn) -> str:
    """What the assistant said last."""
    said = [message.text for message in turn.messages if message.role == "assistant"]
    return said[-1] if said else ""


def last_text(turn: Turn) -> str:
    """The text of the last message."""
    return turn.messages[-1].text if turn.messages else ""


def load_script(path: Path) -> Script:
    """Read a script from a TOML file.

    Raises:
        ScriptError: the file cannot be read, or a reply or step in it is not understood.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScriptError(f"The script {path} cannot be read: {error}") from error
    about = {"model", "context_window", "capabilities", "thinks", "tool_style", "pace", "slots"}
    _only(data, {*about, "reply"}, "the script")
    replies = data.get("reply", [])
    if not isinstance(replies, list) or not replies:
        raise ScriptError("The script needs at least one [[reply]].")
    can = data.get("capabilities", sorted(CAPABILITIES))
    if not isinstance(can, list):
        raise ScriptError("the script: capabilities is a list of names.")
    names: tuple[Capability, ...] = get_args(Capability)
    thinks: tuple[Thinks, ...] = get_args(Thinks)
    styles: tuple[ToolStyle, ...] = get_args(ToolStyle)
    try:
        return Script(
            replies=tuple(_reply(reply, number) for number, reply in enumerate(replies, 1)),
            model=str(data.get("model", "scripted")),
            context_window=int(data.get("context_window", 8192)),
            capabilities=frozenset(_one_of(name, names, "capabilities") for name in can),
            thinks=_one_of(data.get("thinks", "channel"), thinks, "thinks"),
            tool_style=_one_of(data.get("tool_style", "native"), styles, "tool_style"),
            pace=_pace(data["pace"]) if "pace" in data else FAST,
            slots=int(data.get("slots", 4)),
        )
    except ScriptError:
        raise
    except (TypeError, ValueError, re.error) as error:
        raise ScriptError(f"The script {path} is not right: {error}") from error


_T = TypeVar("_T")


def _one_of(value: object, known: tuple[_T, ...], where: str) -> _T:
    found = next((name for name in known if name == value), None)
    if found is None:
        raise ScriptError(f"the script: {where} knows {', '.join(map(str, known))}; got {value!r}.")
    return found


def _pace(data: object) -> Pace | None:
    if data == "measured":
        return None
    if not isinstance(data, dict):
        raise ScriptError('the script: pace is "measured", or a table with prefill and decode.')
    _only(data, {"prefill", "decode"}, "pace")
    pace = Pace(float(data.get("prefill", FAST.prefill)), float(data.get("decode", FAST.decode)))
    if min(pace.prefill, pace.decode) <= 0:
        raise ScriptError("the script: a pace is more than 0 tokens a second.")
    return pace


def _reply(data: Mapping[str, Any], number: int) -> Reply:
    where = f"reply {number}"
    patterns = ("match", "opening", "last", "before")
    switches = ("constrained", "tools")
    _only(data, {*patterns, *switches, "times", "steps"}, where)
    for name in patterns:
        re.compile(str(data.get(name, "")))
    for name in switches:
        if not isinstance(data.get(name, True), bool):
            raise ScriptError(f"{where}: {name} is true or false.")
    times = data.get("times")
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise ScriptError(f"{where}: times is a whole number from 1.")
    steps: list[Step] = []
    for place, step in enumerate(data.get("steps", []), 1):
        steps.extend(_steps(step, f"{where}, step {place}"))
    return Reply(
        tuple(steps),
        match=str(data.get("match", "")),
        opening=str(data.get("opening", "")),
        last=str(data.get("last", "")),
        before=str(data.get("before", "")),
        constrained=data.get("constrained"),
        tools=data.get("tools"),
        times=times,
    )


def _steps(data: Mapping[str, Any], where: str) -> Iterable[Step]:
    values = dict(data)
    kinds = ("say", "think", "call", "pause", "error", "die", "stop")
    kind = next((kind for kind in kinds if kind in values), None)
    match kind:
        case "say" | "think":
            _only(values, {kind, "repeat", "delay"}, where)
            text = str(values[kind]) * int(values.get("repeat", 1))
            return [(Say if kind == "say" else Think)(text, float(values.get("delay", 0)))]
        case "call":
            _only(values, {"call", "arguments"}, where)
            return [Call(str(values["call"]), str(values.get("arguments", "{}")))]
        case "pause":
            _only(values, {"pause"}, where)
            return [Pause(float(values["pause"]))]
        case "error":
            _only(values, {"error", "status"}, where)
            return [Fail(str(values["error"]), int(values.get("status", 500)))]
        case "die":
            _only(values, {"die"}, where)
            return [Die(str(values["die"]))]
        case "stop":
            _only(values, {"stop"}, where)
            if values["stop"] not in ("stop", "length", "filter"):
                raise ScriptError(f"{where}: stop is one of stop, length, filter.")
            return [Stop(values["stop"])]
    raise ScriptError(f"{where}: a step is one of {', '.join(kinds)}; got {sorted(values)}.")


def _only(data: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ScriptError(f"{where}: unknown key '{unknown[0]}', known are {sorted(known)}.")
