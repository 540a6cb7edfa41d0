"""How far a pull is: what is told to whoever watches, and how speed and time left are reckoned.

Nothing here knows terminals, wheels or the Hub.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["waiting", "checking", "downloading", "verifying", "done"]

_WINDOW = 15.0
"""Seconds over which the speed is averaged: short enough to follow, long enough to read."""
_INTERVAL = 0.1
"""Seconds between two reports of one phase."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One report.

    Args:
        phase: `waiting` (another pull of the same weights is at work), `checking` (reading what
            is already on disk), `downloading`, `verifying`, `done`.
        done: bytes behind us in this phase.
        total: bytes of this phase in all; 0 where there is nothing to count.
        speed: bytes per second over the last seconds; None until it is known.
        eta: seconds left at that speed; None until it is known.
        detail: what is being worked on, for people.
    """

    phase: Phase
    done: int = 0
    total: int = 0
    speed: float | None = None
    eta: float | None = None
    detail: str = ""


OnProgress = Callable[[Progress], None]


class Meter:
    """Turns byte counts into reports, a few a second.

    Args:
        on_progress: called in the thread that counts; what it raises ends the pull.
        clock: seconds, from anywhere, never backwards.
    """

    def __init__(
        self, on_progress: OnProgress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._phase: Phase = "checking"
        self._detail = ""
        self._total = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._reported = float("-inf")

    def begin(self, phase: Phase, total: int = 0, detail: str = "", done: int = 0) -> None:
        """Start a phase; `done` bytes of it are there already and do not count as speed."""
        self._phase, self._total, self._detail = phase, total, detail
        self._samples = deque([(self._clock(), done)])
        self._report(done)

    def at(self, done: int, detail: str | None = None) -> None:
        """Say that `done` bytes of this phase are behind us."""
        if detail is not None:
            self._detail = detail
        now = self._clock()
        if now - self._reported < _INTERVAL and done < self._total:
            return
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW:
            self._samples.popleft()
        self._report(done)

    def _report(self, done: int) -> None:
        self._reported = self._clock()
        speed = self._speed()
        eta = (self._total - done) / speed if speed and self._total else None
        self._on_progress(Progress(self._phase, done, self._total, speed, eta, self._detail))

    def _speed(self) -> float | None:
        (begun, first), (now, last) = self._samples[0], self._samples[-1]
        return (last - first) / (now - begun) if now > begun and last > first else None
