"""What an engine's server is: its model, its context window, what it can do, how it counts.

All of it is asked, not guessed: a server that does not say is an error that names the setting to
give. `Tokenizer` counts tokens with whatever the server offers for it. Nothing here streams, and
nothing is tried twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from ouzel.core.contracts import Capability
from ouzel.core.errors import EngineError, RequestError
from ouzel.core.request import Sampling
from ouzel.core.turns import Turn, TurnMessage
from ouzel.engines.upstream_client import Client, Reply
from ouzel.engines.upstream_failures import Overflow, read_error
from ouzel.engines.wire import write_turn

_LISTED: Final = 20
"""Model names that an error message lists."""

ABSENT: Final = frozenset({404, 405, 501})
"""What servers answer for a route that they do not have."""

_NOT_FOR_US: Final = ABSENT | {400, 422}
"""The same, and what they answer where the route wants another question."""

GREEDY: Final = Sampling(temperature=0.0)
PROBE: Final = Turn((TurnMessage("user", "Count: one, two,"),), GREEDY, max_tokens=2)


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
    data = _field(reply, "data")
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
        if window := _positive(value):
            return window, "/v1/models"
    if window := _positive(await _slot_window(client, within)):  # older llama-server
        return window, "/props"
    if window := _positive(await _ollama_window(client, model.id, within, loading)):
        return window, "/api/ps"
    raise EngineError(
        f"{client.root} does not say how large the context window of '{model.id}' is: set "
        "engine_context to the number of tokens that it holds for one request."
    )


async def _slot_window(client: Client, within: float) -> object:
    settings = _field(await client.call("/props", within=within), "default_generation_settings")
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
    shown = _field(await client.call("/api/show", {"model": model}, within=within), "parameters")
    found = re.search(r"^num_ctx\s+(\d+)", shown, re.MULTILINE) if isinstance(shown, str) else None
    return int(found.group(1)) if found else None


async def _running(client: Client, model: str, within: float) -> dict[str, Any] | None:
    """The model's entry among the loaded ones: empty if it is not loaded, None elsewhere."""
    models = _field(await client.call("/api/ps", within=within), "models")
    if not isinstance(models, list):
        return None
    entries = (m for m in models if isinstance(m, dict))
    return next((m for m in entries if model in (m.get("name"), m.get("model"))), {})


class Prober:
    """Finds out what a server honours, with real requests of two tokens.

    Servers ignore parameters that they do not know, so an answer proves nothing; the effect does.
    `seed` and the penalties have no effect that shows in two tokens: there it must do that they
    are accepted.

    Args:
        model: the name to ask for.
        within: seconds for one request.
    """

    def __init__(self, client: Client, model: str, within: float) -> None:
        self._client = client
        self._model = model
        self._within = within

    async def capabilities(self) -> frozenset[Capability]:
        """What is honoured. Raises EngineError where a plain request fails."""
        plain = await self._ask(GREEDY)
        if plain is None:
            raise EngineError("The engine refused a plain request of two tokens.")
        found: set[Capability] = set()
        if (answer := await self._ask(replace(GREEDY, top_logprobs=1))) and answer.logprobs:
            found.add("logprobs")
        # Two ids that every vocabulary has: honoured, each forces its own token.
        biased = [await self._ask(replace(GREEDY, logit_bias={i: 100})) for i in ("1000", "2000")]
        if None not in biased and biased[0] != biased[1]:
            found.add("logit_bias")
        if await self._stops(plain.text):
            found.add("stop")
        if await self._ask(replace(GREEDY, seed=7)):
            found.add("seed")
        if await self._ask(replace(GREEDY, presence_penalty=0.5, frequency_penalty=0.5)):
            found.add("penalties")
        return frozenset(found)

    async def _stops(self, plain: str) -> bool:
        """Stopping at the first letter of what would be said leaves nothing of it. A model that
        thinks first may have said nothing yet: then it must do that `stop` is accepted."""
        letter = plain.strip()[:1] or "\n"
        answer = await self._ask(replace(GREEDY, stop=(letter,)))
        return answer is not None and letter not in answer.text

    async def _ask(self, sampling: Sampling) -> _Answer | None:
        """What is said, None where the request is refused."""
        turn = replace(PROBE, sampling=sampling)
        body = write_turn(turn, self._model, stream=False)
        reply = await self._client.call("/v1/chat/completions", body, within=self._within)
        if reply.status == 200:
            return _answer(reply)
        error = read_error(reply.status, reply.body, secret=self._client.secret)
        if isinstance(error, RequestError):
            return None
        raise error


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Logprobs(msgspec.Struct):
    content: list[Any] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    thinking: str
    logprobs: bool


