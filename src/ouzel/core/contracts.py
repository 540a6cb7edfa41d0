"""The promises between the rooms: what `build.py` plugs together.

Each protocol says who may raise what. Rooms above the line depend on these types only, never on
an implementation. `Memory` and `Monitor` join them with the rooms that need them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from ouzel.core.events import Event
from ouzel.core.files import ContainerFile
from ouzel.core.items import Item
from ouzel.core.request import CustomTool, FunctionTool, HostedTool, Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import EngineDelta, Halt, Pace, Turn

Capability = Literal[
    "logprobs",
    "logit_bias",
    "seed",
    "stop",
    "penalties",
    "grammar",
    "llguidance",
    "json_schema",
    "opening",
    "tools",
    "images",
]
"""What not every engine can. Of the first five, a request for one that is missing is refused; the
loop finds its way around the others: `grammar` (GBNF), `llguidance` (its `grammar` also takes what
begins with `%llguidance`), `json_schema`, `opening` (it goes on with an assistant's message that
has begun), `tools` (native calls that really come), `images`."""

Thinks = Literal["no", "channel", "tags", "open"]
"""How thinking shows: not at all; in a channel of its own (`reasoning_content`); in the text,
between `<think>` and `</think>`; or in the text from its start, ended by `</think>`."""

ToolStyle = Literal["native", "guided"]
"""How a model is brought to call tools: in its own way, or led by the loop step by step."""

EngineState = Literal["starting", "ready", "restarting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself.

    Args:
        model: the served model's own name.
        context_window: tokens that one request may use, prompt and answer together.
        capabilities: what it can do beyond plain text generation.
        created_at: seconds since the epoch, for the model list.
        defaults: the sampling that is used, and told to the client, where a request leaves it
            open; temperature and top_p are always set.
        detail: short facts for people (`doctor`, `/health`), such as slots and threads.
        thinks: how its thinking shows, as it was seen at start-up.
        tool_style: how it is brought to call tools, as its catalogue entry or the user says.
        slots: how many requests it computes at once; 0 where it does not say.
    """

    model: str
    context_window: int
    capabilities: frozenset[Capability]
    created_at: float
    detail: tuple[tuple[str, str], ...] = ()
    defaults: Sampling = Sampling(temperature=1.0, top_p=1.0)
    thinks: Thinks = "no"
    tool_style: ToolStyle = "guided"
    slots: int = 0


class Engine(Protocol):
    """Turns context into tokens."""

    @property
    def state(self) -> EngineState:
        """Where it is in its life; only `ready` takes turns."""
        ...

    @property
    def info(self) -> EngineInfo:
        """What it is. Raises EngineUnavailable before the first `start` has succeeded."""
        ...

    async def start(self) -> None:
        """Bring it up. Raises EngineError, with a message that says what to do."""
        ...

    async def stop(self) -> None:
        """Let everything go: processes, connections, tasks. Never raises; may be called twice."""
        ...

    @property
    def pace(self) -> Pace:
        """How fast it is, measured; the best guess there is before the first turn."""
        ...

    def stream(self, turn: Turn, halt: Halt | None = None) -> AsyncGenerator[EngineDelta, None]:
        """Generate. Yields deltas and then exactly one TurnDone.

        Closing the generator (`aclose`, or cancelling the task that iterates it) frees the
        engine's slot at once; so does a wish in `halt`, after which TurnDone still comes, with
        reason `halted` and the tokens counted.

        Raises:
            EngineUnavailable: nothing was emitted and the engine takes no turns now.
            EngineDied: it went away or fell silent in the middle.
            ContextLengthExceeded: the prompt does not fit.
            RequestError: the engine refuses a parameter of the turn.
        """
        ...

    async def count_tokens(self, turn: Turn) -> int:
        """Tokens of the turn's prompt, template included, as the engine itself counts them.

        Raises the same as `stream`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a hosted tool.

    Args:
        id: the id of the item under which the call is shown.
        tool: the tool as the request offers it, with its settings.
        name: which of the tool's functions.
        arguments: valid JSON for a function, plain text for a custom tool.
        owner: who asks.
        within: seconds that the call should take at most; it is cancelled after that.
    """

    id: str
    tool: HostedTool
    name: str
    arguments: str
    owner: str
    within: float


