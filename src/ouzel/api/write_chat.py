"""Runs and events as the Chat Completions API writes them: a narrower view of the same run.

A choice is a run. `completion` writes finished runs as one object, `ChatStream` their events as
chunks. Thinking goes into `reasoning_content`, the field that other servers made customary;
summaries of it have no place here and are left out. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ouzel.api import failures
from ouzel.api.writing import encode, logprobs
from ouzel.core.events import Delta, Event, Failure, RunFinished, RunStarted
from ouzel.core.items import Message, Reasoning, Refusal, Text, TokenLogprob
from ouzel.core.runs import Run
from ouzel.core.turns import Usage

_FIELDS = {"text": "content", "refusal": "refusal", "reasoning": "reasoning_content"}
"""Channel -> field of a chunk's delta."""


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
    parts = [part for item in run.output if isinstance(item, Message) for part in item.parts]
    text = [part.text for part in parts if isinstance(part, Text)]
    refusal = [part.text for part in parts if isinstance(part, Refusal)]
    thought = [item.text for item in run.output if isinstance(item, Reasoning) and item.text]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text) if text else None,
        "refusal": "".join(refusal) if refusal else None,
        "annotations": [],
    }
    if thought:
        message["reasoning_content"] = "".join(thought)
    scores = None
    if run.request.sampling.top_logprobs is not None:
        tokens = [token for part in parts if isinstance(part, Text) for token in part.logprobs]
        scores = _logprobs("content", tokens)
    reason = finish_reason(run.status, run.incomplete)
    return {"index": index, "message": message, "logprobs": scores, "finish_reason": reason}


def finish_reason(status: str, incomplete: str | None) -> str:
    """Why a choice ended. A cancelled one was cut short, for which the API's word is `length`.

    Raises:
        ValueError: the run failed or is not finished.
    """
    match status, incomplete:
        case "completed", _:
            return "stop"
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
                case RunStarted():
                    role = {"role": "assistant", "content": "", "refusal": None}
                    written.append(self._chunk(index, role))
                case RunFinished():
                    written.append(self._finish(index, event))
        return b"".join(written)

    def done(self) -> bytes:
        """The line that ends every stream, failed ones too."""
        return b"data: [DONE]\n\n"

    def _delta(self, index: int, event: Delta) -> bytes:
        field = _FIELDS.get(event.channel)
        if field is None:
            return b""
        if event.logprobs and field != "reasoning_content":
            return self._chunk(index, {field: event.text}, _logprobs(field, event.logprobs))
        before = self._before.get((index, field))
        if before is None:
            before = b'%b{"index":%d,"delta":{"%b":' % (self._head, index, field.encode())
            self._before[index, field] = before
        return before + encode(event.text) + self._after

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
        chunk = self._chunk(index, {}, reason=finish_reason(event.status, event.incomplete))
        return chunk + self._usage()

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
