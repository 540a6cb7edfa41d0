"""Conversations over HTTP: /v1/conversations, and the items in them.

Bodies are read, and objects written, elsewhere; how a response goes on in a conversation is the
answering room's business.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ouzel.answer.attachments import attach_to_conversation
from ouzel.api import read_conversations, read_query, write_conversations, write_items
from ouzel.api.endpoints import OWNER, Exchange, as_json, path_id, query
from ouzel.api.read_errors import literal
from ouzel.core.contracts_files import Files
from ouzel.core.contracts_state import Conversations, PageOf
from ouzel.core.errors import NotFound, RequestError

_KIND = "Conversation"
_LONGEST_ID = 256
"""Characters of an item's id, as `read_common.ID` takes them."""


class ConversationsEndpoints:
    """POST /v1/conversations, and what can be done with one conversation and its items.

    Args:
        conversations: None if this server keeps none.
        files: keeps what comes with messages; None if there are none.
    """

    def __init__(
        self, conversations: Conversations | None, files: Files | None, exchange: Exchange
    ) -> None:
        self._conversations = conversations
        self._files = files
        self._exchange = exchange

    def _room(self) -> Conversations:
        if self._conversations is None:
            raise RequestError("This server keeps no conversations.", code="unsupported")
        return self._conversations

    async def create(self, request: Request) -> Response:
        conversations = self._room()
        asked = await self._exchange.read(request, read_conversations.read_create)
        items = await attach_to_conversation(asked.items, OWNER, self._files)
        made = await conversations.create(OWNER, asked.metadata, items)
        return as_json(write_conversations.conversation(made))

    async def get(self, request: Request) -> Response:
        conversations = self._room()
        read_query.read_nothing(query(request))
        found = await conversations.get(path_id(request, _KIND), OWNER)
        return as_json(write_conversations.conversation(found))

    async def update(self, request: Request) -> Response:
        conversations = self._room()
        metadata = await self._exchange.read(request, read_conversations.read_metadata)
        changed = await conversations.update(path_id(request, _KIND), OWNER, metadata)
        return as_json(write_conversations.conversation(changed))

    async def delete(self, request: Request) -> Response:
        conversations = self._room()
        await self._exchange.nothing(request)
        conversation_id = path_id(request, _KIND)
        await conversations.delete(conversation_id, OWNER)
        return as_json(write_conversations.deleted(conversation_id))

    async def add_items(self, request: Request) -> Response:
        conversations = self._room()
        include = read_query.read_included(query(request))
        items = await self._exchange.read_body(request, read_conversations.read_items)
        conversation_id = path_id(request, _KIND)
        await conversations.get(conversation_id, OWNER)  # or its files would be kept for nothing
        items = await attach_to_conversation(items, OWNER, self._files)
        await conversations.add(conversation_id, OWNER, items)
        return as_json(write_conversations.page(PageOf(items), include))

    async def page_of_items(self, request: Request) -> Response:
        conversations = self._room()
        asked = read_query.read_page(query(request))
        found = await conversations.page(
            path_id(request, _KIND),
            OWNER,
            after=asked.after,
            limit=asked.limit,
            order=asked.order,
        )
        return as_json(write_conversations.page(found, asked.include))

    async def get_item(self, request: Request) -> Response:
        conversations = self._room()
        include = read_query.read_included(query(request))
        conversation_id, item_id = path_id(request, _KIND), _item_id(request)
        found = await conversations.item(conversation_id, OWNER, item_id)
        return as_json(write_items.item(found, include))

    async def delete_item(self, request: Request) -> Response:
        conversations = self._room()
        await self._exchange.nothing(request)
        conversation_id, item_id = path_id(request, _KIND), _item_id(request)
        left = await conversations.remove(conversation_id, OWNER, item_id)
        return as_json(write_conversations.conversation(left))


def _item_id(request: Request) -> str:
    """The item's id in the path. Clients choose it where they want, from nearly all characters.

    Raises:
        NotFound: no item can have such an id.
    """
    found: str = request.path_params["item_id"]
    if not found or len(found) > _LONGEST_ID or "\0" in found:
        raise NotFound(f"Item with id {literal(found)} not found.", code="not_found")
    return found
