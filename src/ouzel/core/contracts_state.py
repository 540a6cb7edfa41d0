"""The promises about state that outlives a request: conversations, stored runs, sealed text.

Rooms above depend on these types only. Who may raise what is said with each method; every method
that reads or writes the store may also raise StoreError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from ouzel.core.items import Item
from ouzel.core.runs import Run

Order = Literal["asc", "desc"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """A part of a list.

    Args:
        entries: in the order that was asked for.
        more: whether others follow.
    """

    entries: tuple[T, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """Items that belong together, and go on from one response to the next.

    Args:
        id: `conv_` and random bits.
        created_at: seconds since the epoch.
        metadata: up to 16 string pairs of the client's.
    """

    id: str
    owner: str
    created_at: float
    metadata: Mapping[str, str] = field(default_factory=dict)


class Conversations(Protocol):
    """Keeps conversations. All but `create` raise NotFound, also for someone else's."""

    async def create(
        self, owner: str, metadata: Mapping[str, str], items: Sequence[Item]
    ) -> Conversation:
        """A new one, with its first items."""
        ...

    async def get(self, conversation_id: str, owner: str) -> Conversation:
        """The conversation itself, without its items."""
        ...

    async def update(
        self, conversation_id: str, owner: str, metadata: Mapping[str, str]
    ) -> Conversation:
        """The same with other metadata."""
        ...

    async def delete(self, conversation_id: str, owner: str) -> None:
        """Forget it, and its items. Responses that were made in it stay."""
        ...

    async def add(
        self,
        conversation_id: str,
        owner: str,
        items: Sequence[Item],
        *,
        skip_known: bool = False,
    ) -> None:
        """Append items, all or none.

        Args:
            skip_known: leave out those whose ids are there already; otherwise that is a
                RequestError (`param` is `items`).
        """
        ...

    async def page(
        self, conversation_id: str, owner: str, *, after: str | None, limit: int, order: Order
    ) -> PageOf[Item]:
        """Some of its items. Raises RequestError (`param` is `after`) if no item has that id."""
        ...

    async def item(self, conversation_id: str, owner: str, item_id: str) -> Item:
        """One of its items."""
        ...

    async def remove(self, conversation_id: str, owner: str, item_id: str) -> Conversation:
        """Take one of its items out."""
        ...

    async def history(self, conversation_id: str, owner: str) -> tuple[Item, ...]:
        """All of its items, oldest first."""
        ...


class StoredRuns(Protocol):
    """Lists and changes stored runs; `contracts.Store` has the rest."""

    async def page_runs(
        self,
        owner: str,
        *,
        model: str | None,
        metadata: Mapping[str, str],
        after: str | None,
        limit: int,
        order: Order,
    ) -> PageOf[Run]:
        """Finished runs of Chat Completions that are no further choice of another one.

        Args:
            model: only those that were asked under this name or made by this model.
            metadata: only those that have all of these pairs.

        Raises RequestError (`param` is `after`) if there is no such run.
        """
        ...

    async def choices_of(self, run_id: str, owner: str) -> tuple[Run, ...]:
        """A run of Chat Completions that ended well, and its further choices, however they ended
        or still run, in order. Raises NotFound, also for a further choice."""
        ...

    async def change_metadata(self, run_id: str, owner: str, metadata: Mapping[str, str]) -> Run:
        """The same run with other metadata. Raises NotFound."""
        ...


Sealed = Literal["reasoning", "compaction"]
"""What is sealed; one is never taken for the other."""


class Sealer(Protocol):
    """Makes text unreadable and unchangeable for everybody else, so that clients can keep it."""

    def seal(self, kind: Sealed, owner: str, model: str, text: str) -> str:
        """The text, encrypted and authenticated, bound to kind, owner and model."""
        ...

    def open(self, kind: Sealed, owner: str, model: str, sealed: str) -> str:
        """The text again.

        Raises:
            RequestError: `invalid_encrypted_content`: it was altered, is not ours, another
                owner's or another model's, or has expired. The message says which of it may be.
        """
        ...
