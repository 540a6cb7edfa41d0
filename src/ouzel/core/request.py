"""What was asked, validated, the same for every protocol.

A `Request` is made by a reader in `api` and never changes afterwards. It knows no wire JSON, and
nothing of who asks: the owner travels beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ouzel.core.items import Item

Protocol = Literal["chat", "responses"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is picked; None leaves a knob at the engine's own default.

    Args:
        temperature: 0 (greedy) to 2.
        top_p: nucleus mass, 0 to 1.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        seed: makes sampling repeatable on engines that support it.
        stop: up to four sequences that end the answer; they are not part of it.
        logit_bias: token id -> bias, -100 to 100.
        top_logprobs: None asks for no log-probabilities; 0 to 20 asks for the token's own and
            that many alternatives.
    """

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    top_logprobs: int | None = None


Effort = Literal["none", "minimal", "low", "medium", "high"]
"""How much the model may think before it answers, least first."""

Summary = Literal["auto", "concise", "detailed"]
Verbosity = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A function with JSON arguments that the model may call.

    Args:
        parameters: JSON Schema of the arguments, as compact JSON text; of an object.
        strict: the schema is of the strict kind; calls are valid for the schema in any case.
    """

    name: str
    description: str = ""
    parameters: str = '{"type":"object","properties":{}}'
    strict: bool = False
    kind: Literal["function_tool"] = field(default="function_tool", init=False)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the input of a custom tool must look like."""

    syntax: Literal["lark", "regex"]
    definition: str


@dataclass(frozen=True, slots=True)
class CustomTool:
    """A tool that takes plain text.

    Args:
        language: what the text is written in (`python`), where that is known: it opens the
            fence in which models write it best. Never read from clients.
    """

    name: str
    description: str = ""
    grammar: Grammar | None = None
    language: str = ""
    kind: Literal["custom_tool"] = field(default="custom_tool", init=False)


@dataclass(frozen=True, slots=True)
class HostedTool:
    """A tool that this server runs by itself.

    Args:
        type: its name in requests.
        settings: what the client set for it, a JSON object as compact text.
    """

    type: str
    settings: str = "{}"
    kind: Literal["hosted_tool"] = field(default="hosted_tool", init=False)


ToolSpec = FunctionTool | CustomTool | HostedTool
"""A tool as a request offers it."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called, and which of those offered.

    Args:
        mode: `none`, `auto`, or `required`: at least one call before the answer.
        names: the only ones that may be called (hosted tools by type); None means all offered.
        form: how the client put it: a bare mode, one tool by name, or a list of allowed tools.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] | None = None
    form: Literal["mode", "named", "allowed"] = "mode"


@dataclass(frozen=True, slots=True)
class Format:
    """What the answer's text must be.

    Args:
        type: plain text, any JSON object, or JSON that is valid for `schema`.
        name: the schema's name.
        description: what the schema is for.
        schema: JSON Schema as compact JSON text.
        strict: what the client asked; answers are valid for the schema in any case, None where
            it was not said.
    """

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    description: str | None = None
    schema: str = "{}"
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the server.

    Args:
        protocol: which API it came through; decides nothing but how the answer is written.
        model: the name the client used, resolved against the served names by `answer`.
        input: the new items, oldest first; history is found through `previous_id`.
        instructions: system-level text for this request only, not inherited by later ones.
        max_output_tokens: upper bound for everything the model generates, thinking included.
        previous_id: the stored run that this one continues.
        store: keep the run, so that it can be fetched and continued.
        metadata: up to 16 string pairs, kept and given back.
        labels: parameters without effect on the answer that are echoed to the client (`user`,
            `safety_identifier`, `prompt_cache_key`, `service_tier`, ...).
        tools: what the model may call, names unlike each other.
        tool_choice: whether it must, and which.
        parallel_tool_calls: several of the client's tools may be called at once.
        max_tool_calls: most calls of hosted tools in this run; None leaves it to the server.
        effort: how much to think; None is the model's own default.
        summary: summarise the thinking for the client; None asks for no summary.
        format: what the answer's text must be.
        verbosity: how long an answer the client likes.
        answer_within: seconds from admission in which the answer should be whole; None takes the
            server's setting, 0 sets no limit.
        include: further parts of the output that the client wants to see, by the names that
            the API has for them.
        background: the run goes on whether or not anybody reads it; it is stored, waits for its
            turn, and survives the end of the process.
        conversation_id: the conversation that this request continues, and that its input and
            output are added to when it has ended well.
        truncation: what happens to a prompt that does not fit: it is refused, or older turns are
            compacted.
        compact_at: tokens of the prompt from which on older turns are compacted; 0 leaves the
            number to the server, None asks for nothing.
        choice_of: the run that this one is a further choice of (Chat Completions with `n`).
    """

    protocol: Protocol
    model: str
    input: tuple[Item, ...]
    instructions: str | None = None
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    previous_id: str | None = None
    store: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    max_tool_calls: int | None = None
    effort: Effort | None = None
    summary: Summary | None = None
    format: Format = Format()
    verbosity: Verbosity = "medium"
    answer_within: float | None = None
    include: frozenset[str] = frozenset()
    background: bool = False
    conversation_id: str | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    compact_at: int | None = None
    choice_of: str | None = None
