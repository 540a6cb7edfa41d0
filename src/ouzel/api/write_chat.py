"""Runs and events as the Chat Completions API writes them: a narrower view of the same run.

A choice is a run. `completion` writes finished runs as one object, `ChatStream` their events as
chunks. Thinking goes into `reasoning_content`, the field that other servers made customary;
summaries of it have no place here and are left out. Calls of tools that the server ran itself go
into `hosted_tool_calls`, the files that they left into `container_files`: fields of ours, which are
there only if there is something in them. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ouzel.api import failures, write_items
from ouzel.api.writing import encode, logprobs
from ouzel.core.events import (
    Annotated,
    Delta,
    Event,
    Failure,
    ItemDone,
    ItemStarted,
    PartDone,
    RunFinished,
)
from ouzel.core.items import (
    Annotation,
    Call,
    CodeCall,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
)
from ouzel.core.runs import Run
from ouzel.core.turns import Usage

_FIELDS = {"text": "content", "refusal": "refusal", "reasoning": "reasoning_content"}
"""Channel -> field of a chunk's delta. What calls are made of is written in their own form."""

_INCLUDE = (write_items.OUTPUTS,)
"""Hosted calls are written whole: this API has no `include` to ask for the rest."""

_WHAT = {"function": "arguments", "custom": "input"}
"""Kind of call -> what it is made of."""


def completion(runs: Sequence[Run], *, fingerprint: str | None = None) -> dict[str, Any]:
    """The `chat.completion` object of finished runs, one for each choice.

    Args:
        runs: at least one; the first gives id, time and model. None of them failed.
        fingerprint: names the engine's configuration, where it is known.

    Raises:
        ValueError: a run failed or is not finished; Chat Completions has no object for that.
    """
    first = runs[0]
    body: dict[str, Any] = {
        "id": first.id,
        "object": "chat.completion",
        "created": int(first.created_at),
        "model": first.model,
        "choices": [_choice(index, run) for index, run in enumerate(runs)],
        "service_tier": "default",
        **_fingerprint(fingerprint),
    }
    if all(run.usage is not None for run in runs):
        body["usage"] = usage([run.usage for run in runs if run.usage is not None])
    if first.request.metadata:
        body["metadata"] = dict(first.request.metadata)
    return body


def _choice(index: int, run: Run) -> dict[str, Any]:
    scores = None
    if run.request.sampling.top_logprobs is not None:
        parts = [part for item in run.output if isinstance(item, Message) for part in item.parts]
        tokens = [token for part in parts if isinstance(part, Text) for token in part.logprobs]
        scores = _logprobs("content", tokens)
    written = message(run.output)
    reason = finish_reason(run.status, run.incomplete, called="tool_calls" in written)
    return {"index": index, "message": written, "logprobs": scores, "finish_reason": reason}


def message(items: Sequence[Item]) -> dict[str, Any]:
    """What the assistant said and did in one turn, as its message."""
    parts = [part for item in items if isinstance(item, Message) for part in item.parts]
    text = [part.text for part in parts if isinstance(part, Text)]
    refusal = [part.text for part in parts if isinstance(part, Refusal)]
    thought = [item.text for item in items if isinstance(item, Reasoning) and item.text]
    written: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text) if text else None,
        "refusal": "".join(refusal) if refusal else None,
        "annotations": [],
    }
    if thought:
        written["reasoning_content"] = "".join(thought)
    calls = [item for item in items if isinstance(item, FunctionCall | CustomCall)]
    if calls:
        written["tool_calls"] = [_call(call, _made_of(call)) for call in calls]
    return {**written, **_hosted(items)}


