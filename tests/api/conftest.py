"""A running server over the scripted engine, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from doubles import scripted
from harness import Running, serving
from ouzel.core.contracts import Engine

Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers: `await serve(engine, key=...)`; all are stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(engine: Engine | None = None, **more: Any) -> Running:
            return await stack.enter_async_context(serving(engine or scripted(), tmp_path, **more))

        yield start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A raw HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest.fixture
async def sdk() -> AsyncIterator[Callable[[Running], AsyncOpenAI]]:
    """Makes official clients; all are closed when the test ends."""
    async with AsyncExitStack() as stack:

        def client(server: Running, **more: Any) -> AsyncOpenAI:
            values = {"api_key": "none", "max_retries": 0} | more
            made = AsyncOpenAI(base_url=server.base_url, **values)
            stack.push_async_callback(made.close)
            return made

        yield client
