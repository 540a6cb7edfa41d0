"""Word problems with a number as answer: read from a file, and read out of an answer.

The public set is GSM8K (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems"), MIT
licence; its files are not part of the repository. Pure but for reading the file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

HOW_TO_GET = (
    "The suite effort needs a file of GSM8K problems: --data PATH. It is public, MIT licence: "
    "take test.jsonl from grade_school_math/data of the GitHub repository "
    "openai/grade-school-math, or the split test of openai/gsm8k on the Hugging Face Hub as "
    "JSON lines. Each line has `question` (or `problem`) and `answer`, which ends with "
    "'#### NUMBER' or is the number."
)

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


class NoProblems(RuntimeError):
    """There are no problems to solve; the message says how to get some."""


@dataclass(frozen=True)
class Problem:
    """One problem; `answer` is the number that is right."""

    id: str
    question: str
    answer: Decimal


def load(path: Path | None) -> list[Problem]:
    """All problems of a JSON-lines file, in their order. Raises NoProblems."""
    if path is None:
        raise NoProblems(HOW_TO_GET)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NoProblems(f"{path} cannot be read: {error.strerror}. {HOW_TO_GET}") from error
    try:
        return [_problem(number, line) for number, line in enumerate(lines) if line.strip()]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise NoProblems(f"{path} is not such a file ({error}). {HOW_TO_GET}") from error


def _problem(number: int, line: str) -> Problem:
    data = json.loads(line)
    question = data["question"] if "question" in data else data["problem"]
    answer = last_number(data["answer"].rpartition("####")[2])
    if answer is None:
        raise ValueError(f"line {number + 1} has no number as answer")
    return Problem(str(data.get("id", number)), question, answer)


def last_number(text: str) -> Decimal | None:
    """The last number in a text, thousands commas left out; None if there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", ""))
    except InvalidOperation:
        return None
