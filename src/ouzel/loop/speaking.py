"""The answer's text on its way out: calls are kept out of it, and it ends when time is up.

When an answer has used most of its time it is brought to an end at the next end of a sentence, so
that it is whole, if shorter than it might have been. What is generated, and why, this file does
not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ouzel.core.contracts import Thinks
from ouzel.core.items import TokenLogprob
from ouzel.core.turns import TextDelta
from ouzel.loop.budget import CAREFUL, HURRY
from ouzel.loop.channels import Piece, Splitter
from ouzel.loop.scene import Scene
from ouzel.loop.spotting import Spotted, Spotter
from ouzel.loop.thinking_words import whole, whole_until

_BROKEN = "\ufffd"
_SLACK = 4
"""Characters that tokens which are halves of characters may stand for."""

_FIRST_SENTENCE = 400
"""Characters after which the first sentence is cut too, when its time is up."""


class Speech:
    """The text of one turn.

    Args:
        scene: where it is said.
        names: tools whose calls are looked for in the text; none are if there are none.
        hold: say nothing; `text` has it all in the end. Text that is held from the start is not
            hurried.
        thinks: how thinking shows in this turn, if not as the engine says.

    Attributes:
        cut: it was ended in the middle of a sentence.
        hold: as above; may be set later on.
        hurried: it was ended at a good place before the model was done.
        refused: the model declined.
        logprobs: those of the text, where it is held.
    """

    def __init__(
        self,
        scene: Scene,
        names: tuple[str, ...] = (),
        *,
        hold: bool = False,
        thinks: Thinks | None = None,
    ) -> None:
        self._scene = scene
        self._spotter = Spotter(names) if names else None
        self._splitter = Splitter(thinks or scene.info.thinks)
        self.hold = hold
        self._tokens: deque[TokenLogprob] = deque()
        self._pieces: list[str] = []
        self._held: list[str] = []
        self._late = ""
        self._space = ""
        self._careful_at: float | None = None
        self._hurry_at = 0.0
        self.logprobs: list[TokenLogprob] = []
        self.cut = False
        self.hurried = False
        self.refused = False
        if scene.clock.limited and not hold:
            self._careful_at = scene.clock.after(scene.clock.left() * CAREFUL)
            self._hurry_at = scene.clock.after(scene.clock.left() * HURRY)

    @property
    def text(self) -> str:
        """Everything said so far."""
        return "".join(self._pieces)

    @property
    def over(self) -> bool:
        """Whether nothing more is said, whatever comes."""
        return self.cut or self.hurried

    @property
    def calls(self) -> list[Spotted]:
        """Calls that were found in the text."""
        return self._spotter.calls if self._spotter else []

    def split(self, delta: TextDelta) -> tuple[str, str]:
        """What of a delta is thinking, and what is text; see `channels`."""
        self._tokens += delta.logprobs
        return _parted(self._splitter.feed(delta.text))

    def hear(self, text: str) -> bool:
        """Take the next piece of text. True if the turn shall end now."""
        if self.over:
            return True
        if self._spotter is not None:
            text = self._apart(self._spotter.feed(text))
            if not text and self._careful_at is not None and self._scene.clock.left() <= 0:
                self.cut = True
                return True
        return self._say(text)

    def _apart(self, text: str) -> str:
        """The text without the white space at its end: before and after calls it means nothing."""
        text = self._space + text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        return kept

    def refuse(self, text: str) -> None:
        """The model declines, and says so apart from its text."""
        self.refused = True
        self._scene.emit(self._scene.output.refuse(text))

    def release(self) -> None:
        """Say what was held until now."""
        self.hold = False
        if text := "".join(self._held):
            self._held = []
            self._scene.emit(self._scene.output.say(text, tuple(self.logprobs)))

    def give_back(self, text: str) -> None:
        """Say what was taken for a call after all."""
        self._out(text)

    def end(self) -> str:
        """The turn is over: what was held back is said. Returns what of it is thinking."""
        thinking, text = _parted(self._splitter.end())
        if not self.over:
            if self._spotter is not None:
                text = self._apart(self._spotter.feed(text) + self._spotter.end())
                text += "" if self.calls else self._space
            self._out(self._late + text)
        return thinking

    def _say(self, text: str) -> bool:
        if not text:
            return False
        if self._careful_at is None or self._scene.clock.now() < self._careful_at:
            self._out(text)
            return False
        return self._say_whole(text)

    def _say_whole(self, text: str) -> bool:
        """Time gets short: say only what is whole, and end there when time is up, nearly."""
        hurry = self._scene.clock.now() >= self._hurry_at
        self._late += text
        said = self.text
        so_far = said + self._late
        end = whole_until(so_far)
        # What follows a full stop has to be known: it may be the middle of a number.
        if len(said) < end < len(so_far):
            self._late = so_far[end:]
            self._out(so_far[len(said) : end])
            said = self.text
        over = self._scene.clock.left() <= 0
        if (hurry or over) and said.strip() and not said[end:].strip():
            self._out(whole(so_far)[end:])  # the end of a block of code, if one is open
            self.hurried = True
            self._scene.tally.add("hurried")
            return True
        if over and (said.strip() or len(self._late) > _FIRST_SENTENCE):
            self._out(self._late)  # there is no good end: what there is, is more than less of it
            self.cut = True
            return True
        return False

    def _out(self, text: str) -> None:
        if not text:
            return
        self._pieces.append(text)
        logprobs = self._logprobs_of(text)
        if self.hold:
            self._held.append(text)
            self.logprobs += logprobs
        else:
            self._scene.emit(self._scene.output.say(text, logprobs))

    def _logprobs_of(self, text: str) -> tuple[TokenLogprob, ...]:
        """Those of the tokens that make up a text; tokens of what was not said are passed over."""
        found: list[TokenLogprob] = []
        at = 0
        while self._tokens and at < len(text):
            token = self._tokens.popleft()
            if _BROKEN in token.token:  # half of a character: where it stands cannot be seen
                found.append(token)
                continue
            end = at + len(token.token)
            place = text.find(token.token, at, end + _SLACK)
            if place >= 0:
                at = place + len(token.token)
            elif token.token.startswith(text[at:]):  # the rest of it is said later
                at = len(text)
            else:
                continue
            found.append(token)
        return tuple(found)


def _parted(pieces: Sequence[Piece]) -> tuple[str, str]:
    thinking = "".join(piece.text for piece in pieces if piece.thinking)
    return thinking, "".join(piece.text for piece in pieces if not piece.thinking)
