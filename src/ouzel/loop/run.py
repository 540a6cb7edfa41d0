"""One engine turn after another, until there is an answer.

    think? -> call tools? -> (hosted: run them, and again) -> answer

A `Task` says what is to be done. Models that call tools in their own way go through `native`,
others are led by `guided`; both bring about the same kinds of events. Everything goes to `emit` at
once. It does not know who listens, nor what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from ouzel.core.contracts import Engine, Thinks, ToolStyle
from ouzel.core.events import Event, IncompleteReason, StepDone
from ouzel.core.files import ContainerFile
from ouzel.core.items import CodeCall, Item, Message
from ouzel.core.request import Effort, Request
from ouzel.core.turns import Turn, Usage
from ouzel.loop import answering, code_words, coding, guided, native, thinking
from ouzel.loop.agreeing import PROGRAMS, Agreement
from ouzel.loop.budget import LAST_CALLS, Clock, about_tokens, answer_tokens, thinking_tokens
from ouzel.loop.coding import Asker
from ouzel.loop.compacting import Compacting, compact
from ouzel.loop.context import Round, at_most_tokens, with_calls, with_code
from ouzel.loop.output import Output
from ouzel.loop.resuming import SoFar
from ouzel.loop.scene import NOTHING, OutOfTokens, Scene
from ouzel.loop.schemas import schema
from ouzel.loop.tally import Tally
from ouzel.loop.thinking_words import calculates, words_within
from ouzel.loop.thoughts import thought_in
from ouzel.loop.tool_calls import Made, Wanted, make, want
from ouzel.loop.toolbox import Toolbox

MOST_HOSTED: Final = 32
"""Calls of hosted tools in one run, where the request sets no limit."""

SHORT: Final = 200
"""Tokens for the answer below which the model is told how many words that is."""

DENSE: Final = 2
"""Characters that a token of a long prompt stands for at least: most stand for three or four."""

DEFAULT_EFFORT: Final[Effort] = "medium"
"""What holds where a request says nothing, as in OpenAI's reference."""

