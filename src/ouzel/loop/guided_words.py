"""The words by which a weak model is led through the choice of a tool.

Small weights seldom volunteer a call, so the loop takes the decision as a turn of its own: the
assistant's message is opened with `Action:` and goes on under a grammar that allows only names.
Here are the fixed instructions and examples, and how tools, calls, results and answers are put
into words. Pure: it knows neither engines nor requests, and runs nothing.

The fixed part comes first and is the same for every request, so that its prefill is paid once.
Wording, layout and thresholds were tuned on `bench/data/tools_dev.toml`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

from ouzel.core.items import Role, TokenLogprob
from ouzel.core.request import CustomTool, FunctionTool, Sampling
from ouzel.core.turns import TurnMessage

GREEDY: Final = Sampling(temperature=0.0, top_p=1.0)
"""How names, arguments and programs are picked: nobody wants variety there."""

FENCE = "```"
ANSWER = "answer"
DECISION_OPENING = "Action:"
ANSWER_OPENING = f"Action: {ANSWER}\n"

# A tool is taken when its first token is likelier than `answer` by this much (natural logarithm).
# Chosen on the tuning data, with earlier instructions (no tool needed: at most 1.4; one needed: at
# least 2.8). Measure again when the words change.
MARGIN_FIRST = 1.8
MARGIN_AFTER_RESULT = 0.4
# After an error a weak model gives up too soon; it is held to another try.
MARGIN_AFTER_ERROR = -2.0
# Stands for a log-probability that is not among the likeliest twenty.
_UNLIKELY = -20.0

_INSTRUCTIONS = (
    "Handle each message one action at a time. Use a tool only when the message needs live data, "
    "the user's own data, or something done that a tool can do; otherwise the action is answer. "
    "When a value is still missing, first call the tool that gets it. Give a tool the values that "
    "the user or an earlier result gave, in their words; leave out optional ones (?) that nobody "
    "gave. When everything asked for is done, the action is answer."
)
_ANSWER_LINE = (
    f"- {ANSWER}: Reply in your own words. For greetings, thanks, writing, explaining, "
    "translating, things you know, and when the results are there."
)
_EXAMPLE = re.compile(r"\b(?:e\.g\.|for example|for instance|such as)(?=\W).*", re.I | re.S)
"""An example value and what follows it: weak models copy it into their arguments."""

_LIKE_ANSWER = re.compile(f"(?:use_)*{ANSWER}", re.IGNORECASE)
_MOST_STOPS = 16
_TOOL_CHARACTERS = 300
_PARAMETER_CHARACTERS = 50


def call_words(name: str, arguments: str, language: str = "") -> str:
    """A call that was made, as the assistant's message.

    Args:
        arguments: JSON, or the text of a custom tool.
        language: what the text is written in, where it is a program.
    """
    if language:
        return f"{fence_opening(name, language)}{arguments.rstrip()}\n{FENCE}"
    return f"Action: {name}\n{arguments}"


def fence_opening(name: str, language: str) -> str:
    """What the assistant's message begins with when a program is wanted."""
    return f"Action: {name}\n{FENCE}{language}\n"


def answer_stops(names: Iterable[str]) -> tuple[str, ...]:
    """Where an answer ends that runs on into another round, which nobody asked for.

    Args:
        names: of the tools that are offered; only their rounds are looked for, since honest
            answers have lines that begin with "Action:", too.
    """
    rounds = [ANSWER, *map(shown_name, names)][:_MOST_STOPS]
    return tuple(f"\n{DECISION_OPENING} {name}\n" for name in rounds)


def result_words(result: str) -> str:
    """What a tool gave back, as a message of the user's side."""
    return f"Result: {result}" if result else "Result: (nothing)"


def answer_words(text: str) -> str:
    """An answer that was given, as the assistant's message."""
    return ANSWER_OPENING + text