def _answer(reply: Reply) -> _Answer:
    try:
        choice = msgspec.json.decode(reply.body, type=_Completion).choices[0]
    except (ValueError, RecursionError, IndexError):
        raise EngineError(
            "The engine's answer is no chat completion: is engine_url right?"
        ) from None
    said = choice.message
    return _Answer(
        said.content or "",
        said.reasoning_content or said.reasoning or "",
        bool(choice.logprobs and choice.logprobs.content),
    )


class Tokenizer:
    """Counts with the server's own tokenizer, by whichever route it has.

    Args:
        model: the name to ask for.
        within: seconds for one question.
    """

    def __init__(self, client: Client, model: str, within: float) -> None:
        self._client = client
        self._model = model
        self._within = within
        self._routes = [self._input_tokens, self._templated, self._of_messages]

    async def prompt(self, turn: Turn) -> int | None:
        """Tokens of the prompt, template included; None where the server has no route for it.

        Raises:
            OuzelError: the server does not answer, or refuses.
        """
        while self._routes:
            count = await self._routes[0](turn)
            if count is not None:
                return count
            self._routes.pop(0)  # it will not grow one
        return None

    async def text(self, text: str) -> int | None:
        """Tokens of a text as it stands; None where the server has no tokenizer route.

        llama-server reads `content`, vLLM and SGLang read `prompt`.
        """
        if not text:
            return 0
        body = {
            "model": self._model,
            "content": text,
            "prompt": text,
            "add_special": False,
            "parse_special": False,
            "add_special_tokens": False,
        }
        reply = await self._ask("/tokenize", body)
        tokens = _field(reply, "tokens") if reply else None
        return len(tokens) if isinstance(tokens, list) and tokens else None

    async def by_generating(self, turn: Turn) -> int:
        """The prompt's tokens as the server counts them for an answer of one token.

        Raises:
            EngineError: it counts none.
            OuzelError: as the server's status says.
        """
        body = write_turn(replace(turn, max_tokens=1), self._model, stream=False)
        reply = await self._client.call("/v1/chat/completions", body, within=self._within)
        if reply.status != 200:
            raise read_error(reply.status, reply.body, secret=self._client.secret)
        usage = _field(reply, "usage")
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if not isinstance(count, int) or count <= 0:
            raise EngineError("The engine counts no tokens: it sends no usage.")
        return count

    async def _input_tokens(self, turn: Turn) -> int | None:
        """llama-server since 2026."""
        body = {"model": self._model, "messages": _messages(turn)}
        reply = await self._ask("/v1/chat/completions/input_tokens", body)
        return _positive(_field(reply, "input_tokens")) if reply else None

    async def _templated(self, turn: Turn) -> int | None:
        """Older llama-server: first the template, then the tokens."""
        reply = await self._ask("/apply-template", {"messages": _messages(turn)})
        prompt = _field(reply, "prompt") if reply else None
        if not isinstance(prompt, str):
            return None
        body = {"content": prompt, "add_special": True, "parse_special": True}
        reply = await self._ask("/tokenize", body)
        tokens = _field(reply, "tokens") if reply else None
        return len(tokens) if isinstance(tokens, list) and tokens else None

    async def _of_messages(self, turn: Turn) -> int | None:
        """vLLM. SGLang has the route too, but only for text."""
        body = {"model": self._model, "messages": _messages(turn)}
        reply = await self._ask("/tokenize", body)
        return _positive(_field(reply, "count")) if reply else None

    async def _ask(self, path: str, body: dict[str, object]) -> Reply | None:
        reply = await self._client.call(path, body, within=self._within)
        if reply.status == 200:
            return reply
        error = read_error(reply.status, reply.body, secret=self._client.secret)
        if reply.status in _NOT_FOR_US and not isinstance(error, Overflow):
            return None
        raise error


def _messages(turn: Turn) -> object:
    return write_turn(turn, "", stream=False)["messages"]


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 and value is not True else None


def _field(reply: Reply, name: str) -> Any:
    data = reply.json() if reply.status == 200 else None
    return data.get(name) if isinstance(data, dict) else None
