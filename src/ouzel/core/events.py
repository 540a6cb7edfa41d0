"""The kinds of event that a run emits, in the order in which they may come.

    RunQueued? RunStarted
    (ItemStarted (PartStarted Delta* Annotated* PartDone)* ItemStage* ItemDone)* StepDone*
    RunFinished

`RunResumed` may come anywhere after `RunQueued` or `RunStarted`: another process went on there.
It and `StepDone` are notes for the server itself, and have no place on the wire.

Items of tools that run side by side may overlap; those of the model never do.

Exactly one `RunFinished` ends every run, whatever failed. Protocol writers in `api` turn these
into wire events; the store keeps them as they are. Nothing here knows JSON or sequence numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ouzel.core.items import Annotation, Item, TokenLogprob
from ouzel.core.turns import Usage

Channel = Literal["text", "refusal", "reasoning", "summary", "arguments", "input", "code"]
RunStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
IncompleteReason = Literal["max_output_tokens", "content_filter"]


@dataclass(frozen=True, slots=True)
class RunQueued:
    """The run was accepted and waits for its turn."""

    kind: Literal["run_queued"] = field(default="run_queued", init=False)


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run is under way."""

    kind: Literal["run_started"] = field(default="run_started", init=False)


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """A new output item, still empty, at this index of the output."""

    index: int
    item: Item
    kind: Literal["item_started"] = field(default="item_started", init=False)


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A part of the item opens; `part` counts within the item and channel group."""

    index: int
    item_id: str
    part: int
    channel: Channel
    kind: Literal["part_started"] = field(default="part_started", init=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """More text for an open part."""

    index: int
    item_id: str
    part: int
    channel: Channel
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    kind: Literal["delta"] = field(default="delta", init=False)


@dataclass(frozen=True, slots=True)
class Annotated:
    """Something belongs to a piece of an open part's text; `number` counts within the part."""

    index: int
    item_id: str
    part: int
    number: int
    annotation: Annotation
    kind: Literal["annotated"] = field(default="annotated", init=False)


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part is whole; `text` is all of it, and so are `annotations`."""

    index: int
    item_id: str
    part: int
    channel: Channel
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    kind: Literal["part_done"] = field(default="part_done", init=False)


@dataclass(frozen=True, slots=True)
class ItemStage:
    """A tool that runs has come to another stage (`searching`, `interpreting`, ...)."""

    index: int
    item_id: str
    stage: str
    kind: Literal["item_stage"] = field(default="item_stage", init=False)


@dataclass(frozen=True, slots=True)
class ItemDone:
    """An item is finished, as it will stay."""

    index: int
    item: Item
    kind: Literal["item_done"] = field(default="item_done", init=False)


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step is over: what it brought is final, and what it cost is counted.

    Args:
        usage: tokens of the whole run so far.
    """

    usage: Usage
    kind: Literal["step_done"] = field(default="step_done", init=False)


@dataclass(frozen=True, slots=True)
class RunResumed:
    """A run that was cut off by the end of a process is taken up again."""

    kind: Literal["run_resumed"] = field(default="run_resumed", init=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, in words that may be shown to the client.

    Args:
        code: `server_error`, `engine_unavailable`, `context_length_exceeded`, ...
        status: the HTTP status of a reply that has not begun yet.
        retry_after: seconds, where trying again makes sense.
        param: the parameter that is to blame, if one is.
    """

    code: str
    message: str
    status: int = 500
    retry_after: float | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The end of the run; nothing follows.

    Args:
        at: seconds since the epoch.
        failure: set when and only when `status` is `failed`.
        incomplete: set when and only when `status` is `incomplete`.
    """

    status: Literal["completed", "incomplete", "failed", "cancelled"]
    usage: Usage
    at: float
    failure: Failure | None = None
    incomplete: IncompleteReason | None = None
    kind: Literal["run_finished"] = field(default="run_finished", init=False)


Event = (
    RunQueued
    | RunStarted
    | ItemStarted
    | PartStarted
    | Delta
    | Annotated
    | PartDone
    | ItemStage
    | ItemDone
    | StepDone
    | RunResumed
    | RunFinished
)
