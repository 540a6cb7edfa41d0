"""The words by which a model without thinking of its own is made to think, and to come to an end.

Openings, closings, prompts for the answer and the summary, and where a text can be cut so that
it still is whole. Pure strings: no engine, no clock, no tokens. The wording was chosen by trying
it with Qwen2.5-Coder-1.5B-Instruct.
"""

from __future__ import annotations

import re
from itertools import islice

OPENING, CLOSING = "<think>\n", "</think>"
"""What the assistant's turn is opened with, and what ends its thinking: a stop string, written by
the loop where the model did not get there."""

_ANSWER = (
    "Now answer the user's message. The user has not seen your notes, so the answer must be "
    "complete in itself, but leave out what is not needed."
)
_ANSWER_IN = (
    "Now give the user your final answer, complete and in at most {words} words, "
    "without repeating the steps."
)
_FINISH = (
    "Time is nearly up. Finish the calculation in at most three short lines, "
    "then give the answer in a sentence."
)
_LIMIT = "\n\n(Answer in at most {words} words.)"

SUMMARY_CONCISE = (
    "Sum up your thinking above in one sentence of at most 20 words, "
    "beginning with a verb in -ing form."
)
SUMMARY_DETAILED = (
    "Sum up your thinking above in two or three short sentences, after a title in bold."
)
SUMMARY_DETAILED_OPENING = "**"
"""The turn for the detailed summary is opened with the start of its title."""

_LEAST_WORDS = 15
_TOKENS_A_WORD = 2.5
"""Tokens to set aside for each word of a limit: asked for 50 words, 12 of 13 varied answers ended
by themselves within 130 tokens, most of them within 50."""

_NUMBER = re.compile(
    r"\d[\d.,]*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty"
    r"|fifty|hundred|thousand|half|twice|double|third|quarter|dozen)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_ENDS = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]+[\"'\u201d\u2019)\]*_]*(?=\s|$)"
    r"|[\u3002\uff01\uff1f]+[\u201d\u300d\u300f\uff09]*"
)
"""A sentence's end, with the quotes, brackets and marks that close with it; also in Chinese."""

_NOT_ENDS = re.compile(r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|No|e\.g|i\.e|etc|vs|approx)|^\s*\d+)$")
"""What may stand before a full stop that ends nothing: initials, short forms, a list's number."""

_LONGEST_SHORT_FORM = 16


def calculates(question: str) -> bool:
    """Whether `question` looks like one that has to be worked out: it has two numbers or more.

    Only there can thinking pay with a model that was not trained to think, and it cannot tell
    itself (asked, it says yes to nearly everything). Of GSM8K's problems 60-399, 339 of 340
    have two numbers; of 26 mixed questions 2, and both were sums. Number words are English ones.
    """
    return sum(1 for _ in islice(_NUMBER.finditer(question), 2)) == 2


def closed(thinking: str) -> str:
    """`thinking` as the assistant's message it becomes, whether it ended or was cut."""
    return f"{OPENING}{thinking.strip()}\n{CLOSING}"


def answer_prompt(*, words: int | None = None, unfinished: bool = False) -> str:
    """The instruction, after the thinking, that asks for the answer.

    Args:
        words: the answer's limit where tokens are short.
        unfinished: a calculation was cut: the answer has to finish it, since an answer that may
            not go on with it makes up a result.
    """
    if unfinished:
        return _FINISH
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
    ends in a colon or a comma, and mathematics that were opened and not closed do not. 0 if none.
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
            # The last one that will do is looked for from the end: one long line may hold many.
            fits = (end for end in reversed(ends) if opened + _opened(line[:end]) <= 0)
            last = next(fits, None)
            best = best if last is None else start + last
            opened += _opened(line)
    return best


def whole(text: str) -> str:
    """`text` up to its last whole sentence, an open program's fence closed; "" if none is whole."""
    kept = text[: whole_until(text)]
    fences = [line for line in kept.splitlines() if _FENCE.match(line)]
    return f"{kept}\n{fences[-1].strip()[:3]}" if len(fences) % 2 else kept


def _stands_alone(line: str) -> bool:
    """Whether a finished line needs no other after it."""
    text = line.strip()
    heading = text.startswith("#") or (text.startswith("**") and text.endswith("**"))
    return bool(text) and not heading and text.rstrip("*_")[-1:] not in ":,;(-\u2013\u2014"


def _ends(line: str) -> list[int]:
    """Where sentences end within `line`."""
    found = _ENDS.finditer(line)
    return [
        end.end()
        for end in found
        if not _NOT_ENDS.search(line, max(0, end.start() - _LONGEST_SHORT_FORM), end.start())
    ]


def _opened(text: str) -> int:
    """How many displays of mathematics `text` opens without closing them."""
    return sum(text.count(mark) for mark in ("\\[", "\\(")) - sum(
        text.count(mark) for mark in ("\\]", "\\)")
    )