def arguments_opening(name: str) -> str:
    """What the assistant's message begins with when the arguments are wanted."""
    return call_words(name, "")


# Example tools, and what was said: (user, assistant) in turn. Nothing of it occurs in the data for
# tuning or measuring.
_EXAMPLES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "- track_parcel(number: e.g. 70001; detail?: low|high): Get where a parcel is now.\n"
        "- message_courier(courier: code, e.g. Z9; text; urgent?: boolean): "
        "Send a message to a courier.\n"
        "- search_news(words; country?; limit?: integer): Search today's news.",
        (
            ("Hi!", answer_words("Hello! What can I do for you?")),
            ("where's my parcel 88123?", call_words("track_parcel", '{"number": "88123"}')),
            (
                result_words('{"place": "Leeds", "courier": "K7"}'),
                answer_words("Your parcel 88123 is in Leeds, with courier K7."),
            ),
            (
                "What is the highest mountain on Earth?",
                answer_words("Mount Everest, at 8,849 metres."),
            ),
            (
                "Find out who brings parcel 5150 and tell them to ring the bell.",
                call_words("track_parcel", '{"number": "5150"}'),
            ),
            (
                result_words('{"place": "York", "courier": "M2"}'),
                call_words("message_courier", '{"courier": "M2", "text": "Please ring the bell."}'),
            ),
            (
                result_words('{"status": "delivered"}'),
                answer_words("Courier M2 brings parcel 5150. I have told them to ring the bell."),
            ),
            ("How do you say 'cheese' in French?", answer_words("Fromage.")),
            (
                "what happened in parliament this morning?",
                call_words("search_news", '{"words": "parliament"}'),
            ),
            (
                result_words("Budget passed by 310 to 280."),
                answer_words("Parliament passed the budget, by 310 votes to 280."),
            ),
        ),
    ),
    (
        "- add_task(text; due?: day; people?: array): Put a task on the to-do list.\n"
        "- get_air_quality(city; hour?: integer; scale?: us|eu): Get the air quality in a city.\n"
        "- count_words(path: e.g. docs/x.md): Count the words of a file.",
        (
            (
                "is the air worse in Delhi or in Lima?",
                call_words("get_air_quality", '{"city": "Delhi"}'),
            ),
            (result_words('{"index": 190}'), call_words("get_air_quality", '{"city": "Lima"}')),
            (
                result_words('{"index": 80}'),
                answer_words("In Delhi: the index is 190 there and 80 in Lima."),
            ),
            (
                "Write a friendly note to my neighbour",
                answer_words("Dear neighbour, I hope you have a lovely day!"),
            ),
            (
                "Count the words of a.txt and put the number on my list for Sunday.",
                call_words("count_words", '{"path": "a.txt"}'),
            ),
            (
                result_words("1204"),
                call_words("add_task", '{"text": "a.txt has 1204 words", "due": "Sunday"}'),
            ),
            (
                result_words('{"status": "added"}'),
                answer_words("a.txt has 1204 words; I put that on your list for Sunday."),
            ),
            ("Give me a name for a coffee shop", answer_words("The Daily Bean.")),
        ),
    ),
)


def prefix() -> tuple[TurnMessage, ...]:
    """The messages that every guided prompt begins with; always the same."""
    messages = [TurnMessage("system", _INSTRUCTIONS)]
    for tools, said in _EXAMPLES:
        messages.append(TurnMessage("system", _listed(tools)))
        for user, assistant in said:
            messages += [TurnMessage("user", user), TurnMessage("assistant", assistant)]
    return tuple(messages)


def offer(
    tools: Iterable[FunctionTool | CustomTool], instructions: str = "", note: str = ""
) -> TurnMessage:
    """The tools that may be called now, what our own have to say, and the client's instructions.

    Args:
        tools: in the client's order; all that are offered, also those that the tool choice
            excludes, so that the prompt stays the same from one turn to the next.
        instructions: system-level text of the client; comes after the tools.
        note: of our own tools, such as the files there are; comes between them.
    """
    listed = _listed("\n".join(tool_line(tool) for tool in tools))
    role: Role = "system"
    return TurnMessage(role, "\n\n".join(filter(None, (listed, note, instructions))))


