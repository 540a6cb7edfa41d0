"""Which words of older turns are worth keeping as they are, and how notes are asked for. Pure.

A weak model loses names and numbers when it sums up, and more when it sums up its own summary. So
what the user said is not summed up: its sentences are kept as they are, those first that carry
something of the user's, until there is no more room. The signs for that are figures, names,
words in quotes, and speaking of oneself (in English); a question carries little. What they are
worth was tuned on the conversation in
`bench/data/compaction_dev.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 400
"""Characters of one sentence, or of one result of a tool, that are kept."""

MOST_READ: Final = 20_000
"""Characters of one message that are looked at: a page of a book holds 2,000."""

MOST_NOTES: Final = 6
"""Sentences of notes that are asked for."""

NOTE: Final = (
    "Look back at your own answers above. Which of them may matter later? Write at most "
    f'{MOST_NOTES} short sentences, each beginning with "You said that", with the advice, choices '
    "or promises that you gave. Do not repeat what I told you."
)
"""Asked for a list or for minutes, the 1.5B weights gave headings, or what the user had said."""

_MOST_NOTE: Final = 200
"""Characters of one sentence of the notes."""

_SENTENCE = re.compile(
    r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|No|e\.g|i\.e|etc|vs|approx)\.(?=\s)"
    r"|[^.!?\u2026\u3002\uff01\uff1f]"
    r"|[.!?](?=[^\s.!?\"')\]]))+[.!?\u2026\u3002\uff01\uff1f]*[\"'\u201d\u2019)\]]*"
)
"""Up to a mark that ends one; a full stop within a word or a number does not."""

_NUMBER = re.compile(r"\d")
_NAME = re.compile(r"(?<!^)(?<![.!?:\n] )\b[A-Z\u00c0-\u00de][\w'\u2019-]*")
_NO_NAME: Final = frozenset({"I", "I'm", "I've", "I'll", "I'd", "I\u2019m", "I\u2019ve"})
_OWN = re.compile(r"\b(?:my|mine|our|ours|I|I'm|I\u2019m|we|we're|me|us|call me)\b", re.IGNORECASE)
_BEING = re.compile(
    r"\b(?:my|our)\b.*\b(?:is|are|was|were|has|have|costs?|called|named)\b"
    r"|\b(?:call me|I'm|I\u2019m|I am|we are|I have|I live|I work|I prefer|we agreed)\b"
    r"|\b(?:remember|always|never|must not|from now on)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"^(?:please\s+)?(?:can|could|would|will|how|what|why|when|where|who|which|is|are|do|does|did|"
    r"should|explain|tell|give|write|show|describe|suggest|list|help|make|name|recommend|compare)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"\u201c\u201e\u00ab][^\"\u201d\u00bb]{2,}")


def sentences(text: str) -> list[str]:
    """A text's sentences, each on one line and not endless; a line's end ends one, too."""
    found: list[str] = []
    for line in text[:MOST_READ].splitlines():
        for match in _SENTENCE.finditer(line):
            if said := match.group().strip():
                found.append(cut(said, LONGEST))
    return found


def worth(sentence: str) -> float:
    """How much a sentence of the user's is worth keeping; more is more."""
    names = {name for name in _NAME.findall(sentence) if name not in _NO_NAME}
    points = 2.0 * bool(_NUMBER.search(sentence)) + min(len(names), 3)
    points += 1.5 * bool(_OWN.search(sentence)) + 2.0 * bool(_BEING.search(sentence))
    points += 1.0 * bool(_QUOTED.search(sentence))
    asks = sentence.rstrip("\"')] ").endswith(("?", "\uff1f")) or _ASKS.match(sentence)
    return points - (4.0 if asks else 0.0)


def chosen(texts: Sequence[str], room: int) -> list[str]:
    """What is kept of these texts: sentences in their order, those worth most.

    Args:
        texts: oldest first.
        room: characters that all of them may have.

    Returns:
        A text for each of them, empty where nothing of it is kept.
    """
    parts = [sentences(text) for text in texts]
    ranked = sorted(
        (-worth(said), -number, place)  # of two that are worth the same, the newer one
        for number, said_in in enumerate(parts)
        for place, said in enumerate(said_in)
    )
    kept: set[tuple[int, int]] = set()
    seen: set[str] = set()
    for _, number, place in ranked:
        number = -number
        said = parts[number][place]
        if len(said) + 1 > room or said.casefold() in seen:
            continue
        seen.add(said.casefold())
        kept.add((number, place))
        room -= len(said) + 1
    return [
        " ".join(said for place, said in enumerate(said_in) if (number, place) in kept)
        for number, said_in in enumerate(parts)
    ]


def cut(text: str, most: int) -> str:
    """A text in so many characters, its middle left out if it has more."""
    if len(text) <= most:
        return text
    mark = " [\u2026] "
    half = max(1, (most - len(mark)) // 2)
    return f"{text[:half].rstrip()}{mark}{text[-half:].lstrip()}"


def notes_in(said: str) -> list[str]:
    """The sentences of notes as a model has written them, without marks of lists, headings and
    repetitions."""
    notes: list[str] = []
    for sentence in sentences(said):
        bare = sentence.lstrip("-*\u2022 ")
        if bare and not bare.endswith(":") and bare not in notes:
            notes.append(cut(bare, _MOST_NOTE))
    return notes[:MOST_NOTES]
