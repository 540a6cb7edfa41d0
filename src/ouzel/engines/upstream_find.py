"""Which model of a server to ask for, and how large its context window is.

Both are asked, not guessed: a server that does not say is an error that names the setting to
give. Nothing here generates, and nothing is tried twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from ouzel.core.errors import EngineError
from ouzel.engines.upstream_client import Client, Reply
from ouzel.engines.upstream_failures import read_error

_LISTED: Final = 20
"""Model names that an error message lists."""

ABSENT: Final = frozenset({404, 405, 501})
"""What servers answer for a route that they do not have."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as a server lists it.

    Args:
        entry: its object in the list, empty where the server has no list.
    """

    id: str
    entry: dict[str, Any]

    @property
    def owner(self) -> str:
        """Whose server it is, as far as it says (`vllm`, `sglang`, `llamacpp`, ...)."""
        owner = self.entry.get("owned_by")
        return owner if isinstance(owner, str) and owner else "unknown"

    @property
    def created_at(self) -> float | None:
        """Seconds since the epoch, where it says."""
        created = self.entry.get("created")
        return float(created) if isinstance(created, int) and created > 0 else None


async def find_model(client: Client, wanted: str | None, within: float) -> Listed:
    """The model to ask for: the wanted one, or the only one.

    Raises:
        EngineError: it is not served, or several are and none is named.
    """
    reply = await client.call("/v1/models", within=within)
    if reply.status in ABSENT and wanted is not None:
        return Listed(wanted, {})
    if reply.status != 200:
        raise read_error(reply.status, reply.body, secret=client.secret)
    data = field(reply, "data")
    models = [m for m in data if isinstance(m, dict)] if isinstance(data, list) else None
    if models is None:
        raise EngineError(
            f"{client.root} lists no models at /v1/models: is engine_url the address of a Chat "
            "Completions server?"
        )
    by_name = {str(m["id"]): m for m in models if m.get("id")}
    names = ", ".join(list(by_name)[:_LISTED]) or "none"
    if wanted is None:
        if len(by_name) != 1:
            raise EngineError(
                f"{client.root} serves {len(by_name)} models; set engine_model to one of: {names}."
            )
        wanted = next(iter(by_name))
    # Ollama lists `name:latest` and answers to `name`.
    for name in (wanted, f"{wanted}:latest"):
        if name in by_name:
            return Listed(name, by_name[name])
    for name, entry in by_name.items():
        aliases = entry.get("aliases")
        if isinstance(aliases, list) and wanted in aliases:
            return Listed(name, entry)
    raise EngineError(f"{client.root} does not serve '{wanted}'; engine_model can be: {names}.")


async def find_window(
    client: Client, model: Listed, within: float, loading: float
) -> tuple[int, str]:
    """Tokens that one request may use, and where that is from.

    Args:
        within: seconds for each question.
        loading: seconds for loading the model, which Ollama has to do before it can say.

    Raises:
        EngineError: the server does not say.
    """
    meta = model.entry.get("meta")
    listed = (
        meta.get("n_ctx") if isinstance(meta, dict) else None,  # llama-server
        model.entry.get("max_model_len"),  # vLLM, SGLang
        model.entry.get("context_length"),  # routers such as OpenRouter
    )
    for value in listed:
        if window := positive(value):
            return window, "/v1/models"
    if window := positive(await _slot_window(client, within)):  # older llama-server
        return window, "/props"
    if window := positive(await _ollama_window(client, model.id, within, loading)):
        return window, "/api/ps"
    raise EngineError(
        f"{client.root} does not say how large the context window of '{model.id}' is: set "
        "engine_context to the number of tokens that it holds for one request."
    )


async def _slot_window(client: Client, within: float) -> object:
    settings = field(await client.call("/props", within=within), "default_generation_settings")
    return settings.get("n_ctx") if isinstance(settings, dict) else None


async def _ollama_window(client: Client, model: str, within: float, loading: float) -> object:
    """What the loaded model really has. What /api/show tells is what the weights were trained
    for, many times more than Ollama gives them; beyond what it gives, it may drop the middle of a
    prompt without a word. So the model is loaded if it is not, which an empty prompt does."""
    running = await _running(client, model, within)
    if running is None:
        return None
    if not running:
        await client.call("/api/generate", {"model": model, "stream": False}, within=loading)
        running = await _running(client, model, within) or {}
    if (window := running.get("context_length")) is not None:
        return window
    # Older Ollama: the size can be set in the Modelfile, and then it counts.
    shown = field(await client.call("/api/show", {"model": model}, within=within), "parameters")
    found = re.search(r"^num_ctx\s+(\d+)", shown, re.MULTILINE) if isinstance(shown, str) else None
    return int(found.group(1)) if found else None


async def _running(client: Client, model: str, within: float) -> dict[str, Any] | None:
    """The model's entry among the loaded ones: empty if it is not loaded, None elsewhere."""
    models = field(await client.call("/api/ps", within=within), "models")
    if not isinstance(models, list):
        return None
    entries = (m for m in models if isinstance(m, dict))
    return next((m for m in entries if model in (m.get("name"), m.get("model"))), {})


def positive(value: object) -> int | None:
    """The value if it is a number above 0."""
    return value if isinstance(value, int) and value > 0 and value is not True else None


def field(reply: Reply, name: str) -> Any:
    """A field of an answer that is a JSON object, None where it is not."""
    data = reply.json() if reply.status == 200 else None
    return data.get(name) if isinstance(data, dict) else None
