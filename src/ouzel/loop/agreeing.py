"""Programs for one question, written independently of each other until two come to one result.

A weak model's program runs without an error far more often than it is right. Where a question has
one result, another program is written by a model that has not seen the first; two that agree are
right much more often than one alone (docs/measurements.md). They run in one interpreter, one after
another, so a later one finds the variables of the earlier. What is asked and how programs are
written, this file does not know. Pure.

The idea is self-consistency: Wang et al. 2022, "Self-Consistency Improves Chain of Thought
Reasoning in Language Models".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from ouzel.core.request import Effort
from ouzel.loop.tool_calls import Made

PROGRAMS: Final[Mapping[Effort, int]] = MappingProxyType(
    {"none": 1, "minimal": 1, "low": 1, "medium": 3, "high": 5}
)
"""Most programs for one question."""

_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_PLACES: Final = Decimal("0.0001")
"""Results that differ by less are the same."""


class Agreement:
    """What the programs for one question have come to.

    Args:
        most: programs that are written at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ran: list[Made] = []
        self._missed = 0

    @property
    def written(self) -> int:
        """Programs so far, those that came to nothing included."""
        return len(self._ran) + self._missed

    @property
    def open(self) -> bool:
        """Whether another program is wanted."""
        counts = self._counts()
        return self.written < self._most and (not counts or max(counts.values()) < 2)

    @property
    def best(self) -> Made | None:
        """The first program with the result that most have come to; one that failed if all did."""
        counts = self._counts()
        if not counts:
            return self._ran[-1] if self._ran else None
        most = max(counts.values())
        return next(each for each in self._ran if counts.get(_result(each), 0) == most)

    def add(self, made: Made) -> None:
        """A program was run."""
        self._ran.append(made)

    def miss(self) -> None:
        """No program came."""
        self._missed += 1

    def _counts(self) -> Counter[str]:
        return Counter(result for each in self._ran if (result := _result(each)))


def _result(made: Made) -> str:
    """What a program came to: the last number in what it wrote, or else its last line; empty if it
    failed or wrote nothing."""
    wrote = made.wrote.strip()
    if made.failed or not wrote:
        return ""
    numbers = _NUMBER.findall(wrote)
    if not numbers:
        return wrote.rsplit("\n", 1)[-1].strip().lower()
    try:
        return str(Decimal(numbers[-1].replace(",", "")).quantize(_PLACES).normalize())
    except InvalidOperation:  # too large to be rounded
        return str(numbers[-1])
