"""Users for sandboxes, where this process may choose: one for each sandbox that lives.

A user of its own cannot signal, trace or read what is another's, and the kernel counts its
processes apart. The numbers belong to nobody: they are in no password file. What a user does, this
file does not know.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

RANGES: Final = ((2_000_000_000, 60_000), (62_000, 2_000), (40_000, 2_000))
"""First number and how many. The first is far from what systems hand out to people, services and
containers; the others are for containers of 65,536 users, where there is nothing higher."""


class NoUsers(Exception):
    """There is no number that a sandbox could have."""


class Uids:
    """Hands out numbers that nobody on this machine uses.

    Args:
        first: the lowest number.
        count: how many there are.
    """

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._count = count
        # Another server on this machine starts elsewhere, most likely.
        self._next = os.getpid() * 97 % count
        self._held: set[int] = set()

    def take(self) -> int:
        """A number, ours until it is given back.

        Raises:
            NoUsers: all are in use.
        """
        busy = self._held | running_uids()
        for _ in range(self._count):
            uid = self._first + self._next
            self._next = (self._next + 1) % self._count
            if uid not in busy:
                self._held.add(uid)
                return uid
        raise NoUsers("each of the sandboxes' users is in use")

    def give_back(self, uid: int) -> None:
        """Nothing of this user is left."""
        self._held.discard(uid)


def find_range() -> tuple[int, int]:
    """First number and how many, out of those that exist here.

    Raises:
        NoUsers: this process's user namespace has none of them.
    """
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    spans = [(int(inside), int(inside) + int(count)) for inside, _, count in map(str.split, lines)]
    for first, count in RANGES:
        if any(start <= first and first + count <= end for start, end in spans):
            return first, count
    raise NoUsers("this process may not use any of the users kept for sandboxes")


def running_uids() -> set[int]:
    """Users of all processes that can be seen."""
    found = set()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                try:
                    found.add(entry.stat().st_uid)
                except OSError:
                    continue
    return found
