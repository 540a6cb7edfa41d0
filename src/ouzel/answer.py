"""One request, start to finish. Read this first.

`Answers.open` admits a request: the model is resolved, parameters that the engine cannot honour
are refused, history is found, the prompt is checked against the context window, and the run is
kept. The `Answer` it returns thinks in a task of its own and hands out events in batches:
whatever is there when the reader asks. Each batch is stored before it is released, so a reader
who sees an event can always find it again.

Exactly one `RunFinished` ends every answer: when it is complete, when the engine fails, when it
is cancelled, when the server stops, when the disk is full. This is the only room that sees
everything; it knows neither JSON nor HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from ouzel.core.contracts import Engine, Limiter, Meter, Store
from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    NotFound,
    OuzelError,
    RequestError,
    ShuttingDown,
    StoreError,
)
from ouzel.core.events import Delta, Event, Failure, RunFinished, RunStarted
from ouzel.core.items import Item, new_id
from ouzel.core.request import Protocol, Request, Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Turn, Usage
from ouzel.loop import context
from ouzel.loop.output import Output
from ouzel.loop.run import Outcome
from ouzel.loop.run import run as run_loop

_log = logging.getLogger(__name__)
_PROMPT: dict[Protocol, str] = {"chat": "messages", "responses": "input"}
"""The parameter that holds the prompt."""
_CLOSE_WITHIN = 10.0
"""Seconds that a cancelled engine turn gets to let go before it is left to the event loop."""


class Answers:
    """The assembled answering room.

    Args:
        engine: takes the turns.
        store: keeps runs whose request says so.
        limiter: admits requests.
        meter: is told of finished runs.
        aliases: further names under which the served model is reached.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        limiter: Limiter,
        meter: Meter,
        aliases: Collection[str] = (),
    ) -> None:
        self.engine = engine
        self.store = store
        self.aliases = tuple(aliases)
        self._limiter = limiter
        self._meter = meter
        self._live: dict[str, Answer] = {}
        self._stopping = False

    async def open(self, request: Request, owner: str) -> Answer:
        """Admit a request and start thinking. The caller closes the answer, whatever happens.

        Raises:
            NotFound: the model, or the run that is to be continued, does not exist.
            RequestError: a parameter cannot be honoured by the served model.
            ContextLengthExceeded: the prompt does not fit.
            TooManyRequests: the server is full.
            EngineUnavailable: the engine takes no turns now.
            StoreError: the run cannot be kept.
            ShuttingDown: the server is stopping.
        """
        if self._stopping:
            raise ShuttingDown("The server is shutting down.")
        self.resolve(request.model)
        self._check_capabilities(request)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._limiter.admit(owner))
            request = _with_defaults(request, self.engine.info.defaults)
            turn = await self.prepare(request, owner)
            if self.engine.state != "ready":
                raise EngineUnavailable(f"The engine is {self.engine.state}; try again shortly.")
            run = Run(
                id=new_id("chatcmpl", "-") if request.protocol == "chat" else new_id("resp"),
                owner=owner,
                model=self.engine.info.model,
                created_at=time.time(),
                request=request,
            )
            if request.store:
                await self.store.begin(run)
            answer = Answer(self, run, turn, stack.pop_all())
            self._live[run.id] = answer
            return answer

    async def prepare(self, request: Request, owner: str) -> Turn:
        """What the engine will be shown for this request. Raises as `open`."""
        history: tuple[Item, ...] = ()
        if request.previous_id is not None:
            try:
                history = await self.store.history(request.previous_id, owner)
            except NotFound as error:
                raise RequestError(
                    f"Previous response with id '{request.previous_id}' not found.",
                    param="previous_response_id",
                    code="previous_response_not_found",
                ) from error
        turn = context.assemble(request, history)
        window = self.engine.info.context_window
        if context.at_most_tokens(turn) > window:
            tokens = await self.engine.count_tokens(turn)
            if tokens >= window:
                raise ContextLengthExceeded(tokens, window, param=_PROMPT[request.protocol])
        return turn

    async def count_tokens(self, request: Request, owner: str) -> int:
        """Prompt tokens that this request would have. Raises as `open`."""
        self.resolve(request.model)
        return await self.engine.count_tokens(await self.prepare(request, owner))

    def resolve(self, model: str) -> str:
        """The served name behind a name that a client used.

        Raises:
            NotFound: no such model is served here.
        """
        served = self.engine.info.model
        if model == served or model in self.aliases:
            return served
        raise NotFound(
            f"The model '{model}' does not exist or is not served here. "
            f"Served: {', '.join((served, *self.aliases))}.",
            param="model",
            code="model_not_found",
        )

    async def cancel(self, run_id: str, owner: str) -> Run:
        """Stop a stored run if it still runs; the run as it then is. Raises NotFound."""
        answer = self._owned(run_id, owner)
        if answer is not None:
            answer.cancel()
            return await answer.settled(_CLOSE_WITHIN)
        return await self.store.load(run_id, owner)

    async def delete(self, run_id: str, owner: str) -> None:
        """Forget a stored run, stopping it first if it still runs. Raises NotFound."""
        answer = self._owned(run_id, owner)
        if answer is not None:
            answer.forget()
        await self.store.delete(run_id, owner)

    def shut_down(self) -> None:
        """Take no new requests, and end running ones as failed with `ShuttingDown`."""
        self._stopping = True
        for answer in list(self._live.values()):
            answer.abort(ShuttingDown("The server is shutting down."))

    def closed(self, answer: Answer, seconds: float, first_token: float | None) -> None:
        """An answer has let everything go."""
        self._live.pop(answer.run.id, None)
        self._meter.run_finished(answer.run, seconds, first_token)

    def _owned(self, run_id: str, owner: str) -> Answer | None:
        answer = self._live.get(run_id)
        stored = answer is not None and answer.run.request.store
        return answer if answer is not None and stored and answer.run.owner == owner else None

    def _check_capabilities(self, request: Request) -> None:
        have = self.engine.info.capabilities
        sampling = request.sampling
        chat = request.protocol == "chat"
        wanted = (
            ("logprobs", "logprobs" if chat else "top_logprobs", sampling.top_logprobs is not None),
            ("logit_bias", "logit_bias", bool(sampling.logit_bias)),
            ("seed", "seed", sampling.seed is not None),
            ("stop", "stop", bool(sampling.stop)),
            ("penalties", "presence_penalty", bool(sampling.presence_penalty)),
            ("penalties", "frequency_penalty", bool(sampling.frequency_penalty)),
        )
        for capability, param, asked in wanted:
            if asked and capability not in have:
                raise RequestError(
                    f"Unsupported parameter: '{param}' is not supported by the engine that serves "
                    f"'{self.engine.info.model}'.",
                    param=param,
                    code="unsupported_parameter",
                )


