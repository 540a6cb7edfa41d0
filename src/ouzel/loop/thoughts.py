"""Thinking of the round that still goes on, shown to the model again. Pure.

A round begins with the user's words and ends with the answer; between them a model may think, call
something of the client's, and think on in the next request. There it is shown what it thought, by
itself or before what it said, as chat templates of thinking models do it. Thinking of rounds that
are over is not shown again: it helps no more, and fills the window. What else is shown, `context`
knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ouzel.core.contracts import Thinks
from ouzel.core.items import Item, Message, Reasoning
from ouzel.core.turns import TurnMessage
from ouzel.loop import answer_words, thinking_words


class Thoughts:
    """Thinking that waits for what the model said after it.

    Args:
        items: the conversation.
        thinks: how the model's own thinking shows; None shows none of it again.
    """

    def __init__(self, items: Sequence[Item], thinks: Thinks | None) -> None:
        users = [at for at, item in enumerate(items) if _by_the_user(item)]
        self._begins = users[-1] + 1 if users else 0
        self._thinks = thinks
        self._held: list[Reasoning] = []

    def hold(self, place: int, item: Reasoning) -> None:
        """The item at this place was thought; it is held if the round goes on."""
        if self._thinks is not None and place >= self._begins and item.text.strip():
            self._held.append(item)

    def before(self, messages: Sequence[TurnMessage]) -> list[TurnMessage]:
        """The messages for what came next, the first of the model's with what it had thought."""
        if not self._held or not any(each.role == "assistant" for each in messages):
            return list(messages)
        thought, self._held = thought_in(self._held), []
        return thought_before(messages, thought, self._thinks)

    def left(self) -> list[TurnMessage]:
        """Messages for thinking after which nothing was said: the model goes on from there.

        The assistant's message never comes last: servers take that for one they are to continue.
        """
        if not self._held:
            return []
        thought = thought_in(self._held)
        if self._thinks != "no":
            return [TurnMessage("system", answer_words.go_on(thought))]
        prompt = thinking_words.answer_prompt(unfinished=self._held[-1].status == "incomplete")
        return [
            TurnMessage("assistant", thinking_words.closed(thought)),
            TurnMessage("system", prompt),
        ]


def thought_in(items: Sequence[Item]) -> str:
    """Everything that was thought in these items."""
    texts = (item.text.strip() for item in items if isinstance(item, Reasoning))
    return "\n\n".join(filter(None, texts))


def thought_before(
    messages: Sequence[TurnMessage], thought: str, thinks: Thinks | None
) -> list[TurnMessage]:
    """The messages, with what was thought before the first of the assistant's.

    Args:
        thinks: natively, where it goes into a field of its own; else as text between tags. None
            leaves it out.
    """
    shown = list(messages)
    first = next((at for at, each in enumerate(shown) if each.role == "assistant"), None)
    if first is None or thinks is None or not thought.strip():
        return shown
    message = shown[first]
    if thinks == "no":
        text = f"{thinking_words.closed(thought)}\n\n{message.text}".rstrip()
        shown[first] = replace(message, text=text)
    else:
        shown[first] = replace(message, thinking=thought.strip())
    return shown


def joined(first: TurnMessage, second: TurnMessage) -> str:
    """The thinking of two messages that become one."""
    return "\n\n".join(filter(None, (first.thinking, second.thinking)))


def _by_the_user(item: Item) -> bool:
    return isinstance(item, Message) and item.role == "user"
