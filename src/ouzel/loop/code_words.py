"""Whether running code pays for a message, and the words by which code is asked for. Pure.

Asked, small weights cannot tell when they should calculate: they guess. So the loop decides by
what it can see: something to be worked out, a file to be looked into, a picture to be drawn. The
patterns know English only; in other languages figures, signs and files still count. Tuned on
grade-school problems and on the messages in `bench/data`; where they say no, the model is asked.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from ouzel.core.turns import TurnMessage
from ouzel.loop.thinking_words import calculates

PYTHON: Final = "python"
"""What the tool that runs code is called by models, in all conversations."""

Signs = Literal["none", "some", "sure"]
"""How surely running code pays: the model is asked; it is not asked if no other tool is offered;
it is not asked."""

MARGIN: Final = 2.4
"""How much likelier than the answer code has to be where there are no signs and no other tool is
offered (natural logarithm). Of 15 messages that need no code the model wanted it for 11, by up to
2.25; of 25 that do, it wanted it for all, by 1.4 or more, and those below 2.4 show signs."""

_LOOKED_AT: Final = 1500
"""Characters that are looked at, at the beginning of a message and at its end."""

_SHORT: Final = 60
"""Characters of a message that is no more than thanks."""

_SUM: Final = re.compile(
    r"\d[\d.,]{0,40}\s{0,3}(?:[+*/\u00d7\u00f7^%=]|-(?=\s)|\*\*|times\b|plus\b|minus\b"
    r"|divided\b|multiplied\b|percent\b|mod(?:ulo)?\b|to the power\b)"
    r"\s{0,3}(?:of\b|by\b)?\s{0,3}[(\d]"
    r"|[\u221a\u2211\u222b]|\b(?:sin|cos|tan|log|ln|sqrt|exp)\s*\(",
    re.IGNORECASE,
)
"""A sum, as it is written."""

_WORKED_OUT: Final = re.compile(
    r"\bhow (?:many|much|long|far|old|tall|fast|often|big|heavy|likely)\b"
    r"|\b(?:calculate|compute|total|altogether|in all|average|mean|median|percent(?:age)?|sum|"
    r"difference|profit|cost|price|earn|left over|remain(?:s|ing|der)?|ratio|probability|area|"
    r"volume|perimeter|speed|interest|discount|evaluate|solve|simplify|round(?:ed)?|find|determine|express|salary|pension)\b"
    r"|\$[^$]*\d[^$]*\$"
    r"|\bwhat (?:is|was|will be|would be) the (?:\w+ ){0,3}(?:number|amount|value|length|time|"
    r"weights?|age|result|sum|product|score|distance|depth|last|smallest|largest|least|greatest)\b"
    r"|\bwhat(?:'s| is| are) (?:her|his|their|its|half|twice|the)\b|\bwhat (?:power|base|floor)\b",
    re.IGNORECASE,
)
"""Words of a question whose answer is a number."""

_COUNTED: Final = re.compile(
    r"\b(?:prime|factorial|square root|cube root|derivative|integral|eigenvalues?|"
    r"determinant|permutations?|combinations?|convert|standard deviation|correlation|regression|"
    r"greatest common divisor|gcd|lcm|binary|hexadecimal|anagrams?|palindromes?)\b.{0,200}\d"
    r"|\d.{0,200}\b(?:a prime|prime number|fibonacci|in binary|in hexadecimal)\b"
    r"|\bhow many (?:times |\w+(?:['\u2019]?s)? (?:are |occur )?(?:there )?in\b)"
    r"|\bcount (?:the|how|all|each)\b|\bhow many days\b"
    r"|\b(?:sort|reverse|shuffle|add up|sum up|factori[sz]e)\b.{0,200}(?:\d|:)",
    re.IGNORECASE | re.DOTALL,
)
"""What has to be counted or looked through."""

_DRAWN: Final = re.compile(
    r"\b(?:plot|histogram|scatter ?plot|(?:bar|pie|line|area) (?:chart|graph)|box ?plot|heat ?map)"
    r"\b|\b(?:draw|make|create|show|give|generate|visuali[sz]e)\b.{0,40}\b(?:chart|graph)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Pictures of data."""

