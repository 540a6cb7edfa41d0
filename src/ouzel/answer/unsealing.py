"""What clients keep for us, sealed -> the thinking and the compacted turns that the model is shown.

Everything sealed is opened, also what the model will not be shown again: content that was altered,
is somebody else's or has expired is told at once, by its place. How texts are sealed, this file
does not know.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

from ouzel.core.contracts_state import Sealer
from ouzel.core.errors import RequestError
from ouzel.core.items import Compaction, Item, Reasoning
from ouzel.core.request import Request


def unseal(request: Request, owner: str, model: str, sealer: Sealer | None) -> Request:
    """The request with the text of everything in its input that was sealed.

    What is sealed counts, whatever text came beside it.

    Args:
        owner: who asks; what was sealed for others stays closed.
        model: the served model's own name; the same goes for other models.
        sealer: None if this server has no keys.

    Raises:
        RequestError: something does not open; `param` has its place as Responses have it:
            `input[2].encrypted_content`.
    """
    if not any(_is_sealed(item) for item in request.input):
        return request
    return replace(
        request,
        input=tuple(
            _unsealed(item, f"input[{place}].encrypted_content", owner, model, sealer)
            for place, item in enumerate(request.input)
        ),
    )


def sealed_size(request: Request) -> int:
    """Characters of what is sealed in the request's input."""
    return sum(len(item.sealed) for item in request.input if _is_sealed(item))


def opened(
    items: tuple[Item, ...], where: str, owner: str, model: str, sealer: Sealer | None
) -> tuple[Item, ...]:
    """The same for items that were kept as they came, such as those of a conversation.

    Thinking that does not open stays closed there: it may have been good when it was kept, and
    the conversation goes on without it. It does not go on without what a compaction stands for.

    Args:
        where: named in errors.
    """
    found = []
    for item in items:
        if _is_sealed(item) and not item.text:
            try:
                item = _unsealed(item, where, owner, model, sealer)
            except RequestError:
                if isinstance(item, Compaction):
                    raise
        found.append(item)
    return tuple(found)


def _is_sealed(item: Item) -> TypeGuard[Reasoning | Compaction]:
    return isinstance(item, Reasoning | Compaction) and bool(item.sealed)


def _unsealed(item: Item, where: str, owner: str, model: str, sealer: Sealer | None) -> Item:
    if not _is_sealed(item):
        return item
    if sealer is None:
        raise RequestError(
            "This server has no key to open encrypted content with.",
            param=where,
            code="invalid_encrypted_content",
        )
    try:
        return replace(item, text=sealer.open(item.kind, owner, model, item.sealed))
    except RequestError as error:
        error.param = where
        raise
