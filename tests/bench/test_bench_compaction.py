"""The conversations are fair: what is asked was said early, once, and nowhere else."""

from __future__ import annotations

import pytest
from bench.load import ROOT
from bench.suite_compaction import DATA, Question, read

EARLY = 15
BOTH = (DATA, ROOT / "bench" / "data" / "compaction_dev.toml")


@pytest.mark.parametrize("path", BOTH, ids=lambda path: path.stem)
def test_every_question_is_about_what_was_said_early_and_only_there(path):
    turns, questions = read(path)
    assert len(turns) == 60
    assert len(questions) == 10
    said = [f"{turn.says} {turn.gave['output'] if turn.gave else ''}" for turn in turns]
    for question in questions:
        told = [number for number, text in enumerate(said) if question.right(text)]
        assert told, question.asks
        assert max(told) < EARLY, question.asks
        assert not question.right(question.asks), "the question gives its answer away"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It is MK-7731.", True),
        ("the number: mk-7731", True),
        ("It is MK-77310.", False),
        ("It is XMK-7731.", False),
        ("I do not know.", False),
        ("", False),
    ],
)
def test_an_answer_is_right_if_the_fact_stands_in_it(answer, right):
    assert Question("?", ["nothing like it", "MK-7731"]).right(answer) is right
