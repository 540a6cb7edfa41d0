"""One run as a whole: what was asked, how far it is, what came out.

A `Run` is a value: the answer room makes a new one when something changes, the store keeps it,
and `api` writes it as a response object or a completion. It knows none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ouzel.core.events import Failure, IncompleteReason, RunStatus
from ouzel.core.items import Item
from ouzel.core.request import Request
from ouzel.core.turns import Usage


@dataclass(frozen=True, slots=True)
class Run:
    """A request together with its answer so far.

    Args:
        id: `resp_...` or `chatcmpl-...`.
        owner: whose run it is; another owner is told that it does not exist.
        model: the served model's own name.
        created_at: seconds since the epoch.
        output: finished items, in order.
        tally: what happened on the way, counted by name (`calls`, `repaired_calls`, ...); see
            `loop.tally`.
    """

    id: str
    owner: str
    model: str
    created_at: float
    request: Request
    status: RunStatus = "in_progress"
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    failure: Failure | None = None
    incomplete: IncompleteReason | None = None
    finished_at: float | None = None
    tally: Mapping[str, int] = field(default_factory=dict)
