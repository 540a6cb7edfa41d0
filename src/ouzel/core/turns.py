"""What an engine is shown, and what it says.

One turn is one prompt and the tokens that follow it. This is the whole language between the loop
and an engine: no tool is run here, nothing is stored, no HTTP client is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ouzel.core.items import Role, TokenLogprob
from ouzel.core.request import Effort, FunctionTool, Sampling


@dataclass(frozen=True, slots=True)
class TurnCall:
    """A call that was made earlier, as engines with native tools are shown it.

    Args:
        arguments: a JSON object as text.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TurnMessage:
    """One message of the prompt, already plain text.

    Args:
        calls: what the assistant called with this message (native tools only).
        call_id: which call a `tool` message answers (native tools only).
        thinking: what the assistant thought before it, where the round still goes on (engines
            that think natively only).
    """

    role: Role | Literal["tool"]
    text: str
    name: str | None = None
    calls: tuple[TurnCall, ...] = ()
    call_id: str | None = None
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """Everything an engine needs for one generation.

    Args:
        messages: the prompt, oldest first.
        sampling: how tokens are picked.
        max_tokens: upper bound for generated tokens; None means up to the context window.
        opening: what the assistant's message begins with already; the engine goes on from there
            and does not say it again. Needs the capability `opening`.
        grammar: GBNF of everything that is generated (after `opening`). Needs `grammar`.
        schema: JSON Schema as text: what is generated is one JSON value that is valid for it.
            Needs `json_schema`. At most one of `grammar` and `schema` is set.
        tools: functions that the model may call in its own way. Needs `tools`.
        tool_mode: whether it may, or must.
        parallel: several calls at once are welcome.
        effort: how much to think, for models that think natively; None leaves it to them.
    """

    messages: tuple[TurnMessage, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    opening: str = ""
    grammar: str | None = None
    schema: str | None = None
    tools: tuple[FunctionTool, ...] = ()
    tool_mode: Literal["none", "auto", "required"] = "auto"
    parallel: bool = True
    effort: Effort | None = None


class Halt:
    """A wish that a turn ends soon, made by whoever reads it.

    The engine looks at it whenever it is asked for its next delta; it then generates no further
    and ends the turn with a TurnDone of reason `halted`, tokens counted.

    Attributes:
        wished: whether the turn shall end.
    """

    __slots__ = ("wished",)

    def __init__(self) -> None:
        self.wished = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an engine is at present, as it measured in recent turns.

    Args:
        prefill: prompt tokens a second that are read, cached ones not counted.
        decode: tokens a second that one stream generates.
    """

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted by the engine, never estimated.

    Args:
        input_tokens: tokens of the prompt, cached ones included.
        cached_tokens: how many of those were not computed again.
        output_tokens: generated tokens, thinking included.
        reasoning_tokens: how many of those were thinking.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """The next piece of the thinking, from engines that keep a channel for it."""

    text: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """The next piece of the model's words for declining, from engines that tell them apart."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """The next piece of a tool call; pieces with the same index belong together.

    Args:
        index: which call of this turn, from 0.
        id: the engine's id for the call, on its first piece.
        name: the tool's name, on its first piece.
        arguments: the next characters of the JSON arguments.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The last thing an engine says in a turn, always exactly one.

    Args:
        reason: `stop` (the model ended, or a stop sequence came), `length` (the token limit or
            the context window was reached), `calls` (tools are wanted), `filter`, `halted` (the
            reader wished it).
        usage: tokens of this turn.
    """

    reason: Literal["stop", "length", "calls", "filter", "halted"]
    usage: Usage = field(default_factory=Usage)


EngineDelta = TextDelta | ThinkingDelta | RefusalDelta | CallDelta | TurnDone
