"""How much memory the API process holds after work, and whether it keeps growing.

Only the API process counts, not the engine's child. The same load comes twice: what the second
one adds is what every further one may add.
"""

from __future__ import annotations

from bench.arithmetic import Aim, Row
from bench.load import Plan
from bench.processes import Served, on_cores, ouzel
from bench.scripted import BURST, LONG, SHORT, Ask, write_script
from bench.suite import Bench, load, whole

CORES = 2
MB = 1e6

_LOAD = (
    (Ask("plain", SHORT), 32, 60),
    (Ask("plain", SHORT, store=True), 32, 60),
    (Ask("stream", BURST), 32, 20),
    (Ask("stream", BURST, store=True), 32, 20),
    (Ask("chat-stream", LONG), 100, 1),
)


def measure(bench: Bench) -> list[Row]:
    """Rows for resident memory before and after.

    Raises:
        Broken: a reply was wrong.
        ServerFailed: the server did not come up.
    """
    with on_cores(CORES):
        script = write_script(bench.scratch / "bench.toml")
        with ouzel(bench.scratch / "home", "--script", str(script)) as served:
            idle = served.rss / MB
            first, asked = _after(bench, served, "first")
            second, _ = _after(bench, served, "second")
    return [
        Row("API process, idle", idle, "MB"),
        Row(
            "API process, after the load",
            max(first, second),
            "MB",
            Aim("<", 150),
            note=f"twice {asked} requests, 100 streams at once among them",
        ),
        Row("Growth by the second load", second - first, "MB", note=f"{asked} requests"),
    ]


def _after(bench: Bench, served: Served, which: str) -> tuple[float, int]:
    """Highest resident memory seen between the loads, and how many requests there were."""
    highest, asked = 0.0, 0
    for ask, clients, each in _LOAD:
        bench.tell(f"memory, {which} load: {ask.label}")
        requests = max(1, each // 4) if bench.quick else each
        plan = Plan([ask.target(served)], clients, requests=requests)
        asked += whole(load(served, plan), ask.label).outcome.asked
        highest = max(highest, served.rss / MB)
    return highest, asked
