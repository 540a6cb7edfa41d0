"""History and request -> what the engine is shown. Pure: no I/O, no clock.

Chat templates differ in what they accept: nearly all know `system`, few know `developer`, and
many allow a system message only at the start. So developer messages are shown as system ones,
and those that open the conversation are joined with the instructions into one. Thinking of
earlier turns is not shown again, as the templates of thinking models do it themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from ouzel.core.items import Item, Message
from ouzel.core.request import Request
from ouzel.core.turns import Turn, TurnMessage


def assemble(request: Request, history: Iterable[Item] = ()) -> Turn:
    """The turn that answers `request` after `history` (oldest first)."""
    opening = [request.instructions] if request.instructions else []
    messages: list[TurnMessage] = []
    for item in (*history, *request.input):
        if not isinstance(item, Message):
            continue
        role = "system" if item.role == "developer" else item.role
        if role == "system" and not messages:
            opening.append(item.text)
        else:
            messages.append(TurnMessage(role, item.text, item.name))
    if opening:
        messages.insert(0, TurnMessage("system", "\n\n".join(opening)))
    return Turn(tuple(messages), request.sampling, request.max_output_tokens)


def at_most_tokens(turn: Turn) -> int:
    """An upper bound for the tokens of a turn's prompt, without asking a tokenizer.

    A token stands for at least one byte of text; a chat template adds a few tokens around each
    message and, at most, a default system message. Used to spare the exact count where it
    cannot matter.
    """
    text = sum(len(message.text.encode()) + len(message.name or "") for message in turn.messages)
    return text + 16 * len(turn.messages) + 256
