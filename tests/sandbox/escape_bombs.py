"""Cases of `escape_cases.py` that are about taking too much, and about not going away.

Every bomb has a limit of processes, memory and time on it, and is ended by the case.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

MIB = 2**20

FORKS = """
import os, time
open('began', 'w').close()
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
"""

CHAIN = """
import os, time
open('began', 'w').close()
if os.fork():
    time.sleep(300)
os.setsid()
while True:
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
    except OSError:
        pass
"""

ESCAPEE = """
import os, signal, sys, time
for each in range(1, 32):
    try:
        signal.signal(each, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(f'began-{os.getpid()}', 'w').close()
            time.sleep(300)
        os._exit(0)
time.sleep(1)
open('began', 'w').close()
time.sleep(300 if 'stay' in sys.argv else 0)
"""

MEMORY = """
import mmap, os, time
try:
    bytearray(400 * 2**20)
    alone = 'done'
except MemoryError:
    alone = 'MemoryError'
for _ in range(4):
    if os.fork() == 0:
        kept = [bytearray(b'x' * 2**20) for _ in range(100)]
        open(f'full-{os.getpid()}', 'w').close()
        time.sleep(100)
open('alone', 'w').write(alone)
time.sleep(100)
"""

SHARED = """
import mmap, time
kept = mmap.mmap(-1, 300 * 2**20)
for at in range(0, len(kept), 4096):
    kept[at] = 1
open('full', 'w').close()
time.sleep(100)
"""

FILLER = """
import errno, json, os, sys, time
def fill(folder):
    total, trouble = 0, None
    try:
        for number in range(40):
            with open(f'{folder}/{number}', 'wb', 0) as file:
                for _ in range(4):
                    total += file.write(b'x' * 2**20)
    except OSError as error:
        trouble = errno.errorcode[error.errno]
    return total, trouble
def one():
    try:
        with open('one', 'wb', 0) as file:
            for _ in range(64):
                file.write(b'x' * 2**20)
    except OSError as error:
        return errno.errorcode[error.errno]
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
said = {'one': one(), 'shm': fill('/dev/shm')}
open('said', 'w').write(json.dumps(said))
said['tmp'] = fill(os.environ['TMPDIR'])
open('said', 'w').write(json.dumps(said))
time.sleep(100)
"""

NAMES = """
import os, time
os.makedirs(os.environ['TMPDIR'] + '/a')
for number in range(6000):
    open(f"{os.environ['TMPDIR']}/a/{number}", 'w').close()
here = os.environ['TMPDIR']
os.chdir(here)
for _ in range(3000):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
os.chdir('/mnt/data' if os.path.exists('/mnt/data') else os.environ['HOME'])
open('full', 'w').close()
time.sleep(100)
"""

CHATTER = """
import os
while True:
    os.write(1, b'x' * 65536)
    os.write(2, b'y' * 65536)
"""


async def until(condition: Any, within: float = 30.0) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


async def end(jailed: Any) -> float:
    """Kill it; seconds until nothing was left."""
    began = time.monotonic()
    jailed.kill()
    async with asyncio.timeout(30):
        await jailed.gone()
    return time.monotonic() - began


async def fork_bomb(place: Any) -> dict[str, Any]:
    """Everybody forks: as many as allowed come to be, others go on, and all end at once."""
    result: dict[str, Any] = {}
    for name, code in (("bomb", FORKS), ("chain", CHAIN)):
        jailed, work = await place.start(code, processes=24)
        assert await until((work / "began").exists), jailed.stderr_tail
        most = 0
        for _ in range(20):
            await asyncio.sleep(0.02)
            most = max(most, jailed.usage()[1])
        works = await place.still_works()
        seconds = await end(jailed)
        result[name] = {"most": most, "works": works, "seconds": seconds, "uid": jailed.uid}
    return result


async def leftovers(place: Any) -> dict[str, Any]:
    """Daemons that ignore signals: gone when the sandbox is killed, and when its code ends."""
    result = {}
    for name, arguments in (("killed", ("stay",)), ("ended", ())):
        jailed, work = await place.start(ESCAPEE, *arguments)
        assert await until((work / "began").exists), jailed.stderr_tail
        daemons = len(list(work.glob("began-*")))
        if name == "ended":
            async with asyncio.timeout(20):
                await jailed.wait()
        seconds = await end(jailed)
        result[name] = {"daemons": daemons, "seconds": seconds}
        jailed.kill()
    result["works"] = await place.still_works()
    return result


async def orphaned(place: Any) -> None:
    """The server is killed in the middle of it all."""
    jailed, work = await place.start(ESCAPEE, "stay")
    bomb, there = await place.start(CHAIN, processes=24)
    assert await until((work / "began").exists), jailed.stderr_tail
    assert await until((there / "began").exists), bomb.stderr_tail
    (place.folder / "ready").touch()
    os.kill(os.getpid(), signal.SIGKILL)


async def memory_bomb(place: Any) -> dict[str, Any]:
    """One process is refused; several are seen, and end; memory of nobody is seen as well."""
    jailed, work = await place.start(MEMORY)
    assert await until(lambda: len(list(work.glob("full-*"))) == 4), jailed.stderr_tail
    together, processes = jailed.usage()
    works = await place.still_works()
    seconds = await end(jailed)
    other, folder = await place.start(SHARED)
    assert await until((folder / "full").exists), other.stderr_tail
    shared, _ = other.usage()
    await end(other)
    return {
        "alone": (work / "alone").read_text(),
        "together": together // MIB,
        "processes": processes,
        "shared": shared // MIB,
        "works": works,
        "seconds": seconds,
        "after": jailed.usage()[1],
    }


async def disk_filler(place: Any) -> dict[str, Any]:
    """Files over the limit, /dev/shm and /tmp filled; what was short-lived is gone afterwards."""
    import json

    jailed, work = await place.start(FILLER)

    def over() -> bool:
        done = (work / "said").exists() and "tmp" in (work / "said").read_text()
        return (done and place.mode == "bubblewrap") or not jailed.alive()

    assert await until(over), jailed.stderr_tail
    works = await place.still_works()
    await end(jailed)
    return {
        "said": json.loads((work / "said").read_text()),
        "tail": jailed.stderr_tail,
        "left": sorted(os.listdir(place.folder / "scratch")),  # noqa: PTH208
        "works": works,
    }


async def empty_names(place: Any) -> dict[str, Any]:
    """Empty files and nested folders have no size, and take memory or a walk without end."""
    jailed, work = await place.start(NAMES)
    assert await until(lambda: (work / "full").exists() or not jailed.alive()), jailed.stderr_tail
    if place.mode == "bubblewrap":
        seen = jailed.usage()[0] // MIB
    else:
        # Deeper than a path is long: the guard takes it for what it is.
        seen = int(await until(lambda: not jailed.alive()))
    await end(jailed)
    return {"seen": seen, "left": sorted(os.listdir(place.folder / "scratch"))}  # noqa: PTH208


async def endless_loop(place: Any) -> dict[str, Any]:
    """Processor time has an end of its own."""
    jailed, _ = await place.start("while True: pass", cpu_seconds=1)
    works = await place.still_works()
    async with asyncio.timeout(60):
        status = await jailed.wait()
    await end(jailed)
    return {"status": status, "works": works}


async def endless_output(place: Any) -> dict[str, Any]:
    """Whoever writes without end waits; the server's memory and time stay as they are."""
    jailed, _ = await place.start(CHATTER)
    await asyncio.sleep(0.2)
    before, began = _resident(), time.process_time()
    wait = time.monotonic()
    await asyncio.sleep(1.5)
    spent = (time.process_time() - began) / (time.monotonic() - wait)
    works = await place.still_works()
    grown = _resident() - before
    seconds = await end(jailed)
    tail = len(jailed.stderr_tail)
    return {"grown": grown, "spent": spent, "tail": tail, "works": works, "seconds": seconds}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


CASES = {
    each.__name__: each
    for each in (
        fork_bomb,
        leftovers,
        orphaned,
        memory_bomb,
        disk_filler,
        empty_names,
        endless_loop,
        endless_output,
    )
}
