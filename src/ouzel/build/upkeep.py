"""What a running server does now and then by itself: files that have expired are deleted.

It has one task, which ends with the server. What expires when, the rooms know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from ouzel.core.errors import OuzelError

_log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two rounds, unless it is said otherwise."""


@asynccontextmanager
async def upkeep(
    *rounds: Callable[[], Awaitable[int]], every: float = EVERY
) -> AsyncGenerator[None, None]:
    """While inside, each of these is called every so many seconds; what one raises is logged."""
    task = asyncio.create_task(_forever(rounds, every))
    try:
        yield
    finally:
        task.cancel()
        # Its own cancellation is waited for; one of ours is not swallowed.
        await asyncio.wait((task,))


async def _forever(rounds: tuple[Callable[[], Awaitable[int]], ...], every: float) -> None:
    while True:
        for each in rounds:
            try:
                await each()
            except OuzelError as error:
                _log.warning("Upkeep: %s", error.message)
            except Exception:
                _log.exception("Upkeep failed")
        await asyncio.sleep(every)
