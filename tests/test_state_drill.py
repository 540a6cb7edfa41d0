"""A drill of the whole product: the server is killed again and again in the midst of 200 responses,
and everything that a client was told stays true.

Further seeds and more kills, for who has the time:

    STATE_DRILL_SEED=11 STATE_DRILL_KILLS=200 python -m pytest tests/test_state_drill.py
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from served import Served
from state_kit import (
    Clients,
    Cut,
    Heard,
    at_work,
    calls_begun,
    clients,
    integrity,
    state_server,
)

SEED = int(os.environ.get("STATE_DRILL_SEED", "5"))
KILLS = int(os.environ.get("STATE_DRILL_KILLS", "20"))
AT_ONCE = int(os.environ.get("STATE_DRILL_RESPONSES", "200"))

FLAGS = ("--background-at-once", "1000", "--max-requests", "1000")
IN_FLIGHT = ("paced", "lasting", "pondered", "noted", "renoted")
BEHAVIOURS = {
    "streams": 8,
    "streams, not in the background": 6,
    "polls": 4,
    "leaves and comes back": 3,
    "reads with two": 3,
    "cancels": 1,
    "deletes": 1,
}
"""What clients do, and how often each."""


@dataclass
class Drill:
    """Lives of a server, one after the other, and clients that outlive them.

    Attributes:
        open: responses of which the end is not checked yet.
        ends: the final objects of all others, None for what was deleted.
        ran: how often each call ran of which a client knows the end.
    """

    home: Path
    clients: Clients
    dice: random.Random
    open: list[Heard] = field(default_factory=list)
    ends: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    made: int = 0
    in_flight: list[int] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def begins(self, server: Served) -> None:
        """The server is up again."""
        self.clients.url = server.url
        self.clients.killed = False

    async def kill(self, server: Served, after: float, work: list[asyncio.Task[None]]) -> None:
        """Let the clients work for so many seconds, then kill the server, and let them see it."""
        if work:
            _, running = await asyncio.wait(work, timeout=after)
            self.in_flight.append(len(running))
        self.clients.killed = True
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        for done in await asyncio.gather(*work, return_exceptions=True):
            if done is not None and not isinstance(done, Cut):
                raise done
        self.kills += 1
        assert integrity(self.home) == [("ok",)]
        assert "Traceback" not in server.log.read_text()
        self.look_at_calls()

    def look_at_calls(self) -> None:
        """A call of which somebody knows the end is never run again."""
        begun = Counter(calls_begun(self.home))
        for call in self.ran:
            assert begun[call] == self.ran[call], f"{call} was run again"
        for heard in self.open:
            self.ran |= {call: begun[call] for call in heard.calls_done}

    def ask(self, count: int) -> list[asyncio.Task[None]]:
        """So many new responses, each with a client of its own."""
        names, weights = list(BEHAVIOURS), list(BEHAVIOURS.values())
        tasks = []
        for behaviour in self.dice.choices(names, weights, k=count):
            self.made += 1
            heard = Heard(
                f"m{self.made} {self.dice.choice(IN_FLIGHT)}",
                background=behaviour != "streams, not in the background",
            )
            self.open.append(heard)
            chance = random.Random(self.dice.random())
            tasks.append(asyncio.create_task(self.behave(behaviour, heard, chance)))
        return tasks

    async def behave(self, behaviour: str, heard: Heard, dice: random.Random) -> None:
        """What one client does until it is cut off. Raises Cut."""
        match behaviour:
            case "polls":
                await self.clients.create(heard)
                await self.clients.settled(heard)
            case "leaves and comes back":
                for _ in range(3):
                    until = len(heard.blocks) + dice.randrange(20)
                    if heard.id:
                        await self.clients.resume(heard, until=until)
                    else:
                        await self.clients.stream(heard, until)
                await self.clients.resume(heard)
            case "reads with two":
                await self.clients.create(heard)
                second = self.clients.resume(heard, dice.randrange(-1, 4))
                await asyncio.gather(self.clients.resume(heard, -1), second)
            case "cancels":
                await self.clients.create(heard)
                await asyncio.sleep(dice.random())
                heard.fate = "cancelling"
                heard.fate = (await self.clients.cancel(heard))["status"]
            case "deletes":
                await self.clients.create(heard)
                await asyncio.sleep(dice.random())
                heard.fate = "deleting"
                assert await self.clients.delete(heard) == 200
                heard.fate = "deleted"
            case _:
                await self.clients.stream(heard)

    def resume(self) -> list[asyncio.Task[None]]:
        """Everything that is open is read on, from where its clients were cut off."""
        self.open = [heard for heard in self.open if heard.id]
        return [asyncio.create_task(self.end(heard)) for heard in self.open]

    async def end(self, heard: Heard) -> None:
        """Read a response to its end and look at all of it. Raises Cut."""
        if heard.fate.startswith("delet"):
            status, body = await self.clients.retrieve(heard)
            if status == 404:
                self.close(heard, None, "deleted")
                return
            assert heard.fate == "deleting", body
        await self.clients.resume(heard)
        final = heard.check(strictly=len(self.ends) % 4 == 0)
        status, kept = await self.clients.retrieve(heard)
        assert (status, kept) == (200, final)
        if not heard.background:
            expected = {"completed", "failed"}
        elif heard.fate.startswith("cancel"):
            expected = {"cancelled", "completed"} if heard.fate == "cancelling" else {"cancelled"}
        else:
            expected = {"completed"}
        assert final["status"] in expected, f"{heard.asked}: {final}"
        if final["status"] == "failed":
            assert final["error"]["code"] == "server_error"
            assert "stopped" in final["error"]["message"]
        kind = "background" if heard.background else "foreground"
        self.close(heard, final, f"{kind} {final['status']}")

    def close(self, heard: Heard, final: dict[str, Any] | None, how: str) -> None:
        self.open.remove(heard)
        self.ends[heard.id] = final
        self.seen[how] += 1

    async def look_again(self) -> None:
        """Everything that ever ended is as it was."""

        async def look(response_id: str, final: dict[str, Any] | None) -> None:
            status, body = await self.clients.call("GET", f"/responses/{response_id}")
            assert (status, body) == (200, final) if final is not None else status == 404

        ends = list(self.ends.items())
        for first in range(0, len(ends), 50):
            await asyncio.gather(*(look(*each) for each in ends[first : first + 50]))


@pytest.mark.timeout(120 + 30 * KILLS)
async def test_killed_in_the_midst_of_200_responses_nothing_that_was_told_is_lost() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        async with clients("") as who:
            drill = Drill(home, who, random.Random(SEED))
            while drill.made < KILLS * AT_ONCE:
                with state_server(home, *FLAGS) as server:
                    drill.begins(server)
                    if drill.open and drill.dice.random() < 0.2:
                        # Killed once more before it has caught up.
                        await drill.kill(server, 0.5 * drill.dice.random(), drill.resume())
                        continue
                    await asyncio.gather(*drill.resume())
                    assert not drill.open
                    tasks = drill.ask(AT_ONCE)
                    await drill.kill(server, 0.2 + drill.dice.random(), tasks)
            with state_server(home, *FLAGS) as server:
                drill.begins(server)
                await asyncio.gather(*drill.resume())
                await drill.look_again()
                while at_work(home):
                    await asyncio.sleep(0.1)
                assert server.stop() == 0
                assert "Traceback" not in server.log.read_text()
        drill.look_at_calls()
        assert integrity(home) == [("ok",)]
    print(f"\n{drill.made} responses, {drill.kills} kills: {dict(drill.seen)}")
    print(f"under way at each kill: {drill.in_flight}")
