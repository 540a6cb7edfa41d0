"""Which requests are taken, and where running answers are found.

What happens inside of one answer is `running`'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from ouzel.answer.attachments import attach
from ouzel.answer.checking import (
    check_calls,
    check_capabilities,
    check_format,
    with_defaults,
)
from ouzel.answer.failing import PROMPT, UNSTORED
from ouzel.answer.running import CLOSE_WITHIN, Answer
from ouzel.core.contracts import Asker, Engine, Limiter, Meter, Prepared, Store, Tool
from ouzel.core.contracts_files import Files
from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    NotFound,
    RequestError,
    ShuttingDown,
)
from ouzel.core.items import Item, new_id
from ouzel.core.request import FunctionTool, HostedTool, Request
from ouzel.core.runs import Run
from ouzel.loop import context, guided
from ouzel.loop.budget import Clock
from ouzel.loop.run import Task
from ouzel.loop.toolbox import Toolbox, open_toolbox

_BIG_TOOLS = 20_000
"""Characters of schemas from which tools are read in a thread."""

_GRAMMAR_COUNTS = 20_000
"""Characters for which a custom tool counts: a short grammar may take long to read."""


class Answers:
    """The assembled answering room.

    Args:
        engine: takes the turns.
        store: keeps runs whose request says so.
        limiter: admits requests.
        meter: is told of finished runs.
        aliases: further names under which the served model is reached.
        tools: tools that this server runs by itself.
        answer_within: seconds in which an answer should be whole where the request does not say;
            0 sets no limit.
        files: keeps what comes with messages; without it no files are taken.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        limiter: Limiter,
        meter: Meter,
        aliases: Collection[str] = (),
        tools: Iterable[Tool] = (),
        answer_within: float = 60.0,
        files: Files | None = None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.aliases = tuple(aliases)
        self._tools = {tool.type: tool for tool in tools}
        self._answer_within = answer_within
        self._files = files
        self._limiter = limiter
        self._meter = meter
        self._live: dict[str, Answer] = {}
        self._stopping = asyncio.Event()

    @property
    def hosted(self) -> frozenset[str]:
        """Types of the tools that this server runs by itself."""
        return frozenset(self._tools)

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
        began = time.monotonic()
        self.resolve(request.model)
        check_capabilities(request, self.engine.info)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._limiter.admit(owner))
            request = with_defaults(request, self.engine.info.defaults, self._answer_within)
            task = await self.prepare(request, owner, began)
            request = task.request
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
            answer = Answer(run, task, self.engine, self.store, self._closed, stack.pop_all())
            self._live[run.id] = answer
            if self._stopping.is_set():  # since we looked
                answer.abort(_stopping())
            return answer

    async def prepare(
        self, request: Request, owner: str, began: float, *, keep: bool = True
    ) -> Task:
        """What is to be done for this request.

        Args:
            began: when it came, in seconds of the monotonic clock.
            keep: write down files that came with it.

        Raises as `open`.
        """
        check_format(request)
        history: tuple[Item, ...] = ()
        if request.previous_id is not None:
            history = await self._history(request.previous_id, owner)
        check_calls((*history, *request.input), request.protocol)
        # What is refused so far has left no file behind.
        request = await attach(request, owner, self._files, keep=keep)
        info = self.engine.info
        items = (*history, *request.input)
        prepared = await self._prepare_tools(request, Asker(owner, items))
        toolbox = await self._open_toolbox(request, prepared)
        style = info.tool_style if guided.able(info) else "native"
        turn = context.assemble(request, history, toolbox, style)
        if context.at_most_tokens(turn) > info.context_window:
            tokens = await self.engine.count_tokens(turn)
            if tokens >= info.context_window:
                param = PROMPT[request.protocol]
                raise ContextLengthExceeded(tokens, info.context_window, param=param)
        clock = Clock(request.answer_within or 0.0, began)
        now, unread = context.round_of(items), context.unread(items)
        decision = None
        if style == "guided" and toolbox.only_code:
            decision = context.assemble(request, history, toolbox, style, decision=True)
        return Task(request, turn, owner, clock, toolbox, style, now, decision, unread)

    async def _prepare_tools(self, request: Request, asker: Asker) -> dict[int, Prepared]:
        """Our own tools that the request offers, made ready, by their place in it."""
        prepared = {}
        for place, spec in enumerate(request.tools):
            tool = self._tools.get(spec.type) if isinstance(spec, HostedTool) else None
            if tool is None or not isinstance(spec, HostedTool):
                continue
            try:
                prepared[place] = await tool.prepare(spec, asker)
            except RequestError as error:
                where = f"tools[{place}]"
                error.param = f"{where}.{error.param}" if error.param else where
                raise
        return prepared

    async def _open_toolbox(self, request: Request, prepared: Mapping[int, Prepared]) -> Toolbox:
        """Big schemas and grammars are read in a thread: nobody else shall wait for them."""
        size = sum(
            len(tool.parameters) if isinstance(tool, FunctionTool) else _GRAMMAR_COUNTS
            for tool in request.tools
        )
        if size < _BIG_TOOLS:
            return open_toolbox(request, self._tools, prepared)
        return await asyncio.to_thread(open_toolbox, request, self._tools, prepared)

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
            task = await self.prepare(request, owner, time.monotonic(), keep=False)
            return await self.engine.count_tokens(task.turn)

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


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is shutting down.")
