"""The numbers of the bench: quantiles, paired differences, aims and verdicts.

Pure: it knows no process, no HTTP and no table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Relation = Literal[">=", "<=", ">", "<"]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, linear between neighbours.

    The definition is type 7 of Hyndman and Fan (1996), which numpy uses too.

    Args:
        values: at least one number, in any order.
        share: from 0 to 1.

    Raises:
        ValueError: there are no values, or `share` is out of bounds.
    """
    if not values:
        raise ValueError("a quantile needs at least one value")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}, it must be from 0 to 1")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: Sequence[float]) -> float:
    """The middle value. Raises ValueError if there is none."""
    return quantile(values, 0.5)


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours minus theirs, pair by pair. Raises ValueError if they do not pair up."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, pair by pair. Raises ValueError if they do not pair up."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def decode_rate(tokens: int, first: float, last: float) -> float:
    """Tokens a second between the first and the last one.

    Args:
        tokens: how many there were, at least two.
        first, last: when they came, in seconds of one clock.

    Raises:
        ValueError: there is no time between them to divide by.
    """
    if tokens < 2 or last <= first:
        raise ValueError(f"no rate from {tokens} tokens in {last - first:.3f} s")
    return (tokens - 1) / (last - first)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a measurement should come to, in the unit of its row."""

    relation: Relation
    value: float

    def met(self, measured: float) -> bool:
        """Whether the number is what was aimed at; a NaN never is."""
        match self.relation:
            case ">=":
                return measured >= self.value
            case "<=":
                return measured <= self.value
            case ">":
                return measured > self.value
            case "<":
                return measured < self.value


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        name: what was measured.
        measured: the number that stands for all samples.
        unit: of `measured`, `baseline` and the aim.
        aim: what it should be; None for a number that only explains others.
        baseline: the same, measured in the same run at what it is compared with.
        ratio: measured over baseline, from pairs where there are pairs.
        note: what else a reader should know, in a few words.
        samples: what `measured` was made of.
    """

    name: str
    measured: float
    unit: str
    aim: Aim | None = None
    baseline: float | None = None
    ratio: float | None = None
    note: str = ""
    samples: tuple[float, ...] = ()

    @property
    def verdict(self) -> Literal["ok", "missed", ""]:
        """`ok` or `missed`, or nothing where nothing was aimed at."""
        if self.aim is None:
            return ""
        return "ok" if self.aim.met(self.measured) else "missed"
