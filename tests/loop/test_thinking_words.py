"""The places where a cut answer is whole, and the limits that are asked for."""

from __future__ import annotations

import pytest

from ouzel.loop import thinking_words as words


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two is not", "One."),
        ("It costs 3.50 dollars. And then 4.", "It costs 3.50 dollars. And then 4."),
        ("Ask Dr. Miller, e.g. on", ""),
        ("He said “no.” Then he", "He said “no.”"),
        ("Steps:\n1. Wash it.\n2.", "Steps:\n1. Wash it."),
        ("Steps:\n\n- wash it\n- dr", "Steps:\n\n- wash it"),
        ("It is so.\n\n## More\n\nThe next", "It is so."),
        ("Red leaves fall\nA cold wind bl", "Red leaves fall"),
        ("天空是蓝色的。因为", "天空是蓝色的。"),
        ("So it is.\n\\[\n5 + 6 = 11\n+ 3", "So it is."),
        ("So it is \\(5.\n6 x", ""),
        ("no end at all", ""),
        ("", ""),
        ("Really?! I", "Really?!"),
        ("**Done.** And", "**Done.**"),
        ("**Tea and coffee**\n\nBoth are", ""),
        ("****\nx", ""),
    ],
)
def test_an_answer_is_cut_where_it_is_whole(text: str, kept: str) -> None:
    assert words.whole(text) == kept


def test_an_open_program_keeps_its_whole_lines_and_is_closed() -> None:
    cut = "Here:\n```python\ndef f(x):\n    return x\n\ndef g("
    assert words.whole(cut) == "Here:\n```python\ndef f(x):\n    return x\n```"


def test_a_closed_program_is_left_alone() -> None:
    assert words.whole("```\na = 1\n```\nThis sets") == "```\na = 1\n```"


def test_every_cut_of_a_text_is_a_part_of_it() -> None:
    text = "Hi. See:\n\n1. `a.b` is *one*.\n2. \\[ x = 1. \\] Good.\n\n```py\nx = 1\n```\n\nBye!"
    for end in range(len(text) + 1):
        cut = words.whole_until(text[:end])
        assert 0 <= cut <= end
    assert words.whole(text) == text


def test_a_long_text_of_openings_is_cut_quickly() -> None:
    assert words.whole("\\[ a.\n" * 5000) == ""
    assert words.whole("." * 50_000 + "x") == ""


def test_more_tokens_allow_more_words_and_never_more_than_fit() -> None:
    allowed = [words.words_within(tokens) for tokens in range(2000)]
    assert allowed == sorted(allowed)
    assert words.words_within(130) == 50
    assert all(n <= tokens for tokens, n in enumerate(allowed) if tokens >= 40)


@pytest.mark.parametrize(
    ("question", "needs"),
    [
        ("A farmer has 17 sheep. All but 9 run away. How many are left?", True),
        ("I eat two apples and buy five more.", True),
        ("Is 91 a prime number?", False),
        ("Write a poem about someone.", False),
        ("", False),
    ],
)
def test_only_a_question_with_two_numbers_is_worked_out(question: str, needs: bool) -> None:
    assert words.calculates(question) is needs


def test_thinking_that_was_cut_is_closed_like_any_other() -> None:
    assert words.closed("  5 + 6 = ") == "<think>\n5 + 6 =\n</think>"


def test_the_answer_is_asked_for_by_how_the_thinking_ended() -> None:
    assert "at most 40 words" in words.answer_prompt(words=40)
    assert "Finish" in words.answer_prompt(words=40, unfinished=True)
    assert "words" not in words.answer_prompt()
    assert words.word_limit(50) == "\n\n(Answer in at most 50 words.)"
