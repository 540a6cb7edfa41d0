"""Taking a run up again that ended in the middle with its process.

What was finished stays: items, what tools brought, tokens that were counted. The step that was
under way is done again. Plain text that the client has seen goes on where it stopped, if the
engine can be given the beginning of an answer; anything else that was open is closed as
incomplete. Where the events were kept, and who reads them, this file does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from ouzel.core.contracts import EngineInfo
from ouzel.core.events import Delta, Event, ItemDone, RunResumed, StepDone
from ouzel.core.items import (
    CodeCall,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    Reasoning,
)
from ouzel.core.request import Request
from ouzel.core.turns import Usage
from ouzel.loop.output import INTERRUPTED, Output

MOST_TRIES: Final = 5
"""Times that a run is taken up without getting any further before it is given up."""


@dataclass(frozen=True, slots=True)
class SoFar:
    """How far a run got.

    Args:
        kept: finished items that what follows builds on.
        said: text of the open answer, which goes on; empty if there is none.
        spent: about how many tokens that has.
        usage: tokens that were counted.
        ended: nothing is left to do.
        tries: times that it was taken up since it last got further.
    """

    kept: tuple[Item, ...] = ()
    said: str = ""
    spent: int = 0
    usage: Usage = Usage()
    ended: bool = False
    tries: int = 0

    @property
    def hosted_calls(self) -> int:
        """How many calls of our own tools were finished."""
        return sum(isinstance(item, HostedCall | CodeCall) for item in self.kept)


def restore(events: Sequence[Event], seal: Callable[[str], str] | None = None) -> Output:
    """The output as it was after these events, with what seals the thinking that follows."""
    output = Output(seal)
    for event in events:
        output.replay(event)
    return output


def so_far(request: Request, events: Sequence[Event], output: Output, info: EngineInfo) -> SoFar:
    """How far a run got.

    Args:
        events: all of them, in order.
        output: restored from them.
        info: of the engine that takes it up.
    """
    plain = request.format.type == "text" and request.sampling.top_logprobs is None
    goes_on = plain and "opening" in info.capabilities
    usage, tries = Usage(), 0
    for event in events:
        if isinstance(event, StepDone):
            usage = event.usage
        if isinstance(event, RunResumed):
            tries += 1
        elif _gets_further(event, goes_on):
            tries = 0
    done = [event.item for event in events if isinstance(event, ItemDone)]
    ended = bool(done) and _ends(done[-1]) and not output.open and not output.running
    kept = [item for item in done if _counts(item)]
    called = any(isinstance(item, HostedCall | CodeCall) for item in kept)
    # An answer that goes on calls nothing any more.
    must_call = request.tool_choice.mode == "required" and not called
    said = output.open_text if goes_on and not must_call else ""
    spent = len(list(takewhile(lambda event: isinstance(event, Delta), _latest(events))))
    while kept and isinstance(kept[-1], Reasoning):
        # What it was leading to is done again, or goes on in the middle: in neither case is it a
        # message of its own before that.
        kept.pop()
    return SoFar(tuple(kept), said, spent if said else 0, usage, ended, tries)


def _latest(events: Sequence[Event]) -> Iterator[Event]:
    """The events, last one first, without those that say that a run was taken up."""
    return (event for event in reversed(events) if not isinstance(event, RunResumed))


def _gets_further(event: Event, goes_on: bool) -> bool:
    """Whether this will not be done again, if the process ends after it."""
    if isinstance(event, Delta):
        return goes_on and event.channel == "text"
    if isinstance(event, ItemDone):
        return _counts(event.item) and not isinstance(event.item, Reasoning)
    return isinstance(event, StepDone)


def _ends(item: Item) -> bool:
    """Whether a run whose last item this is has come to its end."""
    return isinstance(item, Message | FunctionCall | CustomCall) and item.status == "completed"


def _counts(item: Item) -> bool:
    """Whether the model is shown it again: not what was closed because a process ended."""
    match item:
        case HostedCall():
            return item.error != INTERRUPTED
        case CodeCall():
            return item.result != INTERRUPTED and item.status != "incomplete"
        case Message() | Reasoning() | FunctionCall() | CustomCall():
            return item.status != "incomplete"
    return True