def _hosted(items: Sequence[Item]) -> dict[str, Any]:
    """What the server did by itself, as fields of the message."""
    hosted = [item for item in items if isinstance(item, HostedCall | CodeCall)]
    files: list[dict[str, Any]] = []
    said = 0
    for item in items:
        for part in item.parts if isinstance(item, Message) else ():
            if isinstance(part, Text):
                files += [_container_file(each, said) for each in part.annotations]
                said += len(part.text)
    written: dict[str, Any] = {}
    if hosted:
        written["hosted_tool_calls"] = [write_items.item(item, _INCLUDE) for item in hosted]
    if files:
        written["container_files"] = files
    return written


def _container_file(citation: Annotation, said: int) -> dict[str, Any]:
    """A citation, within a content that had so many characters before the part it is in."""
    moved = replace(citation, start=citation.start + said, end=citation.end + said)
    return write_items.cited(moved)


def _made_of(call: Call) -> str:
    return call.input if isinstance(call, CustomCall) else call.arguments


def _call(call: Call, made_of: str) -> dict[str, Any]:
    """A call with so much of its arguments or input."""
    kind = "custom" if isinstance(call, CustomCall) else "function"
    return {"id": call.call_id, "type": kind, kind: {"name": call.name, _WHAT[kind]: made_of}}


def finish_reason(status: str, incomplete: str | None, called: bool = False) -> str:
    """Why a choice ended. A cancelled one was cut short, for which the API's word is `length`.

    Args:
        status: the run's.
        incomplete: why it is incomplete, if it is.
        called: it asks for calls of the client's tools.

    Raises:
        ValueError: the run failed or is not finished.
    """
    match status, incomplete:
        case "completed", _:
            return "tool_calls" if called else "stop"
        case "incomplete", "content_filter":
            return "content_filter"
        case (("incomplete" | "cancelled"), _):
            return "length"
    raise ValueError(f"a run that is {status} has no finish reason")


