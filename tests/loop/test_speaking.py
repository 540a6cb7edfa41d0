from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import FakeTime, ask, check_events

from ouzel.core.events import Event
from ouzel.core.items import TokenLogprob
from ouzel.core.turns import TextDelta
from ouzel.engines.scripted import Script, ScriptedEngine
from ouzel.loop.budget import Clock
from ouzel.loop.output import Output
from ouzel.loop.scene import Scene
from ouzel.loop.speaking import Speech
from ouzel.loop.tally import Tally


class Stage:
    """A speech with a clock that the test moves."""

    def __init__(self, within: float = 0.0, thinks: str = "no", **more) -> None:
        self.now = FakeTime()
        self.events: list[Event] = []
        self.output = Output()
        engine = ScriptedEngine(Script(thinks=thinks))
        clock = Clock(within, self.now.at, self.now)
        self.scene = Scene(engine, ask(), self.output, Tally(), self.events.append, clock)
        self.speech = Speech(self.scene, **more)
        self.ended = False

    def hear(self, *pieces: str, each: float = 0.0) -> bool:
        """Pieces as a model says them, until it is told to stop."""
        for piece in pieces:
            self.now.at += each
            _, text = self.speech.split(TextDelta(piece))
            if text and self.speech.hear(text):
                self.ended = True
                return True
        return False

    def close(self) -> str:
        """All that was said."""
        self.speech.end()
        self.scene.emit(self.output.close())
        check_events(self.events, self.output.items)
        said = "".join(item.text for item in self.output.items if item.kind == "message")
        assert said == self.speech.text
        return said


WORDS = st.lists(
    st.sampled_from(["word ", "end. ", "3.14 ", "\n", "```\n", "x", ". ", "Dr. ", "e.g. ", ": "]),
    max_size=40,
)


@given(WORDS)
def test_with_time_enough_nothing_is_lost(pieces):
    stage = Stage(within=1000)
    assert not stage.hear(*pieces)
    assert stage.close() == "".join(pieces)
    assert not stage.speech.hurried
    assert not stage.speech.cut


@given(WORDS)
def test_where_calls_are_looked_for_and_none_come_nothing_is_lost(pieces):
    stage = Stage(names=("f",))
    stage.hear(*pieces)
    assert stage.close() == "".join(pieces)


@given(WORDS, st.floats(0.1, 30))
def test_what_is_said_is_always_the_beginning_of_what_was_meant(pieces, each):
    stage = Stage(within=100)
    stage.hear(*pieces, each=each)
    said = stage.close()
    whole = "".join(pieces)
    closed = said.removesuffix("\n```") if stage.speech.hurried else said
    assert whole.startswith((said, closed))
    if not stage.ended:
        assert said == whole


def test_near_its_end_an_answer_ends_with_its_sentence():
    stage = Stage(within=100)
    assert not stage.hear("One is done. Two ", "is ", each=45)
    assert stage.hear("done. ", "Three ", "begins", each=1)
    assert stage.close().rstrip() == "One is done. Two is done."
    assert stage.speech.hurried
    assert not stage.speech.cut
    assert stage.scene.tally.counts() == {"hurried": 1}


def test_an_answer_that_is_whole_when_time_is_up_says_no_more():
    stage = Stage(within=100)
    stage.hear("All is said.", each=90)
    assert stage.hear(" But")
    assert stage.close().rstrip() == "All is said."
    assert stage.speech.hurried


def test_the_point_of_a_number_ends_nothing():
    stage = Stage(within=100)
    stage.hear("Pi is about ", each=90)
    assert not stage.hear("3.")
    assert not stage.hear("14")
    assert stage.hear(" or so. ", "More")
    assert stage.close().rstrip() == "Pi is about 3.14 or so."


@pytest.mark.parametrize("start", ['{"name": "', '```json\n{"a": "', "<tool_call>"])
def test_what_may_become_a_call_does_not_stop_the_clock(start):
    stage = Stage(within=100, names=("f",))
    assert stage.hear(start, *["and so on "] * 300, each=1)
    assert stage.now.at - 1000 <= 101
    stage.close()
    assert stage.speech.cut


def test_a_block_of_code_is_closed():
    stage = Stage(within=100)
    stage.hear("Look:\n```python\n", "x = 1\n", each=45)
    stage.hear("y = 2\n", "z = 3\n", "print(")
    said = stage.close()
    assert said.startswith("Look:\n```python\nx = 1\n")
    assert said.count("```") == 2
    assert "print(" not in said


