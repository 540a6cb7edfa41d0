"""From a request to a task: everything that is found out before the model thinks.

History, files, sealed thinking, tools, the prompt and whether it fits. What is wrong with a request
shows here. Who may ask now, and what becomes of the task, this file does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ouzel.answer import compacting
from ouzel.answer.attachments import attach
from ouzel.answer.checking import check_calls, check_format
from ouzel.answer.unsealing import opened, sealed_size, unseal
from ouzel.core.contracts import Asker, Engine, Prepared, Store, Thinks, Tool, ToolStyle
from ouzel.core.contracts_files import Files
from ouzel.core.contracts_state import Conversations, Sealer
from ouzel.core.errors import NotFound, RequestError
from ouzel.core.items import Item
from ouzel.core.request import FunctionTool, HostedTool, Request
from ouzel.core.turns import Turn
from ouzel.loop import context, guided
from ouzel.loop.budget import Clock
from ouzel.loop.resuming import SoFar
from ouzel.loop.run import Task
from ouzel.loop.toolbox import Toolbox, open_toolbox

_BIG_TOOLS = 20_000
"""Characters of schemas from which tools are read in a thread."""

_BIG_SEALED = 500_000
"""Characters of encrypted content from which it is opened in a thread."""

_GRAMMAR_COUNTS = 20_000
"""Characters for which a custom tool counts: a short grammar may take long to read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way to a task.

    Args:
        owner: who asks.
        began: when it came, in seconds of the monotonic clock.
        keep: write down files that came with it.
        again: it was prepared before: what was sealed in it is open.
        before: the conversation so far, where the caller knows it; None looks it up.
        so_far: how far an earlier process got with it.
    """

    request: Request
    owner: str
    began: float
    keep: bool = True
    before: tuple[Item, ...] | None = None
    so_far: SoFar | None = None
    again: bool = False


class Preparing:
    """Makes tasks.

    Args:
        engine: will do them.
        store: has the runs that are continued.
        tools: that this server runs by itself.
        files: keeps what comes with messages; without it no files are taken.
        conversations: has the conversations; without it there are none.
        sealer: reads what clients keep for us; without it nothing is sealed.
        running: whether a run of an owner's is still under way.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        tools: Iterable[Tool],
        files: Files | None,
        conversations: Conversations | None,
        sealer: Sealer | None,
        running: Callable[[str, str], bool],
    ) -> None:
        self._engine = engine
        self._store = store
        self.tools = {tool.type: tool for tool in tools}
        self._files = files
        self._conversations = conversations
        self._sealer = sealer
        self._running = running

    async def task(self, asked: Asked) -> Task:
        """What is to be done.

        Raises:
            RequestError: a parameter cannot be honoured; something it names is not there.
            ContextLengthExceeded: the prompt does not fit.
            EngineUnavailable: the engine takes no turns now.
            StoreError: something cannot be read or kept.
        """
        request, owner = asked.request, asked.owner
        check_format(request)
        if not asked.again:
            opening = partial(unseal, request, owner, self._engine.info.model, self._sealer)
            big = sealed_size(request) > _BIG_SEALED
            request = await asyncio.to_thread(opening) if big else opening()
        history = await self._history(asked)
        check_calls((*history, *request.input), request.protocol)
        # What is refused so far has left no file behind.
        request = await attach(request, owner, self._files, keep=asked.keep)
        info = self._engine.info
        # What an earlier process brought about comes after the input.
        kept = asked.so_far.kept if asked.so_far else ()
        shown = replace(request, input=(*request.input, *kept))
        items = (*history, *shown.input)
        prepared = await self._prepare_tools(request, Asker(owner, items))
        toolbox = await self._open_toolbox(request, prepared)
        style = info.tool_style if guided.able(info) else "native"
        turn, thinks = await self._turn(shown, history, toolbox, style)
        sealer = self._sealer
        seal = None if sealer is None else partial(sealer.seal, "compaction", owner, info.model)
        compact = await compacting.due(self._engine, request, items, turn, toolbox, style, seal)
        decision = None
        if style == "guided" and toolbox.only_code:
            decision = context.assemble(
                shown, history, toolbox, style, thinks=thinks, decision=True
            )
        return Task(
            request,
            turn,
            owner,
            Clock(request.answer_within or 0.0, asked.began),
            toolbox,
            style,
            context.round_of(items),
            decision,
            context.unread(items),
            compact=compact,
            history=history,
            so_far=asked.so_far,
        )

    async def _turn(
        self, request: Request, history: tuple[Item, ...], toolbox: Toolbox, style: ToolStyle
    ) -> tuple[Turn, Thinks | None]:
        """The prompt, and how thinking shows in it; None where that was left out for want of
        room: nothing fails only because the model has thought."""
        info = self._engine.info
        turn = context.assemble(request, history, toolbox, style, thinks=info.thinks)
        if context.at_most_tokens(turn) <= info.context_window:
            return turn, info.thinks
        bare = context.assemble(request, history, toolbox, style)
        if bare == turn or await self._engine.count_tokens(turn) < info.context_window:
            return turn, info.thinks
        return bare, None

    async def _history(self, asked: Asked) -> tuple[Item, ...]:
        request = asked.request
        if asked.before is not None:
            return asked.before
        if request.previous_id is not None:
            return await self._continued(request.previous_id, asked.owner)
        if request.conversation_id is not None:
            return await self._conversation(request.conversation_id, asked.owner)
        return ()

    async def _conversation(self, conversation_id: str, owner: str) -> tuple[Item, ...]:
        if self._conversations is None:
            raise RequestError(
                "Unsupported parameter: 'conversation': this server keeps no conversations.",
                param="conversation",
                code="unsupported_parameter",
            )
        try:
            items = await self._conversations.history(conversation_id, owner)
        except NotFound as error:
            error.param = "conversation"
            raise
        model = self._engine.info.model
        return opened(items, "conversation", owner, model, self._sealer)

    async def _continued(self, previous_id: str, owner: str) -> tuple[Item, ...]:
        param = "previous_response_id"
        if previous_id.startswith("chatcmpl"):
            raise _not_continued(previous_id)
        if self._running(previous_id, owner):
            raise RequestError(
                f"Previous response with id '{previous_id}' is still in progress.",
                param=param,
                code="previous_response_in_progress",
            )
        try:
            return await self._store.history(previous_id, owner)
        except NotFound as error:
            raise _not_continued(previous_id) from error

    async def _prepare_tools(self, request: Request, asker: Asker) -> dict[int, Prepared]:
        """Our own tools that the request offers, made ready, by their place in it."""
        prepared = {}
        for place, spec in enumerate(request.tools):
            tool = self.tools.get(spec.type) if isinstance(spec, HostedTool) else None
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
            return open_toolbox(request, self.tools, prepared)
        return await asyncio.to_thread(open_toolbox, request, self.tools, prepared)


def _not_continued(previous_id: str) -> RequestError:
    return RequestError(
        f"Previous response with id '{previous_id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )
