"""Models, health, readiness, metrics: what the server says of itself."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ouzel import __version__
from ouzel.answer import Answers
from ouzel.api import read_query, write_models
from ouzel.api.endpoints import as_json, query
from ouzel.api.metrics import Metrics


class ServerEndpoints:
    """GET /v1/models, /v1/models/{model}, /health, /ready, /metrics."""

    def __init__(self, answers: Answers, metrics: Metrics) -> None:
        self._answers = answers
        self._metrics = metrics

    async def models(self, request: Request) -> Response:
        read_query.read_nothing(query(request))
        info = self._answers.engine.info
        return as_json(write_models.models(info, self._answers.aliases))

    async def model(self, request: Request) -> Response:
        read_query.read_nothing(query(request))
        name = request.path_params["model"]
        self._answers.resolve(name)
        return as_json(write_models.model(self._answers.engine.info, name))

    async def health(self, request: Request) -> Response:
        """200 as long as this process answers, whatever the engine does."""
        return as_json(self._state("ok"))

    async def ready(self, request: Request) -> Response:
        """200 when a request would be taken now, 503 otherwise."""
        ready = self._answers.engine.state == "ready"
        return as_json(self._state("ready" if ready else "not_ready"), 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _state(self, status: str) -> dict[str, Any]:
        return {"status": status, "engine": self._answers.engine.state, "version": __version__}
