"""The routes, and which endpoint answers each. Assembles the ASGI application.

Endpoints live in `endpoints_*.py`; what every exchange gets is in `envelope.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from ouzel.answer import Answers
from ouzel.api.batch_runner import BatchRunner
from ouzel.api.endpoints import Exchange
from ouzel.api.endpoints_batches import BatchesEndpoints
from ouzel.api.endpoints_chat import ChatEndpoints
from ouzel.api.endpoints_compact import CompactEndpoint
from ouzel.api.endpoints_containers import ContainersEndpoints
from ouzel.api.endpoints_conversations import ConversationsEndpoints
from ouzel.api.endpoints_files import FilesEndpoints
from ouzel.api.endpoints_responses import ResponsesEndpoints
from ouzel.api.endpoints_server import ServerEndpoints
from ouzel.api.endpoints_stored_chat import StoredChatEndpoints
from ouzel.api.endpoints_uploads import UploadsEndpoints
from ouzel.api.envelope import Envelope
from ouzel.api.metrics import Metrics
from ouzel.api.websocket import ResponsesSocket
from ouzel.core.contracts_files import Containers, Files
from ouzel.core.contracts_state import Conversations, StoredRuns


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the API needs to know of the settings.

    Args:
        key: the bearer key, or None to ask for none.
        max_body: bytes that a request body may have, unless it brings a file.
        keep_alive: seconds of silence after which a stream gives a sign of life.
        max_file: bytes that a file may have that a client sends.
        why_no_containers: a sentence for whoever asks for a container where there is no room for
            any: what is missing here.
    """

    key: str | None = None
    max_body: int = 32 * 1024 * 1024
    keep_alive: float = 15.0
    max_file: int = 512 * 1024 * 1024
    why_no_containers: str = "This server runs no code, so it has no containers."


def create_app(
    answers: Answers,
    metrics: Metrics,
    settings: ApiSettings,
    files: Files | None = None,
    containers: Containers | None = None,
    *,
    conversations: Conversations | None = None,
    stored: StoredRuns | None = None,
    batches: BatchRunner | None = None,
) -> ASGIApp:
    """The whole HTTP surface as one ASGI application.

    Args:
        files: None where no files are kept: their endpoints say so.
        containers: None where no code is run.
        conversations: None where none are kept.
        stored: lists what `answers` stores; None where stored completions cannot be fetched.
        batches: None where none are run.
    """
    exchange = Exchange(settings.max_body, settings.keep_alive)
    server = ServerEndpoints(answers, metrics)
    kept = FilesEndpoints(files, exchange, settings.max_file)
    uploads = UploadsEndpoints(files, exchange)
    sandboxes = ContainersEndpoints(
        containers, files, exchange, settings.max_file, settings.why_no_containers
    )
    routes: list[BaseRoute] = [
        *_answer_routes(ChatEndpoints(answers, exchange), ResponsesEndpoints(answers, exchange)),
        Route("/v1/responses/compact", CompactEndpoint(answers, exchange).create, methods=["POST"]),
        *_stored_chat_routes(StoredChatEndpoints(answers, stored, exchange)),
        *_conversation_routes(ConversationsEndpoints(conversations, files, exchange)),
        *_file_routes(kept, uploads),
        *_container_routes(sandboxes),
        *_batch_routes(BatchesEndpoints(batches, files, answers, exchange)),
        Route("/v1/models", server.models, methods=["GET"]),
        Route("/v1/models/{model:path}", server.model, methods=["GET"]),
        Route("/health", server.health, methods=["GET"]),
        Route("/ready", server.ready, methods=["GET"]),
        Route("/metrics", server.metrics, methods=["GET"]),
        WebSocketRoute("/v1/responses", ResponsesSocket(answers, exchange, metrics)),
    ]
    router = Router(routes=routes, redirect_slashes=False, default=_nowhere)
    return Envelope(_Routes(router), settings.key, metrics)