_RUN: Final = re.compile(
    r"\b(?:run|execute|test)\b.{0,40}\b(?:code|program|script|snippet|python|print)\b"
    r"|\b(?:use|using|with) (?:python|pandas|numpy|sympy|the code interpreter)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Who asks for it in so many words."""

_TALK: Final = re.compile(
    r"^\W*(?:please\s+)?(?:(?:can|could|would|will) you\s+)?(?:please\s+)?"
    r"(?:write|explain|describe|translate|summari[sz]e|tell me (?:a|about)|give me (?:\w+ )?ideas"
    r"|suggest|compose|rewrite|rephrase|proofread|define|who|why|hi|hello|hey|thanks?)\b",
    re.IGNORECASE,
)
"""How messages begin that want words, with numbers in them or not."""

_THANKS: Final = re.compile(
    r"^\W*(?:thanks?(?: you)?|ok(?:ay)?|great|good|hi|hello|hey|bye)\b", re.I
)


_EXAMPLES: Final = (
    (
        "Tom has 3 boxes with 12 pencils each. He gives 7 pencils to each of his 4 friends and "
        "loses half of the rest. How many pencils does he have left?",
        "# 3 boxes with 12 pencils each\n"
        "pencils = 3 * 12\n"
        "# 7 pencils go to each of 4 friends\n"
        "pencils -= 7 * 4\n"
        "# half of the rest is lost\n"
        "pencils -= pencils / 2\n"
        "print(pencils)",
        "4.0",
        "Tom has 4 pencils left.",
    ),
    (
        "A shop sells a coat for $80, which is 60% more than it paid for it. It sells 15 coats a "
        "week and pays $200 of rent a week. What is its profit in four weeks?",
        "# $80 is 60% more than what the shop paid\n"
        "paid = 80 / 1.6\n"
        "# profit on each coat\n"
        "each = 80 - paid\n"
        "# 15 coats a week, less the rent\n"
        "week = 15 * each - 200\n"
        "# four weeks\n"
        "print(4 * week)",
        "1000.0",
        "The shop makes a profit of $1000 in four weeks.",
    ),
    (
        "Ann is twice as old as Ben. Five years ago Ann was three times as old as Ben was then. "
        "How old will Ann be in 6 years?",
        "from sympy import symbols, solve\n"
        "ann, ben = symbols('ann ben')\n"
        "# Ann is twice as old; five years ago she was three times as old as he was then\n"
        "ages = solve([ann - 2 * ben, (ann - 5) - 3 * (ben - 5)], [ann, ben])\n"
        "# in 6 years\n"
        "print(ages[ann] + 6)",
        "26",
        "Ann will be 26 years old in 6 years.",
    ),
)
"""Problems, programs, what those write, and answers. With them programs have half the tokens that
they have without, and are right as often or more often (docs/measurements.md). Always the same and
first in the prompt, so that their prefill is paid once."""


def examples() -> tuple[TurnMessage, ...]:
    """The messages that come before a problem with one result."""
    messages: list[TurnMessage] = []
    for problem, program, output, answer in _EXAMPLES:
        messages += [
            TurnMessage("user", problem),
            TurnMessage("assistant", f"{ran(program, output)}{answer}"),
        ]
    return tuple(messages)


_LONG: Final = 80
"""Characters from which a message is more than a sum."""

_TABLE: Final = re.compile(r"\.(?:csv|tsv|xlsx?|parquet|jsonl?)\b", re.IGNORECASE)


def head(message: str, note: str) -> str:
    """What a program begins with, so that the model starts in the right direction.

    Args:
        message: what the user said last.
        note: names the files that there are.
    """
    lines = ""
    if _TABLE.search(note):
        lines += "import pandas as pd\n"
    if _DRAWN.search(message):
        lines += "import matplotlib.pyplot as plt\n"
    return lines


def has_one_result(message: str, note: str) -> bool:
    """Whether a message looks like a problem that has to be worked out, with one result."""
    return not note and len(message) > _LONG and calculates(message) and not _DRAWN.search(message)


WRONG: Final = "That failed because"
"""What a model is made to go on with after an error: without having said what was wrong it writes
the same program once more."""

_ANSWER_NOW: Final = (
    "Now answer the user's message from what the code has written; the user sees neither. "
    'The message ended with: "{ending}"'
)
"""Asks for the answer once code has run. A model that just goes on after the output forgets what
the user said about the answer's form, which most often stands at the end."""

_MOST_OF_ENDING: Final = 300
"""Characters of a message's end that are said again."""

OUTPUT: Final = "```output"
"""Where an answer ends in which a model goes on to make up what code would write."""


def opening(wrong: str = "") -> str:
    """What the assistant's message goes on with when a program is wanted.

    Args:
        wrong: why the last one failed, as the model has said.
    """
    return f"{wrong}\n\n```{PYTHON}\n" if wrong else f"```{PYTHON}\n"


def answer_now(message: str) -> str:
    """Asks for the answer to a message once code has run."""
    lines = [line for line in message.splitlines() if line.strip()]
    ending = lines[-1].strip()[-_MOST_OF_ENDING:] if lines else ""
    return _ANSWER_NOW.format(ending=ending)


def ran(code: str, output: str) -> str:
    """A program and what it wrote, as models have seen them in the texts they learnt from."""
    fence = "````" if "```" in f"{code}{output}" else "```"
    return f"{fence}{PYTHON}\n{code.rstrip()}\n{fence}\n{fence}output\n{output.strip()}\n{fence}\n"


def pays(message: str, *, files: bool = False) -> Signs:
    """How surely running code pays for a message.

    Args:
        message: what the user said last.
        files: there are files that code can read.
    """
    # What is wanted stands at the beginning or at the end; the patterns are slow on long texts.
    if len(message) > 2 * _LOOKED_AT:
        message = f"{message[:_LOOKED_AT]}\n{message[-_LOOKED_AT:]}"
    if _RUN.search(message) or _DRAWN.search(message):
        return "sure"
    if files and message.strip() and not (_THANKS.match(message) and len(message) < _SHORT):
        return "sure"
    if _TALK.match(message):
        return "none"
    if _SUM.search(message) or _COUNTED.search(message):
        return "sure"
    return "some" if calculates(message) and _WORKED_OUT.search(message) else "none"
