"""When a conversation is compacted, and how far; or refused, because it does not fit. And the
compaction that a client asks for by itself.

How it is done is `loop.compacting`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ouzel.answer.failing import PROMPT
from ouzel.core.contracts import Engine, ToolStyle
from ouzel.core.errors import ContextLengthExceeded, RequestError
from ouzel.core.events import Event
from ouzel.core.items import Item, Message, new_id
from ouzel.core.request import Request
from ouzel.core.turns import Turn, Usage
from ouzel.loop import compacting, context
from ouzel.loop.budget import about_tokens
from ouzel.loop.compacting import Compacting
from ouzel.loop.compacting_choice import must
from ouzel.loop.output import Output
from ouzel.loop.run import Task
from ouzel.loop.scene import Scene
from ouzel.loop.tally import Tally
from ouzel.loop.toolbox import Toolbox

NOW: Final = 1
"""As `Request.compact_at`: in any case. Clients cannot ask for so few tokens."""

NEAR: Final = 0.75
"""Of the window, what the prompt may have where the client leaves that to us."""

ANSWER_ROOM: Final = 0.25
"""Of the window, what is left for the answer, where the request does not say less."""

AFTER: Final = 0.6
"""Of the tokens that the prompt may have, those that it has after it was compacted: the less, the
more is forgotten; the more, the sooner it is due again."""

LEAST: Final = 0.15
"""Of the same, what is kept of older turns even where the rest of the prompt is long."""

GAIN: Final = 0.1
"""Of the same, what has to be gained, or it is put off as long as it fits."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """A conversation that was compacted because a client asked for it.

    Args:
        id: `resp_` and random bits; nothing is kept under it.
        output: what stands for it: the user's messages, and the compaction.
        usage: tokens that it took.
        created_at: seconds since the epoch.
    """

    id: str
    output: tuple[Item, ...]
    usage: Usage
    created_at: float


async def due(
    engine: Engine,
    request: Request,
    items: tuple[Item, ...],
    turn: Turn,
    toolbox: Toolbox,
    style: ToolStyle,
    seal: Callable[[str], str] | None,
) -> Compacting | None:
    """Whether, and how far, a conversation is to be compacted. None where it fits as it is.

    Args:
        items: all of it, input included.
        turn: the prompt as it is.
        seal: None if this server has no keys: what is compacted then has to stay here.

    Raises:
        RequestError: it would not stay here.
        ContextLengthExceeded: it does not fit, and must not be compacted, or does not fit even so.
        EngineUnavailable: the engine takes no turns now.
    """
    window = engine.info.context_window
    room = int(window * ANSWER_ROOM)
    if request.max_output_tokens is not None:
        room = min(room, request.max_output_tokens)
    allowed = request.truncation == "auto" or request.compact_at is not None
    limit = _limit(request, window, room) if allowed else window
    if request.compact_at != NOW and context.at_most_tokens(turn) <= limit:
        return None
    tokens = await engine.count_tokens(turn)
    param = PROMPT[request.protocol]
    if not allowed:
        if tokens >= window:
            raise ContextLengthExceeded(tokens, window, param=param)
        return None
    if tokens <= limit and request.compact_at != NOW:
        return None
    if seal is None and not request.store:
        raise RequestError(
            "This server has no key to seal with what a client has to keep, so it can compact only "
            "what it stores by itself.",
            code="unsupported_parameter",
        )
    bare = replace(request, input=())
    least = await engine.count_tokens(context.assemble(bare, must(items), toolbox, style))
    if least >= window:
        raise ContextLengthExceeded(least, window, param=param)
    base = window - room if request.compact_at == NOW else limit
    most = max(least, window - room)
    kept = min(max(int(base * AFTER) - least, int(base * LEAST)), most - least)
    fits = tokens + min(room, window - least) <= window
    if fits and request.compact_at != NOW and tokens - least - kept < limit * GAIN:
        return None
    characters = sum(len(message.text) for message in turn.messages)
    ratio = tokens / max(1, characters)
    return Compacting(items, kept, least + kept, most, ratio, seal or _unsealed)


def _limit(request: Request, window: int, room: int) -> int:
    """Tokens that the prompt may have before it is compacted."""
    if request.compact_at is None:
        return window - room
    return min(request.compact_at or int(window * NEAR), window - room)


def _unsealed(_text: str) -> str:
    return ""


def _nobody(_event: Event) -> None:
    """Hears nothing: what is done on request is not streamed."""


async def on_request(engine: Engine, task: Task) -> Compacted:
    """Do what a client asked for: nothing but compact.

    Args:
        task: of a request whose `compact_at` is `NOW`.

    Raises:
        EngineError, RequestError: as the engine raised them.
    """
    output, plan = Output(), task.compact
    unread = about_tokens(*task.unread)
    scene = Scene(engine, task.request, output, Tally(), _nobody, task.clock, unread)
    await compacting.compact(scene, task)
    items = () if plan is None else plan.items
    users = (item for item in items if isinstance(item, Message) and item.role == "user")
    return Compacted(new_id("resp"), (*users, *output.items), scene.usage, time.time())
