"""What a conversation is made of.

Items follow the item model of the Responses API. They are frozen, hold no wire JSON, and know
neither storage nor engines. Every class carries a constant `kind`, so that whoever writes items
down (the store) can tell them apart when it reads them back.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["user", "assistant", "system", "developer"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def new_id(prefix: str, joint: str = "_") -> str:
    """A fresh identifier: the prefix (`resp`, `msg`, `rs`), the joint and 192 random bits."""
    return f"{prefix}{joint}{secrets.token_hex(24)}"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its natural-log probability and the likeliest alternatives.

    Args:
        token: the token as text; may be half of a character, shown then by its replacement mark.
        logprob: natural logarithm of the token's probability.
        raw: the token's UTF-8 bytes.
        top: alternatives at this position, likeliest first, themselves without alternatives.
    """

    token: str
    logprob: float
    raw: tuple[int, ...] = ()
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class FileCitation:
    """A piece of the answer that speaks of a file in a container.

    Args:
        start: index of the piece's first character in the text.
        end: index after its last; the same as `start` where the text does not name the file.
    """

    container_id: str
    file_id: str
    name: str
    start: int
    end: int
    kind: Literal["file_citation"] = field(default="file_citation", init=False)


Annotation = FileCitation


@dataclass(frozen=True, slots=True)
class Text:
    """Text in a message, said by either side."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    kind: Literal["text"] = field(default="text", init=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model declines, in its own words."""

    text: str
    kind: Literal["refusal"] = field(default="refusal", init=False)


@dataclass(frozen=True, slots=True)
class File:
    """A file that the user hands over with a message.

    Args:
        file_id: where it is kept; empty as long as `data` has to be.
        name: as the user calls it; empty where only `file_id` is known yet.
        data: its content as base64 text, where it came within the request; gone once it is kept.
        shown: its content, where it is plain text and is shown to the model as such.
    """

    file_id: str = ""
    name: str = ""
    data: str = field(default="", repr=False)
    shown: str = field(default="", repr=False)
    kind: Literal["file"] = field(default="file", init=False)

    @property
    def text(self) -> str:
        """Nothing: what it says is not part of the message's words."""
        return ""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that the user hands over with a message.

    Args:
        url: where it is, or a data URL that holds it.
        file_id: the kept file that holds it, where there is no `url`.
        detail: how closely it is to be looked at, as the client asked.
    """

    url: str = field(default="", repr=False)
    file_id: str = ""
    detail: Literal["auto", "low", "high"] = "auto"
    kind: Literal["image"] = field(default="image", init=False)

    @property
    def text(self) -> str:
        """Nothing: what it shows is not part of the message's words."""
        return ""


Part = Text | Refusal | File | Image


@dataclass(frozen=True, slots=True)
class Message:
    """Something said by one of the parties.

    Args:
        name: the participant's name where the client gave one (Chat Completions only).
        phase: what an assistant's message is, where that was said: a remark on the way, or the
            answer.
    """

    id: str
    role: Role
    parts: tuple[Part, ...]
    status: ItemStatus = "completed"
    name: str | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    kind: Literal["message"] = field(default="message", init=False)

    @property
    def text(self) -> str:
        """Everything in the message as one string, refusals included."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Thinking that the model did before it answered.

    Args:
        text: the thinking itself, empty where it is not shown.
        summary: what the client may read instead, a paragraph each.
        sealed: the thinking as only this server can read it again (`contracts.Sealer`); empty
            where nobody asked for it.
    """

    id: str
    text: str = ""
    summary: tuple[str, ...] = ()
    status: ItemStatus = "completed"
    sealed: str = field(default="", repr=False)
    kind: Literal["reasoning"] = field(default="reasoning", init=False)


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """The model wants one of the client's functions run.

    Args:
        call_id: joins the call with its output.
        arguments: a JSON object as text, valid for the function's schema.
    """

    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: ItemStatus = "completed"
    kind: Literal["function_call"] = field(default="function_call", init=False)


@dataclass(frozen=True, slots=True)
class CustomCall:
    """The model wants one of the client's custom tools run, which take plain text.

    Args:
        call_id: joins the call with its output.
        input: the text, in the tool's grammar where it has one.
    """

    id: str
    call_id: str
    name: str
    input: str = ""
    status: ItemStatus = "completed"
    kind: Literal["custom_call"] = field(default="custom_call", init=False)


@dataclass(frozen=True, slots=True)
class CallOutput:
    """What came of a function call or a custom call, given back by the client.

    Args:
        call_id: the call's.
        parts: the output; one part where the client gave a string.
        of: which kind of call it answers.
        plain: the client gave a string, not an array of parts.
    """

    id: str
    call_id: str
    parts: tuple[Part, ...]
    of: Literal["function", "custom"] = "function"
    plain: bool = True
    status: ItemStatus = "completed"
    kind: Literal["call_output"] = field(default="call_output", init=False)

    @property
    def text(self) -> str:
        """The whole output as one string."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class HostedCall:
    """A tool that this server ran by itself, with what came of it.

    Args:
        label: whose tool it is: a server's name, or the tool's type for our own.
        arguments: a JSON object as text.
        output: what the tool said, None while it runs and where it failed.
        error: why it failed, as the model was told.
    """

    id: str
    label: str
    name: str
    arguments: str = ""
    output: str | None = None
    error: str | None = None
    status: Literal["in_progress", "completed", "failed"] = "completed"
    kind: Literal["hosted_call"] = field(default="hosted_call", init=False)


@dataclass(frozen=True, slots=True)
class Logs:
    """What code has written."""

    text: str
    kind: Literal["logs"] = field(default="logs", init=False)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that code has shown; `url` is a data URL that holds it."""

    url: str = field(repr=False)
    kind: Literal["picture"] = field(default="picture", init=False)


@dataclass(frozen=True, slots=True)
class CodeCall:
    """Code that the model wrote and this server ran in a container.

    Args:
        id: `ci_` and random bits.
        code: the code, empty while it is being written.
        outputs: what it wrote and showed, in order.
        result: what the model was told of it.
    """

    id: str
    container_id: str
    code: str = ""
    outputs: tuple[Logs | Picture, ...] = ()
    result: str = ""
    status: Literal["in_progress", "interpreting", "completed", "incomplete", "failed"] = (
        "completed"
    )
    kind: Literal["code_call"] = field(default="code_call", init=False)


@dataclass(frozen=True, slots=True)
class Compaction:
    """Stands for everything that came before it in the conversation.

    Args:
        id: `cmp_` and random bits.
        text: what is left of it: the user's words and results of tools as far as there was room,
            and what the model noted of the rest.
        sealed: the same as only this server can read it again (`contracts.Sealer`).
    """

    id: str
    text: str = ""
    sealed: str = field(default="", repr=False)
    kind: Literal["compaction"] = field(default="compaction", init=False)


Call = FunctionCall | CustomCall
"""What the client is asked to run."""

Item = (
    Message
    | Reasoning
    | FunctionCall
    | CustomCall
    | CallOutput
    | HostedCall
    | CodeCall
    | Compaction
)