def test_a_block_with_tildes_is_closed_with_tildes():
    stage = Stage(within=100)
    stage.hear("Look:\n~~~\n", "x = 1\n", each=45)
    stage.hear("y = 2\n", "z = 3\n", "print(")
    said = stage.close()
    assert said.count("~~~") == 2
    assert "```" not in said


def test_backticks_within_a_line_are_no_block():
    stage = Stage(within=100)
    stage.hear("Write ``` to open a block. And ", "then ", each=45)
    stage.hear("go on. ", "More")
    assert stage.close().rstrip() == "Write ``` to open a block. And then go on."


def test_an_answer_without_any_end_is_cut_when_time_is_over():
    stage = Stage(within=100)
    assert stage.hear(*["on and "] * 300, each=1)
    said = stage.close()
    assert stage.speech.cut
    assert 70 <= said.count("on and") <= 100


@pytest.mark.parametrize("more", ["late. ", " and later. "])
def test_nothing_is_said_after_the_end(more):
    stage = Stage(within=100)
    stage.hear("One. ", each=90)
    assert stage.hear("Two. ", "Three. ", "Four. ")
    before = stage.speech.text
    stage.hear(more)
    assert stage.close() == before
    assert stage.scene.tally.counts() == {"hurried": 1}


def test_what_is_held_is_not_hurried():
    """It is JSON, of which a part is worth nothing."""
    stage = Stage(within=100, hold=True)
    pieces = ['{"text": "One. ', "Two. ", 'Three."', "}"]
    stage.hear(*pieces, each=24)
    stage.speech.end()
    assert stage.speech.text == "".join(pieces)
    assert stage.events == []


def test_held_text_is_not_said():
    stage = Stage(hold=True)
    stage.hear("a", "b")
    stage.speech.end()
    assert stage.speech.text == "ab"
    assert stage.events == []


def test_calls_are_kept_out_of_the_text():
    stage = Stage(names=("f",))
    stage.hear("Well:\n", '{"name": "f", ', '"arguments": {"a": 1}}')
    assert stage.close().strip() == "Well:"
    assert [(call.name, call.arguments) for call in stage.speech.calls] == [("f", '{"a":1}')]


def logprobs(stage: Stage) -> list[str]:
    return [
        token.token
        for item in stage.output.items
        if item.kind == "message"
        for part in item.parts
        for token in part.logprobs
    ]


def tokens(*texts: str) -> list[TextDelta]:
    return [TextDelta(text, (TokenLogprob(text, -0.1),)) for text in texts]


def hear_tokens(stage: Stage, *texts: str, each: float = 0.0) -> None:
    for delta in tokens(*texts):
        stage.now.at += each
        _, text = stage.speech.split(delta)
        if text and stage.speech.hear(text):
            return


def test_logprobs_of_the_answer_are_kept():
    stage = Stage()
    hear_tokens(stage, "a", " b", " c")
    stage.close()
    assert logprobs(stage) == ["a", " b", " c"]


def test_logprobs_of_thinking_are_not_those_of_the_answer():
    stage = Stage(thinks="tags")
    hear_tokens(stage, "<think>", "secret", "</think>", "a", " b")
    stage.close()
    assert logprobs(stage) == ["a", " b"]


def test_logprobs_of_calls_are_not_those_of_the_answer():
    stage = Stage(names=("f",))
    hear_tokens(stage, "ok", "\n", '{"name": "f",', ' "arguments": {}}', "\n", "so")
    stage.close()
    assert [token for token in logprobs(stage) if "name" in token or "arguments" in token] == []
    assert "so" in logprobs(stage)


def test_logprobs_of_what_was_not_said_any_more_are_left_out():
    stage = Stage(within=100)
    hear_tokens(stage, "One. ", "Two. ", "Three. ", " Four", each=45)
    said = stage.close()
    assert "".join(logprobs(stage)).rstrip() == said.rstrip()


def test_what_is_not_whole_when_time_is_up_was_never_said():
    """Half of a formula is worse than a shorter answer."""
    stage = Stage(within=100)
    stage.hear("There are three digits to choose. ", each=55)
    assert stage.hear("We get:\n\n\\[\nP(5, 3) = ", "\\frac{5!}{(5-3)!} =", " 60", each=18)
    assert stage.close() == "There are three digits to choose."
    assert stage.speech.hurried
    assert not stage.speech.cut
