"""Who may start a request, and when.

For now one limit: how many requests run at once in all. Keys, plans and quotas join it here.
It knows neither HTTP nor engines.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ouzel.core.errors import TooManyRequests


class AtOnce:
    """Admits up to `most` requests at a time; one more is refused, not queued.

    The engine queues by itself what its slots cannot take. This bound keeps that queue, and the
    memory it costs, finite.

    Args:
        most: how many requests may run at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0

    @asynccontextmanager
    async def admit(self, owner: str) -> AsyncGenerator[None, None]:
        """Held while a request of `owner` runs. Raises TooManyRequests when full."""
        if self.running >= self.most:
            raise TooManyRequests(
                f"{self.running} requests are running, which is as many as this server accepts "
                "at once (setting max_requests). Try again shortly.",
                retry_after=1.0,
            )
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