def _answer_routes(chat: ChatEndpoints, responses: ResponsesEndpoints) -> list[Route]:
    one = "/v1/responses/{id}"
    return [
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
        Route("/v1/responses", responses.create, methods=["POST"]),
        Route("/v1/responses/input_tokens", responses.input_tokens, methods=["POST"]),
        Route(one, responses.get, methods=["GET"]),
        Route(one, responses.delete, methods=["DELETE"]),
        Route(f"{one}/cancel", responses.cancel, methods=["POST"]),
        Route(f"{one}/input_items", responses.input_items, methods=["GET"]),
    ]


def _stored_chat_routes(stored: StoredChatEndpoints) -> list[Route]:
    one = "/v1/chat/completions/{id}"
    return [
        Route("/v1/chat/completions", stored.page, methods=["GET"]),
        Route(one, stored.get, methods=["GET"]),
        Route(one, stored.update, methods=["POST"]),
        Route(one, stored.delete, methods=["DELETE"]),
        Route(f"{one}/messages", stored.messages, methods=["GET"]),
    ]


def _conversation_routes(conversations: ConversationsEndpoints) -> list[Route]:
    one = "/v1/conversations/{id}"
    items = f"{one}/items"
    # Clients choose the ids of items, from slashes as well.
    item = f"{items}/{{item_id:path}}"
    return [
        Route("/v1/conversations", conversations.create, methods=["POST"]),
        Route(one, conversations.get, methods=["GET"]),
        Route(one, conversations.update, methods=["POST"]),
        Route(one, conversations.delete, methods=["DELETE"]),
        Route(items, conversations.add_items, methods=["POST"]),
        Route(items, conversations.page_of_items, methods=["GET"]),
        Route(item, conversations.get_item, methods=["GET"]),
        Route(item, conversations.delete_item, methods=["DELETE"]),
    ]


def _batch_routes(batches: BatchesEndpoints) -> list[Route]:
    one = "/v1/batches/{id}"
    return [
        Route("/v1/batches", batches.create, methods=["POST"]),
        Route("/v1/batches", batches.page, methods=["GET"]),
        Route(one, batches.get, methods=["GET"]),
        Route(f"{one}/cancel", batches.cancel, methods=["POST"]),
    ]


def _file_routes(files: FilesEndpoints, uploads: UploadsEndpoints) -> list[Route]:
    file, upload = "/v1/files/{id}", "/v1/uploads/{id}"
    return [
        Route("/v1/files", files.create, methods=["POST"]),
        Route("/v1/files", files.page, methods=["GET"]),
        Route(file, files.get, methods=["GET"]),
        Route(file, files.delete, methods=["DELETE"]),
        Route(f"{file}/content", files.content, methods=["GET"]),
        Route("/v1/uploads", uploads.create, methods=["POST"]),
        Route(f"{upload}/parts", uploads.add_part, methods=["POST"]),
        Route(f"{upload}/complete", uploads.complete, methods=["POST"]),
        Route(f"{upload}/cancel", uploads.cancel, methods=["POST"]),
    ]


def _container_routes(containers: ContainersEndpoints) -> list[Route]:
    one = "/v1/containers/{id}"
    file = f"{one}/files/{{file_id}}"
    return [
        Route("/v1/containers", containers.create, methods=["POST"]),
        Route("/v1/containers", containers.page, methods=["GET"]),
        Route(one, containers.get, methods=["GET"]),
        Route(one, containers.delete, methods=["DELETE"]),
        Route(f"{one}/files", containers.put_file, methods=["POST"]),
        Route(f"{one}/files", containers.page_of_files, methods=["GET"]),
        Route(file, containers.get_file, methods=["GET"]),
        Route(file, containers.delete_file, methods=["DELETE"]),
        Route(f"{file}/content", containers.content, methods=["GET"]),
    ]


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """What the router does with a path that it does not know."""
    raise HTTPException(404)


class _Routes:
    """Lets the router raise for unknown paths and methods, so that the envelope answers them."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["app"] = self
        await self._router(scope, receive, send)
