"""Which requests are taken, and where running answers are found.

What a request needs before it runs is `preparing`'s business, what happens inside of one answer is
`running`'s, and what outlives the process is `recovering`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from functools import partial

from ouzel.answer import compacting, recovering
from ouzel.answer.background import Background, BackgroundLimits
from ouzel.answer.checking import check_capabilities, with_defaults
from ouzel.answer.finding import Finding, Followed, no_such
from ouzel.answer.holding import Hold, Holds, OnlyTheConversation
from ouzel.answer.log import Log
from ouzel.answer.preparing import Asked, Preparing
from ouzel.answer.running import CLOSE_WITHIN, Answer, Keeps
from ouzel.core.contracts import Engine, Limiter, Meter, Store, Tool
from ouzel.core.contracts_files import Files
from ouzel.core.contracts_state import Conversations, Sealer
from ouzel.core.errors import Conflict, EngineUnavailable, NotFound, ShuttingDown
from ouzel.core.events import Event, ItemDone
from ouzel.core.items import Item, new_id
from ouzel.core.request import Protocol, Request
from ouzel.core.runs import Run
from ouzel.loop.run import Task

_log = logging.getLogger(__name__)

SEALED = "reasoning.encrypted_content"
"""What `include` calls thinking that only this server can read again."""

_CHAT = "chatcmpl"
"""What ids of Chat Completions begin with."""

STOP_WITHIN = 15.0
"""Seconds that background runs get to leave off."""


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
            0 sets no limit. Background runs have none.
        files: keeps what comes with messages; without it no files are taken.
        conversations: keeps conversations; without it there are none.
        sealer: makes what clients keep for us; without it nothing is sealed.
        background: what background runs may take.
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
        *,
        conversations: Conversations | None = None,
        sealer: Sealer | None = None,
        background: BackgroundLimits | None = None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.conversations = conversations
        self.aliases = tuple(aliases)
        self._stopping = asyncio.Event()
        self._finding = Finding(store, self._stopping)
        self.preparing = Preparing(
            engine, store, tools, files, conversations, sealer, self._finding.is_running
        )
        self._answer_within = answer_within
        self._sealer = sealer
        self._limiter = limiter
        self._meter = meter
        self._holds = Holds()
        self.background = Background(background or BackgroundLimits(), self._do)

    @property
    def hosted(self) -> frozenset[str]:
        """Types of the tools that this server runs by itself."""
        return frozenset(self.preparing.tools)

    async def open(
        self,
        request: Request,
        owner: str,
        *,
        before: tuple[Item, ...] | None = None,
        admission: AbstractAsyncContextManager[None] | None = None,
    ) -> Answer:
        """Admit a request and start thinking. The caller closes the answer, whatever happens;
        only one that runs in the background is left alone.

        Args:
            before: the conversation so far, where the caller knows it better than the store.
            admission: held instead of the limiter's.

        Raises:
            NotFound: the model, or the run that is to be continued, does not exist.
            RequestError: a parameter cannot be honoured by the served model.
            Conflict: another response is being made in the conversation.
            ContextLengthExceeded: the prompt does not fit.
            TooManyRequests: the server is full.
            EngineUnavailable: the engine takes no turns now.
            StoreError: the run cannot be kept.
            ShuttingDown: the server is stopping.
        """
        self._check_open()
        began = time.monotonic()
        self.resolve(request.model)
        check_capabilities(request, self.engine.info)
        if request.background:
            return await self._queue(request, owner, began)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(admission or self._limiter.admit(owner))
            hold = stack.enter_context(self._holds.on(owner, request.conversation_id))
            request = with_defaults(request, self.engine.info.defaults, self._answer_within)
            task = await self.preparing.task(Asked(request, owner, began, before=before))
            request = task.request
            if self.engine.state != "ready":
                raise EngineUnavailable(f"The engine is {self.engine.state}; try again shortly.")
            run = self._run(request, owner)
            if request.store:
                await self.store.begin(run)
            answer = self._answer(run, stack.pop_all(), hold)
            answer.start(task)
            if self._stopping.is_set():  # since we looked
                answer.abort(_stopping())
            return answer

    async def _queue(self, request: Request, owner: str, began: float) -> Answer:
        """Keep a request for its turn, once it is known that nothing is wrong with it."""
        with self.background.coming():
            async with AsyncExitStack() as stack:
                hold = stack.enter_context(self._holds.on(owner, request.conversation_id))
                request = with_defaults(request, self.engine.info.defaults, 0.0)
                request = (await self.preparing.task(Asked(request, owner, began))).request
                run = replace(self._run(request, owner), status="queued")
                await self.store.begin(run)
                if self._stopping.is_set():  # since we looked: nobody shall do it later
                    await self.store.delete(run.id, owner)
                    raise _stopping()
                answer = self._answer(run, stack.pop_all(), hold)
                answer.queue()
                self.background.put(answer)
                return answer

    def _run(self, request: Request, owner: str) -> Run:
        chat = request.protocol == "chat"
        return Run(
            id=new_id(_CHAT, "-") if chat else new_id("resp"),
            owner=owner,
            model=self.engine.info.model,
            created_at=time.time(),
            request=request,
        )

    def _answer(
        self, run: Run, held: AsyncExitStack, hold: Hold, events: Sequence[Event] = ()
    ) -> Answer:
        keeps: Keeps | None = self.store if run.request.store else None
        if keeps is None and run.request.conversation_id is not None and self.conversations:
            keeps = OnlyTheConversation(self.conversations)
        output = recovering.output_of(events, self._seal_for(run))
        done = tuple(event.item for event in events if isinstance(event, ItemDone))
        run = replace(run, output=done) if done else run
        answer = Answer(run, self.engine, keeps, self._closed, held, output, Log(events))
        hold.over = lambda: answer.ended
        self._finding.live[run.id] = answer
        return answer

    def _seal_for(self, run: Run) -> Callable[[str], str] | None:
        """How the thinking of this run is made readable to this server only, if it is asked for."""
        if self._sealer is None or SEALED not in run.request.include:
            return None
        return partial(self._sealer.seal, "reasoning", run.owner, run.model)

    async def _do(self, answer: Answer) -> None:
        """A background run, to its end or to the end of this process."""
        timer = None
        try:
            if within := self.background.limits.within:
                timer = asyncio.get_running_loop().call_later(
                    within, answer.abort, recovering.too_long(within)
                )
            with self._limiter.busy():
                begin = await recovering.before(answer.parted(), self._take_up(answer))
                if begin is not None:
                    answer.start(*begin)
                await answer.parted()
        except Exception as error:
            answer.fail(error)
        finally:
            if timer is not None:
                timer.cancel()
            await answer.close()

    async def _take_up(self, answer: Answer) -> tuple[Task, Event]:
        """What is still to be done of a background run, and what it begins with."""
        request, owner = answer.run.request, answer.run.owner
        far = recovering.so_far(answer, self.engine.info)
        if far is not None and far.ended:
            return recovering.nothing_left(request, owner, far), recovering.first(far)
        await recovering.until_ready(self.engine)
        asked = Asked(request, owner, time.monotonic(), so_far=far, again=True)
        return await self.preparing.task(asked), recovering.first(far)

    async def recover(self) -> tuple[int, int]:
        """For start-up: take up the background runs that an earlier process left, and end the
        others as failed. How many of each. Raises StoreError."""
        taken = ended = 0
        async for run, events in self.store.interrupted():
            if run.request.background and self._taken(run, events):
                taken += 1
            else:
                await recovering.end(self.store, run, events)
                ended += 1
        return taken, ended

    def _taken(self, run: Run, events: Sequence[Event]) -> bool:
        """Whether a background run that an earlier process left can be gone on with; it is."""
        with ExitStack() as stack:
            hold = Hold()
            # An end that could not be stored may have left another one in this conversation.
            with suppress(Conflict):
                hold = stack.enter_context(self._holds.on(run.owner, run.request.conversation_id))
            held = AsyncExitStack()
            try:
                answer = self._answer(run, held, hold, events)
            except Exception:
                _log.exception("run %s cannot be taken up", run.id)
                return False
            held.push(stack.pop_all())
        if not events:
            answer.queue()
        self.background.put(answer)
        return True

    async def count_tokens(self, request: Request, owner: str) -> int:
        """Prompt tokens that this request would have. Raises as `open`."""
        self._check_open()
        self.resolve(request.model)
        async with self._limiter.admit(owner):
            asked = Asked(request, owner, time.monotonic(), keep=False)
            task = await self.preparing.task(asked)
            return await self.engine.count_tokens(task.turn)

    async def compact(self, request: Request, owner: str) -> compacting.Compacted:
        """A conversation, compacted by the model. Raises as `open`."""
        self._check_open()
        work = self._compact(request, owner, time.monotonic())
        compacted = await recovering.before(self._stopping.wait(), work)
        if compacted is None:
            raise _stopping()
        return compacted

    async def _compact(self, request: Request, owner: str, began: float) -> compacting.Compacted:
        self.resolve(request.model)
        async with self._limiter.admit(owner):
            request = with_defaults(request, self.engine.info.defaults, self._answer_within)
            task = await self.preparing.task(Asked(request, owner, began))
            return await compacting.on_request(self.engine, task)

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

    async def load(self, run_id: str, owner: str, protocol: Protocol = "responses") -> Run:
        """A stored run as it is now. Raises NotFound, StoreError."""
        return await self._finding.load(run_id, owner, protocol)

    async def follow(self, run_id: str, owner: str, idle: float | None = None) -> Followed:
        """A stored run's events. Raises as `Finding.follow`."""
        return await self._finding.follow(run_id, owner, idle)

    async def cancel(self, run_id: str, owner: str) -> Run:
        """Stop a stored run if it still runs; the run as it then is.

        Raises:
            NotFound: there is none.
            ShuttingDown: it cannot be stopped any more; the next process goes on with it.
            StoreError: it cannot be read.
        """
        answer = self._finding.owned(run_id, owner)
        if answer is None or answer.run.request.protocol != "responses":
            run = await self.load(run_id, owner)
        elif not self._finding.left_off(answer.run):
            answer.cancel()
            run = await answer.settled(CLOSE_WITHIN)
            await self._let_go(answer)
        else:
            run = answer.run
        if self._finding.left_off(run):
            raise _stopping()
        return run

    async def delete(self, run_id: str, owner: str, protocol: Protocol = "responses") -> None:
        """Forget a stored run, stopping it first if it still runs. Raises NotFound, StoreError."""
        if run_id.startswith(_CHAT) != (protocol == "chat"):
            raise no_such(run_id)
        answer = self._finding.owned(run_id, owner)
        if answer is not None:
            answer.forget()
            await self._let_go(answer)
        await self._finding.forget(run_id, owner)

    async def _let_go(self, answer: Answer) -> None:
        """Of a run that was ended while it waited for its turn, nobody else would."""
        if self.background.take_out(answer):
            await answer.close()

    async def keep_ends(self) -> int:
        """Store ends that could not be stored when they came; how many it was now."""
        return await self._finding.keep_ends()

    def shut_down(self) -> None:
        """Take no new requests, and end running ones as failed with `ShuttingDown`; those in the
        background are left for the next process."""
        self._stopping.set()
        waiting = self.background.stop()
        for answer in list(self._finding.live.values()):
            if answer.run.request.background:
                answer.leave_off()
            else:
                answer.abort(_stopping())
        for answer in waiting:
            self._finding.live.pop(answer.run.id, None)

    async def close(self) -> None:
        """Wait until background runs have left off, and try once more to store what could not be.
        To be called before the store is closed."""
        self.shut_down()
        await self.background.close(STOP_WITHIN)
        await self.keep_ends()

    def _check_open(self) -> None:
        if self._stopping.is_set():
            raise _stopping()

    def _closed(self, answer: Answer, seconds: float, first_token: float | None) -> None:
        """An answer has let everything go."""
        self._finding.live.pop(answer.run.id, None)
        if answer.unkept is not None and answer.run.request.store and not answer.forgotten:
            self._finding.remember(answer)
        if answer.ended:
            self._meter.run_finished(answer.run, seconds, first_token)


def _stopping() -> ShuttingDown:
    return ShuttingDown("The server is shutting down.")
