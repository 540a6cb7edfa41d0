"""Reasoning effort and deadline -> tokens and seconds. Pure, but for the clock it is given.

An answer has to be whole within a time that is known from the start. What was measured of the
engine (`Pace`) turns that time into tokens: so many for thinking, the rest for the answer. The
clock decides in the end, since an engine slows down when others use it too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ouzel.core.request import Effort
from ouzel.core.turns import Pace

NATIVE: Final = MappingProxyType[Effort, int](
    {"none": 0, "minimal": 128, "low": 1024, "medium": 4096, "high": 16384}
)
"""Tokens of thinking for models that were trained to think. Each step is four times the one
before, and `high` is what such models are commonly let think on hard problems."""

SCRATCHPAD: Final = MappingProxyType[Effort, int](
    {"none": 0, "minimal": 0, "low": 320, "medium": 448, "high": 768}
)
"""Tokens on a scratchpad for models that were not; measured in docs/measurements.md."""

ANSWER_SHARE: Final = 0.4
"""Of the time, and of the tokens, there are when thinking begins, what is kept for the answer."""

KEPT_BACK: Final = 0.05
"""Of the whole time, what is kept back for everything that is not generating."""

CHARACTERS_A_TOKEN: Final = 3.5
"""Of English text and code, with today's vocabularies: some 3 to 4."""

LAST_CALLS: Final = 0.25
"""Of the whole time, what is left when no more tools are called: it is needed for the answer."""

CAREFUL: Final = 0.5
"""Of the same time, what may pass before the answer is said a whole sentence at a time: what is not
whole when the time is up was then not said."""

HURRY: Final = 0.8
"""Of the time there is when the answer begins, what may pass before it is brought to an end."""


@dataclass(frozen=True, slots=True)
class Clock:
    """How much time a run has.

    Args:
        within: seconds from the beginning in which it should be over; 0 sets no limit.
        began: when it began, on `now`'s scale.
    """

    within: float
    began: float
    now: Callable[[], float] = time.monotonic

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.within > 0

    def left(self) -> float:
        """Seconds for generating; infinite without a limit, 0 when the time is up."""
        if not self.limited:
            return math.inf
        return max(0.0, self.began + self.within * (1 - KEPT_BACK) - self.now())

    @property
    def late(self) -> bool:
        """Whether what time there is left is needed for the answer."""
        return self.limited and self.left() < self.within * LAST_CALLS

    def after(self, seconds: float) -> float:
        """The moment so many seconds from now."""
        return self.now() + seconds


def thinking_tokens(
    effort: Effort, native: bool, pace: Pace, left: float, room: int | None = None
) -> int:
    """Most tokens of thinking.

    Args:
        effort: as asked.
        native: the model was trained to think.
        pace: the engine's.
        left: seconds that the run has.
        room: tokens that the request leaves for thinking and answer together.
    """
    most = (NATIVE if native else SCRATCHPAD)[effort]
    if room is not None:
        most = min(most, int(room * (1 - ANSWER_SHARE)))
    if math.isinf(left):
        return most
    return min(most, int(left * (1 - ANSWER_SHARE) * pace.decode))


def about_tokens(*texts: str) -> int:
    """About how many tokens some texts have; an estimate for budgets, never for counts."""
    return int(sum(map(len, texts)) / CHARACTERS_A_TOKEN)


def answer_tokens(pace: Pace, left: float) -> int | None:
    """Tokens that there is time for in the answer; None if time sets no limit."""
    return None if math.isinf(left) else max(1, int(left * pace.decode))