_INCOMPLETE: dict[str, IncompleteReason] = {
    "length": "max_output_tokens",
    "halted": "max_output_tokens",
    "filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class Task:
    """What a run has to do.

    Args:
        request: what was asked.
        turn: the conversation as the engine is shown it.
        owner: who asks; tools are run on their behalf.
        clock: how much time there is.
        toolbox: what may be called.
        style: how the model is brought to call.
        round: what has happened since the last message.
        decision: the turn in which a tool is chosen, where it is not `turn`.
        unread: texts of the prompt that the engine has not read before, as far as can be told.
        history: the conversation before the request.
        compact: how far older turns are compacted before all else; None where they fit.
        so_far: how far an earlier process got with it; `output` is restored from there.
    """

    request: Request
    turn: Turn
    owner: str
    clock: Clock
    toolbox: Toolbox = Toolbox()
    style: ToolStyle = "guided"
    round: Round = Round()
    decision: Turn | None = None
    unread: tuple[str, ...] = ()
    compact: Compacting | None = None
    history: tuple[Item, ...] = ()
    so_far: SoFar | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended when nothing failed."""

    status: Literal["completed", "incomplete"]
    usage: Usage
    incomplete: IncompleteReason | None = None


async def run(
    engine: Engine, task: Task, output: Output, tally: Tally, emit: Callable[[Event], None]
) -> Outcome:
    """Do the task; every event goes to `emit` as soon as it exists, and `tally` counts.

    However it ends, what was open in `output` is closed, so that text already said is kept.
    Cancelling the task that runs this frees the engine's slot.

    Raises:
        EngineError, RequestError: as the engine raised them.
        EngineError: the model did not bring about what was asked.
    """
    unread = about_tokens(*task.unread)
    before = task.so_far.usage if task.so_far else NOTHING
    scene = Scene(engine, task.request, output, tally, emit, task.clock, unread, before)
    try:
        task = await compact(scene, _taken_up(scene, task))
        running = _Running(scene, _with_code_open(task))
        reason = await running.to_the_end()
    except OutOfTokens:
        reason = "length"
    except BaseException:
        scene.emit(output.close("incomplete"))
        raise
    incomplete = _INCOMPLETE.get(reason)
    if incomplete is None and not output.answered:
        # An empty answer is still an answer: clients expect one message.
        scene.emit(output.say(""))
    if reason != "calls":
        scene.emit(output.cite(list(running.files.values())))
    scene.emit(output.close("incomplete" if incomplete else "completed"))
    status: Literal["completed", "incomplete"] = "incomplete" if incomplete else "completed"
    return Outcome(status, scene.usage, incomplete)


def _taken_up(scene: Scene, task: Task) -> Task:
    """The task, with what an earlier process left open closed, unless it goes on."""
    far = task.so_far
    if far is None or (far.said and task.compact is None):
        return task
    scene.emit(scene.output.close("incomplete"))
    return replace(task, so_far=replace(far, said=""))


def _with_code_open(task: Task) -> Task:
    """The task; code that an earlier process ran last, with what it wrote, is what the next
    message begins with (`with_code`)."""
    far, turn = task.so_far, task.turn
    if far is None or not far.kept or not isinstance(far.kept[-1], CodeCall):
        return task
    if (
        task.style != "guided"
        or not task.toolbox.only_code
        or turn.messages[-1].role != "assistant"
    ):
        return task
    turn = replace(turn, messages=turn.messages[:-1], opening=f"{turn.messages[-1].text}\n")
    return replace(task, turn=turn)


class _Running:
    """A run under way, step by step."""

    def __init__(self, scene: Scene, task: Task) -> None:
        self._scene = scene
        self._task = task
        self._request = task.request
        self._turn = task.turn
        self._toolbox = task.toolbox
        self._round = task.round
        self._called = task.so_far.hosted_calls if task.so_far else 0
        self._agreement: Agreement | None = None
        self._trial_began = 0.0
        self.files: dict[str, ContainerFile] = {}
        if self._called:
            self._toolbox = self._toolbox.after_a_call()
        if self._called >= self._most:
            self._toolbox = self._toolbox.without_hosted()

    async def to_the_end(self) -> str:
        """Returns why it ended, in an engine's words."""
        far = self._task.so_far
        if far is not None and far.ended:
            return "stop"
        begun = far if far is not None and far.said else None
        output = self._scene.output
        while True:
            before = len(output.items)
            step = await (self._finish_saying(begun) if begun else self._step())
            begun = None
            wanted = self._affordable(step.wanted)
            if not wanted:
                self._look_for_plans(step.said)
                return "length" if step.cut else _ended(step.reason)
            made = await make(self._scene, wanted, self._task.owner)
            if any(each.output is None for each in made):
                return "calls"
            self._called += len(made)
            self._go_on(step.said, made, thought_in(output.items[before:]))
            for each in made:
                self._round = self._round.called(each.name, each.arguments).brought(each.failed)
                self.files |= {file.id: file for file in each.files}
            self._toolbox = self._toolbox.after_a_call()
            if self._called >= self._most:
                self._toolbox = self._toolbox.without_hosted()
            if self._scene.clock.late:
                self._toolbox = self._toolbox.shut()
            self._scene.next_step(about_tokens(*(each.output or "" for each in made)))
            if self._request.background:
                self._scene.emit([StepDone(self._scene.usage)])

    def _go_on(self, said: str, made: Sequence[Made], thought: str) -> None:
        """Show the model what came of its calls."""
        info, style = self._scene.info, self._task.style
        roomy = at_most_tokens(self._turn) + len(thought) <= info.context_window * DENSE
        thinks = info.thinks if roomy else None
        if style != "guided" or not self._toolbox.only_code:
            self._turn = with_calls(self._turn, said, made, style, thought, thinks)
        elif self._agreement is None:
            self._turn = with_code(self._turn, made)
        else:
            for each in made:
                self._agreement.add(each)
            best = self._agreement.best
            self._turn = with_code(self._shown_how, [best] if best else [])

    async def _led(self) -> list[Wanted]:
        """What a led model wants called now."""
        scene, asker = self._scene, self._asker
        if not self._round.done and self._has_one_result:
            self._agreement = Agreement(PROGRAMS[self._request.effort or DEFAULT_EFFORT])
        checks = self._agreement
        if checks is None or not checks.written:
            self._trial_began = scene.clock.now()
            turn = self._turn if checks is None else self._shown_how
            wanted = await guided.decide(scene, turn, self._toolbox, self._round, asker)
            if checks is not None and not wanted:
                self._agreement = None
            return wanted
        offer = next(each for each in self._toolbox.callable if each.runs_code)
        while checks.open and self._time_for_another():
            self._trial_began = scene.clock.now()
            again = replace(asker, sample=checks.written)
            call = await coding.write(scene, self._shown_how, offer, again, Round())
            if call is not None:
                return [call]
            checks.miss()
        return []

    @property
    def _shown_how(self) -> Turn:
        """The conversation, with problems before it that were worked out."""
        turn = self._task.turn
        return replace(turn, messages=(*code_words.examples(), *turn.messages))

    def _time_for_another(self) -> bool:
        """Whether another program can be run, if it takes as long as the last one, and the time
        for the answer is still left then."""
        clock = self._scene.clock
        took = clock.now() - self._trial_began
        return not clock.limited or clock.left() - took > clock.within * LAST_CALLS

    @property
    def _has_one_result(self) -> bool:
        """Whether several programs for the question can be compared."""
        only_code = self._task.style == "guided" and self._toolbox.only_code
        if at_most_tokens(self._task.turn) * 2 > self._scene.info.context_window:
            return False  # what is shown before it has to fit, too
        return only_code and code_words.has_one_result(self._said_last, self._toolbox.note)

    @property
    def _asker(self) -> Asker:
        """Only the first choice is a turn of its own: what ran is shown where it was written."""
        only_code = self._toolbox.only_code
        decision = self._task.decision if only_code and not self._round.done else None
        note = self._toolbox.note
        return Asker(self._task.owner, self._said_last, note, only_code, decision)

    @property
    def _most(self) -> int:
        most = self._request.max_tool_calls
        return MOST_HOSTED if most is None else most

    def _affordable(self, wanted: list[Wanted]) -> list[Wanted]:
        """The calls, with no more of our own than the request allows."""
        left = self._most - self._called
        kept = []
        for each in wanted:
            if each.offer.tool is not None:
                if left <= 0:
                    continue
                left -= 1
            kept.append(each)
        return kept

    async def _step(self) -> native.Step:
        if self._task.style == "guided":
            return await self._guided_step()
        if self._scene.info.thinks == "no" and not self._toolbox.open:
            return await self._answer(replace(self._turn, tools=()))  # or it might call one
        plain = self._request.format.type == "text"
        step = await native.step(self._scene, self._turn, self._toolbox, hold=not plain)
        if plain or step.wanted or step.refused:
            return step
        if step.reason in ("length", "filter") or self._valid(step.said):
            answering.say(self._scene, step.said, step.logprobs)
            return step
        turn = replace(self._turn, tools=(), effort="none")
        return await answering.structured(self._scene, turn)

    def _valid(self, said: str) -> bool:
        """Whether an answer that was not bound is what the request's format wants."""
        return bool(said) and schema(answering.schema_of(self._request.format)).check(said) is None

    async def _guided_step(self) -> native.Step:
        if self._toolbox.open:
            wanted = await self._led()
            if wanted:
                return native.Step(wanted=wanted)
        return await self._answer(self._answering)

    @property
    def _answering(self) -> Turn:
        """The turn in which a led model answers."""
        if not self._toolbox.offers:
            return self._turn
        if self._toolbox.only_code:
            return coding.answering(self._turn, self._said_last)
        return guided.answering(self._turn, self._toolbox)

    async def _finish_saying(self, far: SoFar) -> native.Step:
        """Go on with an answer whose beginning the client has seen."""
        turn = self._answering if self._task.style == "guided" else self._turn
        room = self._scene.room()
        if room is not None and room <= far.spent:
            raise OutOfTokens
        left = None if room is None else room - far.spent
        opening = turn.opening + far.said
        turn = replace(turn, tools=(), effort="none", opening=opening, max_tokens=left)
        return await self._say(turn, thinks="no")

    async def _answer(self, turn: Turn) -> native.Step:
        """Think if it pays, then answer."""
        scene = self._scene
        thought, ended = "", True
        if self._pays():
            effort = self._request.effort or DEFAULT_EFFORT
            pace, left = scene.engine.pace, scene.left()
            budget = thinking_tokens(effort, False, pace, left, scene.room())
            thought, ended = await thinking.scratchpad(scene, turn, budget)
            await thinking.summarise(scene, self._turn, thought)
        plain = self._request.format.type == "text"
        tokens = answer_tokens(scene.engine.pace, scene.left()) if plain else None
        limit = words_within(tokens) if tokens is not None and tokens < SHORT else None
        turn = thinking.after_thinking(turn, thought, ended, limit)
        if not plain:
            return await answering.structured(scene, turn)
        return await self._say(turn)

    async def _say(self, turn: Turn, thinks: Thinks | None = None) -> native.Step:
        """Answer in plain text; calls in it that a tool matches are calls. `thinks`: how thinking
        shows in it, if not as the engine says."""
        scene = self._scene
        # Fenced code in an answer is meant for the reader where nothing but code is offered.
        offers = () if self._toolbox.only_code else self._toolbox.callable
        names = tuple(offer.name for offer in offers)
        step, speech = await answering.answer(scene, turn, names, thinks)
        for spotted in speech.calls:
            found = await want(scene, self._toolbox, spotted.name, spotted.arguments)
            if not isinstance(found, Wanted):
                speech.give_back(spotted.raw)
            elif self._toolbox.parallel or not step.wanted:
                scene.tally.add("repaired_calls")
                step.wanted.append(found)
        return step

    def _pays(self) -> bool:
        """Whether a scratchpad pays: there is something to work out, and neither a tool nor
        thinking before this request has done it."""
        begun = self._round.done or self._round.thought
        return not begun and calculates(self._said_last)

    @property
    def _said_last(self) -> str:
        """The user's last words in this request."""
        said = [m.text for m in self._request.input if isinstance(m, Message) and m.role == "user"]
        return said[-1] if said else ""

    def _look_for_plans(self, said: str) -> None:
        """Count an answer that speaks of a tool where it should have called it."""
        if self._called or not self._toolbox.open:
            return
        # Whoever speaks of Python does not mean to run it.
        names = [offer.name for offer in self._toolbox.callable if not offer.runs_code]
        if any(name in said for name in names):
            self._scene.tally.add("planned_calls")


def _ended(reason: str) -> str:
    return "stop" if reason == "halted" else reason
