from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.contracts import Thinks
from ouzel.loop.channels import Splitter

MARKERS = ("<think>", "</think>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>")


def split(thinks: Thinks, *pieces: str) -> tuple[str, str]:
    """Thinking and text of what came in these pieces."""
    splitter = Splitter(thinks)
    found = [piece for text in pieces for piece in splitter.feed(text)] + splitter.end()
    assert all(piece.text for piece in found)
    thinking = "".join(piece.text for piece in found if piece.thinking)
    return thinking, "".join(piece.text for piece in found if not piece.thinking)


def cut(text: str, places: list[int]) -> list[str]:
    """The text in pieces; each place is taken modulo its length."""
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(at)]


CASES: list[tuple[Thinks, str, str, str]] = [
    ("tags", "<think>why</think>because", "why", "because"),
    ("tags", " \n<think>\nwhy\n</think>\n\nbecause", "\nwhy\n", "because"),
    ("tags", "because", "", "because"),
    ("tags", "  because", "", "  because"),
    ("tags", "say <think> in a text", "", "say <think> in a text"),
    ("tags", "a</think>b", "", "a</think>b"),
    ("tags", "<thinker> is a tag", "", "<thinker> is a tag"),
    ("tags", "<think>a < b </ b</think>c", "a < b </ b", "c"),
    ("tags", "<think>never ends", "never ends", ""),
    ("tags", "<think></think>only text", "", "only text"),
    ("tags", "<think>a</think>\n<think>b</think> c", "ab", "c"),
    ("open", "why</think>because", "why", "because"),
    ("open", "why</think>\n\n", "why", ""),
    ("no", "<think>even so</think>text", "even so", "text"),
    ("channel", "< is less", "", "< is less"),
    ("channel", "\n\n", "", "\n\n"),
    ("channel", "<|channel|>final<|message|>Hi<|return|>", "", "Hi"),
    (
        "channel",
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>"
        "a < b <| c<|return|>",
        "why",
        "a < b <| c",
    ),
    (
        "channel",
        "<|start|>assistant<|channel|>analysis<|message|>one<|end|><|start|>assistant<|channel|>"
        "analysis<|message|>two<|end|><|start|>assistant<|channel|>final<|message|>so<|return|>",
        "onetwo",
        "so",
    ),
]


@pytest.mark.parametrize(("thinks", "text", "thinking", "said"), CASES)
def test_thinking_is_told_apart(thinks, text, thinking, said):
    assert split(thinks, text) == (thinking, said)


@pytest.mark.parametrize(("thinks", "text", "thinking", "said"), CASES)
def test_one_character_at_a_time_gives_the_same(thinks, text, thinking, said):
    assert split(thinks, *text) == (thinking, said)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 400), max_size=8))
def test_cuts_do_not_matter(case, places):
    thinks, text, thinking, said = case
    assert split(thinks, *cut(text, places)) == (thinking, said)


WORDS = st.lists(
    st.sampled_from([*MARKERS, "<", "</", "<|", "|>", "th", "ink>", " ", "\n", "ab", "a<b"]),
    max_size=12,
).map("".join)


@given(st.sampled_from(["no", "channel", "tags", "open"]), WORDS, st.lists(st.integers(0, 99)))
def test_whatever_is_said_cuts_do_not_matter(thinks, text, places):
    assert split(thinks, *cut(text, places)) == split(thinks, text)


@given(st.sampled_from(["no", "channel", "tags"]), st.text(max_size=60))
def test_text_without_markers_is_left_as_it_is(thinks, text):
    if "<" not in text:
        assert split(thinks, *text) == ("", text)


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.integers(0, 99)))
def test_nothing_between_the_tags_is_lost(thought, answer, places):
    if "<" in thought + answer:
        return
    thinking, said = split("tags", *cut(f"<think>{thought}</think>{answer}", places))
    assert (thinking, said) == (thought, answer.lstrip())


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>commentary "
        "to=functions.get_weather <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.f<|message|>{}<|call|>",
        "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{}<|return|>",
    ],
)
def test_no_marker_of_harmony_is_ever_shown(text):
    for pieces in ([text], list(text)):
        shown = "".join(split("channel", *pieces))
        assert "<|" not in shown
        assert "functions." not in shown


def test_a_long_text_after_a_false_start_is_split_in_reasonable_time():
    text = "<|channel|>final<|message|>" + "a < b and so on, " * 3_000
    assert split("channel", text) == ("", "a < b and so on, " * 3_000)


def test_text_goes_out_as_it_comes():
    splitter = Splitter("tags")
    assert [piece.text for piece in splitter.feed("He")] == ["He"]
    assert [piece.text for piece in splitter.feed(" <think>")] == [" <think>"]


def test_thinking_goes_out_as_it_comes_but_for_half_a_tag():
    splitter = Splitter("open")
    assert [piece.text for piece in splitter.feed("so </")] == ["so "]
    assert [piece.text for piece in splitter.feed("em>")] == ["</em>"]
