"""Clients of stored and background responses who write down every byte that they were told.

`Heard` is what is known of one response: event by event, the bytes that any of its readers got.
Whoever reads it again, from wherever, must get the same bytes, one after the other; a byte that
differs, a gap or a repeat is an AssertionError. `Clients` asks a server that may be killed at any
moment and come back at another address. What each answer must be, `REPLIES` knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from served import Served, served
from state_server import CALLS, TOOL, noted
from wire import checks

TESTS = Path(__file__).parent
PATIENCE = 60.0
"""Seconds for what takes one on a quiet machine."""

TERMINAL = tuple(name.encode() for name in checks.TERMINAL)
_DELTAS = ("response.output_text.delta", "response.reasoning_text.delta")
_OURS = b'{"type":"%b"}' % TOOL.encode()
_KNOWN = b'{"type":"mcp","server_label":"%b"}' % TOOL.encode()
_NUMBER = re.compile(rb'"sequence_number":(\d+)')
_ID = re.compile(rb'"id":"(resp_[0-9A-Za-z]+)"')
_DONE_CALL = re.compile(rb'"response.output_item.done".*"id":"(call_[0-9A-Za-z]+)"')


@dataclass(frozen=True)
class Reply:
    """What the scripted model does for messages that end with a certain word.

    Args:
        words: how many it says, beside the message itself.
        delay: seconds before each word.
        thoughts: how many words it thinks before.
        calls: how often it calls our tool before it answers.
    """

    words: int
    delay: float
    thoughts: int = 0
    calls: int = 0


REPLIES: Mapping[str, Reply] = {
    "brief": Reply(3, 0.0),
    "paced": Reply(25, 0.03),
    "lasting": Reply(45, 0.03),
    "pondered": Reply(15, 0.03, thoughts=20),
    "noted": Reply(15, 0.03, calls=1),
    "renoted": Reply(10, 0.03, thoughts=5, calls=2),
    "endless": Reply(10_000, 0.02),
}


def answer_to(asked: str) -> str:
    """All that the script says to this message."""
    reply = REPLIES[asked.split()[-1]]
    return f"You said: {asked}." + "".join(f" word{n}" for n in range(reply.words))


def script() -> str:
    """The script that plays `REPLIES`."""
    lines = ["context_window = 100000"]
    for name, reply in REPLIES.items():
        said = answer_to(name).replace(name, "{input}", 1)
        think = " ".join(f"thought{n}" for n in range(reply.thoughts))
        thinking = f'{{ think = "{think}", delay = {reply.delay} }}, ' if think else ""
        for done in range(reply.calls + 1):
            lines += ["[[reply]]", f'match = " {name}$"']
            if done or reply.calls:
                lines.append(f'last = "{noted(done)}"' if done else f'last = " {name}$"')
            if done < reply.calls:
                step = f'{{ call = "{TOOL}", arguments = \'{{"step":{done + 1}}}\' }}'
            else:
                step = f'{{ say = "{said}", delay = {reply.delay} }}'
            lines.append(f"steps = [{thinking}{step}]")
    return "\n".join(lines) + "\n"


@contextmanager
def state_server(home: Path, *flags: str) -> Iterator[Served]:
    """A real server process with the script and the tool, its state in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "script.toml"
    path.write_text(script())
    switches = ("--script", str(path), "--log-level", "warning", *flags)
    found = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    with served(home, *switches, module="state_server", PYTHONPATH=found) as server:
        yield server


class Cut(Exception):
    """The server went away."""


