"""Settings -> every room of the server, opened in order and plugged together.

Store, files, engine, containers, answers, batches, HTTP: each is closed in the opposite order,
after what uses it. Which address is listened to, and when the server stops, `serving` knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.types import ASGIApp

from ouzel.answer import Answers
from ouzel.answer.background import BackgroundLimits
from ouzel.api.app import ApiSettings, create_app
from ouzel.api.metrics import Metrics
from ouzel.build.batches import running_batches, spare_room
from ouzel.build.code import CodePlan, open_containers
from ouzel.build.engine import Plan
from ouzel.build.home import DATABASE, FILES
from ouzel.build.report import Report
from ouzel.build.sealing import open_sealer
from ouzel.build.upkeep import upkeep
from ouzel.config import Settings
from ouzel.core.contracts import Engine, Tool
from ouzel.core.contracts_files import Containers, Files
from ouzel.limits import AtOnce
from ouzel.store import open_store
from ouzel.store.files import SqlFiles, open_files
from ouzel.store.files_keeping import FileLimits
from ouzel.store.retiring import DAY, Retiring
from ouzel.store.sql import SqlStore
from ouzel.tools.code_interpreter import CodeInterpreter
from ouzel.tools.unavailable import Unavailable

_KEEP_ENDS: Final = 2.0
"""Seconds between two attempts to store ends for which there was no room: what clients were told
is not to be forgotten because the process ends."""


@asynccontextmanager
async def assembled(
    settings: Settings, plan: Plan, code: CodePlan, report: Report
) -> AsyncGenerator[tuple[ASGIApp, Answers], None]:
    """While inside, the application can be served, and answers.

    Raises:
        OuzelError: a room cannot be opened.
    """
    async with AsyncExitStack() as stack:
        report.step("Opening the store")
        store = await asyncio.to_thread(open_store, settings.home / DATABASE)
        stack.push_async_callback(store.close)
        files = await _open_files(stack, settings, store)
        sealer = open_sealer(settings)
        report.done("")
        await _start(stack, plan.engine, plan.starting, report)
        containers = open_containers(settings, code, files)
        if containers is not None:
            stack.push_async_callback(containers.close)
            await containers.start()
        metrics = Metrics(plan.engine)
        spare = spare_room(settings, plan.engine.info)
        answers = Answers(
            plan.engine,
            store,
            AtOnce(settings.max_requests, spare),
            metrics,
            plan.aliases,
            [code_tool(settings, code, containers, files)],
            settings.answer_within,
            files,
            conversations=store.conversations,
            sealer=sealer,
            background=_background(settings),
        )
        stack.push_async_callback(answers.close)
        await stack.enter_async_context(upkeep(answers.keep_ends, every=_KEEP_ENDS))
        await _recover(answers, report)
        batches = await stack.enter_async_context(
            running_batches(settings, store, files, answers, spare)
        )
        app = create_app(
            answers,
            metrics,
            _api(settings, code),
            files,
            containers,
            conversations=store.conversations,
            stored=store,
            batches=batches,
        )
        yield app, answers


async def _start(stack: AsyncExitStack, engine: Engine, step: str, report: Report) -> None:
    report.step(step)
    began = time.perf_counter()
    stack.push_async_callback(engine.stop)
    await engine.start()
    report.done(f"{time.perf_counter() - began:.1f} s")


def _background(settings: Settings) -> BackgroundLimits:
    return BackgroundLimits(
        settings.background_at_once, settings.background_waiting, settings.background_within
    )


async def _recover(answers: Answers, report: Report) -> None:
    """What the last process left unfinished is taken up, or marked as failed."""
    report.step("Looking for unfinished responses")
    taken, ended = await answers.recover()
    told = [f"{taken} background responses taken up again"] if taken else []
    told += [f"{ended} interrupted responses marked as failed"] if ended else []
    report.done(", ".join(told) or "none")


async def _open_files(stack: AsyncExitStack, settings: Settings, store: SqlStore) -> SqlFiles:
    """The files that clients hand over, tidied up, and kept so while the server runs."""
    limits = FileLimits(file=settings.max_file_mb * 2**20, quota=settings.files_quota_mb * 2**20)
    files = await asyncio.to_thread(open_files, store, settings.home / FILES, limits)
    stack.push_async_callback(files.close)
    await files.sweep()
    await stack.enter_async_context(upkeep(files.expire))
    retiring = Retiring(settings.home / DATABASE, settings.keep_days * DAY)
    stack.push_async_callback(retiring.close)
    await stack.enter_async_context(upkeep(retiring.round))
    return files


def code_tool(
    settings: Settings, code: CodePlan, containers: Containers | None, files: Files
) -> Tool:
    """The tool that runs code, or one that says why none is run here."""
    if containers is None:
        return Unavailable("code_interpreter", code.why_not)
    return CodeInterpreter(containers, files, memory_mb=settings.container_memory_mb)


def _api(settings: Settings, code: CodePlan) -> ApiSettings:
    return ApiSettings(
        settings.api_key,
        settings.max_body_mb * 2**20,
        settings.keep_alive,
        settings.max_file_mb * 2**20,
        code.why_not,
    )
