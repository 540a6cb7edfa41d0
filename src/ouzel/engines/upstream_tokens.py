"""Counts tokens with a server's own tokenizer, by whichever route it has for that.

Nothing is estimated, and nothing is tried twice.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from ouzel.core.contracts import EngineInfo, Thinks
from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineDied,
    EngineError,
    OuzelError,
    RequestError,
)
from ouzel.core.turns import Turn, TurnMessage, Usage
from ouzel.engines.upstream_client import Client, Reply
from ouzel.engines.upstream_failures import Overflow, read_error
from ouzel.engines.upstream_find import ABSENT, field, positive
from ouzel.engines.wire import TurnReader
from ouzel.engines.wire_turn import PLAIN, Dialect, write_turn

_log = logging.getLogger(__name__)

_NOT_FOR_US: Final = ABSENT | {400, 422}
"""The same, and what they answer where the route wants another question."""

_OPEN, _CLOSE = "<think>", "</think>"
"""What thinking in the text stands between."""

_SHOWN: Final = (
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "continue_final_message",
    "add_generation_prompt",
    "chat_template_kwargs",
    "reasoning_effort",
)


def _holding(text: str) -> Turn:
    return Turn((TurnMessage("user", "." + text),))


class Tokenizer:
    """Counts with the server's own tokenizer, by whichever route it has.

    Args:
        model: the name to ask for.
        within: seconds for one question.
        dialect: what the server takes.
    """

    def __init__(self, client: Client, model: str, within: float, dialect: Dialect = PLAIN) -> None:
        self._client = client
        self._model = model
        self._within = within
        self._dialect = dialect
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
        tokens = field(reply, "tokens") if reply else None
        return len(tokens) if isinstance(tokens, list) and tokens else None

    async def by_generating(self, turn: Turn) -> int:
        """The prompt's tokens as the server counts them for an answer of one token.

        Raises:
            EngineError: it counts none.
            OuzelError: as the server's status says.
        """
        body = write_turn(
            replace(turn, max_tokens=1), self._model, stream=False, dialect=self._dialect
        )
        reply = await self._client.call("/v1/chat/completions", body, within=self._within)
        if reply.status != 200:
            raise read_error(reply.status, reply.body, secret=self._client.secret)
        usage = field(reply, "usage")
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if not isinstance(count, int) or count <= 0:
            raise EngineError("The engine counts no tokens: it sends no usage.")
        return count

    async def told(self, text: str) -> int:
        """Tokens of a text, where need be by what it adds to a prompt that holds it, as the
        server counts prompts for an answer of one token.

        Raises:
            OuzelError: the server does not answer, refuses, or counts nothing at all.
        """
        count = await self.text(text)
        if count is not None:
            return count
        least = _holding("")
        without, held = await self.by_generating(least), await self.by_generating(_holding(text))
        return max(0, held - without)

    async def _input_tokens(self, turn: Turn) -> int | None:
        """llama-server since 2026."""
        body = self._shown(turn)
        reply = await self._ask("/v1/chat/completions/input_tokens", body)
        return positive(field(reply, "input_tokens")) if reply else None

    async def _templated(self, turn: Turn) -> int | None:
        """Older llama-server: first the template, then the tokens."""
        reply = await self._ask("/apply-template", self._shown(turn))
        prompt = field(reply, "prompt") if reply else None
        if not isinstance(prompt, str):
            return None
        body = {"content": prompt, "add_special": True, "parse_special": True}
        reply = await self._ask("/tokenize", body)
        tokens = field(reply, "tokens") if reply else None
        return len(tokens) if isinstance(tokens, list) and tokens else None

    async def _of_messages(self, turn: Turn) -> int | None:
        """vLLM. SGLang has the route too, but only for text."""
        body = self._shown(turn)
        reply = await self._ask("/tokenize", body)
        return positive(field(reply, "count")) if reply else None

    def _shown(self, turn: Turn) -> dict[str, object]:
        """Of the request for a turn, what its prompt is made from."""
        body = write_turn(turn, self._model, stream=False, dialect=self._dialect)
        return {name: body[name] for name in _SHOWN if name in body}

    async def _ask(self, path: str, body: dict[str, object]) -> Reply | None:
        reply = await self._client.call(path, body, within=self._within)
        if reply.status == 200:
            return reply
        error = read_error(reply.status, reply.body, secret=self._client.secret)
        if reply.status in _NOT_FOR_US and not isinstance(error, Overflow):
            return None
        raise error


async def usage_of(
    tokenizer: Tokenizer, turn: Turn, reader: TurnReader, info: EngineInfo | None = None
) -> Usage:
    """What a turn used: by the server's own counts, and what it did not count by its tokenizer.

    Args:
        info: what the engine is, once that is known: it says how thinking shows.

    Raises:
        EngineDied: it has neither.
    """
    usage = reader.counted()
    try:
        if usage is None:
            usage = await _by_tokenizer(tokenizer, turn, reader)
        thinking = reader.uncounted_thinking()
        if not usage.reasoning_tokens and not thinking:
            thinking = _thinking_in(reader.text(), turn, info.thinks if info else "no")
        thought = await tokenizer.told(thinking) if thinking else usage.reasoning_tokens
    except EngineDied:
        raise
    except OuzelError as error:
        raise EngineDied(f"The engine sent no token counts. {error.message}") from None
    return replace(usage, reasoning_tokens=min(thought, usage.output_tokens))


def _thinking_in(text: str, turn: Turn, thinks: Thinks) -> str:
    """The thinking at the start of a text, for models that show it there.

    Without its end it is all thinking, except where there could be none: in a turn that is bound,
    was opened, or shall not think.
    """
    said = text.lstrip()
    begun = thinks in ("tags", "open") and said.startswith(_OPEN)
    answers = bool(turn.grammar or turn.schema or turn.opening) or turn.effort == "none"
    if not begun and not (thinks == "open" and (_CLOSE in said or not answers)):
        return ""
    return said.removeprefix(_OPEN).partition(_CLOSE)[0]


async def _by_tokenizer(tokenizer: Tokenizer, turn: Turn, reader: TurnReader) -> Usage:
    prompt = await tokenizer.prompt(turn)
    output = await tokenizer.text(reader.text())
    if reader.reason is None:  # left in the middle: it may count, but only at the end
        prompt = prompt or await tokenizer.by_generating(turn)
        output = await tokenizer.told(reader.text())
    if prompt is None or output is None:
        raise EngineDied(
            "The engine sends no token counts and has no tokenizer to ask: it has to honour "
            "stream_options.include_usage."
        )
    return Usage(input_tokens=prompt, output_tokens=output)


async def too_long(tokenizer: Tokenizer, overflow: Overflow, turn: Turn, window: int) -> OuzelError:
    """The error for a prompt that does not fit, with both numbers if they can be had.

    Args:
        window: tokens that fit.
    """
    tokens = overflow.prompt_tokens
    if not overflow.exact:
        try:
            tokens = await tokenizer.prompt(turn) or tokens
        except OuzelError as error:
            _log.info("A prompt that is too long was not counted: %s", error.message)
    if tokens is None:
        return RequestError(
            f"This model's maximum context length is {window} tokens, and your input does not "
            "fit. Shorten the input or serve the model with a larger context.",
            code="context_length_exceeded",
        )
    return ContextLengthExceeded(tokens, window)
