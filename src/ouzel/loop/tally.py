"""What happened in a run, counted by name; it ends up in `/metrics` and in the eval report.

Names: `calls` (made, valid), `repaired_calls` (made, after the loop mended them),
`invalid_calls` (attempts that no mending made valid, none of them was emitted),
`planned_calls` (announced in the text and not made), `hosted_calls`, `failed_hosted_calls`,
`wound_up` (thinking that was ended by the loop), `hurried` (answers that were brought to an end
because time was up), `retried_formats` (structured answers asked for again), `summaries`,
`compactions`, `compacted_without_notes` (there was no time or no room for the model's).
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

Count = Literal[
    "calls",
    "repaired_calls",
    "invalid_calls",
    "planned_calls",
    "hosted_calls",
    "failed_hosted_calls",
    "wound_up",
    "hurried",
    "retried_formats",
    "summaries",
    "compactions",
    "compacted_without_notes",
]


class Tally:
    """Counts of one run."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: Count, times: int = 1) -> None:
        """One more of `name`, or several."""
        self._counts[name] += times

    def counts(self) -> dict[str, int]:
        """What was counted; names that never came are not in it."""
        return dict(self._counts)
