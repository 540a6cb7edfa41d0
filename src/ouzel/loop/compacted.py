"""What a `Compaction` holds, as text and as the items that stand for it. Pure.

A compaction stands for everything before it: nothing else of that need be there any more. So it
carries what the user and tools said, notes of what the assistant said, and the newest turns as they
are, which are shown as turns again. What is kept and what is noted, `compacting` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import msgspec

from ouzel.core.items import (
    CallOutput,
    CodeCall,
    Compaction,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    Reasoning,
    Role,
    Text,
)

SAID = "The user said earlier:"
GAVE = "Tools gave earlier:"
NOTED = "You, the assistant, said earlier:"
SHOWN = (
    "This conversation began earlier. What is left of it below was really said: answer from it "
    "where it is asked for."
)


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """Words of the user's, or a result of a tool's, that were kept."""

    text: str
    by: Literal["user", "tool"] = "user"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item that was kept as it is, as far as a model is shown it.

    Args:
        id: the item's, for a call that needs one.
        text: of a message, its words; of a call, its arguments; of an output, what it says.
        name: the participant's, or the tool's.
        result: what came of a call that this server ran.
    """

    kind: str
    id: str
    text: str
    role: Role = "user"
    name: str | None = None
    call_id: str = ""
    status: str = "completed"
    result: str | None = None
    error: str | None = None


class Left(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is left of a conversation.

    Args:
        told: developer's messages, which hold on.
        lines: what the user said and tools gave, oldest first.
        notes: what the model noted of the rest, oldest first.
        kept: the newest items.
    """

    told: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def words(self) -> str:
        """All but the newest items, as the model is shown it; empty if there is nothing."""
        parts = (
            (SAID, [line.text for line in self.lines if line.by == "user"]),
            (GAVE, [line.text for line in self.lines if line.by == "tool"]),
            (NOTED, self.notes),
        )
        shown = ["\n- ".join((head, *lines)) for head, lines in parts if lines]
        return "\n\n".join((SHOWN, *shown)) if shown else ""


def write(left: Left) -> str:
    """As the text of a compaction. Half a surrogate pair is replaced: it is no text."""
    try:
        return msgspec.json.encode(left).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_mended(msgspec.to_builtins(left))).decode()


def _mended(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {name: _mended(each) for name, each in value.items()}
        case list() | tuple():
            return [_mended(each) for each in value]
    return value


def read(text: str) -> Left:
    """What a compaction's text says. A text that was not written here is taken as a note."""
    try:
        return msgspec.json.decode(text, type=Left)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Left(notes=(text,) if text else ())


def part(items: Iterable[Item]) -> tuple[Left, tuple[Item, ...]]:
    """What an earlier compaction left, without its newest items, and all items since then, those
    newest ones included."""
    items = tuple(items)
    places = [at for at, item in enumerate(items) if isinstance(item, Compaction)]
    if not places:
        return Left(), items
    last = items[places[-1]]
    assert isinstance(last, Compaction)  # noqa: S101  # only those were looked for
    left = read(last.text)
    again = tuple(item for kept in left.kept if (item := restore(kept)) is not None)
    return msgspec.structs.replace(left, kept=()), (*again, *items[places[-1] + 1 :])


def unfold(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items with the last compaction, and all before it, replaced by what it stands for."""
    left, rest = part(items)
    before = [*left.told, *filter(None, [left.words])]
    return (*(Message("", "developer", (Text(text),)) for text in before), *rest)


def keep(item: Item, words: str) -> Kept | None:
    """An item to be kept; None for one that no model is shown again.

    Args:
        words: of a message, all of it as the model is shown it.
    """
    match item:
        case Message():
            return Kept("message", item.id, words, item.role, item.name)
        case Reasoning():
            return Kept("reasoning", item.id, item.text)
        case FunctionCall():
            return Kept("function", item.id, item.arguments, name=item.name, call_id=item.call_id)
        case CustomCall():
            return Kept("custom", item.id, item.input, name=item.name, call_id=item.call_id)
        case CallOutput():
            return Kept("output", item.id, item.text, name=item.of, call_id=item.call_id)
        case HostedCall():
            name, said = f"{item.label}\n{item.name}", item.arguments
            return Kept("hosted", item.id, said, name=name, result=item.output, error=item.error)
        case CodeCall():
            status, place = item.status, item.container_id
            return Kept("code", item.id, item.code, name=place, status=status, result=item.result)
        case Compaction():
            return None


def restore(kept: Kept) -> Item | None:
    """The item again; None if its kind is not known."""
    name = kept.name or ""
    match kept.kind:
        case "message":
            return Message(kept.id, kept.role, (Text(kept.text),), name=kept.name)
        case "reasoning":
            return Reasoning(kept.id, kept.text)
        case "function":
            return FunctionCall(kept.id, kept.call_id, name, kept.text)
        case "custom":
            return CustomCall(kept.id, kept.call_id, name, kept.text)
        case "output":
            text = (Text(kept.text),)
            return CallOutput(
                kept.id, kept.call_id, text, "custom" if name == "custom" else "function"
            )
        case "hosted":
            label, _, tool = name.partition("\n")
            called = HostedCall(kept.id, label, tool, kept.text, kept.result, kept.error)
            return called if kept.error is None else replace(called, status="failed")
        case "code":
            ran = CodeCall(kept.id, name, kept.text, (), kept.result or "")
            return ran if kept.status == "completed" else replace(ran, status="failed")
    return None
