"""What an engine's server and its model can, found out with real requests of a few tokens.

Servers ignore parameters that they do not know, so an answer proves nothing; the effect does: a
forced word that comes, a message that goes on, a call that is really made. `seed` and the
penalties have no effect that shows in a few tokens: there it must do that they are accepted.
Nothing is guessed from a name, and nothing is tried twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ouzel.core.contracts import Capability, Thinks, ToolStyle
from ouzel.core.errors import EngineError
from ouzel.core.request import Effort, FunctionTool, Sampling
from ouzel.core.turns import Turn, TurnMessage
from ouzel.engines.pace import PaceMeter
from ouzel.engines.upstream_client import Client
from ouzel.engines.upstream_find import field
from ouzel.engines.upstream_hear import Heard, Until, ask, hear
from ouzel.engines.wire_turn import KNOWN, PLAIN, Dialect, GrammarField, write_turn

GREEDY: Final = Sampling(temperature=0.0)
PROBE: Final = Turn((TurnMessage("user", "Count: one, two,"),), GREEDY, max_tokens=2)

_THINK: Final = Turn(
    (
        TurnMessage(
            "user",
            "Which five colours of the rainbow can you name? Write their names one after another, "
            "in plain words and in a single line, with commas between them.",
        ),
    ),
    GREEDY,
)
"""Long enough for a first reading of the pace, and short to answer for who does not think."""

_GIVEN_BACK: Final = Turn(
    (
        TurnMessage("user", "What is 2 + 2?"),
        TurnMessage("assistant", "4", thinking="Two and two are four."),
        TurnMessage("user", "Count: one, two,"),
    ),
    GREEDY,
    max_tokens=2,
)
_SUM: Final = Turn((TurnMessage("user", "What is 2 + 2?"),), GREEDY)
_DAYS: Final = Turn(
    (TurnMessage("user", "Name the days of the week."),),
    GREEDY,
    max_tokens=4,
    opening="Monday, Tuesday, Wednes",
)
_NOTE: Final = Turn(
    (TurnMessage("user", "Note down the word zebra."),),
    GREEDY,
    tools=(
        FunctionTool(
            "note",
            "Notes a word down.",
            '{"type":"object","properties":{"word":{"type":"string"}},"required":["word"]}',
        ),
    ),
    tool_mode="required",
)
_WORD: Final = "zebra"
_GRAMMAR: Final = f'root ::= "{_WORD}"'
_LLGUIDANCE: Final = f'%llguidance {{}}\nstart: "{_WORD}"\n'
_SCHEMA: Final = (
    '{"type":"object","properties":{"z":{"type":"integer","enum":[7]}},"required":["z"],'
    '"additionalProperties":false}'
)
_IMAGE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAAA1BMVEX///+nxBvIAAAA"
    "D0lEQVQoz2NgGAWjgFYAAAJAAAHuMtsLAAAAAElFTkSuQmCC"
)
"""A white square of 64 by 64 pixels."""

MANNER: Final = 200
"""Tokens in which a model that thinks between no tags is expected to come to its end of
thinking; where the server shows its template, a few do."""

BRIEF: Final = 12
"""The same where the template shows whether thinking has begun: enough for a first reading."""

FEW: Final = 24
ROOM: Final = 400
"""Tokens in which a forced word has to come: after its thinking, from a model that thinks."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a server and its model can.

    Args:
        thinks: how thinking shows.
        dialect: how the server wants to be asked.
        seen: for people: what was looked at, and `yes: …` or `no: …`.
    """

    capabilities: frozenset[Capability]
    thinks: Thinks
    dialect: Dialect
    seen: tuple[tuple[str, str], ...] = ()


class Prober:
    """Finds out what a server and its model can.

    Args:
        model: the name to ask for.
        within: seconds for one request.
        owner: whose server it is, as it says: what is tried first.
        meter: is told how fast the answers came.
    """

    def __init__(
        self, client: Client, model: str, within: float, owner: str, meter: PaceMeter
    ) -> None:
        self._client = client
        self._model = model
        self._within = within
        self._first = KNOWN.get(owner, PLAIN)
        self._dialect = PLAIN
        self._meter = meter
        self._led = False
        self._thinks: Thinks = "no"
        self._can: set[Capability] = set()
        self._seen: list[tuple[str, str]] = []

    async def everything(self) -> Findings:
        """All of it, of a server of which nothing is known.

        Raises:
            EngineError: a plain request fails.
        """
        await self._sampling()
        await self._manner(known=False)
        await self._forms()
        return self._findings()

    async def of_the_model(self, known: frozenset[Capability], *, led: bool) -> Findings:
        """What depends on the weights, of a llama-server of which the rest is known.

        Args:
            known: what this server is known to honour, whatever the weights.
            led: the model is led to its calls in any case, so none is waited for: that is the
                longest of these answers.

        Raises:
            EngineError: a plain request fails.
        """
        self._led = led
        for name in sorted(known):
            self._note(name, True, "as tested with this engine")
        self._dialect = self._first = KNOWN["llamacpp"]
        await self._manner(known=True)
        await self._forms()
        return self._findings()

    async def pace(self) -> None:
        """Only have the meter told how fast it is, in an answer of a few tokens.

        Raises:
            EngineError: a plain request fails.
        """
        body = self._body(replace(_THINK, max_tokens=BRIEF), KNOWN["llamacpp"])
        await hear(self._client, body, self._within, self._meter, strict=True)

    def _findings(self) -> Findings:
        return Findings(frozenset(self._can), self._thinks, self._dialect, tuple(self._seen))

    def _note(self, name: Capability, found: bool, how: str) -> None:
        if found:
            self._can.add(name)
        self._seen.append((name, f"{'yes' if found else 'no'}: {how}"))

    async def _sampling(self) -> None:
        """The knobs of sampling, in two tokens each."""
        plain = await self._ask(GREEDY)
        if plain is None:
            raise EngineError("The engine refused a plain request of two tokens.")
        answer = await self._ask(replace(GREEDY, top_logprobs=1))
        shown = answer is not None and answer.logprobs
        self._note("logprobs", shown, "they came" if shown else "none came")
        # Two ids that every vocabulary has: honoured, each forces its own token.
        biased = [await self._ask(replace(GREEDY, logit_bias={i: 100})) for i in ("1000", "2000")]
        forced = None not in biased and biased[0] != biased[1]
        self._note("logit_bias", forced, "a token was forced" if forced else "no effect")
        # Stopping at the first letter of what would be said leaves nothing of it. A model that
        # thinks first may have said nothing yet: then it must do that `stop` is accepted.
        letter = plain.text.strip()[:1] or "\n"
        answer = await self._ask(replace(GREEDY, stop=(letter,)))
        stops = answer is not None and letter not in answer.text
        self._note("stop", stops, "it stopped" if stops else "no effect")
        seeded = await self._ask(replace(GREEDY, seed=7)) is not None
        self._note("seed", seeded, "accepted" if seeded else "refused")
        penal = replace(GREEDY, presence_penalty=0.5, frequency_penalty=0.5)
        taken = await self._ask(penal) is not None
        self._note("penalties", taken, "accepted" if taken else "refused")

    async def _manner(self, *, known: bool) -> None:
        """Whether and how it thinks, how it counts, and how fast it is."""
        template = await self._template()
        limit = BRIEF if known or template is not None else MANNER
        told = None
        if not known:
            eager = replace(PLAIN, timings=True, running_usage=True)
            told = await self._hear(replace(_THINK, max_tokens=limit), eager, _manner_shows)
            if told is not None:
                self._dialect = replace(
                    PLAIN, timings=told.times_itself, running_usage=told.counts_as_it_goes
                )
        if told is None:
            body = self._body(replace(_THINK, max_tokens=limit), self._dialect)
            told = await hear(
                self._client, body, self._within, self._meter, _manner_shows, strict=True
            )
        assert told is not None  # noqa: S101  # strict
        self._thinks = _manner(told, template)
        self._seen.append(("thinking", f"{self._thinks}: {_THINKS[self._thinks]}"))
        if self._thinks != "no":
            await self._efforts()
        if told.channel is not None:
            # Some servers refuse their own thinking, others ask for it.
            back = replace(self._dialect, thinking=told.channel)
            taken = await self._hear(_GIVEN_BACK, back) is not None
            self._dialect = replace(back, thinking=told.channel if taken else None)

    async def _template(self) -> str | None:
        """The prompt that the server's template makes, from llama-server."""
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        reply = await self._client.call("/apply-template", body, within=self._within)
        prompt = field(reply, "prompt")
        return prompt if isinstance(prompt, str) else None

    async def _efforts(self) -> None:
        """Which values of `reasoning_effort` are taken, and whether thinking can be turned off."""
        taken: set[Effort] = set()
        efforts: tuple[Effort, ...] = ("none", "minimal", "low")
        for effort in efforts:
            dialect = replace(self._dialect, efforts=frozenset({effort}))
            if await self._hear(replace(PROBE, effort=effort), dialect) is not None:
                taken |= {"low", "medium", "high"} if effort == "low" else {effort}
        off = replace(_SUM, max_tokens=FEW, effort="none")
        told = await self._hear(off, replace(self._dialect, switch=True), _manner_shows)
        switch = told is not None and _manner(told, None) == "no" and bool(told.text)
        # Where thinking begins in the prompt, only its end would show: not in so few tokens.
        switch = switch and self._thinks != "open"
        self._dialect = replace(self._dialect, efforts=frozenset(taken), switch=switch)

    async def _forms(self) -> None:
        """What may be forced on an answer, and what else the model takes."""
        await self._opening()
        await self._grammar()
        told = await self._hear(self._limited(replace(_SUM, schema=_SCHEMA)), self._dialect)
        valid = told is not None and "".join(_answer(told).split()) == '{"z":7}'
        self._note("json_schema", valid, "a value was forced" if valid else "no effect")
        await self._tools()
        sees, how = await self._images()
        self._note("images", sees, how)

    async def _tools(self) -> None:
        if self._led:
            self._note("tools", False, "not tried, since the model is led")
            return
        told = await self._hear(self._limited(_NOTE, 40), self._dialect)
        called = told is not None and told.call == "note"
        self._note("tools", called, "a call came" if called else _no_call(told))

    async def _opening(self) -> None:
        for continues in (self._first.continues, not self._first.continues):
            dialect = replace(self._dialect, continues=continues)
            told = await self._hear(_DAYS, dialect)
            if told is not None and told.text.lstrip().lower().startswith("day"):
                self._dialect = dialect
                self._note("opening", True, "a word was completed")
                return
        self._note("opening", False, "it answered anew")

    async def _grammar(self) -> None:
        for name in self._grammar_fields():
            dialect = replace(self._dialect, grammar=name)
            turn = self._limited(replace(_SUM, grammar=_GRAMMAR))
            told = await self._hear(turn, dialect)
            if told is not None and _answer(told).strip() == _WORD:
                self._dialect = dialect
                self._note("grammar", True, f"a word was forced, by `{name}`")
                await self._llguidance()
                return
        self._note("grammar", False, "no effect")

    async def _llguidance(self) -> None:
        """Whether what takes a grammar takes llguidance's, too; others drop or refuse it."""
        told = await self._hear(self._limited(replace(_SUM, grammar=_LLGUIDANCE)), self._dialect)
        forced = told is not None and _answer(told).strip() == _WORD
        self._note("llguidance", forced, "a word was forced" if forced else "no effect")

    def _grammar_fields(self) -> Iterator[GrammarField]:
        """The names of the field, the likeliest first."""
        if self._first.grammar is not None:
            yield self._first.grammar
        names: tuple[GrammarField, ...] = (
            "grammar",
            "structured_outputs",
            "guided_grammar",
            "ebnf",
        )
        yield from (name for name in names if name != self._first.grammar)

    async def _images(self) -> tuple[bool, str]:
        """llama-server and Ollama say so; others are shown one."""
        modalities = field(await self._client.call("/props", within=self._within), "modalities")
        if isinstance(modalities, dict):
            sees = modalities.get("vision") is True
            return sees, "a projector is loaded" if sees else "no projector is loaded"
        shown = await self._client.call("/api/show", {"model": self._model}, within=self._within)
        can = field(shown, "capabilities")
        if isinstance(can, list):
            return "vision" in can, "as the server says"
        body = write_turn(replace(PROBE, max_tokens=1), self._model, stream=False)
        body["messages"][0]["content"] = [
            {"type": "image_url", "image_url": {"url": _IMAGE}},
            {"type": "text", "text": "Hi"},
        ]
        taken = await ask(self._client, body, self._within) is not None
        return taken, "one was accepted" if taken else "one was refused"

    def _limited(self, turn: Turn, few: int = FEW) -> Turn:
        return replace(turn, max_tokens=few if self._thinks == "no" else ROOM)

    async def _ask(self, sampling: Sampling) -> Heard | None:
        body = write_turn(replace(PROBE, sampling=sampling), self._model, stream=False)
        return await ask(self._client, body, self._within)

    async def _hear(self, turn: Turn, dialect: Dialect, until: Until | None = None) -> Heard | None:
        body = self._body(turn, dialect)
        return await hear(self._client, body, self._within, self._meter, until)

    def _body(self, turn: Turn, dialect: Dialect) -> dict[str, object]:
        return write_turn(turn, self._model, stream=True, dialect=dialect)


