"""Settings and engine -> how much room batches get, and the runner that fills it.

What a batch is, and how a line is answered, the rooms know.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from ouzel.answer import Answers
from ouzel.api.batch_runner import BatchRunner
from ouzel.config import Settings
from ouzel.core.contracts import EngineInfo
from ouzel.core.contracts_files import Files
from ouzel.limits import Spare
from ouzel.store.batches import SqlBatches
from ouzel.store.sql import SqlStore

_USUAL_SLOTS: Final = 4
"""What is assumed of an engine that does not say how many requests it computes at once."""


def spare_room(settings: Settings, engine: EngineInfo) -> Spare:
    """The room that live requests leave. Where the engine does not say how much there is at all,
    the setting decides."""
    most = settings.batch_at_once
    return Spare(engine.slots or max(_USUAL_SLOTS, most + 1), most)


@asynccontextmanager
async def running_batches(
    settings: Settings, store: SqlStore, files: Files, answers: Answers, spare: Spare
) -> AsyncGenerator[BatchRunner, None]:
    """While inside, batches are run; those of an earlier process are gone on with."""
    runner = BatchRunner(
        SqlBatches(store),
        files,
        answers,
        spare,
        longest=settings.max_body_mb * 2**20,
        within=settings.background_within,
    )
    await runner.start()
    try:
        yield runner
    finally:
        await runner.close()
