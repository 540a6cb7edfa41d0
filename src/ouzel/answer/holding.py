"""Which conversations are being answered, so that two responses never interleave in one.

A second response on a conversation is refused while the first runs; clients of the official SDKs
try again by themselves. This file knows neither runs nor where conversations are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ouzel.core.contracts_state import Conversations
from ouzel.core.errors import Conflict, NotFound
from ouzel.core.events import Event
from ouzel.core.runs import Run


class Hold:
    """A conversation that is being answered.

    Attributes:
        over: tells whether the response has ended. Whoever reads its end may ask the next one at
            once, also where not everything has been let go yet.
    """

    def __init__(self) -> None:
        self.over: Callable[[], bool] = lambda: False


class Holds:
    """Conversations that a response is being made in."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Hold] = {}

    @contextmanager
    def on(self, owner: str, conversation_id: str | None) -> Iterator[Hold]:
        """Inside, nobody else has this conversation, until it is over; None is none.

        Raises:
            Conflict: somebody has it.
        """
        mine = Hold()
        if conversation_id is None:
            yield mine
            return
        key = (owner, conversation_id)
        if key in self._held and not self._held[key].over():
            raise Conflict(
                "Another response is being made in this conversation. Wait for it to end, then "
                "try again.",
                param="conversation",
                code="conversation_locked",
            )
        self._held[key] = mine
        try:
            yield mine
        finally:
            if self._held.get(key) is mine:
                del self._held[key]


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
