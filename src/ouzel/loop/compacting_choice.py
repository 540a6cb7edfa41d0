"""Which items of a conversation are kept as they are, and what is kept of the others. Pure.

Thinking and what came of it, calls and their outputs: these stay together. What the user said last
cannot be left out, nor can the last calls. `compacting` says when and with how much room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace as changed

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
)
from ouzel.loop import compacted, context
from ouzel.loop import compacting_words as words
from ouzel.loop.compacted import Left, Line

WHOLE_SHARE: Final = 0.35
"""Of the room, what earlier rounds that are kept whole may take."""

ROUND_SHARE: Final = 0.8
"""Of the room, what calls of the round under way may take; older ones are kept as results."""

NOTES_SHARE: Final = 0.2
"""Of the room for words, what notes may take."""

_AROUND: Final = 16
"""Characters that a chat template puts around a message, about."""


def must(items: Iterable[Item]) -> tuple[Item, ...]:
    """What of a conversation cannot be compacted: what is told, the last words of the user, and the
    last calls with their outputs."""
    left, rest = compacted.part(items)
    units = _units(rest)
    told = compacted.unfold((Compaction("", compacted.write(Left(told=left.told))),))
    said = [item for unit in units[: _round(units)] for item in unit if _tells(item)]
    return (*told, *said, *(item for at in _required(units) for item in units[at]))


def parted(items: Sequence[Item], room: int) -> tuple[list[Item], list[Item]]:
    """What is compacted, and what is kept as it is.

    Args:
        room: characters for what is kept beside that which has to be.
    """
    units = _units(items)
    begin = _round(units)
    kept = set(_required(units))
    size = [size_of(unit) for unit in units]
    left = room * ROUND_SHARE
    whole = True
    for at in range(len(units) - 1, begin - 1, -1):
        if at not in kept:
            left -= size[at]
            if left < 0:
                whole = False
                break
            kept.add(at)
    if whole:  # rounds before this one only if this one is here from its first word
        used = room * ROUND_SHARE - left
        kept |= _earlier(units, size, begin, room * WHOLE_SHARE - used)
    older = [item for at, unit in enumerate(units) if at not in kept for item in unit]
    return older, [item for at, unit in enumerate(units) if at in kept for item in unit]


def _earlier(
    units: Sequence[Sequence[Item]], size: Sequence[int], begin: int, room: float
) -> set[int]:
    """The units of earlier rounds that are kept: whole rounds, newest first."""
    kept: set[int] = set()
    end = begin
    while end > 0:
        start = _round(units[:end])
        room -= sum(size[start:end])
        if room < 0 or start == end:
            break
        kept |= set(range(start, end))
        end = start
    return kept


def _units(items: Sequence[Item]) -> list[list[Item]]:
    """The items, with those together that must not be parted: thinking and what came of it, calls
    and their outputs."""
    units: list[list[Item]] = []
    open_calls: set[str] = set()
    joined = False
    for item in items:
        if joined or (open_calls and units):
            units[-1].append(item)
        else:
            units.append([item])
        joined = isinstance(item, Reasoning)
        if isinstance(item, FunctionCall | CustomCall):
            open_calls.add(item.call_id)
        elif isinstance(item, CallOutput):
            open_calls.discard(item.call_id)
    return units


def _round(units: Sequence[Sequence[Item]]) -> int:
    """Where the last round begins: with what the user said, and what was told right before that."""
    users = [at for at, unit in enumerate(units) if by(unit[0], "user")]
    begin = users[-1] if users else 0
    while begin > 0 and _tells(units[begin - 1][0]):
        begin -= 1
    return begin


def _required(units: Sequence[Sequence[Item]]) -> list[int]:
    """The units that cannot be left out: the last words of the user and the last calls."""
    if not units:
        return []
    begin = _round(units)
    said = [at for at in range(begin, len(units)) if isinstance(units[at][0], Message)]
    said = [at for at in said if not by(units[at][0], "assistant")]
    last = len(units) - 1
    calls = [] if isinstance(units[last][-1], Message) or last in said else [last]
    return [*said, *calls]


def by(item: Item, role: str) -> bool:
    """Whether it is a message of this role."""
    return isinstance(item, Message) and item.role == role


def told_in(items: Iterable[Item]) -> list[str]:
    """What developers' messages among these items say."""
    return [item.text for item in items if isinstance(item, Message) and _tells(item)]


def _tells(item: Item) -> bool:
    return isinstance(item, Message) and item.role in ("developer", "system")


def size_of(items: Iterable[Item]) -> int:
    """About how many characters some items have in the prompt."""
    kept = (compacted.keep(item, context.words_of(item)) for item in items)
    return sum(len(k.text) + len(k.result or "") + _AROUND for k in kept if k is not None)


def lines_of(items: Iterable[Item]) -> list[Line]:
    """What the user said in these items and tools gave, not yet shortened."""
    lines: list[Line] = []
    names: dict[str, str] = {}
    for item in items:
        match item:
            case Message(role="user"):
                lines.append(Line(context.words_of(item)))
            case FunctionCall() | CustomCall():
                asked = item.arguments if isinstance(item, FunctionCall) else item.input
                names[item.call_id] = f"{item.name}({words.cut(asked, 120)})"
            case CallOutput():
                lines.append(_gave(names.get(item.call_id, "a tool"), item.text))
            case HostedCall():
                asked = f"{item.name}({words.cut(item.arguments, 120)})"
                lines.append(_gave(asked, item.output or item.error or ""))
            case CodeCall(result=result) if result:
                lines.append(_gave("code", result))
    return lines


def _gave(asked: str, text: str) -> Line:
    return Line(words.cut(f"{asked}: {' '.join(text.split())}", words.LONGEST), "tool")


def fitted(left: Left, characters: int) -> Left:
    """As much of it as so many characters hold, its newest items and what was told not counted.

    What the assistant said goes first, then results of tools and sentences of the user's that say
    little; of each, what is older.
    """
    notes = _newest(left.notes, int(characters * NOTES_SHARE))
    room = characters - sum(len(note) + 3 for note in notes)
    user = [line.text for line in left.lines if line.by == "user"]
    gave = [line.text for line in left.lines if line.by == "tool"]
    results = _newest(gave, room // 2 if user else room)
    said = words.chosen(user, room - sum(len(text) + 3 for text in results))
    texts, kept_results = iter(said), set(results)
    lines = []
    for line in left.lines:
        if line.by == "tool":
            lines += [line] if line.text in kept_results else []
        elif text := next(texts):
            lines.append(Line(text))
    return changed(left, lines=tuple(lines), notes=notes)


def _newest(texts: Sequence[str], room: int) -> tuple[str, ...]:
    """The newest of some texts, in so many characters."""
    kept: list[str] = []
    for text in reversed(texts):
        room -= len(text) + 3
        if room < 0:
            break
        kept.append(text)
    return tuple(reversed(kept))


def kept_of(left: Left, items: Sequence[Item], room: int) -> Left:
    """What is left of a conversation.

    Args:
        left: of what came before these items, with all notes.
        items: since then.
        room: characters for what is kept beside that which has to be.
    """
    older, now = parted(items, room)
    units = _units(now)
    required = set(_required(units))
    whole = sum(size_of(unit) for at, unit in enumerate(units) if at not in required)
    left = changed(
        left,
        told=(*left.told, *told_in(older)),
        lines=(*left.lines, *lines_of(older)),
        kept=tuple(kept for item in now if (kept := compacted.keep(item, context.words_of(item)))),
    )
    return fitted(left, room - whole)
