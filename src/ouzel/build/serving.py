"""Brings a server up, step by step, and down again without leaving anything behind.

The address is taken first, so that a port in use is told before a gigabyte is fetched. Then the
home, which one server has for itself, the weights, and the rooms (`assembling`). It goes down in
the opposite order, and running requests are told.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ouzel.answer import Answers
from ouzel.api.connection import Connection
from ouzel.api.websocket_connection import uvicorn_options
from ouzel.build.assembling import assembled
from ouzel.build.code import CodePlan, plan_code
from ouzel.build.engine import Plan, plan_engine
from ouzel.build.home import claimed
from ouzel.build.report import Report
from ouzel.config import Settings
from ouzel.core.errors import OuzelError
from ouzel.core.turns import Turn, TurnMessage
from ouzel.loop import code_words, guided_words

_log = logging.getLogger(__name__)
_WORDS = Turn((*guided_words.prefix(), TurnMessage("system", "Tools:")))
"""What every prompt with tools begins with, for models that are led to call them."""

_PROBLEMS = Turn(code_words.examples())
"""What comes before every problem that they work out with a program."""

_KEEP_OPEN = 75
"""Seconds that an idle connection is kept. Pools of clients give theirs up after 5 to 60, and it
should be they who do: a request that meets a closing connection is lost."""

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
    async with assembled(settings, plan, code, report) as (app, answers):
        server = _Server(app, answers, settings)
        server.on_listening = lambda: report.ready(
            _url(listener), plan.engine.info.model, answers.aliases
        )
        # What start-up made stays: a full collection that walked through it, too, would hold up
        # every stream for some 50 ms, each time.
        gc.collect()
        gc.freeze()
        try:
            await server.serve([listener])
        except OSError as error:
            # Two can bind an address; the one that listens first has it.
            raise _taken(settings.host, settings.port, error) from error


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
