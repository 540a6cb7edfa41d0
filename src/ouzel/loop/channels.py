"""Thinking that comes in the text -> thinking apart from the text. Pure.

Some servers pass on what a model generates as it is: the thinking between `<think>` and
`</think>`, or from the very start up to `</think>` where the chat template has opened it, or in
the channels of the harmony format (`<|channel|>analysis<|message|>…<|end|>`), as its specification
describes them. A marker may come in pieces, so what could be the beginning of one is held back
until it is clear. Which of the forms a model has, was seen at start-up (`EngineInfo.thinks`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ouzel.core.contracts import Thinks

OPEN: Final = "<think>"
CLOSE: Final = "</think>"

_HARMONY: Final = re.compile(
    r"<\|start\|>assistant[^<]*(?=<)"
    r"|<\|channel\|>(analysis|commentary|final)(?:[^<]|<\|constrain\|>)*<\|message\|>"
    r"|<\|(?:end|return|call)\|>"
)
_HARMONY_STARTS: Final = ("<|start|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>")

_LONGEST_MARKER: Final = 100
"""Characters after which what began like a marker of harmony is none."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text and where it belongs."""

    text: str
    thinking: bool


class Splitter:
    """Splits a turn's text as it comes.

    Args:
        thinks: how the model's thinking shows. Markers are looked for in any case, but only
            where a model puts them: at the start of what it says.
    """

    def __init__(self, thinks: Thinks) -> None:
        self._thinking = thinks == "open"
        self._held = ""
        self._said = False
        self._harmony = False
        self._thought = thinks == "open"

    def feed(self, text: str) -> list[Piece]:
        """What is clear by now."""
        self._held += text
        return self._take(last=False)

    def end(self) -> list[Piece]:
        """The turn is over: what was held back."""
        return self._take(last=True)

    def _take(self, last: bool) -> list[Piece]:
        found: list[Piece] = []
        while self._held:
            before = (self._held, self._harmony)
            piece = self._step(last)
            if piece is not None and piece.text:
                found.append(piece)
            if (self._held, self._harmony) == before:
                break
        return found

    def _step(self, last: bool) -> Piece | None:
        """Take one step through what is held: a piece, a marker, or nothing yet."""
        if self._harmony:
            return self._harmony_step(last)
        if self._thinking:
            return self._until_closed(last)
        if self._said:
            return self._release(len(self._held))
        return self._opening(last)

    def _opening(self, last: bool) -> Piece | None:
        """The start of a turn, or what follows the thinking: a marker, white space, or text."""
        bare = self._held.lstrip()
        if not bare:  # white space may precede a marker; after thinking it means nothing
            if self._thought:
                self._held = ""
            return self._release(len(self._held)) if last else None
        if bare.startswith(OPEN):
            self._held = bare[len(OPEN) :]
            self._thinking = self._thought = True
            return None
        if bare.startswith(_HARMONY_STARTS):
            self._held = bare
            self._harmony = True
            return None
        if not last and any(mark.startswith(bare) for mark in (OPEN, *_HARMONY_STARTS)):
            return None
        if self._thought:
            self._held = bare
        self._said = True
        return self._release(len(self._held))

    def _until_closed(self, last: bool) -> Piece | None:
        at = self._held.find(CLOSE)
        if at >= 0:
            piece = self._release(at)
            self._held = self._held[len(CLOSE) :]
            self._thinking = False
            return piece
        return self._release(len(self._held) - (0 if last else _overlap(self._held, (CLOSE,))))

    def _harmony_step(self, last: bool) -> Piece | None:
        match = _HARMONY.search(self._held)
        if match is None:
            at = self._held.find("<|")
            if at < 0 and self._held.endswith("<"):
                at = len(self._held) - 1
            elif at >= 0 and len(self._held) - at > _LONGEST_MARKER:
                at = max(self._held.rfind("<|"), at + 2)
            return self._release(len(self._held) if last or at < 0 else at)
        piece = self._release(match.start())
        self._held = self._held[match.end() - match.start() :]
        if match.group(1):
            self._thinking_in(match.group(1))
        return piece

    def _thinking_in(self, channel: str) -> None:
        self._thought = channel != "final"

    def _release(self, length: int) -> Piece:
        text, self._held = self._held[:length], self._held[length:]
        thinking = self._thought if self._harmony else self._thinking
        return Piece(text, thinking)


def _overlap(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of one of the marks."""
    longest = max(len(mark) for mark in marks) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