@dataclass(frozen=True, slots=True)
class Asker:
    """Who offers a tool, and over what.

    Args:
        owner: who asks.
        items: the conversation, history first.
    """

    owner: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A hosted tool made ready for one request.

    Args:
        asked: as the request offers it, with settings that only the tool itself understands.
        note: what the model should know before it calls, such as the files there are; it is shown
            after the tools. Empty for nothing.
    """

    asked: HostedTool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running tool says where it is; see `core.events.ItemStage`."""

    name: str


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """How a call ended.

    Args:
        text: what the model is shown.
        failed: the tool could not do it; `text` says why.
        item: the finished item, where it says more than `HostedCall` can.
        files: what it left for the client; the answer's text will refer to them.
    """

    text: str
    failed: bool = False
    item: Item | None = None
    files: tuple[ContainerFile, ...] = ()


class Tool(Protocol):
    """A tool that this server runs by itself. docs/add-a-tool.md shows how to write one."""

    @property
    def type(self) -> str:
        """Its `type` in a request's tools."""
        ...

    @property
    def id_prefix(self) -> str:
        """What the ids of its calls begin with: `call`, unless the API has another for them."""
        ...

    def offer(self, asked: HostedTool) -> Sequence[FunctionTool | CustomTool]:
        """What the model may call, most often one function; short words, since they are read by
        the engine. Raises RequestError if the settings are wrong, with a `param` within them."""
        ...

    async def prepare(self, asked: HostedTool, asker: Asker) -> Prepared:
        """Make the tool ready for a request that offers it; what `offer` and `Invocation.tool`
        see afterwards is the result's. Raises RequestError, with a `param` within the tool."""
        ...

    def begin(self, call: Invocation) -> Item:
        """The item under which the call is shown while it runs, with the id of the call."""
        ...

    def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        """Do it. Yields stages, if it has any, and then exactly one ToolOutcome.

        Raises:
            ToolError: it cannot; the message is shown to the model, which may try again.
        """
        ...


class Store(Protocol):
    """Keeps runs and their events. Every method may raise StoreError.

    When a writing method returns, what it wrote survives the death of this process. Writes for
    one run are called in order, one at a time; writes for different runs run together.
    """

    async def begin(self, run: Run) -> None:
        """Keep a new run."""
        ...

    async def append(self, run_id: str, position: int, events: Sequence[Event]) -> None:
        """Append events; `position` is the index of the first within the run, from 0."""
        ...

    async def finish(self, run: Run, position: int, events: Sequence[Event]) -> None:
        """Append the last events and keep the run's final form, both or neither.

        A run of a conversation that ended well (`completed` or `incomplete`) is added to it in
        the same stroke: its input, then its output.
        """
        ...

    def interrupted(self) -> AsyncGenerator[tuple[Run, list[Event]], None]:
        """Every owner's runs that are queued or in progress, oldest first, with their events.

        At start-up these are the runs that a process left when it died. Which ones there are is
        looked up at the first step; each is read when it is its turn. One that cannot be read is
        ended as failed, with a line in the log, and left out.
        """
        ...

    async def load(self, run_id: str, owner: str) -> Run:
        """The run as last kept. Raises NotFound, also for someone else's."""
        ...

    async def events(
        self, run_id: str, owner: str, start: int = 0, limit: int | None = None
    ) -> list[Event]:
        """The run's events from index `start` on, `limit` at most. Raises NotFound."""
        ...

    async def delete(self, run_id: str, owner: str) -> None:
        """Forget the run, its events and its further choices. Raises NotFound."""
        ...

    async def history(self, run_id: str, owner: str) -> tuple[Item, ...]:
        """Input and output items of the run and all that it continues, oldest first.

        Raises NotFound if the run, or one that it continues, does not exist for this owner.
        """
        ...


class Limiter(Protocol):
    """Decides whether a request may start."""

    def admit(self, owner: str) -> AbstractAsyncContextManager[None]:
        """Held while the request runs. Entering raises TooManyRequests."""
        ...

    def busy(self) -> AbstractContextManager[None]:
        """Held while something that was admitted earlier, and nobody waits for, uses the engine."""
        ...


class Meter(Protocol):
    """Is told of every run that ended; never raises, never blocks."""

    def run_finished(self, run: Run, seconds: float, first_token: float | None) -> None:
        """`seconds` in all, and until the first piece of output, None if there was none."""
        ...
