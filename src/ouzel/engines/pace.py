"""How fast an engine is: rates from what turns took.

A `PaceMeter` is told of readings and keeps an average in which recent tokens weigh more; a
`Stopwatch` makes readings from outside. Neither knows an engine.
"""

from __future__ import annotations

import time
from typing import Final

from ouzel.core.turns import Pace

LEAST_PREFILL: Final = 32
"""Prompt tokens below which a reading says more about the way there than about the engine."""

LEAST_DECODE: Final = 8
"""The same for generated tokens."""

PREFILL_HALF: Final = 1024
DECODE_HALF: Final = 256
"""Tokens after which an older reading counts half: a few turns. Counted in tokens and not in
readings, so that a long turn weighs what it is worth."""


class PaceMeter:
    """Averages rates.

    Args:
        guess: what is told before the first reading.
    """

    __slots__ = ("_decode", "_guess", "_prefill")

    def __init__(self, guess: Pace) -> None:
        self._guess = guess
        self._prefill = _Rate(PREFILL_HALF)
        self._decode = _Rate(DECODE_HALF)

    @property
    def pace(self) -> Pace:
        """The rates now, tokens a second."""
        return Pace(
            self._prefill.value(self._guess.prefill), self._decode.value(self._guess.decode)
        )

    def suppose(self, guess: Pace) -> None:
        """Tell this until something is measured."""
        self._guess = guess

    def prefilled(self, tokens: int, seconds: float) -> None:
        """So many prompt tokens, none of them cached, were read in so many seconds."""
        if tokens >= LEAST_PREFILL:
            self._prefill.add(tokens, seconds)

    def decoded(self, tokens: int, seconds: float) -> None:
        """One stream generated so many tokens in so many seconds, whatever ran beside it."""
        if tokens >= LEAST_DECODE:
            self._decode.add(tokens, seconds)


class _Rate:
    """Tokens over seconds, both fading: the mean is right also where readings differ in size."""

    __slots__ = ("_half", "_seconds", "_tokens")

    def __init__(self, half: int) -> None:
        self._half = half
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        if seconds <= 0.0:
            return
        fade = 0.5 ** (tokens / self._half)
        self._tokens = self._tokens * fade + tokens
        self._seconds = self._seconds * fade + seconds

    def value(self, guess: float) -> float:
        return self._tokens / self._seconds if self._seconds else guess


class Stopwatch:
    """Times one turn from outside, for engines that do not time themselves.

    It starts when it is made, which is when the turn is sent. What it sees holds waiting for a
    free slot too: that is time which the next turn will take as well.
    """

    __slots__ = ("_first", "_last", "_sent")

    def __init__(self) -> None:
        self._sent = time.perf_counter()
        self._first = 0.0
        self._last = 0.0

    def heard(self) -> None:
        """A piece of the answer came."""
        self._last = time.perf_counter()
        self._first = self._first or self._last

    def tell(self, meter: PaceMeter, read: int, generated: int) -> None:
        """Pass on what was seen.

        Args:
            read: prompt tokens that were not cached.
            generated: tokens of the answer; the first of them ends the reading.
        """
        if self._first:
            meter.prefilled(read, self._first - self._sent)
            meter.decoded(generated - 1, self._last - self._first)
