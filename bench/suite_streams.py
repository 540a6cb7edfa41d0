"""A hundred streams at once, at the pace of a real engine: is each one whole?

Every stream's sequence numbers, deltas, text and terminal event are checked by the load
generator. A slow one is no broken one; how much longer than its script it took is told.
"""

from __future__ import annotations

from bench.arithmetic import Aim, Row, median
from bench.load import Plan
from bench.processes import Served, on_cores, ouzel
from bench.scripted import LONG, Ask, write_script
from bench.suite import Bench, load

STREAMS = 100
CORES = 2

_CASES = (
    ("Responses, store: false", Ask("stream", LONG)),
    ("Responses, stored", Ask("stream", LONG, store=True)),
    ("Chat Completions", Ask("chat-stream", LONG)),
)


def measure(bench: Bench) -> list[Row]:
    """Rows for broken streams and for how long they took.

    Raises:
        ServerFailed: the server did not come up.
    """
    with on_cores(CORES):
        script = write_script(bench.scratch / "bench.toml")
        with ouzel(bench.scratch / "home", "--script", str(script)) as served:
            return [row for name, ask in _CASES for row in _streams(bench, name, ask, served)]


def _streams(bench: Bench, name: str, ask: Ask, served: Served) -> list[Row]:
    each = 1 if bench.quick else 3
    bench.tell(f"{STREAMS} streams at once: {name}")
    loaded = load(served, Plan([ask.target(served)], STREAMS, requests=each))
    outcome = loaded.outcome
    label = f"{name}: {STREAMS} streams of {LONG.words} tokens at once"
    why = f": {'; '.join(outcome.faults)}" if outcome.faults else ""
    rows = [
        Row(
            f"{label}, broken",
            outcome.broken,
            "",
            Aim("<=", 0),
            note=f"of {outcome.asked}{why}",
        )
    ]
    if outcome.right:
        script = LONG.words * LONG.delay
        rows.append(
            Row(
                f"{label}, median duration",
                median(outcome.latency[0]),
                "s",
                baseline=script,
                ratio=median(outcome.latency[0]) / script,
                note=f"baseline is the script; longest silence {outcome.gap * 1000:.0f} ms; server "
                f"{loaded.server_ms / LONG.words:.3f} ms CPU a token; neighbours "
                f"{loaded.neighbours:.1f} cores",
                samples=tuple(outcome.latency[0]),
            )
        )
    return rows
