"""Older turns are put in fewer words, so that a long conversation goes on in the same window.

    told -- kept: what developers said holds on
    older turns -- the user's sentences and results of tools: kept as far as there is room
                -- what the assistant said: noted by the model, in a turn of its own
    newest turns -- kept as they are; a call always stays with its output

What comes of it is a `Compaction`, an output item of the run, and the prompt assembled anew from
it. When that is due, and how many tokens may be used, whoever makes the `Compacting` has decided.
A conversation that is compacted again keeps what the last compaction had kept, as far as there is
room: nothing that a model has summed up is summed up again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace as changed

from ouzel.core.contracts import Thinks
from ouzel.core.events import ItemDone, ItemStarted, StepDone
from ouzel.core.items import Compaction, Item, new_id
from ouzel.core.turns import Turn, TurnMessage
from ouzel.loop import compacted, context
from ouzel.loop import compacting_words as words
from ouzel.loop.budget import about_tokens
from ouzel.loop.channels import Splitter
from ouzel.loop.compacted import Left
from ouzel.loop.compacting_choice import by, kept_of, parted
from ouzel.loop.guided_words import GREEDY
from ouzel.loop.scene import OutOfTokens, Scene

if TYPE_CHECKING:
    from ouzel.loop.run import Task

NOTE_TOKENS: Final = 160
"""Most tokens that are generated for notes at a time."""

LEAST_NOTE_TOKENS: Final = 24
"""Tokens below which no notes are asked for."""

OUTPUT_SHARE: Final = 0.3
"""Of the tokens that the request leaves to be generated, and of the time once the new prompt is
read, what notes may take."""

_SHORTEST: Final = 64
"""Characters of an item below which it is rather left out."""

_SHRINK: Final = 0.7
"""How much less is kept with each try, where what was kept turned out not to fit."""


@dataclass(frozen=True, slots=True)
class Compacting:
    """That, and how far, a conversation is to be compacted.

    Args:
        items: all of it, history and input.
        room: tokens for all that is kept besides what has to be (`must`).
        prompt: tokens that the new prompt has with it, about.
        most: tokens that the new prompt may have in no case.
        tokens_a_character: of this conversation, as the engine counts them.
        seal: makes of a text what only this server can read again.
    """

    items: tuple[Item, ...]
    room: int
    prompt: int
    most: int
    tokens_a_character: float
    seal: Callable[[str], str]

    @property
    def characters(self) -> int:
        """That `room` has, about."""
        return int(self.room / self.tokens_a_character)


async def compact(scene: Scene, task: Task) -> Task:
    """Compact the conversation of a task, tell the client, and give back the task that goes on.

    Raises:
        EngineError, RequestError: as the engine raised them.
    """
    plan = task.compact
    if plan is None:
        return task
    left, items = compacted.part(plan.items)
    older, _ = parted(items, plan.characters)
    notes = await _notes(scene, task, plan, left, older) if older else []
    notes = [note for note in notes if note not in left.notes]
    left = changed(left, notes=(*left.notes, *notes))
    turn, text, thinks = await _fitting(scene, task, plan, left, items)
    item = Compaction(new_id("cmp"), text, plan.seal(text))
    index = len(scene.output.items)
    scene.output.items.append(item)
    scene.emit([ItemStarted(index, Compaction(item.id)), ItemDone(index, item)])
    scene.tally.add("compactions")
    scene.next_step(about_tokens(*(message.text for message in turn.messages)))
    if task.request.background:
        scene.emit([StepDone(scene.usage)])
    decision = task.decision and _assembled(task, item, thinks, decision=True)
    return replace(task, turn=turn, decision=decision, compact=None)


def _assembled(
    task: Task, compaction: Compaction, thinks: Thinks | None, *, decision: bool = False
) -> Turn:
    """The turn of a task that goes on from a compaction."""
    request, tools, style = replace(task.request, input=()), task.toolbox, task.style
    return context.assemble(request, (compaction,), tools, style, thinks=thinks, decision=decision)


async def _fitting(
    scene: Scene, task: Task, plan: Compacting, left: Left, items: Sequence[Item]
) -> tuple[Turn, str, Thinks | None]:
    """The new turn and the compaction's text, with as much kept as fits, and how thinking of the
    round under way is shown: where it is in the way, not at all."""
    room = plan.characters
    thinks: Thinks | None = scene.info.thinks
    while True:
        text = compacted.write(kept_of(left, items, room))
        item = Compaction("", text)
        turn = _assembled(task, item, thinks)
        if context.at_most_tokens(turn) <= plan.most:
            return turn, text, thinks
        if await scene.engine.count_tokens(turn) <= plan.most:
            return turn, text, thinks
        if thinks is not None and _assembled(task, item, None) != turn:
            thinks = None
        elif room == 0:
            return turn, text, thinks
        else:
            room = int(room * _SHRINK)


async def _notes(
    scene: Scene, task: Task, plan: Compacting, left: Left, older: Sequence[Item]
) -> list[str]:
    """What the model notes of what it said; nothing if there is no time or no room for that."""
    if not any(by(item, "assistant") for item in older):
        return []
    seconds, tokens = _spare(scene, plan)
    if tokens < LEAST_NOTE_TOKENS:
        scene.tally.add("compacted_without_notes")
        return []
    turn = await _asking(scene, task, plan, left, older, tokens)
    if turn is None:
        scene.tally.add("compacted_without_notes")
        return []
    try:
        async with asyncio.timeout(seconds):
            said, done = await scene.text(turn)
    except TimeoutError:
        scene.tally.add("compacted_without_notes")
        return []
    splitter = Splitter(scene.info.thinks)
    pieces = [*splitter.feed(said), *splitter.end()]
    notes = words.notes_in("".join(piece.text for piece in pieces if not piece.thinking))
    cut = done.reason == "length" and len(notes) < words.MOST_NOTES
    return notes[:-1] if cut else notes  # the last sentence of notes that were cut is half of one


def _spare(scene: Scene, plan: Compacting) -> tuple[float | None, int]:
    """Seconds, None for no limit, and tokens that notes may take."""
    try:
        room = scene.room()
    except OutOfTokens:
        return None, 0
    most = NOTE_TOKENS if room is None else min(NOTE_TOKENS, int(room * OUTPUT_SHARE))
    if not scene.clock.limited:
        return None, most
    pace = scene.engine.pace
    seconds = (scene.clock.left() - plan.prompt / pace.prefill) * OUTPUT_SHARE
    return seconds, min(most, int(seconds * pace.decode)) if seconds > 0 else 0


async def _asking(
    scene: Scene, task: Task, plan: Compacting, left: Left, older: Sequence[Item], tokens: int
) -> Turn | None:
    """The turn in which the model writes its notes: the older turns as it has read them, and then
    what is wanted.

    Where they do not fit, what is longest in them is shortened. None where nothing fits.
    """
    request = replace(task.request, input=(), tools=())
    most = scene.info.context_window - tokens
    before = Compaction("", compacted.write(left))
    longest = 0
    while older:
        items = (before, *(_cut(item, longest) if longest else item for item in older))
        turn = context.assemble(request, items, style=task.style)
        turn = replace(
            turn,
            messages=_with_wish(turn.messages),
            sampling=GREEDY,
            max_tokens=tokens,
            effort="none",
        )
        if context.at_most_tokens(turn) <= most or await scene.engine.count_tokens(turn) <= most:
            return turn
        longest = longest // 2 if longest else int(most / plan.tokens_a_character / 8)
        if longest < _SHORTEST:
            older, longest = older[(len(older) + 1) // 2 :], _SHORTEST
    return None


def _with_wish(messages: Sequence[TurnMessage]) -> tuple[TurnMessage, ...]:
    """The messages, with the wish for notes; some templates take no two of a user's in a row."""
    wish = words.NOTE
    last = messages[-1]
    if last.role == "user":
        return (*messages[:-1], replace(last, text=f"{last.text}\n\n{wish}"))
    return (*messages, TurnMessage("user", wish))


def _cut(item: Item, most: int) -> Item:
    """An item with no text longer than so many characters."""
    kept = compacted.keep(item, context.words_of(item))
    if kept is None:
        return item
    result = None if kept.result is None else words.cut(kept.result, most)
    return compacted.restore(changed(kept, text=words.cut(kept.text, most), result=result)) or item
