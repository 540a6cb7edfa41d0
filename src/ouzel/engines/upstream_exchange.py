"""One streamed answer from an engine's server: its bytes, its deadlines, its end.

It knows an HTTP response and a clock, not what the bytes mean.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import aiohttp

from ouzel.core.errors import EngineDied, EngineError
from ouzel.engines.upstream_failures import Overdue, Severed

NOTHING: Final = "The engine said nothing within {:g} s (first_token_timeout)."

BROKEN: Final = (aiohttp.ClientError, OSError)
"""What aiohttp raises when a connection does not hold."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an engine's server may take, in seconds.

    Args:
        connect: to accept a connection, name look-up and TLS included.
        first_token: from the request to the first piece of the answer.
        idle: from one piece to the next.
    """

    connect: float = 5.0
    first_token: float = 600.0
    idle: float = 120.0


class Exchange:
    """One streamed answer, being read.

    One timer watches over it and is moved only when it fires, so that a piece costs no timer: it
    looks whether somebody still waits for a piece that was due. Leave it with `close`, always.
    """

    __slots__ = (
        "_content",
        "_deadline",
        "_expired",
        "_limit",
        "_loop",
        "_moved",
        "_open",
        "_reading",
        "_response",
        "_timeouts",
        "_timer",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        deadline: float,
        timeouts: Timeouts,
        among: set[Exchange],
    ) -> None:
        self._open = among
        among.add(self)
        self._response = response
        self._content = response.content
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._timer = self._loop.call_at(deadline, self._look)
        self._limit = timeouts.first_token
        self._reading = False
        self._moved = False
        self._expired = False

    async def read(self) -> bytes:
        """The next bytes, `b""` at the end.

        Raises:
            Severed: the connection broke.
            Overdue: nothing useful came in `first_token` seconds.
            EngineDied: nothing useful came for `idle` seconds.
        """
        self._reading = True
        try:
            return await self._content.readany()
        except BROKEN as error:
            raise self._failure(error) from None
        finally:
            self._reading = False

    def moved(self, limit: float | None = None) -> None:
        """Something useful came: the next has `limit` seconds from now, `idle` by default."""
        self._moved = True
        self._limit = self._timeouts.idle if limit is None else limit
        self._deadline = self._loop.time() + self._limit
        if self._deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._look)

    async def drain(self, within: float) -> None:
        """Read on to the end, so that the connection can be used again.

        Where the end does not come within so many seconds, `close` will close the connection.
        """
        if self._content.at_eof():
            return
        try:
            async with asyncio.timeout(within):
                while await self._content.readany():
                    pass
        except (TimeoutError, *BROKEN):
            self._response.close()

    def close(self) -> None:
        """Let go: at once, and closing the connection unless the answer was read to its end."""
        self._timer.cancel()
        self._response.close()
        self._open.discard(self)

    def _look(self) -> None:
        now = self._loop.time()
        if not self._reading:  # the reader is busy elsewhere; its wait has not begun
            self._timer = self._loop.call_at(now + self._limit, self._look)
        elif now < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self._expired = True
            self._response.close()  # wakes the reader

    def _failure(self, error: BaseException) -> EngineError:
        if not self._expired:
            return Severed(f"The connection to the engine broke ({type(error).__name__}).")
        if self._moved:
            return EngineDied(f"The engine fell silent for {self._limit:g} s in mid-answer.")
        return Overdue(NOTHING.format(self._limit))