_THINKS: Final[dict[Thinks, str]] = {
    "no": "none was seen",
    "channel": "it came in a channel of its own",
    "tags": "it came between <think> and </think>",
    "open": "it came before </think>",
}


def _manner_shows(heard: Heard) -> bool:
    """Whether it is plain by now that it thinks."""
    return bool(heard.thinking) or _manner(heard, None) != "no"


def _manner(heard: Heard, template: str | None) -> Thinks:
    """How thinking shows in an answer, or in the template that opens it."""
    if heard.thinking:
        return "channel"
    if heard.text.lstrip().startswith("<think>"):
        return "tags"
    if "</think>" in heard.text or (template or "").rstrip().endswith("<think>"):
        return "open"
    return "no"


def _answer(heard: Heard) -> str:
    """The text without the thinking that stands in it."""
    return heard.text.rpartition("</think>")[2]


def _no_call(heard: Heard | None) -> str:
    return "refused" if heard is None else "text came instead of the call that was demanded"


def style_of(
    found: frozenset[Capability], decided: ToolStyle | None, expected: ToolStyle | None = None
) -> ToolStyle:
    """How a model is brought to call tools.

    Args:
        found: what the engine can, as it was found out.
        decided: what the user says, which goes.
        expected: what the catalogue says: `guided` goes too, `native` only where a call was made.
    """
    if decided is not None:
        return decided
    return "native" if expected != "guided" and "tools" in found else "guided"
