"""The routes, and which endpoint answers each. Assembles the ASGI application.

Endpoints live in `endpoints_*.py`; what every exchange gets is in `envelope.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ouzel.answer import Answers
from ouzel.api.endpoints import Exchange
from ouzel.api.endpoints_chat import ChatEndpoints
from ouzel.api.endpoints_responses import ResponsesEndpoints
from ouzel.api.endpoints_server import ServerEndpoints
from ouzel.api.envelope import Envelope
from ouzel.api.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the API needs to know of the settings.

    Args:
        key: the bearer key, or None to ask for none.
        max_body: bytes that a request body may have.
        keep_alive: seconds of silence after which a stream gives a sign of life.
    """

    key: str | None = None
    max_body: int = 32 * 1024 * 1024
    keep_alive: float = 15.0


def create_app(answers: Answers, metrics: Metrics, settings: ApiSettings) -> ASGIApp:
    """The whole HTTP surface as one ASGI application."""
    exchange = Exchange(settings.max_body, settings.keep_alive)
    server = ServerEndpoints(answers, metrics)
    chat = ChatEndpoints(answers, exchange)
    responses = ResponsesEndpoints(answers, exchange)
    one = "/v1/responses/{id}"
    router = Router(
        routes=[
            Route("/v1/chat/completions", chat.create, methods=["POST"]),
            Route("/v1/responses", responses.create, methods=["POST"]),
            Route("/v1/responses/input_tokens", responses.input_tokens, methods=["POST"]),
            Route(one, responses.get, methods=["GET"]),
            Route(one, responses.delete, methods=["DELETE"]),
            Route(f"{one}/cancel", responses.cancel, methods=["POST"]),
            Route(f"{one}/input_items", responses.input_items, methods=["GET"]),
            Route("/v1/models", server.models, methods=["GET"]),
            Route("/v1/models/{model:path}", server.model, methods=["GET"]),
            Route("/health", server.health, methods=["GET"]),
            Route("/ready", server.ready, methods=["GET"]),
            Route("/metrics", server.metrics, methods=["GET"]),
        ],
        redirect_slashes=False,
    )
    return Envelope(_Routes(router), settings.key, metrics)


class _Routes:
    """Lets the router raise for unknown paths and methods, so that the envelope answers them."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["app"] = self
        await self._router(scope, receive, send)