def tool_line(tool: FunctionTool | CustomTool) -> str:
    """One tool in one line: name, parameters (`?` where optional), what it does."""
    inside = "text" if isinstance(tool, CustomTool) else _parameters(tool.parameters)
    about = _short(tool.description, _TOOL_CHARACTERS)
    line = f"- {shown_name(tool.name)}({inside})"
    return f"{line}: {about}" if about else line


def shown_name(name: str) -> str:
    """How the model sees a tool's name: as it is, unless it begins like `answer`.

    Nor may it look like one that was changed: no two names are shown alike.
    """
    return f"use_{name}" if _LIKE_ANSWER.match(name) else name


def choice_grammar(names: Sequence[str], *, may_answer: bool) -> str:
    """GBNF of a decision: one of the names as shown, after one space.

    Args:
        names: tools that may be called, by their own names.
        may_answer: whether answering is a choice, too.

    Raises:
        ValueError: there is nothing to choose from.
    """
    choices = [shown_name(name) for name in names] + ([ANSWER] if may_answer else [])
    if not choices:
        raise ValueError("a decision needs at least one choice")
    # JSON's escapes are those of GBNF strings.
    return 'root ::= " " (' + " | ".join(json.dumps(choice) for choice in choices) + ")"


def chosen(text: str, names: Sequence[str]) -> str | None:
    """The tool that a decision names, by its own name; None for the answer or anything else."""
    said = text.strip()
    return next((name for name in names if shown_name(name) == said), None)


def margin(top: Iterable[TokenLogprob], names: Sequence[str]) -> float:
    """How much likelier a tool is than the answer, as natural logarithm.

    Args:
        top: the likeliest tokens at the decision's first position, before the grammar.
        names: tools that may be called, by their own names.

    Returns:
        log p(best first token of a tool) - log p(first token of `answer`); what is not among
        the likeliest counts as very unlikely.
    """
    shown = [shown_name(name) for name in names]
    tool = answer = _UNLIKELY
    for token in top:
        start = token.token.strip()
        begins_tool = any(name.startswith(start) for name in shown)
        begins_answer = ANSWER.startswith(start)
        if not start or begins_tool == begins_answer:
            continue
        if begins_tool:
            tool = max(tool, token.logprob)
        else:
            answer = max(answer, token.logprob)
    return tool - answer


def _listed(tools: str) -> str:
    return f"Tools:\n{tools}\n{_ANSWER_LINE}" if tools else f"Tools:\n{_ANSWER_LINE}"


def _parameters(schema_text: str) -> str:
    schema = json.loads(schema_text)
    if not isinstance(schema, dict):
        return ""
    properties = schema.get("properties", {})
    required = frozenset(name for name in schema.get("required", ()) if isinstance(name, str))
    return "; ".join(
        _parameter(name, about, optional=name not in required) for name, about in properties.items()
    )


def _parameter(name: str, about: object, *, optional: bool) -> str:
    shown = f"{name}?" if optional else name
    if not isinstance(about, dict):
        return shown
    notes = []
    if isinstance(about.get("enum"), list):
        notes.append("|".join(str(value) for value in about["enum"]))
    elif isinstance(about.get("type"), str) and about["type"] != "string":
        notes.append(about["type"])
    if isinstance(about.get("description"), str):
        told = _EXAMPLE.sub("", about["description"]).rstrip(" \t\r\n\f\v,;:(")
        notes.append(_short(told, _PARAMETER_CHARACTERS))
    notes = [note for note in notes if note]
    return f"{shown}: {', '.join(notes)}" if notes else shown


def _short(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rsplit(" ", 1)[0] + "…"
