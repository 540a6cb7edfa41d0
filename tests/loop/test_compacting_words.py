"""Sentences: where they end, and which of them are worth keeping."""

from __future__ import annotations

import time

import pytest

from ouzel.loop.compacting_words import LONGEST, MOST_NOTES, chosen, cut, notes_in, sentences, worth


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.50 at v1.2.3 now. Yes.", ["It costs 3.50 at v1.2.3 now.", "Yes."]),
        ("Ask Dr. Obi or Mr. B. Lee. Now.", ["Ask Dr. Obi or Mr. B. Lee.", "Now."]),
        ('He said "go." She went.', ['He said "go."', "She went."]),
        ("a list\n- of two\n\n", ["a list", "- of two"]),
        ("我叫王伟。你好吗？", ["我叫王伟。", "你好吗？"]),  # noqa: RUF001
        ("Wait... what", ["Wait...", "what"]),
        ("", []),
        ("...", []),
    ],
)
def test_sentences(text, wanted):
    assert sentences(text) == wanted


def test_sentences_are_neither_long_nor_slow_to_find():
    began = time.process_time()
    for hostile in ("a" * 10**6, "." * 10**6, "a. " * 10**6, "Dr. " * 10**6, "\n" * 10**6):
        assert all(len(said) <= LONGEST for said in sentences(hostile))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ("My sister Ada lives in Lagos.", "What a nice day it is."),
        ("The code is 4711.", "How do I find a code?"),
        ("I am allergic to nuts.", "Explain why nuts are healthy."),
        ('We call it "the Barn".', "Tell me a joke."),
        ("Please always answer in French.", "Please tell me more."),
        ("What can I cook for Ada, who is 9?", "What can be cooked?"),
    ],
)
def test_what_has_something_of_the_users_in_it_is_worth_more(more, less):
    assert worth(more) > worth(less)


def test_what_is_worth_most_is_kept_in_its_order():
    texts = ["Hello. I am Ada.", "Why is that?", "My dog is 3. Fine."]
    assert chosen(texts, 1000) == texts
    assert chosen(texts, 25) == ["I am Ada.", "", "My dog is 3."]
    assert chosen(texts, 0) == ["", "", ""]


def test_nothing_is_kept_twice():
    assert chosen(["I am Ada.", "I am Ada."], 100).count("I am Ada.") == 1


def test_cut():
    assert cut("short", 10) == "short"
    assert cut("0123456789" * 3, 13) == "0123 […] 6789"
    assert len(cut("x" * 1000, 100)) <= 100


def test_notes():
    said = "Here you go:\n- one\n* two\n- one\n\n• three. You said four. You said four."
    assert notes_in(said) == ["one", "two", "three.", "You said four."]
    assert len(notes_in("".join(f"Note {n}. " for n in range(100)))) == MOST_NOTES
