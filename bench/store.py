"""How much the store takes: `python bench/store.py [--path FILE] [--seconds N]`.

Prints, for a fresh database on the disk of FILE: runs a second (begin and finish) with 32 tasks
and with one, its median and 99th percentile; events a second appended in batches of 25 by 50
tasks; how long a log of 5,000 events takes to read; and the memory of the process. With
`--busy MS` every run also burns that much time on the event loop, as a real request does.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from ouzel.core.events import Delta, RunFinished, RunStarted
from ouzel.core.items import Message, Text, new_id
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.store import SqlStore, open_store


def new_run() -> Run:
    """A run as a short Responses request makes it."""
    question = Message(new_id("msg"), "user", (Text("How many legs does an ouzel have?"),))
    request = Request("responses", "scripted", (question,), store=True)
    return Run(new_id("resp"), "bench", "scripted", time.time(), request)


def finished(run: Run) -> Run:
    """The run with a short answer."""
    answer = Message(new_id("msg"), "assistant", (Text("Two, like every bird. " * 8),))
    return dataclasses.replace(
        run, status="completed", output=(answer,), usage=Usage(20, 0, 40), finished_at=time.time()
    )


def deltas(run: Run, count: int) -> list[Delta]:
    """Events as a stream of short tokens makes them."""
    return [Delta(0, run.id, 0, "text", " legs") for _ in range(count)]


def burn(seconds: float) -> None:
    """Hold the event loop, as parsing and writing JSON would."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def runs(store: SqlStore, tasks: int, seconds: float, busy: float) -> str:
    """Begin and finish runs from so many tasks at once."""
    took: list[float] = []
    start = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() < start + seconds:
            burn(busy)
            run = new_run()
            done = finished(run)
            began = time.perf_counter()
            await store.begin(run)
            await store.finish(done, 0, [RunStarted(), RunFinished("completed", Usage(), 1.0)])
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(tasks)))
    rate = len(took) / (time.perf_counter() - start)
    took.sort()
    return (
        f"{tasks:3} tasks: {rate:7.0f} runs/s   begin+finish median "
        f"{statistics.median(took) * 1e3:6.2f} ms   p99 {took[len(took) * 99 // 100] * 1e3:6.2f} ms"
    )


async def appends(store: SqlStore, tasks: int, batch: int, seconds: float) -> str:
    """Append batches of events from so many streams at once."""
    count = 0
    start = time.perf_counter()

    async def client() -> None:
        nonlocal count
        run = new_run()
        await store.begin(run)
        position = 0
        while time.perf_counter() < start + seconds:
            await store.append(run.id, position, deltas(run, batch))
            position += batch
            count += batch

    await asyncio.gather(*(client() for _ in range(tasks)))
    rate = count / (time.perf_counter() - start)
    return f"{tasks:3} tasks: {rate:7.0f} events/s in batches of {batch}"


async def replay(store: SqlStore, count: int, batch: int) -> str:
    """Read a long log, whole and from its middle."""
    run = new_run()
    await store.begin(run)
    for position in range(0, count, batch):
        await store.append(run.id, position, deltas(run, batch))
    lines: list[str] = []
    for start in (0, count - 10):
        times: list[float] = []
        for _ in range(10):
            began = time.perf_counter()
            await store.events(run.id, run.owner, start)
            times.append(time.perf_counter() - began)
        lines.append(f"from {start}: {statistics.median(times) * 1e3:.2f} ms")
    return f"log of {count} events in batches of {batch}, read " + ", ".join(lines)


async def measure(path: Path, seconds: float, busy: float) -> None:
    """All of it, on one store."""
    process = psutil.Process()
    before = process.memory_info().rss
    store = open_store(path)
    print(f"memory: {before / 2**20:.0f} MiB imported, ", end="")
    print(f"{process.memory_info().rss / 2**20:.0f} MiB with a new store open")
    print(await runs(store, 32, seconds, busy))
    print(await runs(store, 1, seconds, busy))
    print(await appends(store, 50, 25, seconds))
    print(await appends(store, 50, 1, seconds))
    print(await replay(store, 5000, 10))
    print(f"memory: {process.memory_info().rss / 2**20:.0f} MiB at the end, ", end="")
    print(f"file {path.stat().st_size / 2**20:.0f} MiB")
    await store.close()


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, help="where to put the database (a new file)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    parser.add_argument("--busy", type=float, default=0.0, help="milliseconds of loop for each run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.path or Path(folder) / "store.db"
        uvloop.run(measure(path, given.seconds, given.busy / 1e3))


if __name__ == "__main__":
    main()
