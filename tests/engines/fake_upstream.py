"""A small real HTTP server that plays an engine's server, in five dialects, and misbehaves on
command.

It answers with words, one token each, and counts them so. `faults` (see fake_upstream_faults) are
played one after another, each for one chat request; when they are used up it behaves. What it was
asked is in `asked`, and which requests were given up by their client in `abandoned`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from fake_upstream_forms import (
    Said,
    Skills,
    counted_so_far,
    refuses,
    skills_of,
    speak,
    timings,
)

Fault = Callable[["FakeUpstream", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]

WORDS = ["The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."]


class FakeUpstream:
    """One server.

    Args:
        dialect: `llama` (llama-server), `old_llama`, `vllm`, `sglang` or `ollama`.
        key: wanted as bearer key, None wants none.
        window: tokens of context.
        models: what it lists.
    """

    def __init__(
        self,
        dialect: str = "llama",
        *,
        key: str | None = "k",
        window: int = 512,
        models: tuple[str, ...] = ("m",),
        words: list[str] | None = None,
        usage: bool = True,
    ) -> None:
        self.dialect = dialect
        self.key = key
        self.window = window
        self.models = models
        self.words = WORDS if words is None else words
        self.usage = usage
        self.skills: Skills = skills_of(dialect)
        self.parameters = 'stop "x"'  # of an Ollama model
        self.pace = 0.0
        self.healthy = True
        self.hangs_up = False  # on connections that were used before
        self.loaded = False
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, Any]] = []
        self.peers: list[Any] = []
        self.abandoned: list[str] = []
        self.abandoned_one = asyncio.Event()
        self.running = 0
        self.most_running = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Bodies of the chat requests, in order."""
        return [body for path, body in self.asked if path == "/v1/chat/completions"]

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        body = await request.json() if request.can_read_body else None
        self.asked.append((path, body))
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        if self.hangs_up and peer in self.peers:
            request.transport.abort()
            return web.Response()
        self.peers.append(peer)
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response(
                {"error": {"message": "Invalid API Key", "code": 401}}, status=401
            )
        if not self.healthy and path != "/v1/chat/completions":
            return web.json_response(
                {"error": {"message": "Loading model", "code": 503}}, status=503
            )
        if path == "/v1/chat/completions":
            return await self._chat(request, body)
        reply = self._small(path, body)
        if reply is None:
            return web.json_response({"error": {"message": "Not Found", "code": 404}}, status=404)
        status, data = reply
        return web.json_response(data, status=status)

    def _small(self, path: str, body: Any) -> tuple[int, Any] | None:
        if path == "/v1/models":
            return 200, {"object": "list", "data": [self._card(name) for name in self.models]}
        if path == "/health":
            return None if self.dialect == "ollama" else (200, {"status": "ok"})
        handler = {
            "llama": self._llama,
            "old_llama": self._llama,
            "vllm": self._vllm,
            "sglang": self._sglang,
            "ollama": self._ollama,
        }[self.dialect]
        return handler(path, body)

    def _card(self, name: str) -> dict[str, Any]:
        card: dict[str, Any] = {"id": name, "object": "model", "created": 1_700_000_000}
        if self.dialect == "llama":
            card |= {"owned_by": "llamacpp", "meta": {"n_ctx": self.window, "n_ctx_train": 8192}}
        elif self.dialect == "old_llama":
            card |= {"owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}}
        elif self.dialect in ("vllm", "sglang"):
            card |= {"owned_by": self.dialect, "max_model_len": self.window}
        else:
            card |= {"owned_by": "library"}
        return card

    def _llama(self, path: str, body: Any) -> tuple[int, Any] | None:
        if path == "/props":
            return 200, {
                "default_generation_settings": {"n_ctx": self.window},
                "modalities": {"vision": "images" in self.skills.can},
            }
        if path == "/v1/chat/completions/input_tokens" and self.dialect == "llama":
            return 200, {"input_tokens": count(body["messages"])}
        if path == "/apply-template":
            prompt = " ".join(m["content"] + " x x x" for m in body["messages"])
            return 200, {"prompt": prompt + ("<think>" if self.skills.thinks == "open" else "")}
        if path == "/tokenize":
            return 200, {"tokens": list(range(len(body.get("content", "").split())))}
        return None

    def _vllm(self, path: str, body: Any) -> tuple[int, Any] | None:
        if path != "/tokenize":
            return None
        number = count(body["messages"]) if "messages" in body else len(body["prompt"].split())
        return 200, {
            "count": number,
            "max_model_len": self.window,
            "tokens": list(range(number)),
        }

    def _sglang(self, path: str, body: Any) -> tuple[int, Any] | None:
        if path != "/tokenize":
            return None
        if "prompt" not in body:
            return 422, {"detail": [{"type": "missing", "loc": ["body", "prompt"], "input": body}]}
        number = len(body["prompt"].split())
        return 200, {"tokens": list(range(number)), "count": number, "max_model_len": 0}

    def _ollama(self, path: str, body: Any) -> tuple[int, Any] | None:
        if path == "/api/generate":
            self.loaded = True
            return 200, {"model": body["model"], "response": "", "done": True}
        if path == "/api/ps":
            card: dict[str, Any] = {"name": self.models[0], "model": self.models[0]}
            if self.window:
                card["context_length"] = self.window
            return 200, {"models": [card] if self.loaded else []}
        if path == "/api/show":
            info = {"model_info": {"llama.context_length": 131072}}
            can = ["completion", *(["vision"] if "images" in self.skills.can else [])]
            return 200, info | {"parameters": self.parameters, "capabilities": can}
        return None

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.faults:
                return await self.faults.popleft()(self, request, body)
            return await self.answer(request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.abandoned.append(request.path)
            self.abandoned_one.set()
            raise
        finally:
            self.running -= 1

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Behave."""
        refusal = self._refusal(body)
        if refusal is not None:
            return web.json_response(refusal, status=400)
        words, reason = self.said(body)
        if not body.get("stream"):
            return web.json_response(self._whole(body, words, reason))
        response = await open_stream(request)
        for line in self.lines(body, words, reason, self._speech(body)):
            await response.write(line)
            if self.pace:
                await asyncio.sleep(self.pace)
        await response.write_eof()
        return response

    def _refusal(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if body.get("temperature", 0) > 2:
            return {"error": {"message": "temperature must be ≤ 2", "param": "temperature"}}
        if (why := refuses(self.skills, body)) is not None:
            return {"error": {"message": why, "code": 400}}
        prompt, wanted = count(body["messages"]), body.get("max_tokens") or 0
        if prompt >= self.window:
            return self._too_long(prompt)
        if prompt + wanted > self.window and self.dialect in ("vllm", "sglang"):
            return self._no_room(prompt, wanted)
        return None

    def _too_long(self, prompt: int) -> dict[str, Any]:
        inner = {
            "error": {
                "code": 400,
                "message": f"request ({prompt} tokens) exceeds the available context size "
                f"({self.window} tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": prompt,
                "n_ctx": self.window,
            }
        }
        if self.dialect == "ollama":
            return {"error": {"message": json.dumps(inner), "type": "invalid_request_error"}}
        if self.dialect == "vllm":
            return self._no_room(prompt, 16)
        if self.dialect == "sglang":
            return flat(
                f"The input ({prompt} tokens) is longer than the model's context length "
                f"({self.window} tokens)."
            )
        return inner

    def _no_room(self, prompt: int, wanted: int) -> dict[str, Any]:
        if self.dialect == "sglang":
            return flat(
                "Requested token count exceeds the model's maximum context length of "
                f"{self.window} tokens. You requested a total of {prompt + wanted} tokens: "
                f"{prompt} tokens from the input messages and {wanted} tokens for the completion."
            )
        # vLLM counts no further than it must: one token more than there is room for.
        least = max(1, self.window - wanted + 1)
        return {
            "error": {
                "message": f"This model's maximum context length is {self.window} tokens. However, "
                f"you requested {wanted} output tokens and your prompt contains at least {least} "
                f"input tokens, for a total of at least {self.window + 1} tokens.",
                "type": "BadRequestError",
                "param": "input_tokens",
                "code": 400,
            }
        }

    def said(self, body: dict[str, Any]) -> tuple[list[str], str]:
        """The words of the answer and why it ends."""
        words = self._speech(body).words
        if self.dialect != "ollama":  # which ignores what it does not know
            for token in body.get("logit_bias") or {}:
                words = [f" <{token}>"] * len(words)
        reason = "stop"
        room = self.window - count(body["messages"])
        limit = min(room, body.get("max_tokens") or room)
        if limit < len(words):
            words, reason = words[:limit], "length"
        for stop in body.get("stop") or []:
            for index, word in enumerate(words):
                if stop in word:
                    words, reason = words[:index], "stop"
                    break
        return words, reason

    def _speech(self, body: dict[str, Any]) -> Said:
        return speak(self.skills, self.dialect, body, self.words)

    def lines(
        self, body: dict[str, Any], words: list[str], reason: str, speech: Said | None = None
    ) -> list[bytes]:
        """The stream's events, as this dialect writes them."""
        first = {"role": "assistant", "content": None if self.dialect == "llama" else ""}
        chunks = [] if self.dialect == "ollama" else [chunk(first)]
        thoughts = speech.thoughts if speech else []
        channel = "reasoning" if self.dialect in ("vllm", "ollama") else "reasoning_content"
        chunks += [chunk({channel: thought}) for thought in thoughts]
        for word in words:
            delta = {"content": word}
            if self.dialect == "ollama":
                delta["role"] = "assistant"
            chunks.append(chunk(delta, logprobs=self._logprobs(body, word)))
        if speech and speech.call:
            call = {"index": 0, "id": "c1", "type": "function", "function": speech.call}
            chunks.append(chunk({"tool_calls": [call]}))
            reason = "tool_calls"
        if self.usage and self.skills.counts_as_it_goes:
            for number, each in enumerate(chunks[1:], 1):
                read = count(body["messages"])
                each |= counted_so_far(self.dialect, body, read, number)
        said = thoughts + words + ([speech.call["name"]] if speech and speech.call else [])
        chunks.append(chunk({}, reason))
        if self.usage and (body.get("stream_options") or {}).get("include_usage"):
            last = chunk({}) | {"choices": [], "usage": self._usage(body, said)}
            if self.dialect == "llama":
                last["timings"] = timings(count(body["messages"]), len(said))
            chunks.append(last)
        return [event(json.dumps(c)) for c in chunks] + [event("[DONE]")]

    def _logprobs(self, body: dict[str, Any], word: str) -> dict[str, Any] | None:
        if not body.get("logprobs") or self.dialect == "ollama":
            return None
        number = body.get("top_logprobs", 0)
        if self.dialect == "llama" and number == 0:
            return None  # as the real one
        own = {"id": 7, "token": word, "bytes": list(word.encode()), "logprob": -0.5}
        top = [own, {"id": 8, "token": " other", "bytes": None, "logprob": None}][:number]
        return {"content": [own | {"top_logprobs": top}]}

    def _usage(self, body: dict[str, Any], words: list[str]) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": count(body["messages"]),
            "completion_tokens": len(words),
        }
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        if self.dialect == "vllm":
            usage["prompt_tokens_details"] = {"cached_tokens": 2}
        if self.dialect == "sglang":
            usage |= {"prompt_tokens_details": None, "reasoning_tokens": 3}
        return usage

    def _whole(self, body: dict[str, Any], words: list[str], reason: str) -> dict[str, Any]:
        logprobs = [self._logprobs(body, word) for word in words]
        content = [entry for found in logprobs if found for entry in found["content"]]
        answer: dict[str, Any] = {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(words)},
                    "finish_reason": reason,
                    "logprobs": {"content": content} if content else None,
                }
            ],
        }
        if self.usage:
            answer["usage"] = self._usage(body, words)
        return answer


def count(messages: list[dict[str, Any]]) -> int:
    """Tokens of a prompt: its words, and three for each message."""
    return sum(len(str(m["content"] or "").split()) + 3 for m in messages)


def flat(message: str) -> dict[str, Any]:
    """An error as SGLang and older vLLM write it."""
    return {"object": "error", "message": message, "type": "BadRequestError", "code": 400}


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def chunk(delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}],
    }


async def open_stream(
    request: web.Request, content_type: str = "text/event-stream"
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    return response


@asynccontextmanager
async def serving(dialect: str = "llama", **how: Any) -> AsyncIterator[FakeUpstream]:
    """A running one."""
    fake = FakeUpstream(dialect, **how)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