@dataclass
class Heard:
    """One response, as all of its clients know it.

    Attributes:
        asked: the message; it tells this response from all others.
        background: it was asked for so.
        id: empty until a client was told.
        blocks: the bytes of its events, from the first one on.
        ahead: those of events that come after some which nobody read yet, by number.
        fate: what a client was told that it did to it: `cancelled`, `deleted`, or nothing.
    """

    asked: str
    background: bool
    id: str = ""
    blocks: list[bytes] = field(default_factory=list)
    ahead: dict[int, bytes] = field(default_factory=dict)
    fate: str = ""

    @property
    def ended(self) -> bool:
        """Whether a client was told its end."""
        return bool(self.blocks) and _name(self.blocks[-1]) in TERMINAL

    @property
    def calls_done(self) -> list[str]:
        """Calls of which clients were told the end."""
        found = (_DONE_CALL.search(block) for block in self.blocks)
        return [match.group(1).decode() for match in found if match]

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        asked = {"model": "o4-mini", "input": self.asked, "background": self.background}
        calls = REPLIES[self.asked.split()[-1]].calls
        return asked | ({"tools": [{"type": TOOL}]} if calls else {})

    def take(self, block: bytes, expected: int) -> None:
        """One event, the next that a reader got; it must have this number."""
        found = _NUMBER.search(block)
        assert found, f"{self.id}: an event without a number: {block!r}"
        number = int(found.group(1))
        assert number == expected, f"{self.id}: event {number} where {expected} belongs: {block!r}"
        know = number < len(self.blocks)
        known = self.blocks[number] if know else self.ahead.setdefault(number, block)
        assert block == known, f"{self.id}: event {number} was {known!r}, now it is {block!r}"
        while len(self.blocks) in self.ahead:
            assert not self.ended, f"{self.id}: after its end came {block!r}"
            self.blocks.append(self.ahead.pop(len(self.blocks)))

    def check(self, *, strictly: bool = True) -> dict[str, Any]:
        """All that was told, as one stream, from its first byte to its last; the final object.

        Joined deltas are checked against the final output; of a response that is complete the
        text is checked against the script.

        Args:
            strictly: hold everything against the wire format, too, which takes its time.
        """
        if strictly:
            # The SDK knows no tools of ours.
            checks.check_response_stream(b"".join(self.blocks).replace(_OURS, _KNOWN))
        events = [json.loads(block.partition(b"data: ")[2]) for block in self.blocks]
        final: dict[str, Any] = events[-1]["response"]
        assert final["id"] == self.id
        done = [event for event in events if event["type"] == "response.output_item.done"]
        done.sort(key=lambda event: event["output_index"])
        streamed = [event["item"] for event in done]
        assert streamed == final["output"], dumps([streamed, final])
        for item in final["output"]:
            told = [event for event in events if event.get("item_id") == item["id"]]
            deltas = (event["delta"] for event in told if event["type"] in _DELTAS)
            assert item["type"] == "mcp_call" or "".join(deltas) == text_of(item), dumps(item)
        if final["status"] == "completed":
            said = [item for item in final["output"] if item["type"] == "message"]
            # One that a client was about to cancel may have been stopped in the middle.
            said = [item for item in said if item["status"] == "completed" or not self.fate]
            assert [text_of(item) for item in said] == [answer_to(self.asked)], dumps(final)
            calls = [item for item in final["output"] if item["type"] == "mcp_call"]
            wanted = REPLIES[self.asked.split()[-1]].calls
            assert [call["status"] for call in calls].count("completed") == wanted, dumps(final)
        return final


