"""Which conversations are being answered, so that two responses never interleave in one.

A second response on a conversation is refused while the first runs; clients of the official SDKs
try again by themselves. This file knows neither runs nor where conversations are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ouzel.core.contracts_state import Conversations
from ouzel.core.errors import Conflict, NotFound
from ouzel.core.events import Event
from ouzel.core.runs import Run


class Holds:
    """Conversations that a response is being made in."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] = set()

    @contextmanager
    def on(self, owner: str, conversation_id: str | None) -> Iterator[None]:
        """Inside, nobody else has this conversation; None is none.

        Raises:
            Conflict: somebody has it.
        """
        if conversation_id is None:
            yield
            return
        key = (owner, conversation_id)
        if key in self._held:
            raise Conflict(
                "Another response is being made in this conversation. Wait for it to end, then "
                "try again.",
                param="conversation",
                code="conversation_locked",
            )
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)


class OnlyTheConversation:
    """Keeps of a run, which itself is not to be kept, what belongs into its conversation."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def append(self, run_id: str, position: int, events: Sequence[Event]) -> None:
        """Nothing is kept of a run that is under way."""

    async def finish(self, run: Run, position: int, events: Sequence[Event]) -> None:
        """Add what was asked and said, if it ended well."""
        conversation = run.request.conversation_id
        if conversation is None or run.status not in ("completed", "incomplete"):
            return
        said = (*run.request.input, *run.output)
        try:
            await self._conversations.add(conversation, run.owner, said, skip_known=True)
        except NotFound:
            return  # it was deleted meanwhile
