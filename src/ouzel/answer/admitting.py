"""Which requests are taken, and where running answers are found.

What happens inside of one answer is `running`'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import replace

from ouzel.answer.failing import PROMPT, UNSTORED
from ouzel.answer.running import CLOSE_WITHIN, Answer
from ouzel.core.contracts import Engine, Limiter, Meter, Store
from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    NotFound,
    RequestError,
    ShuttingDown,
)
from ouzel.core.items import Item, new_id
from ouzel.core.request import Request, Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Turn
from ouzel.loop import context


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
        self._stopping = asyncio.Event()

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
        if self._stopping.is_set():
            raise _stopping()
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
            answer = Answer(run, turn, self.engine, self.store, self._closed, stack.pop_all())
            self._live[run.id] = answer
            if self._stopping.is_set():  # since we looked
                answer.abort(_stopping())
            return answer

    async def prepare(self, request: Request, owner: str) -> Turn:
        """What the engine will be shown for this request. Raises as `open`."""
        history: tuple[Item, ...] = ()
        if request.previous_id is not None:
            history = await self._history(request.previous_id, owner)
        turn = context.assemble(request, history)
        window = self.engine.info.context_window
        if context.at_most_tokens(turn) > window:
            tokens = await self.engine.count_tokens(turn)
            if tokens >= window:
                raise ContextLengthExceeded(tokens, window, param=PROMPT[request.protocol])
        return turn

    async def _history(self, previous_id: str, owner: str) -> tuple[Item, ...]:
        param = "previous_response_id"
        previous = self._owned(previous_id, owner)
        if previous is not None and not previous.ended:
            raise RequestError(
                f"Previous response with id '{previous_id}' is still in progress.",
                param=param,
                code="previous_response_in_progress",
            )
        try:
            return await self.store.history(previous_id, owner)
        except NotFound as error:
            raise RequestError(
                f"Previous response with id '{previous_id}' not found.",
                param=param,
                code="previous_response_not_found",
            ) from error

    async def count_tokens(self, request: Request, owner: str) -> int:
        """Prompt tokens that this request would have. Raises as `open`."""
        if self._stopping.is_set():
            raise _stopping()
        self.resolve(request.model)
        async with self._limiter.admit(owner):
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

    async def load(self, run_id: str, owner: str) -> Run:
        """A stored run as it is now. Raises NotFound, StoreError."""
        run = await self.store.load(run_id, owner)
        if run.finished_at is None and run_id not in self._live:
            # It ended between these two looks, or its end could not be stored.
            run = await self.store.load(run_id, owner)
            if run.finished_at is None:
                run = replace(run, status="failed", failure=UNSTORED)
        return run

    async def cancel(self, run_id: str, owner: str) -> Run:
        """Stop a stored run if it still runs; the run as it then is. Raises NotFound."""
        answer = self._owned(run_id, owner)
        if answer is not None:
            answer.cancel()
            return await answer.settled(CLOSE_WITHIN)
        return await self.load(run_id, owner)

    async def delete(self, run_id: str, owner: str) -> None:
        """Forget a stored run, stopping it first if it still runs. Raises NotFound."""
        answer = self._owned(run_id, owner)
        if answer is not None:
            answer.forget()
        await self.store.delete(run_id, owner)

    def shut_down(self) -> None:
        """Take no new requests, and end running ones as failed with `ShuttingDown`."""
        self._stopping.set()
        for answer in list(self._live.values()):
            answer.abort(_stopping())

    def _closed(self, answer: Answer, seconds: float, first_token: float | None) -> None:
        """An answer has let everything go."""
        self._live.pop(answer.run.id, None)
        self._meter.run_finished(answer.run, seconds, first_token)

    def _owned(self, run_id: str, owner: str) -> Answer | None:
        answer = self._live.get(run_id)
        if answer is None or answer.run.owner != owner:
            return None
        return answer if answer.run.request.store and not answer.forgotten else None

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


def _with_defaults(request: Request, defaults: Sampling) -> Request:
    """The request with the sampling that will really be used, as the client is told it."""
    asked = request.sampling
    if asked.temperature is not None and asked.top_p is not None:
        return request
    temperature = defaults.temperature if asked.temperature is None else asked.temperature
    top_p = defaults.top_p if asked.top_p is None else asked.top_p
    return replace(request, sampling=replace(asked, temperature=temperature, top_p=top_p))


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is shutting down.")