def _name(block: bytes) -> bytes:
    return block.partition(b"\n")[0].removeprefix(b"event: ")


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, or of thinking."""
    return "".join(part["text"] for part in message["content"])


class Clients:
    """Clients of one server.

    Attributes:
        url: its address now, `/v1` included.
        killed: it was killed on purpose: to be cut off is nobody's mistake.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url
        self.killed = False

    async def stream(self, heard: Heard, until: int = -1) -> None:
        """Ask for the response and read it to its end, or up to an event. Raises Cut."""
        body = {**heard.body, "stream": True}
        await self._read("POST", "/responses", heard, 0, until, json=body)

    async def create(self, heard: Heard) -> None:
        """Ask for it without a stream. Raises Cut."""
        status, body = await self.call("POST", "/responses", json=heard.body)
        assert status == 200, body
        assert body["status"] in ("queued", "in_progress") or not heard.background, body
        heard.id = body["id"]

    async def resume(self, heard: Heard, after: int | None = None, until: int = -1) -> None:
        """Read it again, to its end or up to an event. Raises Cut.

        Args:
            after: the last event that this reader knows; all that is known, if it is not said.
        """
        known = len(heard.blocks) - 1 if after is None else after
        path = f"/responses/{heard.id}?stream=true"
        # Who knows nothing needs to say nothing.
        path += f"&starting_after={known}" if known >= 0 else ""
        await self._read("GET", path, heard, known + 1, until)

    async def retrieve(self, heard: Heard) -> tuple[int, dict[str, Any]]:
        """Status and body. Raises Cut."""
        return await self.call("GET", f"/responses/{heard.id}")

    async def cancel(self, heard: Heard) -> dict[str, Any]:
        """The response as it is then. Raises Cut."""
        status, body = await self.call("POST", f"/responses/{heard.id}/cancel")
        assert status == 200, body
        return body

    async def delete(self, heard: Heard) -> int:
        """The status. Raises Cut."""
        return (await self.call("DELETE", f"/responses/{heard.id}"))[0]

    async def settled(self, heard: Heard) -> dict[str, Any]:
        """Ask again and again until it has ended. Raises Cut, TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while True:
                status, body = await self.retrieve(heard)
                assert status == 200, f"{heard.id}, {heard.asked}: {body}"
                if body["status"] not in ("queued", "in_progress"):
                    return body
                await asyncio.sleep(0.1)

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """Any request: status and JSON body. Raises Cut."""
        try:
            async with self._session.request(method, self.url + path, **more) as reply:
                return reply.status, await reply.json()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._cut(error) from error

    async def _read(
        self, method: str, path: str, heard: Heard, expected: int, until: int = -1, **more: Any
    ) -> None:
        last = b""
        try:
            async with self._session.request(method, self.url + path, **more) as reply:
                assert reply.status == 200, f"{heard.asked}: {await reply.text()}"
                assert reply.content_type == "text/event-stream"
                async for block in _blocks(reply):
                    if not heard.id:
                        heard.id = _ID.search(block).group(1).decode()  # type: ignore[union-attr]
                    heard.take(block, expected)
                    if expected == until:
                        return
                    expected += 1
                    last = block
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._cut(error) from error
        if not last and expected == len(heard.blocks) and heard.ended:
            return  # all of it was known already
        if _name(last) not in TERMINAL:
            raise self._cut(AssertionError(f"{heard.id}: it ends with {last!r}"))

    def _cut(self, error: Exception) -> Exception:
        return Cut() if self.killed else error


async def _blocks(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole events, comments left out. What the end cuts through is nobody's."""
    rest = b""
    async for data in reply.content.iter_any():
        *whole, rest = (rest + data).split(b"\n\n")
        for block in whole:
            if not block.startswith(b":"):
                yield block + b"\n\n"


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[Clients]:
    """Clients with as many connections as they need."""
    timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Clients(session, url)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


def integrity(home: Path) -> list[tuple[str, ...]]:
    """What SQLite finds in a copy of the store, log and all, as it lies there."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("ouzel.db", "ouzel.db-wal"):
            if (home / part).exists():
                shutil.copy(home / part, folder)
        with closing(sqlite3.connect(Path(folder) / "ouzel.db")) as connection:
            found: list[tuple[str, ...]] = connection.execute("PRAGMA integrity_check").fetchall()
            found += connection.execute("PRAGMA foreign_key_check").fetchall()
            return found


def calls_begun(home: Path) -> list[str]:
    """The ids of all calls that the tool was made to run, in order, each as often as it ran."""
    path = home / CALLS
    return path.read_text().split() if path.exists() else []


def at_work(home: Path) -> int:
    """How many runs the store of a running server has that have not ended."""
    with closing(sqlite3.connect(f"file:{home / 'ouzel.db'}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM runs WHERE status IN ('queued', 'in_progress')"
        return int(connection.execute(query).fetchone()[0])


def dumps(value: object) -> str:
    """For messages of assertions."""
    return json.dumps(value, indent=1)[:4000]