def usage(counted: Sequence[Usage]) -> dict[str, Any]:
    """The usage of all choices: their common prompt once, what they generated in sum."""
    prompt = counted[0]
    output = sum(each.output_tokens for each in counted)
    return {
        "prompt_tokens": prompt.input_tokens,
        "completion_tokens": output,
        "total_tokens": prompt.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": prompt.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(each.reasoning_tokens for each in counted),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _fingerprint(known: str | None) -> dict[str, str]:
    return {} if known is None else {"system_fingerprint": known}


def _logprobs(field: str, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {"content": None, "refusal": None, field: logprobs(tokens, None)}


class ChatStream:
    """Writes the events of one completion's choices as `chat.completion.chunk` data lines.

    A choice that fails ends the whole stream: the error's line is written, in the form at which
    the official SDKs raise, and nothing but `done` follows.

    Args:
        completion_id: the id that every chunk bears.
        created: seconds since the epoch.
        model: the served model's own name.
        n: number of choices.
        include_usage: end with a chunk that holds the usage of all choices.
        fingerprint: as for `completion`.
    """

    def __init__(
        self,
        completion_id: str,
        created: float,
        model: str,
        n: int = 1,
        include_usage: bool = False,
        *,
        fingerprint: str | None = None,
    ) -> None:
        head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": int(created),
            "model": model,
            "service_tier": "default",
            **_fingerprint(fingerprint),
        }
        self._head = b"data: " + encode(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._include_usage = include_usage
        self._n = n
        self._unfinished = n
        self._counted: dict[int, Usage] = {}
        self._begun: set[int] = set()
        # The calls of each choice: an item's id -> its place among them, and its kind.
        self._calls: dict[int, dict[str, tuple[int, str]]] = {index: {} for index in range(n)}
        self._said = dict.fromkeys(range(n), 0)  # characters of the texts that are whole
        self._counts: dict[tuple[int, str], int] = {}
        self._before: dict[tuple[int, str], bytes] = {}
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._tail
        self.failed = False

    def write(self, index: int, events: Sequence[Event]) -> bytes:
        """The bytes of a batch of one choice's events, empty where they say nothing here.

        Args:
            index: which choice.
            events: in the order that `core.events` allows.
        """
        written: list[bytes] = []
        for event in events:
            if self.failed:
                break
            match event:
                case Delta():
                    written.append(self._delta(index, event))
                case ItemStarted(item=FunctionCall() | CustomCall() as call):
                    written.append(self._call_begins(index, call))
                case ItemDone(item=HostedCall() | CodeCall() as hosted):
                    whole = write_items.item(hosted, _INCLUDE)
                    written.append(self._entry(index, "hosted_tool_calls", whole))
                case Annotated():
                    file = _container_file(event.annotation, self._said[index])
                    written.append(self._entry(index, "container_files", file))
                case PartDone(channel="text"):
                    self._said[index] += len(event.text)
                case RunFinished():
                    written.append(self._finish(index, event))
        return b"".join(written)

    def done(self) -> bytes:
        """The line that ends every stream, failed ones too."""
        return b"data: [DONE]\n\n"

    def _begin(self, index: int, content: str | None) -> bytes:
        """A choice's first chunk, with its role; it has no content yet, or will have none."""
        if index in self._begun:
            return b""
        self._begun.add(index)
        return self._chunk(index, {"role": "assistant", "content": content, "refusal": None})

    def _delta(self, index: int, event: Delta) -> bytes:
        field = _FIELDS.get(event.channel)
        if field is None:
            return self._call_delta(index, event)
        begin = self._begin(index, "" if field == "content" else None)
        if event.logprobs and field != "reasoning_content":
            scores = _logprobs(field, event.logprobs)
            return begin + self._chunk(index, {field: event.text}, scores)
        before = self._before.get((index, field))
        if before is None:
            before = b'%b{"index":%d,"delta":{"%b":' % (self._head, index, field.encode())
            self._before[index, field] = before
        return begin + before + encode(event.text) + self._after

    def _call_begins(self, index: int, call: Call) -> bytes:
        """A call begins: its id and name come first, and only once."""
        calls = self._calls[index]
        kind = "custom" if isinstance(call, CustomCall) else "function"
        place = len(calls)
        calls[call.id] = (place, kind)
        begun = {"index": place, **_call(call, "")}
        return self._begin(index, None) + self._chunk(index, {"tool_calls": [begun]})

    def _call_delta(self, index: int, event: Delta) -> bytes:
        """More of a call; nothing for summaries and for the server's own tools."""
        found = self._calls[index].get(event.item_id)
        if found is None:
            return b""
        place, kind = found
        more = {"index": place, kind: {_WHAT[kind]: event.text}}
        return self._chunk(index, {"tool_calls": [more]})

    def _entry(self, index: int, field: str, entry: dict[str, Any]) -> bytes:
        """One more entry of a list, with its place: that is how clients join lists."""
        place = self._counts.get((index, field), 0)
        self._counts[index, field] = place + 1
        begin = self._begin(index, None)
        return begin + self._chunk(index, {field: [{"index": place, **entry}]})

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        scores: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": scores, "finish_reason": reason}
        return self._head + encode(choice) + self._tail

    def _finish(self, index: int, event: RunFinished) -> bytes:
        if event.status == "failed":
            self.failed = True
            return self._error(event.failure)
        self._unfinished -= 1
        if event.status != "cancelled":
            self._counted[index] = event.usage
        reason = finish_reason(event.status, event.incomplete, called=bool(self._calls[index]))
        begin = self._begin(index, "")
        return begin + self._chunk(index, {}, reason=reason) + self._usage()

    def _usage(self) -> bytes:
        """The usage chunk, once every choice has ended; none if one of them was not counted."""
        if self._unfinished or not self._include_usage or len(self._counted) < self._n:
            return b""
        counted = encode(usage([self._counted[index] for index in sorted(self._counted)]))
        return self._head + b'],"usage":' + counted + b"}\n\n"

    def _error(self, failure: Failure | None) -> bytes:
        if failure is None:
            raise ValueError("a run that failed says why")
        _, body, _ = failures.of_failure(failure)
        return b"data: " + encode(body) + b"\n\n"