class Answer:
    """One run under way. Its reader iterates `batches` (or awaits `whole`), then `close`s it.

    Attributes:
        run: the run as it is now; final once `RunFinished` was released.
    """

    def __init__(self, room: Answers, run: Run, turn: Turn, admission: AsyncExitStack) -> None:
        self.run = run
        self._room = room
        self._admission = admission
        self._storing = run.request.store
        self._output = Output()
        self._pending: list[Event] = [RunStarted()]
        self._position = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._verdict: Failure | None = None
        self._began = time.perf_counter()
        self._first_token: float | None = None
        self._closed = False
        self._task = asyncio.create_task(run_loop(room.engine, turn, self._output, self._emit))
        self._task.add_done_callback(self._conclude)

    async def batches(self, idle: float | None = None) -> AsyncGenerator[Sequence[Event], None]:
        """Events in order, as many at a time as there are; the last is a RunFinished.

        Args:
            idle: seconds of silence after which an empty batch is given, as a sign of life.
        """
        loop = asyncio.get_running_loop()
        # One pass of the event loop lets an engine that answers at once do so: one batch, one
        # write, instead of two.
        await asyncio.sleep(0)
        while not self._settled.is_set():
            if not self._pending:
                timer = loop.call_later(idle, self._wake.set) if idle else None
                await self._wake.wait()
                if timer is not None:
                    timer.cancel()
            yield await self._release()

    async def whole(self) -> Run:
        """The finished run, everything in between passed over."""
        async for _ in self.batches():
            pass
        return self.run

    async def settled(self, within: float) -> Run:
        """The run once it is finished, for someone who watches while another reads.

        A reader so slow that this takes more than `within` seconds gets its end later; the run
        is cancelled all the same.
        """
        try:
            async with asyncio.timeout(within):
                await self._settled.wait()
        except TimeoutError:
            return replace(self.run, status="cancelled")
        return self.run

    def cancel(self) -> None:
        """Stop thinking; the run ends as `cancelled`. Frees the engine's slot at once."""
        self._task.cancel()

    def abort(self, error: OuzelError) -> None:
        """Stop thinking; the run ends as `failed` because of `error`."""
        self._verdict = self._verdict or failure_of(error)
        self._task.cancel()

    def forget(self) -> None:
        """Stop thinking and store nothing more."""
        self._storing = False
        self.cancel()

    async def close(self) -> None:
        """Let everything go. What was not read is still stored. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CLOSE_WITHIN)
            if not self._settled.is_set():
                await self._release()
        finally:
            await self._admission.aclose()
            self._room.closed(self, time.perf_counter() - self._began, self._first_token)

    def _emit(self, event: Event) -> None:
        if self._first_token is None and isinstance(event, Delta):
            self._first_token = time.perf_counter() - self._began
        self._pending.append(event)
        self._wake.set()

    def _conclude(self, task: asyncio.Task[Outcome]) -> None:
        """The thinking has ended, one way or another: say so."""
        now = time.time()
        if self._verdict is not None:
            finished = RunFinished("failed", Usage(), now, self._verdict)
        elif task.cancelled():
            finished = RunFinished("cancelled", Usage(), now)
        elif (error := task.exception()) is not None:
            if not isinstance(error, OuzelError):
                _log.error("run %s failed unexpectedly", self.run.id, exc_info=error)
            failure = failure_of(error, self.run.request.protocol)
            finished = RunFinished("failed", Usage(), now, failure)
        else:
            outcome = task.result()
            finished = RunFinished(
                outcome.status, outcome.usage, now, incomplete=outcome.incomplete
            )
        self._emit(finished)

    async def _release(self) -> Sequence[Event]:
        """Take what is pending, store it, and only then let it out."""
        events, self._pending = self._pending, []
        self._wake.clear()
        if not events:
            return events
        position = self._position
        self._position += len(events)
        last = events[-1]
        final = self._final(last) if isinstance(last, RunFinished) else None
        if self._storing:
            try:
                if final is None:
                    await self._room.store.append(self.run.id, position, events)
                else:
                    await self._room.store.finish(final, position, events)
            except StoreError as error:
                self._storing = False
                _log.error("run %s could not be stored: %s", self.run.id, error.message)
                self.abort(error)
                if final is not None and isinstance(last, RunFinished):
                    last = replace(
                        last, status="failed", incomplete=None, failure=failure_of(error)
                    )
                    events[-1] = last
                    final = self._final(last)
        if final is not None:
            self.run = final
            self._settled.set()
        return events

    def _final(self, finished: RunFinished) -> Run:
        counted = finished.status in ("completed", "incomplete")
        return replace(
            self.run,
            status=finished.status,
            output=tuple(self._output.items),
            usage=finished.usage if counted else None,
            failure=finished.failure,
            incomplete=finished.incomplete,
            finished_at=finished.at,
        )


def failure_of(error: BaseException, protocol: Protocol = "responses") -> Failure:
    """What a client may be told of an error that ended a run.

    An error that Ouzel did not raise on purpose is not shown: only that something went wrong.
    """
    match error:
        case ContextLengthExceeded():
            param = error.param or _PROMPT[protocol]
            return Failure("context_length_exceeded", error.message, 400, param=param)
        case RequestError():
            code = error.code or "invalid_request"
            return Failure(code, error.message, error.status, param=error.param)
        case EngineUnavailable():
            return Failure(error.code, error.message, error.status, error.retry_after)
        case EngineError():
            return Failure(error.code, error.message, error.status)
        case ShuttingDown():
            return Failure("server_shutting_down", error.message, 503, 5.0)
        case StoreError():
            return Failure("server_error", "The response could not be stored.", 500)
    return Failure("server_error", "The server had an error while processing the request.", 500)


def _with_defaults(request: Request, defaults: Sampling) -> Request:
    """The request with the sampling that will really be used, as the client is told it."""
    asked = request.sampling
    if asked.temperature is not None and asked.top_p is not None:
        return request
    temperature = defaults.temperature if asked.temperature is None else asked.temperature
    top_p = defaults.top_p if asked.top_p is None else asked.top_p
    return replace(request, sampling=replace(asked, temperature=temperature, top_p=top_p))
