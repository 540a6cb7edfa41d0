"""Thinking before the answer, for models that were not trained to think, and its summary.

A model that thinks natively does so by itself: `native` keeps it within its budget. Others get a
scratchpad: a turn of their own, opened with `<think>`, in which they work in their natural way,
and which is ended at the budget or when its time is up. How many tokens that is, `budget` decides;
the words around it are in `thinking_words`, with where they were measured.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from ouzel.core.request import Sampling
from ouzel.core.turns import Halt, TextDelta, ThinkingDelta, Turn, TurnDone, TurnMessage
from ouzel.loop import thinking_words as words
from ouzel.loop.budget import ANSWER_SHARE
from ouzel.loop.scene import Scene

LEAST: Final = 256
"""Tokens of budget below which a scratchpad does harm: working that is cut makes the model invent
a result. Grade-school problems took 205 to 320 tokens of it."""

LEAST_SUMMARY: Final = 24
"""Tokens below which a summary is left out."""

SUMMARY_SHARE: Final = 0.15
"""Of the time that is left, what a summary may take at most; it is left out if it would not fit."""


SUMMARY_TOKENS: Final = MappingProxyType({"concise": 48, "detailed": 112})
"""Most tokens of a summary."""

MOST_SUMMARISED: Final = 12_000
"""Characters of thinking that are read for its summary: the last ones, where it arrives."""


def quiet(sampling: Sampling, stop: tuple[str, ...] = ()) -> Sampling:
    """The sampling for a turn whose text is not the answer: no stop sequences of the client's,
    no log-probabilities."""
    return replace(sampling, stop=stop, top_logprobs=None)


async def scratchpad(scene: Scene, turn: Turn, budget: int) -> tuple[str, bool]:
    """Let the model think; the thinking is shown as it comes.

    Args:
        turn: the conversation.
        budget: most tokens.

    Returns:
        The thinking, which is empty if there was none, and whether it came to an end by itself.
    """
    if budget < LEAST or "opening" not in scene.info.capabilities:
        return "", True
    left = scene.clock.left()
    until = scene.clock.after(left * (1 - ANSWER_SHARE))
    pad = replace(
        turn,
        opening=words.OPENING,
        sampling=quiet(turn.sampling, (words.CLOSING,)),
        max_tokens=budget,
        tools=(),
        grammar=None,
        schema=None,
    )
    halt, said, ended = Halt(), _Until(words.CLOSING), True
    async with aclosing(scene.stream(pad, halt, thinking=True)) as deltas:
        async for delta in deltas:
            if isinstance(delta, TextDelta | ThinkingDelta):
                if text := said.feed(delta.text):
                    scene.emit(scene.output.think(text))
                if said.over or (scene.clock.limited and scene.clock.now() > until):
                    halt.wished = True
            elif isinstance(delta, TurnDone) and delta.reason in ("length", "halted"):
                ended = said.over
    if text := said.end():
        scene.emit(scene.output.think(text))
    if not ended:
        scene.tally.add("wound_up")
    return said.text.strip(), ended


def after_thinking(turn: Turn, thought: str, ended: bool, limit: int | None) -> Turn:
    """The turn that answers.

    Args:
        turn: the conversation.
        thought: what was thought; empty for nothing.
        ended: whether the thinking had come to an end by itself.
        limit: words that the answer may have, None for no limit.
    """
    messages = list(turn.messages)
    if thought:
        messages.append(TurnMessage("assistant", words.closed(thought)))
        messages.append(
            TurnMessage("system", words.answer_prompt(words=limit, unfinished=not ended))
        )
    elif limit is not None:
        # At the end of what was said last, so that all before it is found in the cache.
        last = messages[-1]
        if last.role == "user":
            messages[-1] = replace(last, text=last.text + words.word_limit(limit))
        else:
            messages.append(TurnMessage("system", words.word_limit(limit).strip()))
    return replace(turn, messages=tuple(messages))


async def summarise(scene: Scene, turn: Turn, thought: str) -> None:
    """Have the model sum its thinking up, if the client wants to read that and there is time.

    Args:
        turn: the conversation, without the thinking.
        thought: the thinking, which is still the open item.
    """
    kind = scene.request.summary
    if kind is None or not thought.strip():
        return
    detailed = kind == "detailed"
    most = SUMMARY_TOKENS["detailed" if detailed else "concise"]
    if scene.clock.limited:
        most = min(most, int(scene.clock.left() * SUMMARY_SHARE * scene.engine.pace.decode))
    if most < LEAST_SUMMARY:
        return
    opened = detailed and "opening" in scene.info.capabilities
    opening = words.SUMMARY_DETAILED_OPENING if opened else ""
    prompt = words.SUMMARY_DETAILED if detailed else words.SUMMARY_CONCISE
    ask = replace(
        turn,
        messages=(
            *turn.messages,
            TurnMessage("assistant", words.closed(thought[-MOST_SUMMARISED:])),
            TurnMessage("system", prompt),
        ),
        sampling=quiet(turn.sampling),
        max_tokens=most,
        opening=opening,
        tools=(),
        grammar=None,
        schema=None,
        effort="none",
    )
    said, done = await scene.text(ask, thinking=True)
    text = opening + said.strip()
    if done.reason == "length":
        text = words.whole(text) or f"{text} …"
    if text.strip():
        scene.tally.add("summaries")
        for paragraph in filter(None, map(str.strip, text.split("\n\n"))):
            scene.emit(scene.output.next_summary() + scene.output.summarise(paragraph))


class _Until:
    """Text up to a mark, which may come in pieces and is not part of it."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._held = ""
        self._pieces: list[str] = []
        self.over = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def feed(self, text: str) -> str:
        """What is certainly before the mark."""
        if self.over:
            return ""
        self._held += text
        at = self._held.find(self._mark)
        if at >= 0:
            self.over = True
            return self._give(at)
        overlap = next(
            n
            for n in range(min(len(self._mark) - 1, len(self._held)), -1, -1)
            if self._held.endswith(self._mark[:n])
        )
        return self._give(len(self._held) - overlap)

    def end(self) -> str:
        """What was held back, since no mark came."""
        return "" if self.over else self._give(len(self._held))

    def _give(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        if text:
            self._pieces.append(text)
        return text
