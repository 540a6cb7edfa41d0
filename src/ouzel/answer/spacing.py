"""Keeps a little time between the writes of one run, so that what is said meanwhile shares one.

A write costs much more than an event in it. What is written, this file does not know.
"""

from __future__ import annotations

import asyncio

APART = 0.01
"""Seconds between two writes. Tokens that are further apart than that never wait."""


class Spacing:
    """Says when the next write may come: the first at once, the last at once."""

    def __init__(self) -> None:
        self._next = float("-inf")
        self._hurried = False
        self._due = asyncio.Event()

    def hurry(self) -> None:
        """Let nobody wait any more."""
        self._hurried = True
        self._due.set()

    async def turn(self) -> None:
        """Return when the next write may come."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next and not self._hurried:
            self._due.clear()
            timer = loop.call_at(self._next, self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
        self._next = loop.time() + APART
