"""The words by which a model without thinking of its own is made to think, and to come to an end.

Openings, closings, prompts for the answer and the summary, and where a text can be cut so that
it still is whole. Pure strings: no engine, no clock, no tokens. The wording was chosen by trying
it with Qwen2.5-Coder-1.5B-Instruct; `docs` has the numbers with the method that uses it.
"""

from __future__ import annotations

import re
from itertools import islice

OPENING = "<think>\n"
"""The assistant's turn is opened with this; what follows is thinking, never shown as text."""

CLOSING = "</think>"
"""Ends the thinking: a stop string of the thinking turn, and written by the loop otherwise."""

_ANSWER = "Now give the user your final answer, complete and short, without repeating the steps."
_ANSWER_IN = (
    "Now give the user your final answer, complete and in at most {words} words, "
    "without repeating the steps."
)
_LIMIT = "\n\n(Answer in at most {words} words.)"

SUMMARY_CONCISE = (
    "Sum up your thinking above for the user in one sentence that begins with a verb in -ing "
    "form, such as: Adding up the weekly costs and comparing them."
)
SUMMARY_DETAILED = (
    "Sum up your thinking above in two or three sentences: what you looked at and what you found."
)
SUMMARY_OPENING_DETAILED = "**"

_LEAST_WORDS = 15
_TOKENS_A_WORD = 2.5
"""Tokens to set aside for each word of a limit: the words asked for take about 1.3 tokens each,
and the model goes beyond the limit by up to twice that."""

_NUMBER = re.compile(
    r"\d[\d.,]*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty"
    r"|fifty|hundred|thousand|half|twice|double|third|quarter|dozen)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_ENDS = re.compile(
    r"[.!?\u2026]+[\"'\u201d\u2019)\]*_]*(?=\s|$)|[\u3002\uff01\uff1f]+[\u201d\u300d\u300f\uff09]*"
)
"""A sentence's end, with the quotes, brackets and marks that close with it; also in Chinese."""

_NOT_ENDS = re.compile(r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|No|e\.g|i\.e|etc|vs|approx)|^\s*\d+)$")
"""What may stand before a full stop that ends nothing: initials, short forms, a list's number."""


def calculates(question: str) -> bool:
    """Whether `question` looks like one that has to be worked out: it has two numbers or more.

    Thinking pays only there with a model that was not trained to think, and the model itself
    cannot tell (asked, it says yes to nearly everything). Of GSM8K's problems 60-399, 339 of 340
    have two numbers; of 26 mixed questions 2, and both were sums. Number words are English ones.
    """
    return sum(1 for _ in islice(_NUMBER.finditer(question), 2)) == 2


def closed(thinking: str) -> str:
    """`thinking` as the assistant's message it becomes, whether it ended or was cut."""
    return f"{OPENING}{thinking.strip()}\n{CLOSING}"


def answer_prompt(words: int | None = None) -> str:
    """The instruction, after the thinking, that asks for the answer; at most `words` if given."""
    return _ANSWER if words is None else _ANSWER_IN.format(words=words)


def word_limit(words: int) -> str:
    """What is put at the end of the last user message when the answer has to be short."""
    return _LIMIT.format(words=words)


def words_within(tokens: int) -> int:
    """How many words to ask for so that the answer very probably ends within `tokens`."""
    words = max(_LEAST_WORDS, int(tokens / _TOKENS_A_WORD))
    return words if words < 50 else words // 10 * 10


def whole_until(text: str) -> int:
    """Where `text` can be cut so that what stays is whole: the index after its last sentence.

    A finished line of a list, a verse or a program counts as a sentence; a heading, a line that
    ends in a colon or a comma, and mathematics that were opened and not closed do not.

    Returns:
        An index into `text`, 0 if nothing in it is whole.
    """
    best, position, fenced, opened = 0, 0, False, 0
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        content = line.rstrip()
        if _FENCE.match(line):
            fenced = not fenced
            best = best if fenced else start + len(content)
        elif fenced:
            best = start + len(content) if line.endswith("\n") and content else best
        else:
            ends = [len(content)] if line.endswith("\n") and _stands_alone(content) else _ends(line)
            for end in ends:
                if opened + _opened(line[:end]) <= 0:
                    best = start + end
            opened += _opened(line)
    return best


def whole(text: str) -> str:
    """`text` up to its last whole sentence, with a program's fence closed again.

    Args:
        text: an answer that was cut anywhere.

    Returns:
        The part that is whole; "" if there is none, for the caller to decide.
    """
    kept = text[: whole_until(text)]
    fences = [line for line in kept.splitlines() if _FENCE.match(line)]
    return f"{kept}\n{fences[-1].strip()[:3]}" if len(fences) % 2 else kept


def _stands_alone(line: str) -> bool:
    """Whether a finished line needs no other after it."""
    text = line.strip().strip("*_")
    return bool(text) and not line.lstrip().startswith("#") and text[-1] not in ":,;(-\u2013\u2014"


def _ends(line: str) -> list[int]:
    """Where sentences end within `line`."""
    found = _ENDS.finditer(line)
    return [end.end() for end in found if not _NOT_ENDS.search(line[: end.start()])]


def _opened(text: str) -> int:
    """How many displays of mathematics `text` opens without closing them."""
    return sum(text.count(mark) for mark in ("\\[", "\\(")) - sum(
        text.count(mark) for mark in ("\\]", "\\)")
    )
