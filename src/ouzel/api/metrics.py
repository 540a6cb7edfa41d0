"""Numbers for Prometheus: exchanges, runs, tokens, times. Kept apart from every endpoint.

No label ever holds anything a client sent: routes are route patterns, models the served name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from ouzel.core.contracts import Engine
from ouzel.core.runs import Run

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
_STATES = ("starting", "ready", "restarting", "failed", "stopped")


class Metrics:
    """One server's numbers, in a registry of their own. Is a `core.contracts.Meter`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._exchanges = Counter(
            "ouzel_http_requests",
            "HTTP exchanges",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "ouzel_http_seconds",
            "Seconds from request to the end of the answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._runs = Counter(
            "ouzel_runs", "Finished runs", ("model", "status"), registry=self._registry
        )
        self._tokens = Counter(
            "ouzel_tokens",
            "Tokens counted by the engine",
            ("model", "kind"),
            registry=self._registry,
        )
        self._loop_events = Counter(
            "ouzel_loop_events",
            "What happened in the loop, as core.runs.Run.tally counts it",
            ("event",),
            registry=self._registry,
        )
        self._run_seconds = Histogram(
            "ouzel_run_seconds",
            "Seconds from admission to the end of the run",
            ("model",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "ouzel_time_to_first_token_seconds",
            "Seconds until the first piece of output",
            ("model",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._sockets = Gauge(
            "ouzel_websockets", "WebSockets that are open", registry=self._registry
        )
        self._turns = Counter(
            "ouzel_websocket_turns",
            "Turns asked for over WebSockets: how their runs ended, or `refused`",
            ("status",),
            registry=self._registry,
        )
        self._state = Gauge(
            "ouzel_engine_state", "1 for the state it is in", ("state",), registry=self._registry
        )

    def exchange(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP exchange has ended; status 499 means that the client went away first."""
        method = method if method in _METHODS else "other"
        self._exchanges.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    @contextmanager
    def socket(self) -> Iterator[None]:
        """While inside, a WebSocket is open."""
        with self._sockets.track_inprogress():
            yield

    def turn(self, status: str) -> None:
        """A turn over a WebSocket has ended with its run in this status, or was `refused`."""
        self._turns.labels(status).inc()

    def run_finished(self, run: Run, seconds: float, first_token: float | None) -> None:
        """A run has ended."""
        self._runs.labels(run.model, run.status).inc()
        self._run_seconds.labels(run.model).observe(seconds)
        if first_token is not None:
            self._first.labels(run.model).observe(first_token)
        for event, times in run.tally.items():
            self._loop_events.labels(event).inc(times)
        if run.usage is not None:
            fresh = run.usage.input_tokens - run.usage.cached_tokens
            self._tokens.labels(run.model, "input").inc(fresh)
            self._tokens.labels(run.model, "input_cached").inc(run.usage.cached_tokens)
            self._tokens.labels(run.model, "output").inc(run.usage.output_tokens)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        for state in _STATES:
            self._state.labels(state).set(1 if self._engine.state == state else 0)
        return generate_latest(self._registry)
