"""What a check of `doctor` found: one fact, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        area: `machine`, `settings`, `engine`, `abilities`, `store` or `address`.
        name: what was looked at.
        level: `problem` if the server cannot run as configured, `note` for what should be known.
        text: what was found.
        advice: what to do; never empty for a problem.
    """

    area: str
    name: str
    level: Level
    text: str
    advice: str = ""
