"""Suites of cases: a real server on real weights, asked through the official SDK.

It starts the server as users do, keeps a few cases under way at a time, and tells what became of
each as soon as it is known. What a case is, and when it is right, the suites say.
"""

from __future__ import annotations

import asyncio
import math
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from openai import APIError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient
from prometheus_client.parser import text_string_to_metric_families

from bench.processes import Served, ouzel
from bench.suite import Bench

REPLY_WITHIN = 300.0
"""Seconds after which a reply counts as missing."""

QUICK = 3
"""Cases that a quick run makes, of each kind."""

READY_WITHIN = 3600.0
"""Seconds for the server's start: the first one fetches the weights."""


@dataclass(frozen=True)
class Asking:
    """Who is asked.

    Args:
        client: of the official SDK; it never asks twice.
        model: the served model's own name.
    """

    client: AsyncOpenAI
    model: str


@contextmanager
def serving(bench: Bench, *more: str) -> Iterator[Served]:
    """The server that the bench was told to measure, from an empty home.

    Args:
        more: flags of `ouzel serve`.

    Raises:
        ServerFailed: it did not come up.
    """
    home = bench.scratch / "home"
    if bench.engine_url is not None:
        bench.tell(f"starting Ouzel before {bench.engine_url}")
        # In the environment, since other users see a command's flags.
        key = {"OUZEL_ENGINE_KEY": bench.engine_key} if bench.engine_key else {}
        flags = ["--engine-url", bench.engine_url, *more]
        with ouzel(home, *flags, environment=key, ready_within=READY_WITHIN) as served:
            yield served
        return
    bench.tell("starting the engine; the first time it fetches the weights")
    flags = ["--model", bench.model] if bench.model else []
    with ouzel(home, *flags, *more, ready_within=READY_WITHIN) as served:
        yield served


@asynccontextmanager
async def asking(base_url: str) -> AsyncIterator[Asking]:
    """A client of the server at `http://HOST:PORT/v1`."""
    # A proxy of the environment has no business on loopback.
    http = DefaultAsyncHttpxClient(trust_env=False)
    async with AsyncOpenAI(
        base_url=base_url,
        api_key="none",
        max_retries=0,
        timeout=REPLY_WITHIN,
        http_client=http,
    ) as client:
        models = await client.models.list()
        yield Asking(client, models.data[0].id)


def tallies(served: Served) -> dict[str, int]:
    """What the server's loop has counted so far, by name (`calls`, `repaired_calls`, ...)."""
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    return {
        sample.labels["event"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ouzel_loop_events_total"
    }


def told(error: APIError) -> str:
    """What went wrong with a request, in one line."""
    if isinstance(error, APIStatusError):
        return f"status {error.status_code}: {error.message}"
    return f"{type(error).__name__}: {error.message}"


class Told(Protocol):
    """What became of one case: a dataclass that can be put into a line."""

    __dataclass_fields__: Any

    @property
    def line(self) -> str:
        """For the log."""
        ...


CaseT = TypeVar("CaseT")
ToldT = TypeVar("ToldT", bound=Told)


async def each(
    bench: Bench,
    cases: Sequence[CaseT],
    work: Callable[[CaseT], Awaitable[ToldT]],
    at_once: int = 1,
) -> list[ToldT]:
    """Do all cases; what became of them, in the order of the cases.

    Args:
        work: does one; what it raises ends the suite.
        at_once: cases under way together, unless the bench was told another number.
    """
    gate = asyncio.Semaphore(bench.at_once or at_once)
    done = 0

    async def one(case: CaseT) -> ToldT:
        nonlocal done
        async with gate:
            result = await work(case)
        done += 1
        bench.step(done, len(cases))
        bench.log(f"[{done}/{len(cases)}] {result.line}")
        bench.keep(asdict(result))
        return result

    bench.step(0, len(cases))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case)) for case in cases]
    return [task.result() for task in tasks]


def chosen(bench: Bench, cases: Sequence[CaseT]) -> list[CaseT]:
    """The cases that the bench was told to make, of all that there are."""
    limit = bench.limit if bench.limit is not None else QUICK if bench.quick else len(cases)
    return list(cases[bench.first : bench.first + limit])


def share(part: float, of: int) -> int:
    """The least whole number of cases that is this part of all."""
    # Rounded first: 0.9 * 20 is a little more than 18 in binary.
    return math.ceil(round(part * of, 9))
