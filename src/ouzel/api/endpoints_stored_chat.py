"""Chat Completions that were stored, over HTTP: list, get, update, delete, and their messages.

A completion is one run for each choice, and goes by the id of the first. It is there once all of
them have ended well: one of which a choice failed, was cancelled or still runs cannot be fetched.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer import Answers
from ouzel.api import read_conversations, read_query, write_stored_chat
from ouzel.api.endpoints import OWNER, Exchange, as_json, path_id, query
from ouzel.core.contracts_state import StoredRuns
from ouzel.core.errors import NotFound, RequestError
from ouzel.core.runs import Run

_KIND = "Chat completion"
_ENDED_WELL = ("completed", "incomplete")


class StoredChatEndpoints:
    """GET /v1/chat/completions, and what can be done with one that was stored.

    Args:
        answers: deletes runs, also one that still runs.
        stored: None if this server lists none.
    """

    def __init__(self, answers: Answers, stored: StoredRuns | None, exchange: Exchange) -> None:
        self._answers = answers
        self._stored = stored
        self._exchange = exchange

    def _room(self) -> StoredRuns:
        if self._stored is None:
            raise RequestError("This server lists no chat completions.", code="unsupported")
        return self._stored

    async def page(self, request: Request) -> Response:
        stored = self._room()
        asked = read_query.read_chat_page(query(request))
        found, more = await _whole_page(stored, asked)
        return as_json(write_stored_chat.page([write_stored_chat.stored(e) for e in found], more))

    async def get(self, request: Request) -> Response:
        stored = self._room()
        read_query.read_nothing(query(request))
        return as_json(write_stored_chat.stored(await _completion(stored, request)))

    async def update(self, request: Request) -> Response:
        stored = self._room()
        metadata = await self._exchange.read(request, read_conversations.read_metadata)
        _, *others = await _completion(stored, request)
        first = await stored.change_metadata(path_id(request, _KIND), OWNER, metadata)
        return as_json(write_stored_chat.stored((first, *others)))

    async def delete(self, request: Request) -> Response:
        stored = self._room()
        await self._exchange.nothing(request)
        first, *others = await stored.choices_of(path_id(request, _KIND), OWNER)
        for run in others:
            if run.finished_at is None:  # it still runs, or never came to its end
                with suppress(NotFound):
                    await self._answers.delete(run.id, OWNER, "chat")
        # And in the same stroke the choices that have ended.
        await self._answers.delete(first.id, OWNER, "chat")
        return as_json(write_stored_chat.deleted(first.id))

    async def messages(self, request: Request) -> Response:
        stored = self._room()
        asked = read_query.read_messages_page(query(request))
        first, *_ = await _completion(stored, request)
        return as_json(
            write_stored_chat.messages(
                first, after=asked.after, limit=asked.limit, order=asked.order
            )
        )


async def _whole_page(
    stored: StoredRuns, asked: read_query.ChatPage
) -> tuple[list[tuple[Run, ...]], bool]:
    """As many completions as were asked for, if there are so many, and whether others follow.

    A page of runs may hold completions of which a further choice did not end well: they are left
    out, and what follows takes their place, so that a page is never empty before the end.
    """
    page, after, more = asked.page, asked.page.after, True
    found: list[tuple[Run, ...]] = []
    while more and len(found) < page.limit:
        runs = await stored.page_runs(
            OWNER,
            model=asked.model,
            metadata=asked.metadata,
            after=after,
            limit=page.limit - len(found),
            order=page.order,
        )
        more = runs.more
        if not runs.entries:
            break
        after = runs.entries[-1].id
        chosen = await asyncio.gather(*(_still_there(stored, run.id) for run in runs.entries))
        found += [choices for choices in chosen if choices and _is_whole(choices)]
    return found, more


async def _still_there(stored: StoredRuns, run_id: str) -> tuple[Run, ...]:
    """All choices; none if the completion was deleted since it was listed."""
    try:
        return await stored.choices_of(run_id, OWNER)
    except NotFound:
        return ()


def _is_whole(choices: tuple[Run, ...]) -> bool:
    return all(run.status in _ENDED_WELL for run in choices)


async def _completion(stored: StoredRuns, request: Request) -> tuple[Run, ...]:
    """The choices of the completion in the path, if all have ended well. Raises NotFound."""
    completion_id = path_id(request, _KIND)
    choices = await stored.choices_of(completion_id, OWNER)
    if not _is_whole(choices):
        raise NotFound(f"{_KIND} with id '{completion_id}' not found.", code="not_found")
    return choices
