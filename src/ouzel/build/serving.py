"""Brings a server up, step by step, and down again without leaving anything behind.

The address is taken first, so that a port in use is told before a gigabyte is fetched. Then the
home, which one server has for itself, store, engine, HTTP. It goes down in the opposite order,
and running requests are told.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ouzel.answer import Answers
from ouzel.answer.background import BackgroundLimits
from ouzel.api.app import ApiSettings, create_app
from ouzel.api.connection import Connection
from ouzel.api.metrics import Metrics
from ouzel.api.websocket_connection import uvicorn_options
from ouzel.build.batches import running_batches, spare_room
from ouzel.build.code import CodePlan, open_containers, plan_code
from ouzel.build.engine import Plan, plan_engine
from ouzel.build.home import DATABASE, FILES, claimed
from ouzel.build.report import Report
from ouzel.build.sealing import open_sealer
from ouzel.build.upkeep import upkeep
from ouzel.config import Settings
from ouzel.core.contracts import Tool
from ouzel.core.contracts_files import Containers, Files
from ouzel.core.errors import OuzelError
from ouzel.core.turns import Turn, TurnMessage
from ouzel.limits import AtOnce
from ouzel.loop import code_words, guided_words
from ouzel.store import open_store
from ouzel.store.files import SqlFiles, open_files
from ouzel.store.files_keeping import FileLimits
from ouzel.store.retiring import DAY, Retiring
from ouzel.store.sql import SqlStore
from ouzel.tools.code_interpreter import CodeInterpreter
from ouzel.tools.unavailable import Unavailable

_log = logging.getLogger(__name__)
_WORDS = Turn((*guided_words.prefix(), TurnMessage("system", "Tools:")))
"""What every prompt with tools begins with, for models that are led to call them."""

_PROBLEMS = Turn(code_words.examples())
"""What comes before every problem that they work out with a program."""

_KEEP_OPEN = 75
"""Seconds that an idle connection is kept. Pools of clients give theirs up after 5 to 60, and it
should be they who do: a request that meets a closing connection is lost."""

_KEEP_ENDS = 2.0
"""Seconds between two attempts to store ends for which there was no room: what clients were told
is not to be forgotten because the process ends."""

_END_WITHIN = 15
"""Seconds that requests get to come to their end once their clients are gone; longer than an
answer waits for its engine."""


class StartError(OuzelError):
    """The server cannot start on this address, or with this home."""


def serve(settings: Settings, report: Report) -> None:
    """Run until stopped. Raises OuzelError if it cannot start."""
    _log_to_stderr(settings.log_level)
    with _bind(settings.host, settings.port) as listener, claimed(settings.home):
        plan = plan_engine(settings, report, warm=(_WORDS, _PROBLEMS))
        code = plan_code(settings, report)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, plan, code, listener, report))


async def _serve(
    settings: Settings, plan: Plan, code: CodePlan, listener: socket.socket, report: Report
) -> None:
    async with AsyncExitStack() as stack:
        report.step("Opening the store")
        store = await asyncio.to_thread(open_store, settings.home / DATABASE)
        stack.push_async_callback(store.close)
        files = await _open_files(stack, settings, store)
        sealer = open_sealer(settings)
        report.done("")
        report.step(plan.starting)
        began = time.perf_counter()
        stack.push_async_callback(plan.engine.stop)
        await plan.engine.start()
        report.done(f"{time.perf_counter() - began:.1f} s")
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
            [_code_tool(settings, code, containers, files)],
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
        server = _Server(app, answers, settings)
        server.on_listening = lambda: report.ready(
            _url(listener), plan.engine.info.model, answers.aliases
        )
        try:
            await server.serve([listener])
        except OSError as error:
            # Two can bind an address; the one that listens first has it.
            raise _taken(settings.host, settings.port, error) from error


def _background(settings: Settings) -> BackgroundLimits:
    return BackgroundLimits(
        settings.background_at_once, settings.background_waiting, settings.background_within
    )


async def _recover(answers: Answers, report: Report) -> None:
    """What the last process left unfinished is taken up, or marked as failed."""
    report.step("Looking for interrupted responses")
    taken, ended = await answers.recover()
    told = [f"{taken} taken up again"] if taken else []
    told += [f"{ended} marked as failed"] if ended else []
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


def _code_tool(
    settings: Settings, code: CodePlan, containers: Containers | None, files: Files
) -> Tool:
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


class _Server(uvicorn.Server):
    """uvicorn, telling running answers to come to an end when a signal arrives."""

    def __init__(self, app: ASGIApp, answers: Answers, settings: Settings) -> None:
        grace = max(1.0, settings.shutdown_grace)
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_OPEN,
                timeout_graceful_shutdown=round(grace + _END_WITHIN),
                **uvicorn_options(settings.max_body_mb * 2**20),
            )
        )
        self._answers = answers
        self._grace = grace
        self.on_listening: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait until every client has its end; break off those that do not take it in time.

        Uvicorn would cancel what they wait for, and let the store be closed meanwhile.
        """
        grace = asyncio.get_running_loop().call_later(self._grace, self._break_off)
        await super().shutdown(sockets)
        grace.cancel()
        self._break_off()  # after a second Ctrl-C somebody may still be there
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_END_WITHIN)

    def _break_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While inside, a signal ends `serve`.

        Uvicorn raises it once more at the end, which would kill the process before store and
        engine are let go.
        """
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._answers.shut_down)


class _ToStderr(logging.Handler):
    """Writes to what standard error is at that moment: start-up puts itself in its place, so that
    a line appears above the spinner and not in the middle of it."""

    def emit(self, record: logging.LogRecord) -> None:
        # A log on a disk that is full must not stop who wants to say so.
        with suppress(OSError):
            print(self.format(record), file=sys.stderr, flush=True)


def _log_to_stderr(level: str) -> None:
    """Our own lines at the level asked for; libraries only speak up when something is wrong."""
    logging.basicConfig(
        level=logging.DEBUG if level == "debug" else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[_ToStderr()],
    )
    logging.getLogger("ouzel").setLevel(level.upper())


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle on and every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from error
    return listener


def _taken(host: str, port: int, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(
            f"Port {port} on {host} is in use. Another Ouzel may be running there; choose "
            f"another with --port or OUZEL_PORT."
        )
    return StartError(f"Cannot listen on {host}, port {port}: {error.strerror}.")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
