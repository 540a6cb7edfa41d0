"""Items as the Responses API writes them, for both directions of a conversation.

Some of what an item holds is written only where the client asked for it: `include`, by the names
that the API has for it. Pure. It knows single items and lists of them; runs, streams and HTTP are
other files' business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

from ouzel.api.read_errors import literal
from ouzel.api.writing import logprobs
from ouzel.core.errors import RequestError
from ouzel.core.events import Channel
from ouzel.core.items import (
    Annotation,
    CallOutput,
    CodeCall,
    Compaction,
    CustomCall,
    File,
    FunctionCall,
    HostedCall,
    Image,
    Item,
    Logs,
    Message,
    Part,
    Picture,
    Reasoning,
    Text,
    TokenLogprob,
)

OUTPUTS: Final = "code_interpreter_call.outputs"
"""What `include` calls the output of code."""

SEALED: Final = "reasoning.encrypted_content"
"""What `include` calls thinking that only this server can read again."""


def output_part(
    channel: Channel,
    text: str,
    tokens: Sequence[TokenLogprob] = (),
    annotations: Sequence[Annotation] = (),
) -> dict[str, Any]:
    """One part of what the model says, whole (`text` so far for a part that only begins)."""
    match channel:
        case "text":
            return {
                "type": "output_text",
                "text": text,
                "annotations": [annotation(each) for each in annotations],
                "logprobs": logprobs(tokens, []),
            }
        case "refusal":
            return {"type": "refusal", "refusal": text}
        case "reasoning":
            return {"type": "reasoning_text", "text": text}
        case "summary":
            return {"type": "summary_text", "text": text}
        case "arguments" | "input" | "code":
            raise ValueError(f"the {channel} of a call are no part of a message")


def annotation(value: Annotation) -> dict[str, Any]:
    """What belongs to a piece of the answer's text."""
    return {"type": "container_file_citation", **cited(value)}


def cited(value: Annotation) -> dict[str, Any]:
    """A file in a container, and where in a text it is spoken of."""
    return {
        "container_id": value.container_id,
        "file_id": value.file_id,
        "filename": value.name,
        "start_index": value.start,
        "end_index": value.end,
    }


def item(value: Item, include: Collection[str] = ()) -> dict[str, Any]:
    """An item: what the model said, or what it was given.

    Args:
        include: what the client asked to see beside the rest.
    """
    match value:
        case Message():
            return {
                "id": value.id,
                "type": "message",
                "status": value.status,
                "role": value.role,
                "content": [_message_part(value, part) for part in value.parts],
                **({"phase": value.phase} if value.phase else {}),
            }
        case Reasoning():
            thought = [output_part("reasoning", value.text)] if value.text else []
            shown = SEALED in include and value.sealed
            sealed = {"encrypted_content": value.sealed} if shown else {}
            return {
                **sealed,
                "id": value.id,
                "type": "reasoning",
                "status": value.status,
                "summary": [output_part("summary", text) for text in value.summary],
                "content": thought,
            }
        case FunctionCall():
            return {
                "id": value.id,
                "type": "function_call",
                "status": value.status,
                "call_id": value.call_id,
                "name": value.name,
                "arguments": value.arguments,
            }
        case CustomCall():
            return {
                "id": value.id,
                "type": "custom_tool_call",
                "status": value.status,
                "call_id": value.call_id,
                "name": value.name,
                "input": value.input,
            }
        case CallOutput():
            return _call_output(value)
        case HostedCall():
            return _hosted_call(value)
        case CodeCall():
            return _code_call(value, OUTPUTS in include)
        case Compaction():
            return {"id": value.id, "type": "compaction", "encrypted_content": value.sealed}


def _call_output(value: CallOutput) -> dict[str, Any]:
    parts = [{"type": "input_text", "text": part.text} for part in value.parts]
    return {
        "id": value.id,
        "type": "function_call_output" if value.of == "function" else "custom_tool_call_output",
        "status": value.status,
        "call_id": value.call_id,
        "output": value.text if value.plain else parts,
    }


def _hosted_call(value: HostedCall) -> dict[str, Any]:
    """A tool that the server ran; docs/decisions/0006 says why it is written as one of MCP."""
    error = None
    if value.error is not None:
        content = [{"type": "text", "text": value.error}]
        error = {"type": "mcp_tool_execution_error", "content": content}
    return {
        "id": value.id,
        "type": "mcp_call",
        "status": value.status,
        "server_label": value.label,
        "name": value.name,
        "arguments": value.arguments,
        "approval_request_id": None,
        "output": value.output,
        "error": error,
    }


def _code_call(value: CodeCall, outputs: bool) -> dict[str, Any]:
    """Code that the server ran; `outputs` is null where it was not asked for, or is not there."""
    ended = value.status not in ("in_progress", "interpreting")
    return {
        "id": value.id,
        "type": "code_interpreter_call",
        "status": value.status,
        "container_id": value.container_id,
        "code": value.code,
        "outputs": [_code_output(each) for each in value.outputs] if outputs and ended else None,
    }


def _code_output(value: Logs | Picture) -> dict[str, str]:
    if isinstance(value, Picture):
        return {"type": "image", "url": value.url}
    return {"type": "logs", "logs": value.text}


def _message_part(message: Message, part: Part) -> dict[str, Any]:
    if isinstance(part, File):
        return _file(part)
    if isinstance(part, Image):
        return _image(part)
    if message.role != "assistant":
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Text):
        return output_part("text", part.text, part.logprobs, part.annotations)
    return output_part("refusal", part.text)


def _file(part: File) -> dict[str, Any]:
    """A file that was handed over. What it holds was kept, and is fetched by its id."""
    given = {"file_id": part.file_id, "filename": part.name}
    return {"type": "input_file", **{name: value for name, value in given.items() if value}}


def _image(part: Image) -> dict[str, Any]:
    # Open Responses asks for the URL, and takes null.
    where = {"image_url": part.url or None, "detail": part.detail}
    return {"type": "input_image", **where, **({"file_id": part.file_id} if part.file_id else {})}


def page(
    items: Sequence[Item],
    *,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
    include: Collection[str] = (),
) -> dict[str, Any]:
    """One page of a list of items.

    Args:
        items: all of them, oldest first.
        after: id of the item after which, in the order asked for, the page begins.
        limit: most items on the page.
        order: `asc` is oldest first.
        include: as for `item`.

    Raises:
        RequestError: there is no item with the id `after`.
    """
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = 0
    if after is not None:
        ids = [entry.id for entry in ordered]
        if after not in ids:
            raise RequestError(
                f"No item with id {literal(after)} in this list.",
                param="after",
                code="invalid_value",
            )
        start = ids.index(after) + 1
    chosen = ordered[start : start + limit]
    # An empty page has no ids, but the types ask for strings.
    return {
        "object": "list",
        "data": [item(entry, include) for entry in chosen],
        "first_id": chosen[0].id if chosen else "",
        "last_id": chosen[-1].id if chosen else "",
        "has_more": start + limit < len(ordered),
    }
