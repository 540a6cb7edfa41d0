"""A turn, written as a Chat Completions request in the dialect of the server that will read it.

Pure: no I/O. `Dialect` says where servers differ in what they take; docs/add-an-engine.md says
which takes what and where that was looked up. Which dialect a server speaks, `upstream_probe`
finds out; how its answers are read, `wire` knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from ouzel.core.request import Effort, FunctionTool
from ouzel.core.turns import Turn, TurnMessage

GrammarField = Literal["grammar", "structured_outputs", "guided_grammar", "ebnf"]
"""How a grammar is handed over: as `grammar` (llama-server), inside `structured_outputs` (vLLM),
as `guided_grammar` (vLLM until 2025), as `ebnf` (SGLang)."""


ThinkingForm = Literal["text", "reasoning_content", "reasoning"]
"""How thinking is handed back: between tags before the text, or in a field of the message; there
is no standard, and a server reads the name that it writes."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server takes beyond the common part, and wants to be told.

    Args:
        grammar: the field for a grammar, None where it takes none.
        continues: an assistant's message that has begun goes on only if that is asked for, in
            words that come from the transformers library.
        timings: it counts and times every token where it is asked to (llama-server).
        running_usage: it can send its counts with every chunk (vLLM, SGLang).
        efforts: values of `reasoning_effort` that it takes; none are sent otherwise.
        switch: its template turns thinking off where `enable_thinking` is false.
        thinking: how thinking is handed back, None where it is refused.
    """

    grammar: GrammarField | None = None
    continues: bool = False
    timings: bool = False
    running_usage: bool = False
    efforts: frozenset[Effort] = frozenset()
    switch: bool = False
    thinking: ThinkingForm | None = "text"


PLAIN: Final = Dialect()
"""What nearly every server takes."""

KNOWN: Final[dict[str, Dialect]] = {
    "llamacpp": Dialect(grammar="grammar", timings=True),
    "vllm": Dialect(grammar="structured_outputs", continues=True, running_usage=True),
    "sglang": Dialect(grammar="ebnf", continues=True, running_usage=True),
}
"""By what a server says of itself (`owned_by`), where nothing is probed."""

_LESSER: Final[dict[Effort, Effort]] = {"none": "minimal", "minimal": "low"}
"""What is said instead of an effort that the server does not take."""


def write_turn(turn: Turn, model: str, stream: bool, dialect: Dialect = PLAIN) -> dict[str, Any]:
    """The request body for a turn.

    Args:
        turn: what to generate.
        model: the name that the server lists.
        stream: ask for events, with usage at their end.
        dialect: what the server takes. What the turn wants and the server has no field for is
            left out: the engine's capabilities say that it cannot do it.

    `developer` goes out as `system`: most chat templates know no other name for it, and some drop
    what they do not know. A seed is folded into 31 bits, since servers read -1 and 2**32-1 as
    "none" and refuse or cut longer ones; the same seed stays the same. At least one alternative
    is asked for where log-probabilities are wanted: llama-server sends none when asked for 0.

    Raises:
        ValueError: a schema, or a tool's parameters, are no JSON.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, dialect.thinking) for message in turn.messages],
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
        if dialect.running_usage:
            body["stream_options"]["continuous_usage_stats"] = True
        if dialect.timings:
            body["timings_per_token"] = True
    if turn.max_tokens is not None:
        body["max_tokens"] = turn.max_tokens
    _write_sampling(turn, body)
    if turn.opening:
        body["messages"].append({"role": "assistant", "content": turn.opening})
        if dialect.continues:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    _write_form(turn, body, dialect)
    if turn.tools:
        body["tools"] = [_tool(tool) for tool in turn.tools]
        body["tool_choice"] = turn.tool_mode
        body["parallel_tool_calls"] = turn.parallel
    _write_effort(turn.effort, body, dialect)
    return body


def _message(message: TurnMessage, form: ThinkingForm | None) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    text = message.text
    if message.thinking and form == "text":
        text = f"<think>\n{message.thinking.strip()}\n</think>\n\n{text}"
    written: dict[str, Any] = {"role": role, "content": text}
    if message.thinking and form not in ("text", None):
        written[form] = message.thinking
    if message.name is not None:
        written["name"] = message.name
    if message.call_id is not None:
        written["tool_call_id"] = message.call_id
    if message.calls:
        written["content"] = text or None
        written["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    return written


def _write_sampling(turn: Turn, body: dict[str, Any]) -> None:
    sampling = turn.sampling
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        value = getattr(sampling, name)
        if value is not None:
            body[name] = value
    if sampling.seed is not None:
        body["seed"] = sampling.seed & 0x7FFFFFFF
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        body["logit_bias"] = dict(sampling.logit_bias)
    if sampling.top_logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = max(1, sampling.top_logprobs)


def _write_form(turn: Turn, body: dict[str, Any], dialect: Dialect) -> None:
    """The grammar or the schema. The empty schema means any JSON object."""
    if turn.grammar is not None and dialect.grammar is not None:
        inside = dialect.grammar == "structured_outputs"
        body[dialect.grammar] = {"grammar": turn.grammar} if inside else turn.grammar
    elif turn.schema is not None:
        schema = msgspec.json.decode(turn.schema)
        named = {"name": "answer", "schema": schema, "strict": True}
        body["response_format"] = (
            {"type": "json_schema", "json_schema": named} if schema else {"type": "json_object"}
        )


def _tool(tool: FunctionTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = msgspec.json.decode(tool.parameters)
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _write_effort(effort: Effort | None, body: dict[str, Any], dialect: Dialect) -> None:
    """How much to think, in the words that the server takes; the next lesser it knows, if any."""
    if effort is None:
        return
    if dialect.switch:
        body["chat_template_kwargs"] = {"enable_thinking": effort != "none"}
        if effort == "none" and effort not in dialect.efforts:
            return
    said: Effort | None = effort
    while said is not None and said not in dialect.efforts:
        said = _LESSER.get(said)
    if said is not None:
        body["reasoning_effort"] = said
