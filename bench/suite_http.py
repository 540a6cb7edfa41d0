"""Throughput and added time with an engine that answers at once: what Ouzel itself costs.

`ouzel serve --script` in one process, the load generator in another, both on the same two cores;
beside it, in the same run and in turn, a bare Starlette server that sends the very same bytes.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from bench.arithmetic import Aim, Row, differences, median, quantile, ratios
from bench.load import Plan
from bench.processes import Served, baseline, on_cores, ouzel
from bench.scripted import BURST, PACED, SHORT, Ask, canned, write_script
from bench.suite import Bench, Loaded, load, whole

CORES = 2
CLIENTS = 32


@dataclass(frozen=True)
class _Case:
    name: str
    ask: Ask
    least: float | None = None


_CASES = (
    _Case("Responses, store: false", Ask("plain", SHORT), 800),
    _Case("Responses, stored", Ask("plain", SHORT, store=True), 500),
    _Case("Responses of 50 tokens, store: false", Ask("plain", BURST)),
    _Case("Chat Completions", Ask("chat", SHORT)),
    _Case("Stream of 50 deltas at once, store: false", Ask("stream", BURST), 250),
    _Case("Stream of 50 deltas at once, stored", Ask("stream", BURST, store=True), 250),
    _Case("Stream of 50 deltas, 1 ms apart, store: false", Ask("stream", PACED), 250),
    _Case("Stream of 50 deltas, 1 ms apart, stored", Ask("stream", PACED, store=True), 250),
    _Case("Chat stream of 50 deltas, 1 ms apart", Ask("chat-stream", PACED)),
)


def measure(bench: Bench) -> list[Row]:
    """Rows for throughput, and for what a single client waits longer.

    Raises:
        Broken: a reply was wrong.
        ServerFailed: a server did not come up.
    """
    with ExitStack() as stack:
        stack.enter_context(on_cores(CORES))
        script = write_script(bench.scratch / "bench.toml")
        ours = stack.enter_context(ouzel(bench.scratch / "home", "--script", str(script)))
        replies = msgspec.json.encode([canned(ours, case.ask) for case in _CASES])
        bare = stack.enter_context(baseline(bench.scratch / "bare", replies))
        rows = [_throughput(bench, case, ours, bare) for case in _CASES]
        singles = ((_CASES[0], 2.0), (_CASES[1], None), (_CASES[4], None))
        for case, most in singles:
            rows.append(_added(bench, case, most, ours, bare))
        return rows


def _throughput(bench: Bench, case: _Case, ours: Served, bare: Served) -> Row:
    rounds = 1 if bench.quick else 3
    mine: list[Loaded] = []
    theirs: list[Loaded] = []
    for number in range(rounds):
        bench.tell(f"{case.name}: round {number + 1} of {rounds}")
        theirs.append(_round(bench, case, bare, f"/{case.ask.label}"))
        mine.append(_round(bench, case, ours, None))
    rates = [each.outcome.rate for each in mine]
    base = [each.outcome.rate for each in theirs]
    note = (
        f"server {median([each.server_ms for each in mine]):.2f} ms CPU each, baseline "
        f"{median([each.server_ms for each in theirs]):.2f}, generator "
        f"{median([each.generator_ms for each in mine]):.2f}; neighbours "
        f"{median([each.neighbours for each in mine]):.1f} cores"
    )
    return Row(
        f"{case.name}, {CLIENTS} clients",
        median(rates),
        "/s",
        Aim(">=", case.least) if case.least else None,
        median(base),
        median(ratios(rates, base)),
        note,
        tuple(rates),
    )


def _round(bench: Bench, case: _Case, served: Served, path: str | None) -> Loaded:
    seconds, warm_up = (1.0, 0.3) if bench.quick else (2.5, 0.7)
    plan = Plan([case.ask.target(served, path)], CLIENTS, seconds=seconds, warm_up=warm_up)
    return whole(load(served, plan), case.name)


def _added(bench: Bench, case: _Case, most: float | None, ours: Served, bare: Served) -> Row:
    """What one client waits longer than for the same bytes from the baseline, in pairs."""
    bench.tell(f"{case.name}: one client")
    targets = [case.ask.target(bare, f"/{case.ask.label}"), case.ask.target(ours)]
    pairs = 200 if bench.quick else 1000
    done = whole(load(ours, Plan(targets, clients=1, requests=pairs)), case.name).outcome
    theirs, mine = ([second * 1000 for second in each] for each in done.latency)
    added = differences(mine, theirs)
    return Row(
        f"{case.name}, added for one client, median",
        median(added),
        "ms",
        Aim("<=", most) if most else None,
        median(theirs),
        median(mine) / median(theirs),
        f"{pairs} pairs; Ouzel {median(mine):.2f} ms, 99th percentile {quantile(mine, 0.99):.2f} "
        f"(baseline {quantile(theirs, 0.99):.2f})",
        tuple(added),
    )
