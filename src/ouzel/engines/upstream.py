"""An engine behind HTTP: any server that streams Chat Completions.

vLLM, SGLang, llama-server, Ollama and their like, on this machine or another; the embedded engine
uses it too, for the process that it starts. It decides what to try again, watches whether the
server is there, and ends every turn in exactly one TurnDone or one error. It knows no bytes
(`wire`), no sockets (`upstream_client`) and no dialects (`upstream_probe`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from ouzel.core.contracts import Capability, EngineInfo, EngineState, ToolStyle
from ouzel.core.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    OuzelError,
    RequestError,
)
from ouzel.core.turns import EngineDelta, Halt, Pace, Turn, TurnDone
from ouzel.engines.pace import PaceMeter, Stopwatch
from ouzel.engines.upstream_client import Client
from ouzel.engines.upstream_exchange import Timeouts
from ouzel.engines.upstream_failures import (
    Overflow,
    Severed,
    Unreachable,
    passing,
    read_error,
    shrink,
)
from ouzel.engines.upstream_find import ABSENT, Listed, find_model, find_window
from ouzel.engines.upstream_hear import tell_pace
from ouzel.engines.upstream_probe import PROBE, Findings, Prober, style_of
from ouzel.engines.upstream_tokens import Tokenizer, too_long, usage_of
from ouzel.engines.wire import TurnReader
from ouzel.engines.wire_turn import KNOWN, PLAIN, write_turn

__all__ = ["Timeouts", "UpstreamEngine"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

FIRST_PAUSE: Final = 0.25
"""Seconds before the first new attempt; doubled for each further one."""

LONGEST_PAUSE: Final = 2.0
"""Seconds that a request waits at most for a new attempt. A server that asks for more is not
asked again by this request: its answer goes to the caller, who can wait."""

TIMEOUTS: Final = Timeouts()

LINGER: Final = 5.0
"""Seconds for what comes after the end of an answer: usage, and the end of the stream."""

SETTLE: Final = 0.05
"""Seconds for the last bytes after `[DONE]`, so that the connection can be used again."""

SMALL: Final = 5.0
"""Seconds for a question that costs a server nothing."""

UNKNOWN_PACE: Final = Pace(prefill=200.0, decode=20.0)
"""What is told before anything was measured: a small model on a few cores. Turns that probe the
server correct it; without them the first real ones do."""

CHECKS: Final = (0.25, 5.0)
"""Seconds between checks on a server that is gone: the first, and the longest."""


class UpstreamEngine:
    """Implements `core.contracts.Engine` over HTTP.

    Args:
        url: the server's address, with or without `/v1`.
        key: bearer key for it.
        model: which of its models; None takes the only one.
        served_as: the name that clients see; the server's own by default.
        context_window: tokens for one request; None asks the server.
        capabilities: what the server honours; None probes it with a few tiny requests.
        findings: what the server and its model can, where somebody found out before.
        tool_style: how the model is brought to call tools; None leaves it to what is found out:
            natively where a call was really made.
        timeouts: how long it may take.
        retries: further attempts for a turn in which nothing was said yet.
        client: the connections; None makes them from `url` and `key`.
        meter: keeps the pace; None begins a new one.

    Raises:
        EngineError: the address is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        model: str | None,
        served_as: str | None = None,
        context_window: int | None = None,
        capabilities: frozenset[Capability] | None = None,
        findings: Findings | None = None,
        tool_style: ToolStyle | None = None,
        timeouts: Timeouts = TIMEOUTS,
        retries: int = 2,
        client: Client | None = None,
        meter: PaceMeter | None = None,
    ) -> None:
        self._client = client or Client(url, key, timeouts)
        self._meter = meter or PaceMeter(UNKNOWN_PACE)
        self._findings = findings
        self._dialect = PLAIN
        self._tool_style = tool_style
        self._wanted = model
        self._served_as = served_as
        self._window = context_window
        self._capabilities = capabilities
        self._timeouts = timeouts
        self._retries = retries
        self._state: EngineState = "starting"
        self._trouble = "it was not started"
        self._info: EngineInfo | None = None
        self._model = model or ""
        self._tokenizer = Tokenizer(self._client, self._model, timeouts.first_token)
        self._checking: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        """See the contract. `restarting` while the server cannot be reached."""
        return self._state

    @property
    def info(self) -> EngineInfo:
        """See the contract; it stays when the server goes."""
        if self._info is None:
            raise EngineUnavailable(f"The engine is not up: {self._trouble}.")
        return self._info

    @property
    def pace(self) -> Pace:
        """See the contract. As llama-server times itself, else as it is seen from here."""
        return self._meter.pace

    async def start(self) -> None:
        """Reach the server and learn what it is.

        Raises:
            EngineUnavailable: it cannot be reached, or still loads.
            EngineError: it is no such server, the key is wrong, or a setting has to be given.
        """
        self._state = "starting"
        self._client.open()
        try:
            info = await self._discover()
            self._demand("starting")  # and not stopped in the meantime
        except BaseException as error:
            if self.state != "stopped":
                self._state = "failed"
                self._trouble = str(error).rstrip(".")
            await self._client.close()
            if isinstance(error, Severed | Overflow):  # these two are for this room only
                raise EngineUnavailable(error.message) from None
            if isinstance(error, RequestError):
                raise EngineError(f"A tiny request failed. {error.message}") from None
            raise
        self._info = info
        self._state = "ready"

    async def stop(self) -> None:
        """See the contract."""
        self._state = "stopped"
        self._trouble = "it was stopped"
        task, self._checking = self._checking, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._client.close()

    def stream(self, turn: Turn, halt: Halt | None = None) -> AsyncGenerator[EngineDelta, None]:
        """See the contract.

        Tried again, at most `retries` times and only where nothing was said: no connection, a
        connection that broke, 429, 502, 503. A server that counts nothing has its tokens counted
        by its own tokenizer; if it has none either, the turn ends in EngineDied, since a count is
        never made up.
        """
        return self._generate(turn, "ready", halt or Halt())

    async def _generate(
        self, turn: Turn, during: EngineState, halt: Halt
    ) -> AsyncGenerator[EngineDelta, None]:
        self._demand(during)
        body = write_turn(turn, self._model, stream=True, dialect=self._dialect)
        attempt = 0
        while True:
            if _wished(halt):
                yield TurnDone("halted")
                return
            reader = TurnReader(turn.sampling.top_logprobs, self._client.secret)
            watch = Stopwatch()
            exchange = None
            said = ended = cut = False
            try:
                exchange = await self._client.exchange(body)
                self._found()
                while not (reader.closed or cut or (_wished(halt) and not ended)):
                    try:
                        data = await exchange.read()
                    except EngineError:
                        if reader.reason is not None:  # only the stream's own end is missing
                            break
                        raise
                    deltas = reader.feed(data) if data else reader.end()
                    if deltas:
                        said = True
                        watch.heard()
                        for delta in deltas:
                            if _wished(halt):
                                cut = True
                                break
                            yield delta
                        exchange.moved()
                    if reader.failure is not None:
                        raise reader.failure
                    if not data:
                        break
                    if reader.reason is not None and not ended:
                        ended = True
                        exchange.moved(min(LINGER, self._timeouts.idle))
                if reader.reason is not None:
                    await exchange.drain(SETTLE)
                break
            except OuzelError as error:
                pause = await self._after(error, turn, body, said, attempt)
            finally:
                if exchange is not None:
                    exchange.close()
            attempt += 1
            await asyncio.sleep(pause)
        yield await self._done(turn, reader, watch, cut or _wished(halt), cut)

    async def _done(
        self, turn: Turn, reader: TurnReader, watch: Stopwatch, halted: bool, cut: bool
    ) -> TurnDone:
        """The end of a turn, with its counts; what was measured of it is kept.

        Args:
            halted: it was left because somebody wished it.
            cut: and something of it was read and not said.
        """
        reason = None if cut else reader.reason
        if reason is None and not halted:
            raise EngineDied("The engine ended its answer without a reason.")
        usage = await usage_of(self._tokenizer, turn, reader, self._info)
        tell_pace(self._meter, watch, usage, reader.timings)
        return TurnDone(reason or "halted", usage)

    async def count_tokens(self, turn: Turn) -> int:
        """See the contract. Where the server has no route for it, an answer of one token is
        generated and what the server counted for it is returned."""
        self._demand("ready")

        async def ask() -> int:
            counted = await self._tokenizer.prompt(turn)
            return counted or await self._tokenizer.by_generating(turn)

        return await self._persist(ask, turn)

    def _demand(self, state: EngineState) -> None:
        if self._state != state:
            raise EngineUnavailable(f"The engine is {self._state}: {self._trouble}.")

    async def _persist(self, ask: Callable[[], Awaitable[_T]], turn: Turn) -> _T:
        """Ask until there is an answer, by the same rules as `stream`."""
        attempt = 0
        while True:
            try:
                return await ask()
            except OuzelError as error:
                pause = await self._after(error, turn, {}, False, attempt)
            attempt += 1
            await asyncio.sleep(pause)

    async def _after(
        self, error: OuzelError, turn: Turn, body: dict[str, object], said: bool, attempt: int
    ) -> float:
        """What to do after an error: the seconds to wait before another attempt; or the error
        that the turn ends with, raised. May change the body so that the next attempt succeeds."""
        if isinstance(error, Unreachable):
            self._lost(error)
        if said:
            raise EngineDied(error.message) if isinstance(error, Severed) else error from None
        if isinstance(error, Overflow):
            if shrink(body, error):
                return 0.0
            window = error.context_window or self.info.context_window
            raise await too_long(self._tokenizer, error, turn, window) from None
        if isinstance(error, Severed):
            error = EngineUnavailable(f"{error.message.rstrip('.')} before it had answered.")
        if (
            not passing(error, LONGEST_PAUSE)
            or attempt >= self._retries
            or self._state == "stopped"
        ):
            raise error from None
        pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
        pause *= random.uniform(0.5, 1.0)  # noqa: S311  # so that eight do not come back as one
        _log.info("The engine is asked again in %.2f s: %s", pause, error.message)
        return pause

    async def _discover(self) -> EngineInfo:
        listed = await self._persist(
            lambda: find_model(self._client, self._wanted, self._brief()), PROBE
        )
        self._model = listed.id
        patience = self._timeouts.first_token
        self._tokenizer = Tokenizer(self._client, listed.id, patience)
        window, source = self._window, "setting"
        if window is None:
            window, source = await find_window(self._client, listed, self._brief(), patience)
        found = await self._find_out(listed)
        return EngineInfo(
            model=self._served_as or listed.id,
            context_window=window,
            capabilities=found.capabilities,
            created_at=listed.created_at or time.time(),
            detail=(
                ("engine", "upstream"),
                ("address", str(self._client.root)),
                ("server", listed.owner),
                ("asked for", listed.id),
                ("context from", source),
                *((f"can {name}", how) for name, how in found.seen),
            ),
            thinks=found.thinks,
            tool_style=style_of(found.capabilities, self._tool_style),
        )

    async def _find_out(self, listed: Listed) -> Findings:
        """What the server can, and with it how it is asked from now on."""
        patience = self._timeouts.first_token
        found = self._findings
        if found is None and self._capabilities is not None:
            dialect = KNOWN.get(listed.owner, PLAIN)
            found = Findings(self._capabilities, "no", dialect)
        probed = found is None
        if found is None:
            prober = Prober(self._client, listed.id, patience, listed.owner, self._meter)
            found = await prober.everything()
        self._dialect = found.dialect
        self._tokenizer = Tokenizer(self._client, listed.id, patience, found.dialect)
        if probed:
            # The last thing to know: whether it counts what it streams.
            async for _ in self._generate(PROBE, "starting", Halt()):
                pass
        return found

    def _brief(self) -> float:
        """Seconds for a question that costs a server nothing."""
        return max(SMALL, self._timeouts.connect)

    def _lost(self, error: Unreachable) -> None:
        """Take no turns until the server is back, and look for it."""
        if self._state != "ready":
            return
        self._state = "restarting"
        self._trouble = error.message.rstrip(".")
        _log.warning("The engine is gone: %s", error.message)
        self._checking = asyncio.create_task(self._recover(), name="ouzel-upstream-check")

    def _found(self) -> None:
        if self._state == "restarting":
            self._state = "ready"
            _log.info("The engine is back.")

    async def _recover(self) -> None:
        """Look for the server until it answers. `stop` ends this."""
        pause, longest = CHECKS
        while self._state == "restarting":
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            try:
                for path in ("/health", "/v1/models"):
                    reply = await self._client.call(path, within=self._brief())
                    if reply.status != 200 and reply.status not in ABSENT:
                        raise read_error(reply.status, reply.body, secret=self._client.secret)
            except OuzelError as error:
                self._trouble = error.message.rstrip(".")
            else:
                self._found()


def _wished(halt: Halt) -> bool:
    """Asked anew each time: somebody else sets it."""
    return halt.wished
