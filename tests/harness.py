"""Runs the assembled API inside a test's own event loop, on a real port, over a real store.

Tests talk to it as clients do: over HTTP, with the official SDK or raw.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from ouzel.answer import Answers
from ouzel.answer.background import BackgroundLimits
from ouzel.api.app import ApiSettings, create_app
from ouzel.api.batch_runner import BatchRunner
from ouzel.api.connection import Connection
from ouzel.api.metrics import Metrics
from ouzel.api.websocket_connection import uvicorn_options
from ouzel.core.contracts import Engine, Tool
from ouzel.core.contracts_files import Containers, Files
from ouzel.core.contracts_state import Sealer
from ouzel.limits import AtOnce, Spare
from ouzel.store import SqlStore, open_store
from ouzel.store.batches import SqlBatches

ALIASES = ("o4-mini",)


@dataclass
class Running:
    """A server under test.

    Attributes:
        url: without `/v1`.
        spare: what is left for batches.
        batches: runs them, where files are kept.
    """

    url: str
    answers: Answers
    store: SqlStore
    engine: Engine
    spare: Spare
    batches: BatchRunner | None = None

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
    background: BackgroundLimits | None = None,
    sealer: Sealer | None = None,
    batching: Mapping[str, Any] | None = None,
) -> AsyncIterator[Running]:
    """Serve `engine`, with these hosted tools, on a free loopback port until the block ends.

    What an earlier block left unfinished in `home` is taken up, as by the real server.

    Args:
        files, containers: opened and closed by the caller; without them there are none.
        sealer: without it nothing is sealed.
        batching: further arguments of the runner of batches.
    """
    await engine.start()
    store = open_store(home / "ouzel.db")
    metrics = Metrics(engine)
    spare = Spare(engine.info.slots)
    admit = AtOnce(max_requests, spare)
    answers = Answers(
        engine,
        store,
        admit,
        metrics,
        ALIASES,
        tools,
        answer_within,
        files,
        conversations=store.conversations,
        sealer=sealer,
        background=background,
    )
    await answers.recover()
    batches = None
    if files is not None:
        batches = BatchRunner(SqlBatches(store), files, answers, spare, **(batching or {}))
        await batches.start()
    app = create_app(
        answers,
        metrics,
        settings or ApiSettings(),
        files,
        containers,
        conversations=store.conversations,
        stored=store,
        batches=batches,
    )
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",
            log_config=None,
            access_log=False,
            **uvicorn_options((settings or ApiSettings()).max_body),
        )
        server = uvicorn.Server(config)
        server.capture_signals = _no_signals  # type: ignore[method-assign]
        task = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.005)
            port = listener.getsockname()[1]
            yield Running(f"http://127.0.0.1:{port}", answers, store, engine, spare, batches)
        finally:
            answers.shut_down()
            server.should_exit = True
            await task
            if batches is not None:
                await batches.close()
            await answers.close()
            await store.close()
            await engine.stop()


def _no_signals():
    from contextlib import nullcontext

    return nullcontext()
