"""What an engine is shown, and what it says.

One turn is one prompt and the tokens that follow it. This is the whole language between the loop
and an engine: no tool is run here, nothing is stored, no HTTP client is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ouzel.core.items import Role, TokenLogprob
from ouzel.core.request import Sampling


@dataclass(frozen=True, slots=True)
class TurnMessage:
    """One message of the prompt, already plain text."""

    role: Role
    text: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """Everything an engine needs for one generation.

    Args:
        messages: the prompt, oldest first.
        sampling: how tokens are picked.
        max_tokens: upper bound for generated tokens; None means up to the context window.
    """

    messages: tuple[TurnMessage, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None


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
            the context window was reached), `calls` (tools are wanted), `filter`.
        usage: tokens of this turn.
    """

    reason: Literal["stop", "length", "calls", "filter"]
    usage: Usage = field(default_factory=Usage)


EngineDelta = TextDelta | ThinkingDelta | CallDelta | TurnDone
