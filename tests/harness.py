"""Runs the assembled API inside a test's own event loop, on a real port, over a real store.

Tests talk to it as clients do: over HTTP, with the official SDK or raw.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ouzel.answer import Answers
from ouzel.api.app import ApiSettings, create_app
from ouzel.api.connection import Connection
from ouzel.api.metrics import Metrics
from ouzel.core.contracts import Engine, Tool
from ouzel.core.contracts_files import Containers, Files
from ouzel.limits import AtOnce
from ouzel.store import SqlStore, open_store

ALIASES = ("o4-mini",)


@dataclass
class Running:
    """A server under test.

    Attributes:
        url: without `/v1`.
    """

    url: str
    answers: Answers
    store: SqlStore
    engine: Engine

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@asynccontextmanager
async def serving(
    engine: Engine,
    home: Path,
    *,
    settings: ApiSettings | None = None,
    max_requests: int = 256,
    tools: Iterable[Tool] = (),
    answer_within: float = 60.0,
    files: Files | None = None,
    containers: Containers | None = None,
) -> AsyncIterator[Running]:
    """Serve `engine`, with these hosted tools, on a free loopback port until the block ends.

    Args:
        files, containers: opened and closed by the caller; without them there are none.
    """
    await engine.start()
    store = open_store(home / "ouzel.db")
    metrics = Metrics(engine)
    admit = AtOnce(max_requests)
    answers = Answers(engine, store, admit, metrics, ALIASES, tools, answer_within, files)
    app = create_app(answers, metrics, settings or ApiSettings(), files, containers)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=Connection, lifespan="off", ws="none", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        server.capture_signals = _no_signals  # type: ignore[method-assign]
        task = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.005)
            port = listener.getsockname()[1]
            yield Running(f"http://127.0.0.1:{port}", answers, store, engine)
        finally:
            answers.shut_down()
            server.should_exit = True
            await task
            await store.close()
            await engine.stop()


def _no_signals():
    from contextlib import nullcontext

    return nullcontext()
